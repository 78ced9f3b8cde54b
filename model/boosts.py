"""Boosts: what is added to the scores of items that a shop wants shown more, or less.

Shapes: N items, leaf order.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from model.attributes import Attributes, Condition
from model.catalog import Catalog
from model.types import BoolArray, CategoryPath, FloatArray, ItemId

KEPT_MOST: Final = 8
"""Sets of boosts whose sums one worker keeps; each costs four bytes per item."""


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


class BoostSums:
    """Adds up the boosts of a query for every item; owned by one thread."""

    def __init__(self, catalog: Catalog, attributes: Attributes) -> None:
        self._catalog = catalog
        self._attributes = attributes
        self._kept: OrderedDict[tuple[Boost, ...], FloatArray] = OrderedDict()

    def of(self, boosts: Sequence[Boost]) -> FloatArray | None:
        """The sum of the shifts of every item [N]; None where nothing is shifted.

        Raises:
            UnknownCategoryError: no item has such a path.
            FilterError: an attribute that the bundle does not have, or a condition of another type.
        """
        if not boosts:
            return None
        key = tuple(boosts)
        if key not in self._kept:
            sums = np.zeros(len(self._catalog), np.float32)
            for boost in key:
                sums[self._boosted(boost)] += np.float32(boost.shift)
            self._kept[key] = sums
            if len(self._kept) > KEPT_MOST:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        sums = self._kept[key]
        return sums if sums.any() else None

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
