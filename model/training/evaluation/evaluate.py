"""Measure a bundle through the code that serves it, beside baselines, on held-out events.

Three ways to rank with the same bundle: the generator alone (beam results by log-probability), the
item head over the whole catalogue, and the served ranking (both fused, on the items that the beam
reached). Every user of the split counts, failures included. Fits nothing but the baselines, and
those on training events only.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import Progress

from model.beam_search import BeamResult
from model.bundle import Bundle
from model.catalog import Catalog
from model.errors import ConfigError, DataError
from model.query import Query
from model.recommender import Recommender
from model.training.evaluation.baselines import (
    Baseline,
    ItemNeighbours,
    Popularity,
    popularity_counts,
    tie_order,
)
from model.training.evaluation.category_tree import category_tree
from model.training.evaluation.diversity import list_diversity
from model.training.evaluation.metrics import CUTOFFS, ndcg_at
from model.training.evaluation.rankings import FIRST, Rankings
from model.training.evaluation.report import (
    Evaluation,
    Row,
    SearchError,
    plot_evaluation,
    tables,
    write_evaluation,
)
from model.training.evaluation.task import Choice, Task, read_task
from model.training.histories import Split
from model.types import FloatArray, IntArray

GENERATOR, ITEM_HEAD, SERVED = "generator alone", "item head, whole catalogue", "served ranking"
POPULARITY, NEIGHBOURS, ORACLE = "popularity (PopRec)", "item-kNN", "oracle"

REFIT_NOTE = (
    "This bundle was retrained on all events, held-out ones included: its rows show what it has "
    "seen, not what it can predict."
)
MASKINGS = (True, False)
BATCH_CELLS = 4_000_000  # scores a baseline computes at once: 16 MB
EXHAUSTIVE_CELLS = 5e10  # numbers that all exhaustive searches together may touch: minutes
EXHAUSTIVE_CELLS_AT_ONCE = 2.5e8  # and one level of one of them: 1 GB


class EvaluateConfig(BaseModel):
    """What is measured, and on whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Split = Field(default="test", description="validation or test")
    beam_width: int | None = Field(
        default=None, ge=1, le=10_000, description="of the search; the bundle's own when not given"
    )
    users: int | None = Field(
        default=None, ge=1, description="measure a random sample; all when not given"
    )
    exhaustive_users: int = Field(
        default=500,
        ge=0,
        description="users whose search is compared with an exhaustive one; 0 for none",
    )
    head_share: float = Field(
        default=0.2, gt=0, lt=1, description="most popular items, called head"
    )
    oracle: Path | None = Field(default=None, description="oracle.parquet of a synthetic data set")
    plot: Path | None = Field(
        default=None, description="PNG file to draw NDCG@10 per ranking and slice into"
    )
    threads: int = Field(default=2, ge=1, le=64, description="worker threads, one recommender each")
    seed: int = Field(default=0, ge=0, description="of the samples of users")


def evaluate(config: EvaluateConfig, bundle: Path, prepared: Path) -> Evaluation:
    """Measure a bundle and write evaluation.json and evaluation.md beside its manifest.

    Returns:
        The numbers that were written.

    Raises:
        BundleError: the bundle cannot be used.
        StageError: the prepared folder is unfinished or of another catalogue.
        ConfigError: the split has no users, or the oracle answers another one.
        DataError: the oracle file cannot be used.
    """
    evaluation = measure(config, Bundle.open(bundle, threads=1), prepared)
    write_evaluation(evaluation, bundle)
    if config.plot is not None:
        plot_evaluation(evaluation, config.plot)
    for table in tables(evaluation):
        Console().print(table)
    return evaluation


