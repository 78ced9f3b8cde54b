"""The items nearest to an item, by the angle between their vectors.

Items are numbered by semantic ID, so what is alike mostly lies near: where a catalogue is too large
to be read for one question, only the items around it are.
"""

from dataclasses import dataclass

import numpy as np

from model.types import FloatArray, Leaf

CANDIDATES_MAX = 100_000
"""Items that are looked at; of width 256 they are 100 MB."""
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class Neighbour:
    """An item near another one."""

    leaf: Leaf
    likeness: float
    """Cosine of the angle between the two vectors, -1 .. 1."""


def neighbours(item_vectors: FloatArray, leaf: Leaf, k: int) -> list[Neighbour]:
    """Return the `k` items most like that of `leaf`, itself left out, the most alike first.

    Args:
        item_vectors: of all items [N, D], in the order of semantic IDs.
        leaf: whose neighbours are asked for.
        k: how many; fewer where there are fewer items.
    """
    first = min(max(0, leaf - CANDIDATES_MAX // 2), max(0, len(item_vectors) - CANDIDATES_MAX))
    near = item_vectors[first : first + CANDIDATES_MAX]
    norms = np.maximum(np.linalg.norm(near, axis=1), _SMALLEST_NORM)
    likeness = near @ item_vectors[leaf] / (norms * norms[leaf - first])
    likeness[leaf - first] = -np.inf
    nearest = np.argsort(-likeness, kind="stable")[: min(k, len(near) - 1)]
    return [Neighbour(first + int(each), float(likeness[each])) for each in nearest]
