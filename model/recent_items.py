"""The leaves of the items that requests named lately.

What a user has seen is named again with every request of the user, up to a thousand item ids.
Finding them in the index of a large catalogue, which no processor's cache holds, takes several
times as long as finding them here.
"""

from collections.abc import Sequence
from itertools import compress, repeat

import numpy as np

from model.catalog import Catalog
from model.types import IntArray, ItemId, Leaf

ITEMS_MAX = 65_536
"""About ten megabytes."""
_NEW = -1


class RecentItems:
    """Item ids of one catalogue with their leaves; owned by one thread."""

    def __init__(self, catalog: Catalog, *, items_max: int = ITEMS_MAX) -> None:
        """Remember items of `catalog`, about `items_max` of them at most."""
        self._catalog = catalog
        self._items_max = items_max
        self._leaves: dict[ItemId, Leaf] = {}

    def __len__(self) -> int:
        """How many items are remembered."""
        return len(self._leaves)

    def leaves(self, item_ids: Sequence[ItemId]) -> IntArray:
        """The leaves of those `item_ids` that the catalogue holds, order kept; int64."""
        known = map(self._leaves.get, item_ids, repeat(_NEW))
        leaves = np.fromiter(known, np.int64, len(item_ids))
        is_new = leaves == _NEW
        if is_new.any():
            names = list(compress(item_ids, is_new.tolist()))
            leaves[is_new] = self._catalog.find(names)
            self._remember(names, leaves[is_new])
        return leaves[leaves >= 0]

    def _remember(self, names: Sequence[ItemId], leaves: IntArray) -> None:
        """Keep what the catalogue holds; when there is enough, begin anew."""
        if len(self._leaves) >= self._items_max:
            self._leaves.clear()
        found = (leaves >= 0).tolist()
        known = zip(compress(names, found), compress(leaves.tolist(), found), strict=True)
        self._leaves.update(known)
