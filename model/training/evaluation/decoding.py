"""Ways of decoding side by side: several bundles of one catalogue at equal beams.

Of a diffusion bundle every order of unmasking is measured, with and without the diversity penalty,
all through the code that serves: the served ranking, seen items masked, one thread. Latency is of
encoding and search together, one request at a time.
"""

import hashlib
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
from model.errors import ConfigError
from model.recommender import Recommender
from model.training.evaluation.category_picture import plot_categories
from model.training.evaluation.category_tree import category_tree
from model.training.evaluation.decoding_report import (
    HEADS,
    DecodingReport,
    DecodingRow,
    Measured,
    read_report,
    tree_picture,
    write_report,
)
from model.training.evaluation.diversity import list_diversity
from model.training.evaluation.evaluate import by_fused, popular_leaves
from model.training.evaluation.metrics import summary
from model.training.evaluation.rankings import Rankings
from model.training.evaluation.report import terminal_table
from model.training.evaluation.task import Choice, Task, read_task
from model.training.histories import Split
from model.types import ItemId

RANDOM_ORDERS = 8


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


def compare_decoding(
    config: DecodingConfig, bundles: Sequence[Path], prepared: Path, output: Path | None
) -> list[DecodingRow]:
    """Measure every way to decode with each of `bundles`, print a table, and write a report.

    Args:
        config: what is compared, and on whom.
        bundles: of one catalogue.
        prepared: folder of the held-out events.
        output: Markdown file of the report, written anew after every way; what is measured already
            in the JSON file beside it, on the same users in the same manner, is not measured again.

    Raises:
        BundleError: a bundle cannot be used.
        StageError: the prepared folder is unfinished or of another catalogue.
        ConfigError: the split has no users, the bundles are of several catalogues, or another file
            is in the way of the report.
    """
    opened = [Bundle.open(path, threads=1) for path in bundles]
    choice = Choice(config.split, config.users, config.seed, 0.2)
    task = read_task(prepared, opened[0].catalog, choice)
    report = DecodingReport(
        measured=Measured(
            split=config.split,
            users=len(task),
            beam_width=config.beam_width,
            seed=config.seed,
            task=_digest(task),
        ),
        same_codes=same_codes(opened),
        tree=category_tree(opened[0]),
        rows=[],
    )
    earlier = None
    if output is not None:
        earlier = read_report(output.with_suffix(".json"))
        output.parent.mkdir(parents=True, exist_ok=True)
        plot_categories(opened[0], tree_picture(output))
    for bundle in opened:
        own = read_task(prepared, bundle.catalog, choice)
        for way in ways(bundle, config.seed):
            known = earlier.row(bundle.bundle_id, way.name) if earlier else None
            if earlier is None or known is None or earlier.measured != report.measured:
                known = measured(way, own, config.beam_width)
            report.rows.append(known)
            if output is not None:
                write_report(report, output)
    title = report.measured.title()
    Console().print(terminal_table(title, HEADS, [row.cells() for row in report.rows]))
    return report.rows


def same_codes(bundles: Sequence[Bundle]) -> bool:
    """Whether all bundles give the same items the same codes.

    Raises:
        ConfigError: they do not hold the same items.
    """
    first, *others = (_codes_by_item(bundle) for bundle in bundles)
    for bundle, other in zip(bundles[1:], others, strict=True):
        if first.keys() != other.keys():
            message = (
                f"{bundles[0].path} and {bundle.path} do not hold the same items: compare bundles "
                "of one catalogue"
            )
            raise ConfigError(message)
    return all(other == first for other in others)


def _codes_by_item(bundle: Bundle) -> dict[ItemId, tuple[int, ...]]:
    catalog = bundle.catalog
    return {catalog.item_id(leaf): catalog.semantic_id(leaf) for leaf in range(len(catalog))}


def _digest(task: Task) -> str:
    """Of what does not depend on how a bundle numbers its items."""
    digest = hashlib.sha256(np.ascontiguousarray(task.target_rows).tobytes())
    for history in task.rows:
        digest.update(np.int64(len(history)).tobytes())
        digest.update(np.ascontiguousarray(history).tobytes())
    return digest.hexdigest()


def ways(bundle: Bundle, seed: int) -> Iterator[Way]:
    """The ways to decode that a bundle allows."""
    graphs = bundle.graphs
    if not isinstance(graphs, DiffusionGraphs):
        yield Way("autoregressive", (bundle,))
        return
    ordered, levels = graphs.unmasking.ordered_levels, len(bundle.manifest.levels)
    if ordered == levels:  # a category too large for any order: there is one way
        yield Way("diffusion left to right", (bundle,))
        return
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
        bundle=way.bundles[0].bundle_id,
        folder=way.bundles[0].path.name,
        metrics=summary(rankings.ranks),
        diversity=list_diversity(rankings.first, way.bundles[0].catalog),
        milliseconds=float(times.mean()),
        milliseconds_p95=float(np.quantile(times, 0.95)),
    )
