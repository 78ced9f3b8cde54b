"""The catalogue of a bundle as people have edited it: from all that was said of items to a bundle.

Every state is made from the bundle as it was exported and all edits, never from the state before,
so that replicas with the same edits serve the same, whatever way they came. What has been computed
of an item is kept until something else is said of it. Owned by one thread at a time.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from model.bundle import Bundle
from model.edited_bundle import old_places, with_items
from model.edits import ItemEdit
from model.insertion import NewItems, NodeSums
from model.new_items import ItemEncoder, NewItem
from model.types import AnyArray, ItemId

ENCODED_AT_ONCE = 256
"""Items of which vectors are made at once; bounds memory."""


class LiveCatalogue:
    """Makes the states of one bundle's catalogue."""

    def __init__(self, bundle: Bundle) -> None:
        """Begin with the bundle as it was exported."""
        self._exported = bundle
        self._sums = NodeSums(bundle.tree)
        self._encoder: ItemEncoder | None = None
        self._encoded: dict[ItemId, tuple[NewItem, AnyArray, AnyArray]] = {}
        self._items: dict[ItemId, NewItem] = {}
        self._state = bundle

    def with_edits(self, edits: Mapping[ItemId, ItemEdit], version: int, now: float) -> Bundle:
        """Return the bundle with all `edits` of the catalogue's `version`, at `now` (Unix time).

        Where nothing new is said of what items are, only what may be recommended changes.

        Raises:
            BundleError: the bundle lacks what encodes items, as those of earlier releases do.
            ConfigError: a sentence encoder needs a package that is not installed.
        """
        items = {item_id: edit.item for item_id, edit in edits.items() if edit.item is not None}
        if items != self._items:
            self._state = self._with_items([items[each] for each in sorted(items)])
            self._items = items
        return self.with_offers(edits, version, now)

    def with_offers(self, edits: Mapping[ItemId, ItemEdit], version: int, now: float) -> Bundle:
        """As `with_edits`, of the items that were made last; those that went since are withheld.

        It needs no encoder, for when items cannot be made.
        """
        gone = [each for each in self._items if each not in edits or edits[each].item is None]
        withheld = gone + [item_id for item_id, edit in edits.items() if not edit.allows(now)]
        leaves = np.array(sorted(self._state.catalog.leaves(withheld)), dtype=np.int64)
        # Computed once for all offers of these items, and not while a request waits.
        state = self._state
        _ = state.shares_before, state.popular_by_category, state.default_order
        return state.as_of(version, leaves)

    def open_encoder(self) -> ItemEncoder:
        """Return what gives items codes and vectors; opened once, which any thread may do.

        Raises:
            BundleError, ConfigError: as of `with_edits`.
        """
        if self._encoder is None:
            self._encoder = ItemEncoder.open(self._exported)
        return self._encoder

    def _with_items(self, items: Sequence[NewItem]) -> Bundle:
        if not items:
            self._encoded = {}
            return self._exported
        settled = dict(old_places(self._exported, items))
        fresh = [item for row, item in enumerate(items) if row not in settled]
        self._encode(fresh)
        placed = self._placed(items, settled)
        return with_items(self._exported, items, placed, sums=self._sums)

    def _encode(self, items: Sequence[NewItem]) -> None:
        """Keep codes and vectors of exactly these items."""
        kept = {
            item.item_id: self._encoded[item.item_id]
            for item in items
            if item.item_id in self._encoded and self._encoded[item.item_id][0] == item
        }
        wanted = [item for item in items if item.item_id not in kept]
        for start in range(0, len(wanted), ENCODED_AT_ONCE):
            some = wanted[start : start + ENCODED_AT_ONCE]
            found = self.open_encoder().encode(some)
            for item, codes, vector in zip(some, found.codes, found.vectors, strict=True):
                kept[item.item_id] = (item, codes, vector)
        self._encoded = kept

    def _placed(self, items: Sequence[NewItem], settled: Mapping[int, int]) -> NewItems:
        """Codes, vectors and biases of `items`; those of the bundle where they are `settled`."""
        tree, catalog = self._exported.tree, self._exported.catalog
        codes, vectors, biases = [], [], []
        for row, item in enumerate(items):
            leaf = settled.get(row)
            if leaf is None:
                _, its_codes, vector = self._encoded[item.item_id]
                leaf = catalog.leaf(item.item_id)
            else:
                its_codes, vector = catalog.codes[leaf], tree.item_vectors[leaf]
            codes.append(its_codes)
            vectors.append(vector)
            biases.append(0.0 if leaf is None else tree.biases[tree.trie.item_start + leaf])
        return NewItems(
            [item.item_id for item in items],
            np.array(codes, dtype=np.int64),
            np.array(vectors, dtype=np.float32),
            np.array(biases, dtype=np.float32),
        )
