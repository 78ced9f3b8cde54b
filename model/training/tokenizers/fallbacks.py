"""What stands in for a text that an item does not have."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.training.embedding.text_encoder import unit_rows
from model.types import FloatArray


@dataclass(frozen=True)
class FilledVectors:
    """A level's vectors [N, E] after fallbacks, and how many items took which source."""

    vectors: FloatArray
    sources: dict[str, int]


def fill(sources: Sequence[tuple[str, FloatArray]]) -> FilledVectors:
    """Take each row from the first of `sources`, (name, [N, E]), where it is not zero.

    Rows that are zero everywhere stay zero and count as "none".
    """
    filled = np.zeros_like(sources[0][1])
    is_open = np.ones(len(filled), dtype=np.bool_)
    used: dict[str, int] = {}
    for name, vectors in sources:
        taken = is_open & vectors.any(axis=1)
        filled[taken] = vectors[taken]
        used[name] = int(taken.sum())
        is_open &= ~taken
    used["none"] = int(is_open.sum())
    return FilledVectors(filled, used)


def brand_and_remainder(brand: FloatArray, title: FloatArray, centroids: FloatArray) -> FloatArray:
    """Return the brand plus what the title says beyond its code, unit rows [N, E].

    The remainder is scaled to length 1 before it is added, else the brand would drown it.

    Args:
        brand: [N, E], zero where unknown.
        title: [N, E], zero where the item has none: then there is no remainder either.
        centroids: [N, E], the centroid of each item's title code.
    """
    has_title = title.any(axis=1, keepdims=True)
    remainder = unit_rows(np.where(has_title, title - centroids, np.float32(0)))
    return unit_rows(brand + remainder)