def measure(config: EvaluateConfig, bundle: Bundle, prepared: Path) -> Evaluation:
    """Measure an opened bundle; writes and prints nothing but progress.

    Raises:
        StageError, ConfigError, DataError: as `evaluate`.
    """
    started = time.perf_counter()
    choice = Choice(config.split, config.users, config.seed, config.head_share)
    task = read_task(prepared, bundle.catalog, choice)
    width = config.beam_width or bundle.manifest.beam_width
    with Progress(transient=True) as progress:
        crew = Crew([Recommender(bundle) for _ in range(config.threads)], progress)
        rows = [
            *served_rows(crew, task, width),
            *baseline_rows(task, progress),
            *oracle_rows(config.oracle, config.split, bundle.catalog, task),
        ]
        errors = search_errors(crew, task, width, config)
    return Evaluation(
        bundle=bundle.bundle_id,
        catalogue_version=bundle.catalogue_version,
        split=config.split,
        users=len(task),
        users_in_split=task.users_in_split,
        users_without_history=sum(len(history) == 0 for history in task.leaves),
        unknown_targets=int((task.targets < 0).sum()),
        items=len(bundle.catalog),
        beam_width=width,
        slices=task.meanings,
        rows=rows,
        search_error=errors,
        categories=category_tree(bundle),
        notes=notes(bundle, task, width),
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class Crew:
    """Recommenders, one per thread, that share the work on users."""

    recommenders: list[Recommender]
    progress: Progress

    def each(
        self, users: npt.NDArray[np.int64], work: Callable[[Recommender, int], None], title: str
    ) -> None:
        """Call `work` for every user, each recommender in its own thread."""
        bar = self.progress.add_task(title, total=len(users))

        def go_through(share: tuple[Recommender, npt.NDArray[np.int64]]) -> None:
            recommender, own = share
            for user in own:
                work(recommender, int(user))
                self.progress.advance(bar)

        shares = np.array_split(users, len(self.recommenders))
        with ThreadPoolExecutor(len(shares)) as pool:
            list(pool.map(go_through, zip(self.recommenders, shares, strict=True)))


def served_rows(crew: Crew, task: Task, width: int) -> list[Row]:
    """Return the rows of generator, item head and served ranking, seen items masked and not."""
    names = (GENERATOR, ITEM_HEAD, SERVED)
    kept = {(name, masked): Rankings(len(task)) for masked in MASKINGS for name in names}

    def measure(recommender: Recommender, user: int) -> None:
        history, target = task.leaves[user], int(task.targets[user])
        if len(history) == 0:
            popular = popular_leaves(recommender)
            for masked in MASKINGS:
                kept[SERVED, masked].put_list(user, popular, target)
            return
        with recommender.reading(history) as h:
            scores = recommender.score.of_item_head(h)
            for masked in reversed(MASKINGS):
                excluded = history if masked else history[:0]
                scores[excluded] = -np.inf
                result = recommender.search(h, width, excluded=excluded)
                fused = by_fused(recommender, h, result, history)
                kept[GENERATOR, masked].put_list(user, by_log_prob(result), target)
                kept[ITEM_HEAD, masked].put_scores(user, scores, target)
                kept[SERVED, masked].put_list(user, fused, target)

    crew.each(np.arange(len(task)), measure, "bundle")
    catalog = crew.recommenders[0].bundle.catalog
    return [
        rankings.row(name, seen_masked=masked, items=len(catalog), kinds=task.kinds).model_copy(
            update={"diversity": list_diversity(rankings.first, catalog)}
        )
        for (name, masked), rankings in kept.items()
    ]


def by_log_prob(result: BeamResult) -> IntArray:
    """Return the leaves [R] that a search reached, by log-probability; ties in leaf order."""
    return result.leaves[np.lexsort((result.leaves, -result.totals()))]


def by_fused(
    recommender: Recommender, h: FloatArray, result: BeamResult, history: IntArray
) -> IntArray:
    """Return the leaves [R] that a search reached, as they are served; ties in leaf order."""
    return result.leaves[
        np.lexsort((result.leaves, -recommender.score.of_found(h, result, history)))
    ]


def popular_leaves(recommender: Recommender) -> IntArray:
    """Return what a user without a history gets, best first."""
    popular = recommender.popular(Query(history=(), k=max(CUTOFFS)))
    return recommender.bundle.catalog.leaves([item.item_id for item in popular.items])


def baseline_rows(task: Task, progress: Progress) -> list[Row]:
    """Return the rows of popularity and item-kNN, seen items masked and not."""
    counts = popularity_counts(task.histories, task.row_items)
    models: dict[str, Baseline] = {
        POPULARITY: Popularity(counts),
        NEIGHBOURS: ItemNeighbours.fit(task.histories, task.row_items),
    }
    order = tie_order(counts)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = []
    for name, model in models.items():
        kept = {masked: Rankings(len(task)) for masked in MASKINGS}
        for user, scores in progress.track(
            _baseline_scores(model, task), total=len(task), description=name
        ):
            ordered, target = scores[order], int(place[task.target_rows[user]])
            kept[False].put_scores(user, ordered, target)
            ordered[place[task.rows[user]]] = -np.inf
            kept[True].put_scores(user, ordered, target)
        rows += [
            rankings.row(name, seen_masked=masked, items=task.row_items, kinds=task.kinds)
            for masked, rankings in kept.items()
        ]
    return rows


def _baseline_scores(model: Baseline, task: Task) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    step = max(1, BATCH_CELLS // task.row_items)
    for start in range(0, len(task), step):
        scores = model.scores(task.rows[start : start + step])
        yield from enumerate(scores, start)


def search_errors(crew: Crew, task: Task, width: int, config: EvaluateConfig) -> list[SearchError]:
    """Compare beam with exhaustive search on a sample of users, seen items masked.

    Fewer users than configured are compared, or none, where searching all of the tree that often
    would take too long or too much memory; how many is part of the answer.
    """
    bundle = crew.recommenders[0].bundle
    if bundle.manifest.decoder == "diffusion":
        return []  # the best of all orders is known of no catalogue worth the name
    wanted = min(config.exhaustive_users, exhaustive_limit(bundle))
    able = np.flatnonzero([len(history) > 0 for history in task.leaves])
    if wanted == 0 or len(able) == 0:
        return []
    drawn = np.random.default_rng(config.seed).permutation(able)[:wanted]
    place = {int(user): at for at, user in enumerate(drawn)}
    kept = {(name, way): Rankings(len(drawn)) for name in (GENERATOR, SERVED) for way in (0, 1)}

    def measure(recommender: Recommender, user: int) -> None:
        history, target, at = task.leaves[user], int(task.targets[user]), place[user]
        with recommender.reading(history) as h:
            beam = recommender.search(h, width, excluded=history)
            exhaustive = recommender.search_exhaustively(h, excluded=history)
            for way, result in enumerate((beam, exhaustive)):
                kept[GENERATOR, way].put_list(at, by_log_prob(result), target)
                kept[SERVED, way].put_list(at, by_fused(recommender, h, result, history), target)

    crew.each(np.sort(drawn), measure, "exhaustive search")
    return [
        SearchError(
            name=name,
            users=len(drawn),
            top_10_differs=_share_differing(kept[name, 0], kept[name, 1]),
            ndcg_beam=ndcg_at(kept[name, 0].ranks, FIRST),
            ndcg_exhaustive=ndcg_at(kept[name, 1].ranks, FIRST),
        )
        for name in (GENERATOR, SERVED)
    ]


def exhaustive_limit(bundle: Bundle) -> int:
    """Return how many users can be searched for exhaustively with bearable cost.

    A search without pruning scores a table of all nodes of a depth times the widest branching.
    """
    trie, width = bundle.tree.trie, bundle.manifest.width
    nodes = np.diff(trie.depth_start)[: len(trie.branching)].astype(np.float64)
    cells = nodes * np.array(trie.branching) * width
    return 0 if cells.max() > EXHAUSTIVE_CELLS_AT_ONCE else int(EXHAUSTIVE_CELLS / cells.sum())


def _share_differing(one: Rankings, other: Rankings) -> float:
    return float((one.first != other.first).any(axis=1).mean())


def oracle_rows(path: Path | None, split: Split, catalog: Catalog, task: Task) -> list[Row]:
    """Return the rows of a synthetic data set's best possible answers; none without a file.

    Raises:
        ConfigError: the split is not the one that the oracle answers.
        DataError: the file cannot be read, lacks a column, or lacks a user.
    """
    if path is None:
        return []
    if split != "test":
        raise ConfigError(
            f"oracle {path} answers each user's last event, which is the test split, not "
            f"{split!r}; leave it out or set split to 'test'"
        )
    try:
        frame = pl.read_parquet(path, columns=["user_id", "ranking"])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as an oracle with user_id and ranking ({error}); give the "
            "oracle.parquet that `cofine synthesize` wrote"
        ) from error
    lists = dict(zip(frame["user_id"], frame["ranking"], strict=True))
    kept = {masked: Rankings(len(task)) for masked in MASKINGS}
    for user, user_id in enumerate(task.users):
        if user_id not in lists:
            raise DataError(f"{path} has no answer for user_id {user_id!r}; wrong oracle file?")
        leaves = catalog.leaves(list(lists[user_id]))
        target = int(task.targets[user])
        kept[False].put_list(user, leaves, target)
        kept[True].put_list(user, leaves[~np.isin(leaves, task.leaves[user])], target)
    return [
        rankings.row(ORACLE, seen_masked=masked, items=len(catalog), kinds=task.kinds)
        for masked, rankings in kept.items()
    ]


def notes(bundle: Bundle, task: Task, width: int) -> list[str]:
    """Return what a reader of the numbers must know."""
    refit = [REFIT_NOTE] if bundle.manifest.facts.get("refit") else []
    repeats = sum(
        bool((history == target).any())
        for history, target in zip(task.rows, task.target_rows, strict=True)
    )
    return [
        *refit,
        "One target per user: recall is the hit rate, and a target that is not in the list counts "
        "as a miss.",
        f"{GENERATOR} and {SERVED} list at most {width} items (the beam); the other rankings list "
        "the whole catalogue, which only MRR can tell.",
        f"{repeats:,} targets are already in the user's history: missed by every ranking that "
        "masks seen items.",
        "Ties are broken without looking at the target: by leaf for the bundle's rankings, by "
        "popularity and then catalogue order for the baselines.",
        "A user without a known history gets popular items in the served ranking and no list from "
        "the generator or the item head.",
    ]
