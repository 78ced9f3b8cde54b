"""From what a user did to what the encoder reads: known items, newest `length`, oldest first."""

from collections.abc import Sequence

import numpy as np

from model.catalog import Catalog
from model.types import IntArray

DISLIKE = "dislike"
"""The one type of event with a meaning of its own: it excludes the item and is no history."""


def known_leaves(item_ids: Sequence[str], catalog: Catalog) -> IntArray:
    """Leaves of those `item_ids` that the catalogue holds, order kept; int64 [<= len(item_ids)]."""
    return np.array([*catalog.leaves(item_ids)], dtype=np.int64)


def truncate(leaves: IntArray, length: int) -> IntArray:
    """The newest `length` entries of a history; training and serving cut at this one place."""
    return leaves[max(0, len(leaves) - length) :]
