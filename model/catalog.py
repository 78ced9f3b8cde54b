"""The catalogue of a bundle: items by id and by leaf, their titles, paths and semantic IDs.

Everything stays in memory-mapped arrays; a Python object exists only for what a request asks for.
Shapes: N items, L levels, G distinct category path prefixes.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from model.errors import UnknownCategoryError, UnknownItemError
from model.strings import StringIndex, StringTable
from model.types import AnyArray, CategoryPath, IntArray, ItemId, Leaf, SemanticId


@dataclass(frozen=True)
class Groups:
    """Lists of numbers, one after another: list g is `members[start[g] : start[g + 1]]`."""

    start: AnyArray
    """int64 [G + 1]"""
    members: AnyArray
    """int32"""

    @classmethod
    def build(cls, groups: Iterable[Sequence[int]]) -> "Groups":
        """Pack `groups` in their order."""
        lists = [np.asarray(group, dtype=np.int32) for group in groups]
        start = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        return cls(start, np.concatenate([np.empty(0, np.int32), *lists]))

    def __getitem__(self, group: int) -> IntArray:
        members: IntArray = self.members[self.start[group] : self.start[group + 1]]
        return members


@dataclass(frozen=True)
class Catalog:
    """All items of a bundle, numbered by leaf."""

    item_ids: StringTable
    item_index: StringIndex
    titles: StringTable
    codes: AnyArray
    """[N, L]"""
    categories: StringTable
    """Every category path and every prefix of one, as a JSON list of names."""
    category_index: StringIndex
    category_items: Groups
    """Leaves below each path, by any of an item's paths."""
    item_categories: Groups
    """Full paths of each leaf, the primary one first."""

    def __len__(self) -> int:
        return len(self.item_ids)

    def item_id(self, leaf: Leaf) -> ItemId:
        """The catalogue's own name of an item."""
        return self.item_ids[leaf]

    def leaf(self, item_id: ItemId) -> Leaf | None:
        """The leaf of an item, None when the catalogue does not hold it."""
        found = self.leaves([item_id]).tolist()
        return found[0] if found else None

    def leaves(self, item_ids: Sequence[ItemId]) -> IntArray:
        """The leaves of those `item_ids` that the catalogue holds, order kept; int64."""
        found = self.find(item_ids)
        return found[found >= 0]

    def find(self, item_ids: Sequence[ItemId]) -> IntArray:
        """The leaf of each of `item_ids` [n], -1 where the catalogue does not hold it; int64."""
        return self.item_index.find(item_ids, self.item_ids)

    def known_leaf(self, item_id: ItemId) -> Leaf:
        """The leaf of an item that must exist.

        Raises:
            UnknownItemError: it does not.
        """
        leaf = self.leaf(item_id)
        if leaf is None:
            raise UnknownItemError(item_id)
        return leaf

    def title(self, leaf: Leaf) -> str:
        """The item's title, empty when the catalogue has none."""
        return self.titles[leaf]

    def semantic_id(self, leaf: Leaf) -> SemanticId:
        """The item's codes, coarse to fine."""
        return tuple(int(code) for code in self.codes[leaf])

    def paths(self, leaf: Leaf) -> tuple[CategoryPath, ...]:
        """All category paths of an item, the primary one first; none when it has none."""
        return tuple(self._path(number) for number in self.item_categories[leaf])

    def path(self, leaf: Leaf) -> CategoryPath:
        """The primary category path of an item, empty when it has none."""
        numbers = self.item_categories[leaf]
        return self._path(int(numbers[0])) if len(numbers) else ()

    def category(self, path: Sequence[str]) -> int:
        """The number of a category path or prefix of one.

        Raises:
            UnknownCategoryError: no item has such a path.
        """
        wanted = category_key(path)
        for number in self.category_index.candidates(wanted):
            if self.categories[number] == wanted:
                return int(number)
        raise UnknownCategoryError(path)

    def _path(self, number: int) -> CategoryPath:
        return tuple(json.loads(self.categories[number]))


def category_key(path: Sequence[str]) -> str:
    """The one spelling of a path as a string; names may hold any character."""
    return json.dumps(list(path), ensure_ascii=False, separators=(",", ":"))


def build_catalog(
    item_ids: Sequence[str],
    titles: Sequence[str],
    paths: Sequence[Sequence[Sequence[str]]],
    codes: AnyArray,
) -> Catalog:
    """Build the catalogue of items in leaf order; `paths` holds each item's full paths."""
    full = [[tuple(path) for path in item_paths if path] for item_paths in paths]
    prefixes = sorted({p[:end] for item in full for p in item for end in range(1, len(p) + 1)})
    number = {prefix: at for at, prefix in enumerate(prefixes)}
    below: list[list[int]] = [[] for _ in prefixes]
    for leaf, item_paths in enumerate(full):
        for prefix in {p[:end] for p in item_paths for end in range(1, len(p) + 1)}:
            below[number[prefix]].append(leaf)
    keys = [category_key(prefix) for prefix in prefixes]
    return Catalog(
        item_ids=StringTable.build(item_ids),
        item_index=StringIndex.build(item_ids),
        titles=StringTable.build(titles),
        codes=codes,
        categories=StringTable.build(keys),
        category_index=StringIndex.build(keys),
        category_items=Groups.build(below),
        item_categories=Groups.build([[number[p] for p in dict.fromkeys(item)] for item in full]),
    )
