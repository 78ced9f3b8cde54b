"""The best items by the item head alone: all of them scored, or an index of nearest neighbours."""

import os
from typing import Any

import faiss
import numpy as np

from model.types import AnyArray, FloatArray, IntArray

SAME = 1e-4
"""Scores that differ by less are the same."""


def hnsw(vectors: FloatArray) -> Any:
    """HNSW with 32 links over inner products; searches look at 64 candidates."""
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = 64
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(os.cpu_count() or 1)  # only searches are timed
    index.add(np.ascontiguousarray(vectors))
    faiss.omp_set_num_threads(threads)
    return index


def best_items(vectors: FloatArray, h: FloatArray, legal: AnyArray, count: int) -> IntArray:
    """The exact best `count` legal items by inner product."""
    scores = np.where(legal, vectors @ h, -np.inf)
    best = np.argpartition(scores, -count)[-count:]
    order: IntArray = best[np.argsort(-scores[best])]
    return order


def hnsw_recall(index: Any, vectors: FloatArray, many_h: FloatArray, count: int) -> float:
    """Which share of the exact best `count` items an index finds for histories h [n, D].

    By score, so that it does not matter which of several equal items was found.
    """
    legal = np.ones(len(vectors), dtype=bool)
    shares = []
    for h in many_h:
        worst = vectors[best_items(vectors, h, legal, count)[-1]] @ h
        found = index.search(h[None], count)[1][0]
        shares.append(np.mean(vectors[found[found >= 0]] @ h >= worst - SAME) * (found >= 0).mean())
    return float(np.mean(shares))
