"""What an evaluation asks: the users of a split, their histories and targets, and the catalogue.

Numbers items twice: as rows of items.parquet, for the baselines, and as leaves of the bundle, for
what it serves. Measures nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from model.catalog import Catalog
from model.errors import ConfigError, StageError
from model.training.evaluation.baselines import popularity_counts, tie_order
from model.training.histories import Histories, ItemRows, Split, read_histories
from model.types import BoolArray, IntArray

UNKNOWN = -1


@dataclass(frozen=True)
class Task:
    """Q users, each with a history and one target.

    Attributes:
        histories: all events, for the baselines to be fitted on the training ones.
        users: Q user ids.
        rows: Q histories as item rows, oldest first.
        target_rows: [Q] targets as item rows.
        row_items: size of the prepared catalogue.
        leaves: Q histories as leaves, oldest first; items that the bundle lacks are left out.
        targets: [Q] targets as leaves, -1 where the bundle lacks the item.
        users_in_split: users that have a target in the split, sampled or not.
        kinds: which of the Q users have a head, tail or cold target.
        meanings: what head, tail and cold mean, in words.
    """

    histories: Histories
    users: list[str]
    rows: list[ItemRows]
    target_rows: ItemRows
    row_items: int
    leaves: list[IntArray]
    targets: npt.NDArray[np.int64]
    users_in_split: int
    kinds: dict[str, BoolArray]
    meanings: dict[str, str]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Choice:
    """Which users are asked.

    Attributes:
        split: whose targets.
        users: at most so many, drawn at random; None for all.
        seed: of the draw.
        head_share: share of the catalogue that counts as head.
    """

    split: Split
    users: int | None
    seed: int
    head_share: float


def read_task(prepared: Path, catalog: Catalog, choice: Choice) -> Task:
    """Read a split of a prepared folder, in the numbers of a bundle's catalogue.

    Raises:
        StageError: the folder is unfinished, or has no item in common with the bundle.
        ConfigError: the split has no users.
    """
    histories = read_histories(prepared)
    leaf_of_row = _leaves(prepared, catalog)
    held_out = histories.held_out(choice.split)
    if len(held_out.users) == 0:
        raise ConfigError(
            f"split {choice.split!r} of {prepared} has no users; choose the other split, or "
            "prepare the events with held-out ones"
        )
    chosen = sample(len(held_out.users), choice.users, choice.seed)
    counts = popularity_counts(histories, len(leaf_of_row))
    targets = held_out.targets[chosen]
    rows = [held_out.inputs[place] for place in chosen]
    return Task(
        histories=histories,
        users=[histories.users[user] for user in held_out.users[chosen]],
        rows=rows,
        target_rows=targets,
        row_items=len(leaf_of_row),
        leaves=[_known(leaf_of_row[history]) for history in rows],
        targets=leaf_of_row[targets],
        users_in_split=len(held_out.users),
        kinds=_kinds(counts, choice.head_share, targets),
        meanings=_meanings(choice.head_share),
    )


def _leaves(prepared: Path, catalog: Catalog) -> npt.NDArray[np.int64]:
    item_ids = pl.read_parquet(prepared / "items.parquet", columns=["item_id"])["item_id"]
    leaves = catalog.find(item_ids.to_list()).astype(np.int64)
    if not (leaves != UNKNOWN).any():
        raise StageError(
            f"{prepared} has no item in common with the bundle; give the prepared folder that "
            "the bundle was made from"
        )
    return leaves


def _known(leaves: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    known: npt.NDArray[np.int64] = leaves[leaves != UNKNOWN]
    return known


def sample(users: int, most: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Return at most `most` of the numbers below `users`, drawn at random, ascending."""
    if most is None or most >= users:
        return np.arange(users)
    drawn = np.random.default_rng(seed).choice(users, most, replace=False)
    return np.sort(drawn).astype(np.int64)


def _kinds(
    counts: npt.NDArray[np.int64], head_share: float, targets: ItemRows
) -> dict[str, BoolArray]:
    is_head = np.zeros(len(counts), np.bool_)
    is_head[tie_order(counts)[: round(head_share * len(counts))]] = True
    is_cold = counts == 0
    return {
        "head": (is_head & ~is_cold)[targets],
        "tail": (~is_head & ~is_cold)[targets],
        "cold": is_cold[targets],
    }


def _meanings(head_share: float) -> dict[str, str]:
    return {
        "head": f"one of the {head_share:.0%} of all items with the most training events",
        "tail": "any other item with a training event",
        "cold": "no training event",
    }
