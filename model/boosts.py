"""Boosts: what is added to the scores of items that a shop wants shown more, or less.

Shapes: N items, leaf order, S different sums of shifts.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from model.attributes import Attributes, Condition
from model.catalog import Catalog
from model.errors import BoostError, FilterError, UnknownCategoryError
from model.types import BoolArray, CategoryPath, FloatArray, IntArray, ItemId

KEPT_MOST: Final = 8
"""Sets of boosts whose sums one worker keeps; each costs eight bytes per item."""
POOLS_MOST: Final = 8
"""Searches that the boosts of one query cost besides."""
_NEAR: Final = 0.05
"""Sums that differ by no more than this are searched together first, where there are too many."""


@dataclass(frozen=True)
class Boost:
    """A shift of the score of the items that fulfil all of its conditions."""

    shift: float
    """Added to the score, which is a log-probability: 0.7 doubles, 2.3 is ten times as likely."""
    items: tuple[ItemId, ...] = ()
    """One of these; none lets all pass. Unknown ids are ignored."""
    categories: tuple[CategoryPath, ...] = ()
    """With a path below one of these; none lets all pass."""
    filters: tuple[tuple[str, Condition], ...] = ()
    """Attribute and condition; an item must pass all."""


@dataclass(frozen=True)
class Boosted:
    """What the boosts of a query add to the score of every item."""

    sums: FloatArray
    """[N]"""
    different: FloatArray
    """The sums that there are, falling [S]."""
    which: IntArray
    """Place of each item's sum among these [N]."""

    @classmethod
    def by(cls, sums: FloatArray) -> "Boosted":
        """Boosted by these sums [N]."""
        falling, which = np.unique(-sums, return_inverse=True)
        return cls(sums, -falling, which.astype(np.int32))

    def pools(self, legal: BoolArray, found: int) -> Iterator[BoolArray]:
        """Items [N] to be searched for apart, by what boosts add to them, the most first.

        Among items to which the same is added, the log-probability tells the best. Those with the
        lowest sum need no search of their own: whichever of them is one of the best is so among all
        items, by its log-probability alone.

        Args:
            legal: which items may be found [N].
            found: how many items each search finds.
        """
        sizes = np.bincount(self.which[legal], minlength=len(self.different))
        there = np.flatnonzero(sizes)[:-1]
        for first, end in bands(self.different[there], sizes[there], found):
            yield (self.which >= there[first]) & (self.which <= there[end - 1])


def bands(sums: FloatArray, sizes: IntArray, found: int) -> list[tuple[int, int]]:
    """Begin and end of at most `POOLS_MOST` bands of neighbouring sums, all of them together.

    A band is one sum, or several of which one search finds all items. Where these would be too
    many, sums near each other are one band, too: within `_NEAR`, or less than twice as far apart
    as they have to be.

    Args:
        sums: falling [S].
        sizes: items with each sum [S].
        found: how many items a search finds.
    """
    before = np.concatenate([[0], np.cumsum(sizes)])
    spread = 0.0
    cuts = [0]
    while cuts[-1] < len(sums):
        if len(cuts) > POOLS_MOST:
            spread = max(2 * spread, _NEAR)
            cuts = [0]
        start = cuts[-1]
        near = np.searchsorted(-sums, spread - sums[start], side="right")
        few = np.searchsorted(before, before[start] + found, side="right") - 1
        cuts.append(int(max(near, few)))
    return [*pairwise(cuts)]


class BoostSums:
    """Adds up the boosts of a query for every item; owned by one thread."""

    def __init__(self, catalog: Catalog, attributes: Attributes) -> None:
        self._catalog = catalog
        self._attributes = attributes
        self._kept: OrderedDict[tuple[Boost, ...], Boosted] = OrderedDict()

    def of(self, boosts: Sequence[Boost]) -> Boosted | None:
        """The sum of the shifts of every item; None where nothing is shifted.

        Raises:
            BoostError: no item has such a path, or the bundle such an attribute, or a condition is
                of another type.
        """
        if not boosts:
            return None
        key = tuple(boosts)
        if key not in self._kept:
            sums = np.zeros(len(self._catalog), np.float32)
            for place, boost in enumerate(key):
                try:
                    sums[self._boosted(boost)] += np.float32(boost.shift)
                except (UnknownCategoryError, FilterError) as error:
                    raise BoostError(place, error) from None
            self._kept[key] = Boosted.by(sums)
            if len(self._kept) > KEPT_MOST:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        boosted = self._kept[key]
        return boosted if boosted.sums.any() else None

    def _boosted(self, boost: Boost) -> BoolArray:
        """Which items fulfil the conditions [N]."""
        passing = np.ones(len(self._catalog), dtype=bool)
        if boost.items:
            passing[:] = False
            passing[[*self._catalog.leaves(boost.items)]] = True
        if boost.categories:
            below = np.zeros(len(self._catalog), dtype=bool)
            for path in boost.categories:
                below[self._catalog.category_items[self._catalog.category(path)]] = True
            passing &= below
        if boost.filters:
            passing &= self._attributes.passing(dict(boost.filters))
        return passing
