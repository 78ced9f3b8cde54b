"""Codes that are had by about equally many items: assignment by optimal transport.

Sinkhorn's iterations (Cuturi 2013; in an assignment to codes: Asano et al. 2020) turn scores into
shares that sum to 1 for every item and to the same number for every code. They decide only while
codebooks are learned: what is learned assigns to the nearest code, and so is less than balanced; a
crowd and a few far outliers share codes as they do by plain k-means.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from model.types import FloatArray

ITERATIONS: Final = 10
SHARPNESS: Final = 20.0
"""Scores of k-means are minus squared distances, by the mean of the nearest ones, times this.

Softer shares draw centroids together, so that few of them are nearest to anything; sharper ones are
further from balance after as many iterations.
"""


def balanced_shares(scores: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Return shares [N, K] of the codes in the items by their scores [N, K]; rows sum to 1.

    Columns sum to about N / K, the nearer the more iterations.
    """
    logs = scores
    for _ in range(iterations):
        logs = torch.log_softmax(logs, dim=0)
        logs = torch.log_softmax(logs, dim=1)
    return logs.exp()


def balanced_codebook(points: FloatArray, start: FloatArray, iterations: int) -> FloatArray:
    """Return the centroids [K, E] that k-means by balanced shares arrives at.

    Args:
        points: [N, E].
        start: the centroids [K, E] to begin with, K <= N.
        iterations: of k-means.
    """
    rows, book = torch.from_numpy(points).double(), torch.from_numpy(start).double()
    for _ in range(iterations):
        distances = torch.cdist(rows, book).square()
        nearest = distances.amin(dim=1).mean().clamp(min=torch.finfo(torch.float64).tiny)
        shares = balanced_shares(-SHARPNESS * distances / nearest)
        book = shares.T @ rows / shares.sum(dim=0).unsqueeze(1)
    found: FloatArray = np.ascontiguousarray(book.numpy(), dtype=np.float32)
    return found
