"""Vector to code: the one rule by which trainer and server quantize."""

import numpy as np
import numpy.typing as npt

from model.types import FloatArray

CHUNK_ROWS = 8192
"""Vectors compared at once: bounds the distance table to 8192 x K doubles."""


def nearest_codes(
    vectors: FloatArray | npt.NDArray[np.float64], codebook: FloatArray
) -> npt.NDArray[np.int32]:
    """Return the code of the nearest centroid for every vector, int32 [N].

    Distances are Euclidean and computed in double precision, so that an item gets the same code
    alone and in a batch; of equally near centroids the lowest code wins.

    Args:
        vectors: [N, E].
        codebook: [K, E], K >= 1.

    Raises:
        ValueError: the codebook is empty or the widths differ.
    """
    if codebook.ndim != 2 or len(codebook) == 0 or vectors.shape[1:] != codebook.shape[1:]:
        raise ValueError(f"cannot compare vectors {vectors.shape} with codebook {codebook.shape}")
    centroids = codebook.astype(np.float64)
    half_norms = 0.5 * np.einsum("ke,ke->k", centroids, centroids)
    codes = np.empty(len(vectors), dtype=np.int32)
    for start in range(0, len(vectors), CHUNK_ROWS):
        chunk = vectors[start : start + CHUNK_ROWS].astype(np.float64)
        # |v - c|^2 = |v|^2 - 2 (v.c - |c|^2 / 2): the nearest centroid maximises the bracket.
        codes[start : start + CHUNK_ROWS] = np.argmax(chunk @ centroids.T - half_norms, axis=1)
    return codes
