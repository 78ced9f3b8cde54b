"""Ways of decoding side by side: several bundles of one catalogue at equal beams.

Of a diffusion bundle every order of unmasking is measured, with and without the diversity penalty,
all through the code that serves: the served ranking, seen items masked, one thread. Latency is of
encoding and search together, one request at a time.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import track

from model.bundle import Bundle
from model.diffusion_decoder import DiffusionGraphs
from model.diffusion_search import Unmasking
from model.recommender import Recommender
from model.training.evaluation.diversity import list_diversity
from model.training.evaluation.evaluate import by_fused, popular_leaves
from model.training.evaluation.metrics import summary
from model.training.evaluation.rankings import Rankings
from model.training.evaluation.report import markdown_table, terminal_table
from model.training.evaluation.task import Choice, Task, read_task
from model.training.histories import Split

RANDOM_ORDERS = 8
COLUMNS = ("recall@1", "recall@5", "recall@10", "ndcg@5", "ndcg@10")
DIVERSITY = ("distinct_categories", "intra_list_distance")
HEADS = ("decoding", "R@1", "R@5", "R@10", "N@5", "N@10", "categories", "distance", "ms", "p95 ms")


class DecodingConfig(BaseModel):
    """What is compared, and on whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Split = Field(default="test", description="validation or test")
    users: int | None = Field(
        default=None, ge=1, description="measure a random sample; all when not given"
    )
    beam_width: int = Field(default=50, ge=1, le=10_000, description="of every search")
    seed: int = Field(default=0, ge=0, description="of the sample and of random orders")


@dataclass(frozen=True)
class Way:
    """One way to decode; several bundles where it is a mixture, taken in turn by the users."""

    name: str
    bundles: tuple[Bundle, ...]


class DecodingRow(BaseModel):
    """What one way of decoding reached."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    metrics: dict[str, float]
    diversity: dict[str, float]
    milliseconds: float
    """Mean of a request."""
    milliseconds_p95: float

    def cells(self) -> list[str]:
        """The row as `HEADS` wants it."""
        numbers = [f"{self.metrics[name]:.4f}" for name in COLUMNS]
        diverse = [f"{self.diversity.get(name, 0):.2f}" for name in DIVERSITY]
        times = [f"{self.milliseconds:.1f}", f"{self.milliseconds_p95:.1f}"]
        return [self.name, *numbers, *diverse, *times]


def compare_decoding(
    config: DecodingConfig, bundles: Sequence[Path], prepared: Path, output: Path | None
) -> list[DecodingRow]:
    """Measure every way to decode with each of `bundles`; print a table, and write it as Markdown.

    Raises:
        BundleError: a bundle cannot be used.
        StageError: the prepared folder is unfinished or of another catalogue.
        ConfigError: the split has no users.
    """
    rows, users = [], 0
    choice = Choice(config.split, config.users, config.seed, 0.2)
    for path in bundles:
        bundle = Bundle.open(path, threads=1)
        task = read_task(prepared, bundle.catalog, choice)
        users = len(task)
        rows += [measured(way, task, config.beam_width) for way in ways(bundle, config.seed)]
    cells = [row.cells() for row in rows]
    title = f"{config.split} split, {users:,} users, {config.beam_width} beams, seen masked"
    Console().print(terminal_table(title, HEADS, cells))
    if output is not None:
        output.write_text(f"{title}\n\n{markdown_table(HEADS, cells)}\n", encoding="utf-8")
    return rows


def ways(bundle: Bundle, seed: int) -> Iterator[Way]:
    """The ways to decode that a bundle allows."""
    graphs = bundle.graphs
    if not isinstance(graphs, DiffusionGraphs):
        yield Way("autoregressive", (bundle,))
        return
    ordered, levels = graphs.unmasking.ordered_levels, len(bundle.manifest.levels)
    generator = np.random.default_rng(seed)
    free = np.arange(ordered, levels)
    shuffled = [tuple(generator.permutation(free).tolist()) for _ in range(RANDOM_ORDERS)]
    schedules: dict[str, Sequence[tuple[int, ...] | None]] = {
        "by confidence": [None],
        "left to right": [tuple(free.tolist())],
        "in random order": shuffled,
    }
    for name, orders in schedules.items():
        for diversity in (False, True):
            searches = [Unmasking(ordered, order, diversity) for order in orders]
            bundles = tuple(replace(bundle, graphs=graphs.by(search)) for search in searches)
            yield Way(f"diffusion {name}{' + penalty' if diversity else ''}", bundles)


def measured(way: Way, task: Task, width: int) -> DecodingRow:
    """Rank for every user of `task`, one after another."""
    recommenders = [Recommender(bundle) for bundle in way.bundles]
    rankings, seconds = Rankings(len(task)), []
    for user in track(range(len(task)), way.name, transient=True):
        recommender = recommenders[user % len(recommenders)]
        history, target = task.leaves[user], int(task.targets[user])
        if len(history) == 0:
            rankings.put_list(user, popular_leaves(recommender), target)
            continue
        began = time.perf_counter()
        with recommender.reading(history) as h:
            found = recommender.search(h, width, excluded=history)
            seconds.append(time.perf_counter() - began)
            rankings.put_list(user, by_fused(recommender, h, found, history), target)
    times = 1000 * np.array(seconds or [0.0])
    return DecodingRow(
        name=way.name,
        metrics=summary(rankings.ranks),
        diversity=list_diversity(rankings.first, way.bundles[0].catalog),
        milliseconds=float(times.mean()),
        milliseconds_p95=float(np.quantile(times, 0.95)),
    )
