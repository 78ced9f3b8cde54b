"""The tree that people browse: the catalogue's taxonomy, below it named groups, below them items.

Every place is a range of trie nodes of one depth, and so a range of leaves: its probability is a
sum, its items are a slice. Items count where their semantic ID puts them, which is below their
primary category path; a category whose items share the code of a larger one is no place of its own.

Shapes: N items, M trie nodes, I inner nodes, L levels.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from model.errors import UnknownPlaceError
from model.strings import StringTable
from model.taxonomy import REST, Taxonomy, TaxonomyNode
from model.trie import Trie
from model.types import AnyArray, CategoryPath, Leaf

NAME_MAX = 256
"""Characters of a name; a longer title is cut."""

PlaceKind: TypeAlias = Literal["category", "group", "item"]


@dataclass(frozen=True)
class Place:
    """One node of the browsed tree."""

    path: CategoryPath
    """Names from the root, unique among the choices of one place; () is everything."""
    kind: PlaceKind
    depth: int
    """Of its trie nodes."""
    first_node: int
    end_node: int
    """Exclusive."""
    first_leaf: Leaf
    end_leaf: Leaf
    """Exclusive."""
    category: TaxonomyNode | None = None

    @property
    def name(self) -> str:
        """The last name of the path, empty for the root."""
        return self.path[-1] if self.path else ""

    @property
    def items(self) -> int:
        """Items of the catalogue here."""
        return self.end_leaf - self.first_leaf


@dataclass(frozen=True)
class BrowseTree:
    """What lies below what, and what it is called."""

    trie: Trie
    codes: AnyArray
    """Semantic IDs [N, L]."""
    taxonomies: tuple[Taxonomy, ...]
    """Of the category levels, coarse to fine; none in a bundle without one."""
    names: StringTable
    """Characteristic words of every inner node [I]."""
    titles: StringTable
    item_ids: StringTable

    @property
    def root(self) -> Place:
        """Everything."""
        category = self.taxonomies[0].nodes[0] if self.taxonomies else None
        return Place((), "category", 0, 0, 1, 0, self.trie.item_count, category)

    def find(self, path: Sequence[str]) -> Place:
        """The place that `path` names.

        A category that is the only choice of its place may be named or left out.

        Raises:
            UnknownPlaceError: there is no such place.
        """
        place = self.root
        for depth, name in enumerate(path):
            below = (*self.choices(place), *self._below(place))
            found = next((each for each in below if each.name == name), None)
            if found is None:
                raise UnknownPlaceError(path, depth)
            place = replace(found, path=tuple(path[: depth + 1]))
        return place

    def choices(self, place: Place) -> tuple[Place, ...]:
        """The next choices below a place, which together hold exactly its items; none for an item.

        Where there is but one choice, its choices take its place.
        """
        below = self._below(place)
        while len(below) == 1 and below[0].kind != "item":
            below = self._below(replace(below[0], path=place.path))
        return below

    def way(self, leaf: Leaf) -> tuple[Place, ...]:
        """The places on the way to an item, the root left out, the item last."""
        way: list[Place] = []
        place = self.root
        while place.kind != "item":
            place = next(
                each for each in self.choices(place) if each.first_leaf <= leaf < each.end_leaf
            )
            way.append(place)
        return tuple(way)

    def _below(self, place: Place) -> tuple[Place, ...]:
        if place.kind == "item":
            return ()
        if place.category is not None:
            categories = self._categories(place, place.category)
            if categories:
                return _unique(categories)
        # A category without categories below it is one trie node, like every group.
        first, end = self.trie.child_start[[place.first_node, place.first_node + 1]].tolist()
        depth = place.depth + 1
        return _unique(self._group(place.path, depth, node) for node in range(first, end))

    def _categories(self, place: Place, category: TaxonomyNode) -> list[Place]:
        """The categories right below one, and what lies in it and in none of them."""
        taxonomy = self.taxonomies[0]
        named = (node for node in taxonomy.below(category) if node.path[-1] != REST)
        below = [node for node in named if not node.is_merged]
        if not below:
            return []
        places = [
            self._category((*place.path, node.path[-1]), node.first_code, node.end_code, node)
            for node in below
        ]
        if below[0].first_code > category.first_code:
            name = f"Other {category.path[-1]}" if category.path else "Other"
            code = category.first_code
            places.append(self._category((*place.path, name), code, code + 1, None))
        return [each for each in places if each.items]

    def _category(
        self, path: CategoryPath, first_code: int, end_code: int, node: TaxonomyNode | None
    ) -> Place:
        first, end = (1 + np.searchsorted(self._coarse_codes(), [first_code, end_code])).tolist()
        return self._place(path, "category", 1, (first, end), node)

    def _group(self, above: CategoryPath, depth: int, node: int) -> Place:
        place = self._place(above, "group", depth, (node, node + 1), None)
        if place.items == 1:
            leaf = place.first_leaf
            name = self.titles[leaf] or self.item_ids[leaf]
            return replace(place, kind="item", path=(*above, name[:NAME_MAX]))
        return replace(place, path=(*above, self._name(depth, node, place.first_leaf)))

    def _name(self, depth: int, node: int, leaf: Leaf) -> str:
        if depth <= len(self.taxonomies):
            path = self.taxonomies[depth - 1].code_paths[int(self.codes[leaf, depth - 1])]
            named = [name for name in path if name != REST]
            if named:
                return named[-1] if len(named) == len(path) else f"Other {named[-1]}"
        return (self.names[node] or self.titles[leaf] or self.item_ids[leaf])[:NAME_MAX]

    def _place(
        self,
        path: CategoryPath,
        kind: PlaceKind,
        depth: int,
        nodes: tuple[int, int],
        category: TaxonomyNode | None,
    ) -> Place:
        first, end = nodes
        if first == end:
            return Place(path, kind, depth, first, end, 0, 0, category)
        starts, ends = self.trie.leaf_ranges(np.array([first, end - 1]), depth)
        return Place(path, kind, depth, first, end, int(starts[0]), int(ends[1]), category)

    def _coarse_codes(self) -> AnyArray:
        """The first code of every node of depth 1, ascending."""
        nodes = np.arange(self.trie.depth_start[1], self.trie.depth_start[2])
        codes: AnyArray = self.codes[self.trie.leaf_ranges(nodes, 1)[0], 0]
        return codes


def _unique(places: Iterable[Place]) -> tuple[Place, ...]:
    """The places with a number behind a name that one before it has."""
    taken: set[str] = set()
    used: Counter[str] = Counter()
    unique = []
    for place in places:
        name = place.name
        while name in taken:
            used[place.name] += 1
            suffix = f" ({used[place.name] + 1})"
            name = place.name[: NAME_MAX - len(suffix)] + suffix
        taken.add(name)
        unique.append(replace(place, path=(*place.path[:-1], name)))
    return tuple(unique)
