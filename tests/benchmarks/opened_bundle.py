"""What an opened bundle costs a process that serves it: to load, to hold and to ask.

Imports no more than the service and the contenders need, so that memory is that of one worker.
"""

import re
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from model.availability import legal_below
from model.bundle import Bundle
from model.query import Query
from model.recommender import Recommender
from model.types import AnyArray, FloatArray
from tests.benchmarks.item_search import best_items, hnsw, hnsw_recall
from tests.benchmarks.timing import take_turns

BEAMS = 50
HISTORY = 10
HISTORIES = 32
READ_SEARCHES = 20
HNSW_MAX_ITEMS = 1_000_000
"""Building for ten million takes hours."""
MIB = 2**20


def measure_opened(folder: Path, rounds: int) -> dict[str, Any]:
    """Open the bundle as the service does, recommend, and time searches."""
    threadpool_limits(1)
    faiss.omp_set_num_threads(1)
    began = time.process_time()
    bundle = Bundle.open(folder)
    recommender = Recommender(bundle)
    queries = _histories(bundle)
    recommender.recommend(queries[0])
    load_seconds = time.process_time() - began
    for query in queries:
        recommender.recommend(query)
    memory = _memory()
    trie = bundle.tree.trie
    counts = legal_below(trie, np.ones(trie.item_count, dtype=bool))
    searches, facts = _searches(bundle, counts)
    asked = cycle(queries)
    searches["recommendation"] = lambda: recommender.recommend(next(asked))
    timings = take_turns(searches, rounds=rounds)
    links = trie.item_start + trie.node_count  # first children and parents
    items = trie.item_count
    return facts | {
        "items": items,
        "nodes": trie.node_count,
        "children": [int(most) for most in trie.branching],
        "children_read": children_read(bundle, counts),
        "load_seconds": load_seconds,
        "trie_bytes_per_item": trie.child_start.itemsize * links / items,
        "counts_bytes_per_item": counts.nbytes / items,
        "vector_bytes_per_item": bundle.tree.vectors.nbytes / items,
        "hidden_bytes_per_item": _hidden_bytes(bundle) / items,
        "own_mib": memory["RssAnon"] / MIB,
        "mapped_mib": memory["RssFile"] / MIB,
        "files_mib": sum(path.stat().st_size for path in folder.iterdir()) / MIB,
        "timings": {name: asdict(timing) for name, timing in timings.items()},
    }


def _histories(bundle: Bundle) -> list[Query]:
    """Random ones."""
    leaves = np.random.default_rng(3).integers(len(bundle.catalog), size=(HISTORIES, HISTORY))
    return [Query([bundle.catalog.item_id(leaf) for leaf in row]) for row in leaves.tolist()]


def _searches(
    bundle: Bundle, counts: AnyArray
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """The same search for another history on every call, and what an index finds of the best."""
    tree, generator = bundle.tree, np.random.default_rng(1)
    vectors, legal = tree.item_vectors, counts[tree.trie.item_start :] > 0

    def any_h() -> FloatArray:
        h: FloatArray = generator.normal(size=bundle.manifest.width).astype(np.float32)
        return h

    searches: dict[str, Callable[[], object]] = {
        "generator": lambda: bundle.graphs.search(any_h(), tree, counts, BEAMS),
        "exhaustive": lambda: best_items(vectors, any_h(), legal, BEAMS),
    }
    if len(vectors) > HNSW_MAX_ITEMS:
        return searches, {}
    index = hnsw(vectors)
    searches["HNSW"] = lambda: index.search(any_h()[None], BEAMS)
    many_h = np.stack([any_h() for _ in range(READ_SEARCHES)])
    return searches, {"hnsw_recall": hnsw_recall(index, vectors, many_h, BEAMS)}


def children_read(bundle: Bundle, counts: AnyArray) -> int:
    """How many children the nodes have that a search follows to what it finds, on the average."""
    trie = bundle.tree.trie
    generator = np.random.default_rng(2)
    read = []
    for _ in range(READ_SEARCHES):
        h = generator.normal(size=bundle.manifest.width).astype(np.float32)
        found = bundle.graphs.search(h, bundle.tree, counts, BEAMS)
        nodes = np.unique(trie.paths(found.leaves)[:, :-1])
        read.append(np.sum(trie.child_start[nodes + 1] - trie.child_start[nodes]))
    return round(float(np.mean(read)))


def _hidden_bytes(bundle: Bundle) -> int:
    hidden = bundle.tree.hidden
    assert hidden is not None
    return hidden.table.nbytes + hidden.rows.nbytes


def _memory() -> dict[str, int]:
    """Bytes of this process that are its own (RssAnon), and of mapped files (RssFile)."""
    status = Path("/proc/self/status").read_text()
    found = re.findall(r"(RssAnon|RssFile):\s+(\d+) kB", status)
    return {name: 1_024 * int(kib) for name, kib in found}
