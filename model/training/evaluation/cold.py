"""Measure items that training never saw: from their texts into the catalogue, then recommended.

The bundle was made from a prepared folder that holds items out (`[prepare] cold_items`). They are
encoded by the bundle's own encoders and inserted; users whose test item is one of them are asked
for it, and users with any other test item once without and once with the new items in the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import track
from rich.table import Table

from model.bundle import Bundle
from model.edited_bundle import with_new_items
from model.errors import StageError
from model.new_items import ItemEncoder, NewItem
from model.recommender import Recommender
from model.training.evaluation.evaluate import by_fused
from model.training.evaluation.metrics import ndcg_at, rank_by_score, rank_in_list, recall_at
from model.training.histories import read_histories
from model.training.preparation.catalogue_columns import EMBEDDING_PREFIX
from model.training.preparation.cold_items import COLD_EVENTS, COLD_ITEMS
from model.training.stage_files import save_text
from model.types import IntArray

CUTOFF = 10


class ColdEvaluation(BaseModel):
    """What was measured; seen items are masked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str
    cold_items: int
    catalogue_items: int = Field(description="the cold ones included")
    cold_users: int = Field(description="users whose test item is cold and who have a history")
    cold_recall: float = Field(description="Recall@10 of the served ranking on them")
    cold_head_recall: float = Field(description="of the item head over the whole catalogue")
    cold_popularity_recall: float = Field(description="of popularity")
    cold_chance_recall: float = Field(description="of ten items drawn at random")
    warm_users: int = Field(description="users with another test item")
    warm_ndcg_before: float = Field(description="NDCG@10 served on them without the new items")
    warm_ndcg_after: float = Field(description="and with them")

    def cost(self) -> float:
        """Return the share of the other items' NDCG@10 that is lost to the new ones."""
        return 1 - self.warm_ndcg_after / self.warm_ndcg_before if self.warm_ndcg_before else 0.0


@dataclass(frozen=True)
class Question:
    """A user's history and the item that came next, both by id."""

    history: Sequence[str]
    target: str


def evaluate_cold(
    bundle: Path, prepared: Path, *, users: int | None = None, output: Path | None = None
) -> ColdEvaluation:
    """Measure, print a table, and write it as JSON.

    Args:
        bundle: made from `prepared`.
        prepared: with items held out.
        users: at most so many of either kind, drawn at random; all when not given.
        output: the JSON file; cold.json beside the prepared folder when not given.

    Raises:
        StageError: `prepared` holds no items out.
        BundleError, ConfigError: the bundle cannot be used, or not encode items.
    """
    if not (prepared / COLD_ITEMS).is_file():
        raise StageError(
            f"{prepared} has no {COLD_ITEMS}: set cold_items in [prepare] and run it again"
        )
    cold, warm = _sample(cold_questions(prepared), users), _sample(_warm_questions(prepared), users)
    before = Bundle.open(bundle)
    items = read_new_items(prepared / COLD_ITEMS)
    after = with_new_items(before, items, ItemEncoder.open(before).encode(items))
    live = Recommender(after)
    cold_ranks = _served_ranks(live, cold, "cold items")
    found = ColdEvaluation(
        bundle=before.bundle_id,
        cold_items=len(items),
        catalogue_items=len(after.catalog),
        cold_users=len(cold),
        cold_recall=recall_at(cold_ranks, CUTOFF),
        cold_head_recall=recall_at(_head_ranks(live, cold), CUTOFF),
        cold_popularity_recall=recall_at(_popularity_ranks(live, cold), CUTOFF),
        cold_chance_recall=CUTOFF / len(after.catalog),
        warm_users=len(warm),
        warm_ndcg_before=ndcg_at(_served_ranks(Recommender(before), warm, "before"), CUTOFF),
        warm_ndcg_after=ndcg_at(_served_ranks(live, warm, "after"), CUTOFF),
    )
    save_text(output or prepared.parent / "cold.json", found.model_dump_json(indent=2) + "\n")
    Console().print(cold_table(found))
    return found


