"""What a larger catalogue costs, and what filters cost on a large one.

Every size is a bundle of its own, with ids, titles, categories and 32 followers of every item, that
one process writes and another opens as the service does: so memory is that of one worker, and the
time to load is that of all the service loads. The files are in the page cache when they are opened.
Histories that recommendations are asked for have been asked for before. Ten million items take
about 12 GB of disk.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from model.availability import legal_below
from model.bundle import Bundle
from model.query import Query
from model.recommender import Recommender
from model.trie import Trie
from tests.benchmarks.opened_bundle import BEAMS, HISTORY, measure_opened
from tests.benchmarks.synthetic_catalogue import (
    WIDTH,
    draw_codes,
    synthetic_bundle,
    write_bundle,
)
from tests.benchmarks.timing import take_turns

FILTERED_ITEMS = 1_000_000
EXCLUDED = 500
STRANGE_QUERIES = 200
"""With more ids than a worker remembers, so that they are strange again when they return."""


def measure(sizes: Sequence[int], folder: Path, *, rounds: int) -> dict[str, Any]:
    """Latency, build time, size and memory for catalogues of `sizes` items."""
    rows = []
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as processes:
        for items in sizes:
            with TemporaryDirectory(dir=folder) as inside:
                built = processes.submit(_build, items, Path(inside)).result()
                found = processes.submit(measure_opened, Path(inside), rounds).result()
                rows.append(built | found)
    return {"width": WIDTH, "beams": BEAMS, "rows": rows}


def _build(items: int, folder: Path) -> dict[str, float]:
    """Write a bundle of so many items; how long its trie took to build."""
    codes = draw_codes(items)
    began = time.process_time()
    Trie.build(codes)
    seconds = time.process_time() - began
    write_bundle(items, folder)
    return {"build_seconds": seconds}


def table(result: dict[str, Any]) -> str:
    """One row per size."""
    searches = ("generator", "recommendation", "exhaustive", "HNSW")
    lines = [
        f"Width {result['width']}, {result['beams']} beams; CPU ms, 10th to 90th percentile.",
        "",
        f"| items | nodes | children read | {' | '.join(searches)} "
        f"| HNSW's recall@{result['beams']} | trie build s | load s | trie B/item "
        "| counts B/item | vectors B/item | hidden B/item "
        "| own memory MiB | mapped and in memory MiB | files MiB |",
        "|---" * 17 + "|",
    ]
    for row in result["rows"]:
        cells = [f"{row[name]:,}" for name in ("items", "nodes", "children_read")]
        for name in searches:
            t = row["timings"].get(name)
            spread = (
                f"{t['cpu_ms']:.2f} ({t['cpu_low_ms']:.2f}-{t['cpu_high_ms']:.2f})" if t else ""
            )
            cells.append(spread or "not built")
        cells.append(f"{row['hnsw_recall']:.1%}" if "hnsw_recall" in row else "not built")
        cells += [f"{row['build_seconds']:.2f}", f"{row['load_seconds']:.2f}"]
        for name in ("trie", "counts", "vector", "hidden"):
            cells.append(f"{row[f'{name}_bytes_per_item']:.1f}")
        for name in ("own", "mapped", "files"):
            cells.append(f"{row[f'{name}_mib']:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def measure_filters(folder: Path, *, rounds: int) -> dict[str, Any]:
    """What each filter adds to a recommendation among a million items."""
    with TemporaryDirectory(dir=folder) as inside:
        bundle = synthetic_bundle(FILTERED_ITEMS, Path(inside))
        recommender = Recommender(bundle)
        queries = _queries(bundle)
        calls = {name: _asking(recommender, [query]) for name, query in queries.items()}
        # Of its own, so that it drives nothing out that the others have asked for before.
        newcomer = Recommender(bundle)
        for name, never_asked in _strange_queries(bundle).items():
            calls[name] = _asking(newcomer, never_asked)
        h = recommender.encode(np.arange(10) * 1_000)
        trie = bundle.tree.trie
        everything = np.ones(FILTERED_ITEMS, dtype=bool)
        stocked = np.random.default_rng(0).random(FILTERED_ITEMS) < 0.9
        for name, legal in (("search", everything), ("search, 10 % out of stock", stocked)):
            counts = legal_below(trie, legal)
            calls[name] = partial(bundle.graphs.search, h, bundle.tree, counts, BEAMS)
        timings = take_turns(calls, rounds=rounds)
        found = _fill_from_few(recommender, bundle)
    described = {name: asdict(timing) for name, timing in timings.items()}
    return {"items": FILTERED_ITEMS, "timings": described, "few": found}


def _queries(bundle: Bundle) -> dict[str, Query]:
    ids = [bundle.catalog.item_id(leaf) for leaf in range(0, FILTERED_ITEMS, 997)]
    history = ids[:10]
    return {
        "none": Query(history),
        "category": Query(history, categories=[["category 3"]]),
        "500 excluded ids": Query(history, exclude=ids[100 : 100 + EXCLUDED]),
        "1,000 seen items": Query(history, seen=ids[:1_000]),
    }


def _strange_queries(bundle: Bundle) -> dict[str, list[Query]]:
    """Queries that name what nobody has named before, for some hundred calls."""
    catalog = bundle.catalog
    history = [catalog.item_id(leaf) for leaf in range(0, HISTORY * 997, 997)]
    leaves = np.random.default_rng(4).permutation(FILTERED_ITEMS)[: STRANGE_QUERIES * EXCLUDED]
    excluded = [
        [catalog.item_id(leaf) for leaf in row]
        for row in leaves.reshape(STRANGE_QUERIES, EXCLUDED).tolist()
    ]
    return {
        "500 excluded ids that nobody named": [Query(history, exclude=ids) for ids in excluded],
        # A worker keeps the counts of far fewer, so that the same ones are new when they return.
        "first request under a category": [
            Query(history, categories=[[f"category {code}"]]) for code in range(STRANGE_QUERIES)
        ],
    }


def _asking(recommender: Recommender, queries: Sequence[Query]) -> Callable[[], object]:
    """Ask for the next of `queries` on every call."""
    following = cycle(queries)
    return lambda: recommender.recommend(next(following))


def _fill_from_few(recommender: Recommender, bundle: Bundle) -> dict[str, int]:
    """A category of which all items but ten are excluded, asked for ten and for eleven."""
    catalog = bundle.catalog
    members = catalog.category_items[catalog.category(["category 255"])]
    ids = [catalog.item_id(leaf) for leaf in members.tolist()]
    answers = {}
    for k in (10, 11):
        query = Query([catalog.item_id(0)], k=k, exclude=ids[10:], categories=[["category 255"]])
        answer = recommender.recommend(query)
        assert {item.item_id for item in answer.items} <= set(ids[:10])
        answers[str(k)] = len(answer.items)
    return {"excluded": len(ids) - 10, **answers}


def filter_table(result: dict[str, Any]) -> str:
    """What each filter adds."""
    timings = result["timings"]
    lines = ["| filter | CPU ms | added |", "|---|---|---|"]
    for name, timing in timings.items():
        base = timings["search" if name.startswith("search") else "none"]
        added = timing["cpu_ms"] / base["cpu_ms"] - 1
        spread = f"{timing['cpu_low_ms']:.2f}-{timing['cpu_high_ms']:.2f}"
        lines.append(f"| {name} | {timing['cpu_ms']:.2f} ({spread}) | {added:+.0%} |")
    few = result["few"]
    lines += [
        "",
        f"{result['items']:,} items. A category with {few['excluded']} items excluded and ten left "
        f"answers {few['10']} items for k = 10, {few['11']} for k = 11.",
        "",
    ]
    return "\n".join(lines)
