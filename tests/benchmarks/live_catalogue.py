"""`python -m tests.benchmarks.live_catalogue`: what an edit costs in catalogues of any size.

CPU seconds of one core and seconds by the clock: from codes and vectors of the items that are put
to a recommender over the new state, and from hiding an item to a recommender that knows it. What
giving items their codes costs does not depend on the size and is not in it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from model.bundle import Bundle
from model.edited_bundle import with_items
from model.insertion import NewItems, NodeSums
from model.new_items import NewItem
from model.recommender import Recommender
from tests.benchmarks.synthetic_catalogue import CODES, synthetic_bundle
from tests.model.training.evaluation.toy_bundle import ToyGraphs

ROUNDS = 3


def put(bundle: Bundle, recommender: Recommender, count: int, sums: NodeSums) -> None:
    """Do what a replica does with `count` new items that have codes and vectors."""
    generator = np.random.default_rng(count)
    names = [f"new {number}" for number in range(count)]
    items = [NewItem(name, f"Something {name}", paths=(("category 1",),)) for name in names]
    codes = generator.integers(CODES[0], size=(count, len(CODES)))
    width = bundle.manifest.width
    vectors = generator.normal(scale=0.3, size=(count, width)).astype(np.float32)
    state = with_items(bundle, items, NewItems(names, codes, vectors), sums=sums)
    _ = state.by_popularity, state.popularity_rank, state.shares_before
    recommender.over(state)


def seconds_of(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds and seconds by the clock, each the least of some rounds after a first one."""
    spent = []
    for _ in range(ROUNDS + 1):
        began, cpu = time.perf_counter(), time.process_time()
        work()
        spent.append((time.process_time() - cpu, time.perf_counter() - began))
    return min(each[0] for each in spent[1:]), min(each[1] for each in spent[1:])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.live_catalogue")
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=256, help="of the vectors, as preset base")
    console = Console()
    console.print("| items | edit | CPU s | s |", "|---|---|---|---|", sep="\n")
    given = parser.parse_args()
    for size in given.items:
        with tempfile.TemporaryDirectory() as folder:
            bundle = synthetic_bundle(size, Path(folder), ToyGraphs(), width=given.width)
            recommender, sums = Recommender(bundle), NodeSums(bundle.tree)
            hidden = bundle.as_of(1, np.array([size // 2]))
            edits = {
                "hide 1": lambda: recommender.over(hidden),  # noqa: B023
                "put 10": lambda: put(bundle, recommender, 10, sums),  # noqa: B023
                "put 1,000": lambda: put(bundle, recommender, 1_000, sums),  # noqa: B023
            }
            for name, work in edits.items():
                cpu, wall = seconds_of(work)
                console.print(f"| {size:,} | {name} | {cpu:.3f} | {wall:.3f} |")


if __name__ == "__main__":
    main()