def read_new_items(path: Path) -> list[NewItem]:
    """Read a file of items in the form of items.parquet."""
    return [
        NewItem(
            row["item_id"],
            row["title"],
            row["brand"],
            row["description"],
            tuple(tuple(each) for each in row["categories"] or ()),
            {
                name.removeprefix(EMBEDDING_PREFIX): value
                for name, value in row.items()
                if name.startswith(EMBEDDING_PREFIX) and value is not None
            },
        )
        for row in pl.read_parquet(path).iter_rows(named=True)
    ]


def cold_table(found: ColdEvaluation) -> Table:
    """Return the numbers as a table."""
    table = Table(title=f"{found.cold_items:,} of {found.catalogue_items:,} items are new")
    for heading in ("measure", "users", "value"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for name, value in found.model_dump().items():
        kind, _, measure = name.partition("_")
        if "recall" in measure or "ndcg" in measure:
            users = found.cold_users if kind == "cold" else found.warm_users
            table.add_row(f"{kind} {measure.replace('_', ' ')}@10", f"{users:,}", f"{value:.4f}")
    table.add_row("warm ndcg@10 lost", f"{found.warm_users:,}", f"{found.cost():.1%}")
    return table


def cold_questions(prepared: Path) -> list[Question]:
    """Return the questions for cold items of users who have a history."""
    histories, item_ids = read_histories(prepared), _item_ids(prepared)
    place = {user: number for number, user in enumerate(histories.users)}
    complete = histories.complete()
    asked = pl.read_parquet(prepared / COLD_EVENTS).unique("user_id", maintain_order=True)
    return [
        Question([item_ids[row] for row in complete[place[user]]], item)
        for user, item in asked.select("user_id", "item_id").iter_rows()
        if user in place and len(complete[place[user]])
    ]


def _warm_questions(prepared: Path) -> list[Question]:
    """Questions for all other items."""
    item_ids, task = _item_ids(prepared), read_histories(prepared).held_out("test")
    return [
        Question([item_ids[row] for row in rows], item_ids[target])
        for rows, target in zip(task.inputs, task.targets, strict=True)
        if len(rows)
    ]


def _item_ids(prepared: Path) -> list[str]:
    column = pl.read_parquet(prepared / "items.parquet", columns=["item_id"])["item_id"]
    return list(column.to_list())


def _sample(questions: list[Question], users: int | None) -> list[Question]:
    if users is None or users >= len(questions):
        return questions
    drawn = np.random.default_rng(0).permutation(len(questions))[:users]
    return [questions[number] for number in np.sort(drawn)]


def _leaves(recommender: Recommender, question: Question) -> tuple[IntArray, int]:
    catalog = recommender.bundle.catalog
    return catalog.leaves(question.history), catalog.known_leaf(question.target)


def _served_ranks(recommender: Recommender, questions: Sequence[Question], title: str) -> IntArray:
    ranks = np.zeros(len(questions), dtype=np.int64)
    width = recommender.bundle.manifest.beam_width
    for number, question in enumerate(track(questions, description=title, transient=True)):
        history, target = _leaves(recommender, question)
        with recommender.reading(history) as h:
            result = recommender.search(h, width, excluded=history)
            ranks[number] = rank_in_list(by_fused(recommender, h, result, history), target)
    return ranks


def _head_ranks(recommender: Recommender, questions: Sequence[Question]) -> IntArray:
    ranks = np.zeros(len(questions), dtype=np.int64)
    for number, question in enumerate(questions):
        history, target = _leaves(recommender, question)
        with recommender.reading(history) as h:
            scores = recommender.score.of_item_head(h)
        scores[history] = -np.inf
        ranks[number] = rank_by_score(scores, target)
    return ranks


def _popularity_ranks(recommender: Recommender, questions: Sequence[Question]) -> IntArray:
    ranks = np.zeros(len(questions), dtype=np.int64)
    for number, question in enumerate(questions):
        history, target = _leaves(recommender, question)
        scores = recommender.bundle.popularity.astype(np.float64)
        scores[history] = -np.inf
        ranks[number] = rank_by_score(scores, target)
    return ranks
