"""Which items pass a request's filters, as counts per trie node, and the counts used last.

Only `Availability` objects are handed out, whose counts a search reads. Shapes: N items, M nodes.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np

from model.attributes import AnyOf, Attributes, Condition, Filters
from model.availability import Availability
from model.catalog import Catalog
from model.trie import Trie
from model.types import BoolArray, IntArray, Leaf

COUNTS_MAX_BYTES = 32 * 2**20
"""Memory for the counts of filters that one worker keeps; each costs four bytes per trie node."""


class LegalItems:
    """Counts of legal items by filter; owned by one thread."""

    def __init__(
        self,
        trie: Trie,
        catalog: Catalog,
        attributes: Attributes,
        *,
        withheld: IntArray | None = None,
        max_bytes: int = COUNTS_MAX_BYTES,
    ) -> None:
        self._trie = trie
        self._catalog = catalog
        self._attributes = attributes
        self._kept_most = max(1, max_bytes // (4 * trie.node_count))
        self._kept: OrderedDict[Hashable, Availability] = OrderedDict()
        self._live = np.ones(len(catalog), dtype=bool)
        if withheld is not None:
            self._live[withheld] = False
        self.everything = Availability(trie, self._live)

    def __len__(self) -> int:
        """How many filters' counts are kept."""
        return len(self._kept)

    def passing(
        self,
        categories: Sequence[Sequence[str]],
        filters: Filters,
        leaves: tuple[Leaf, Leaf] | None = None,
    ) -> Availability:
        """Counts of the items below any of `categories` that pass all `filters`.

        Args:
            categories: paths; none lets all pass.
            filters: conditions on attributes.
            leaves: first and end of those that may pass; None for all.

        Raises:
            UnknownCategoryError: no item has such a path.
            FilterError: an attribute that the bundle does not have, or a condition of another type.
        """
        if not categories and not filters and leaves is None:
            return self.everything
        numbers = tuple(sorted({self._catalog.category(path) for path in categories}))
        key = (numbers, tuple(sorted((name, _key(each)) for name, each in filters.items())), leaves)
        if key not in self._kept:
            legal = self._below(numbers) & self._live if numbers else self._live.copy()
            if filters:
                legal &= self._attributes.passing(filters)
            if leaves is not None:
                legal[: leaves[0]] = legal[leaves[1] :] = False
            self._kept[key] = Availability(self._trie, legal)
            if len(self._kept) > self._kept_most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _below(self, categories: Sequence[int]) -> BoolArray:
        """Items with any path below one of the categories."""
        legal = np.zeros(len(self._catalog), dtype=bool)
        for number in categories:
            legal[self._catalog.category_items[number]] = True
        return legal


def _key(condition: Condition) -> tuple[str, ...]:
    """The condition as text: 1, 1.0 and true are equal as numbers and not as conditions."""
    if isinstance(condition, AnyOf):
        return ("any of", *sorted({repr(value) for value in condition.values}))
    return ("range", repr(condition.minimum), repr(condition.maximum))
