"""The default list: the order of last resort, for items that nobody has looked at yet.

A bundle keeps the ids that it begins with; all other items follow. What was not chosen by hand is
*spread*: the most popular item of every coarse category, then the second of each, and so on.
Shapes: N items, leaf order.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from model.catalog import Catalog
from model.types import AnyArray, IntArray, ItemId

DEFAULT_ITEMS: Final = 100
"""Ids that a bundle keeps where none were chosen."""


def popular_by_group(ranks: IntArray, groups: AnyArray) -> IntArray:
    """All leaves [N], group by group and in each the most popular first.

    Args:
        ranks: 0 for the most popular leaf [N].
        groups: coarse code of each leaf [N].
    """
    order: IntArray = np.lexsort((ranks, groups))
    return order


def spread(ranks: IntArray, groups: AnyArray) -> IntArray:
    """All leaves [N], the groups by turns; arguments as in `popular_by_group`."""
    order = popular_by_group(ranks, groups)
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    turns = np.empty(len(order), np.int64)
    turns[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    mixed: IntArray = np.lexsort((ranks, turns))
    return mixed


def default_order(chosen: Sequence[ItemId], catalog: Catalog, mixed: IntArray) -> IntArray:
    """All leaves [N]: the `chosen` ids that the catalogue holds, then those of `mixed` [N]."""
    first = np.array([*dict.fromkeys(catalog.leaves(chosen))], dtype=np.int64)
    return np.concatenate([first, mixed[~np.isin(mixed, first)]])
