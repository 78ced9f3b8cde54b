"""Seeded k-means by faiss."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss
import numpy as np
import numpy.typing as npt
import torch

from model.training.tokenizers.balance import balanced_codebook
from model.types import FloatArray


def distinct_rows(vectors: FloatArray) -> FloatArray:
    """Return the distinct rows of `vectors` [N, E], in order of first appearance."""
    rows = np.ascontiguousarray(vectors + np.float32(0))  # -0.0 and 0.0 are one value
    packed: npt.NDArray[np.void] = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))
    _, first = np.unique(packed.ravel(), return_index=True)
    return rows[np.sort(first)]


def fit_codebook(
    vectors: FloatArray, codes: int, *, iterations: int, seed: int, balanced: bool = False
) -> FloatArray:
    """Return centroids [K, E] with K = min(codes, distinct rows of `vectors` [N, E]).

    Every distinct vector counts once, so that copies of one item do not take several codes. If
    `balanced`, centroids move on until they are nearest to about as many vectors each.
    Runs in one thread: with more, sums in another order would change the result.
    """
    points = distinct_rows(vectors)
    if len(points) <= codes:
        return points
    with one_thread():
        kmeans = faiss.Kmeans(
            points.shape[1],
            codes,
            niter=iterations,
            seed=seed,
            min_points_per_centroid=1,
            max_points_per_centroid=1024,
        )
        kmeans.train(points)
        centroids: FloatArray = np.asarray(kmeans.centroids, dtype=np.float32)
        return balanced_codebook(points, centroids, iterations) if balanced else centroids


@contextmanager
def one_thread() -> Iterator[None]:
    """Let faiss and PyTorch use one: with more, sums in another order would change the result."""
    threads = faiss.omp_get_max_threads(), torch.get_num_threads()
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads[0])
        torch.set_num_threads(threads[1])
