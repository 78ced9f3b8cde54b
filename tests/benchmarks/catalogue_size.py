"""What a larger catalogue costs, and what filters cost on a large one."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np

from model.availability import legal_below
from model.bundle import Bundle
from model.decoder import Graphs
from model.query import Query
from model.recommender import Recommender
from tests.benchmarks.model_speed import best_items, hnsw
from tests.benchmarks.synthetic_catalogue import (
    WIDTH,
    Loaded,
    draw_codes,
    load_tree,
    random_graphs,
    synthetic_bundle,
    write_tree,
)
from tests.benchmarks.timing import take_turns

BEAMS = 50
READ_SEARCHES = 20
HNSW_MAX_ITEMS = 1_000_000
"""Building for ten million takes hours."""
FILTERED_ITEMS = 1_000_000


def measure(sizes: Sequence[int], folder: Path, *, rounds: int) -> dict[str, Any]:
    """Latency, build time, size and memory for catalogues of `sizes` items."""
    faiss.omp_set_num_threads(1)
    with TemporaryDirectory(dir=folder) as inside:
        graphs = random_graphs(Path(inside))
        rows = [_measure_size(items, graphs, Path(inside), rounds) for items in sizes]
    return {"width": WIDTH, "beams": BEAMS, "rows": rows}


def _measure_size(items: int, graphs: Graphs, folder: Path, rounds: int) -> dict[str, Any]:
    build_seconds = write_tree(draw_codes(items), folder)
    before = _anonymous_bytes()
    loaded = load_tree(folder)
    trie = loaded.tree.trie
    timings = take_turns(_searches(graphs, loaded), rounds=rounds)
    # Buffers of ONNX Runtime are in it, the mapped arrays are not.
    resident = _anonymous_bytes() - before
    links = trie.item_start + trie.node_count  # first children and parents
    return {
        "items": items,
        "nodes": trie.node_count,
        "children": [int(most) for most in trie.branching],
        "children_read": children_read(graphs, loaded),
        "build_seconds": build_seconds,
        "load_seconds": loaded.seconds,
        "trie_bytes_per_item": trie.child_start.itemsize * links / items,
        "counts_bytes_per_item": loaded.counts.nbytes / items,
        "vector_bytes_per_item": loaded.tree.vectors.nbytes / items,
        "hidden_bytes_per_item": _hidden_bytes(loaded) / items,
        "resident_mib": resident / 2**20,
        "timings": {name: asdict(timing) for name, timing in timings.items()},
    }


def _searches(graphs: Graphs, loaded: Loaded) -> dict[str, Callable[[], object]]:
    """The same search for another history on every call."""
    tree, counts = loaded.tree, loaded.counts
    generator = np.random.default_rng(1)
    vectors, legal = tree.item_vectors, counts[tree.trie.item_start :] > 0

    def any_h() -> Any:
        return generator.normal(size=WIDTH).astype(np.float32)

    searches: dict[str, Callable[[], object]] = {
        "generator": lambda: graphs.search(any_h(), tree, counts, BEAMS),
        "exhaustive": lambda: best_items(vectors, any_h(), legal, BEAMS),
    }
    if len(vectors) <= HNSW_MAX_ITEMS:
        index = hnsw(vectors)
        searches["HNSW"] = lambda: index.search(any_h()[None], BEAMS)
    return searches


def children_read(graphs: Graphs, loaded: Loaded) -> int:
    """How many children the nodes have that a search follows to what it finds, on the average."""
    tree = loaded.tree
    generator = np.random.default_rng(2)
    read = []
    for _ in range(READ_SEARCHES):
        h = generator.normal(size=WIDTH).astype(np.float32)
        found = graphs.search(h, tree, loaded.counts, BEAMS)
        nodes = np.unique(tree.trie.paths(found.leaves)[:, :-1])
        read.append(np.sum(tree.trie.child_start[nodes + 1] - tree.trie.child_start[nodes]))
    return round(float(np.mean(read)))


def _hidden_bytes(loaded: Loaded) -> int:
    hidden = loaded.tree.hidden
    assert hidden is not None
    return hidden.table.nbytes + hidden.rows.nbytes


def _anonymous_bytes() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1_024 * int(found[1])


def table(result: dict[str, Any]) -> str:
    """One row per size."""
    lines = [
        f"Width {result['width']}, {result['beams']} beams; CPU ms, 10th to 90th percentile.",
        "",
        "| items | nodes | children read | generator | exhaustive | HNSW | trie build s | load s "
        "| trie B/item | counts B/item | vectors B/item | hidden B/item | resident MiB |",
        "|---" * 13 + "|",
    ]
    for row in result["rows"]:
        cells = [f"{row[name]:,}" for name in ("items", "nodes", "children_read")]
        for name in ("generator", "exhaustive", "HNSW"):
            t = row["timings"].get(name)
            spread = (
                f"{t['cpu_ms']:.2f} ({t['cpu_low_ms']:.2f}-{t['cpu_high_ms']:.2f})" if t else ""
            )
            cells.append(spread or "not built")
        cells += [f"{row['build_seconds']:.2f}", f"{row['load_seconds']:.2f}"]
        for name in ("trie", "counts", "vector", "hidden"):
            cells.append(f"{row[f'{name}_bytes_per_item']:.1f}")
        lines.append(f"| {' | '.join([*cells, format(row['resident_mib'], '.0f')])} |")
    return "\n".join([*lines, ""])


def measure_filters(folder: Path, *, rounds: int) -> dict[str, Any]:
    """What each filter adds to a recommendation among a million items."""
    with TemporaryDirectory(dir=folder) as inside:
        bundle = synthetic_bundle(FILTERED_ITEMS, Path(inside))
        recommender = Recommender(bundle)
        queries = _queries(bundle)
        calls = {name: _asking(recommender, query) for name, query in queries.items()}
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
        "500 excluded ids": Query(history, exclude=ids[100:600]),
        "1,000 seen items": Query(history, seen=ids[:1_000]),
    }


def _asking(recommender: Recommender, query: Query) -> Callable[[], object]:
    return lambda: recommender.recommend(query)


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
