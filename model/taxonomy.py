"""The category tree as codes: every node is a contiguous range.

Paths are tuples of names, coarse to fine. In the sorted order of tuples a node comes right before
everything below it, so the rank of a path among the sorted coded paths *is* its depth-first
number, and the codes at or below a node are a slice of that order.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from model.types import CategoryPath

UNCATEGORISED: CategoryPath = ("Uncategorised",)
"""The path of an item that has none."""

REST = ""
"""The name of the child that stands for the items of a category that are in none below it, where
all paths are to have the same length. No category is named so."""


@dataclass(frozen=True)
class TaxonomyNode:
    """One category and the codes at or below it."""

    path: CategoryPath
    first_code: int
    end_code: int
    """Exclusive."""
    items: int
    """Items at or below the node."""
    is_merged: bool
    """The node has no code of its own: its items share the code of an ancestor, its only code."""

    def to_json(self) -> dict[str, Any]:
        """Return the node as taxonomy.json spells it."""
        return {
            "path": list(self.path),
            "first_code": self.first_code,
            "end_code": self.end_code,
            "items": self.items,
            "merged": self.is_merged,
        }


@dataclass(frozen=True)
class Taxonomy:
    """The category tree of one level."""

    nodes: tuple[TaxonomyNode, ...]
    """Every node that has items at or below it, depth-first; the root has the path ()."""
    code_paths: tuple[CategoryPath, ...]
    """The path that each code stands for, [K]."""

    def code(self, path: CategoryPath) -> int | None:
        """Return the code of an item at `path`, () meaning none given.

        A path that the catalogue does not hold gets the code of the deepest known node above it;
        if that node has no items of its own, the first code below it. None if nothing is known.
        """
        known = path or UNCATEGORISED
        for depth in range(len(known), 0, -1):
            node = self._node_of.get(known[:depth])
            if node is not None:
                return node.first_code
        root = self._node_of.get(())
        return root.first_code if root is not None and () in self.code_paths else None

    def to_json(self) -> dict[str, Any]:
        """Return the tree as taxonomy.json spells it."""
        return {
            "nodes": [node.to_json() for node in self.nodes],
            "code_paths": [list(path) for path in self.code_paths],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Taxonomy":
        """Read what `to_json` wrote.

        Raises:
            KeyError: a field is missing.
        """
        nodes = tuple(
            TaxonomyNode(
                path=tuple(node["path"]),
                first_code=int(node["first_code"]),
                end_code=int(node["end_code"]),
                items=int(node["items"]),
                is_merged=bool(node["merged"]),
            )
            for node in value["nodes"]
        )
        return cls(nodes, tuple(tuple(path) for path in value["code_paths"]))

    def below(self, node: TaxonomyNode) -> tuple[TaxonomyNode, ...]:
        """Return the categories right below one, in order."""
        return tuple(self._below.get(node.path, ()))

    @cached_property
    def _below(self) -> dict[CategoryPath, list[TaxonomyNode]]:
        below: dict[CategoryPath, list[TaxonomyNode]] = {}
        for node in self.nodes:
            if node.path:
                below.setdefault(node.path[:-1], []).append(node)
        return below

    @cached_property
    def _node_of(self) -> dict[CategoryPath, TaxonomyNode]:
        return {node.path: node for node in self.nodes}


def verify_partition(taxonomy: Taxonomy, codes: int) -> None:
    """Check that a category holds its own code, if any, and then its categories' codes in order.

    Raises:
        ValueError: it does not, or the codes are not 0 .. codes - 1.
    """
    root = taxonomy.nodes[0] if taxonomy.nodes else None
    if root is None or root.path or (root.first_code, root.end_code) != (0, codes):
        message = f"the root is not the codes 0 .. {codes - 1}"
        raise ValueError(message)
    if len(taxonomy.code_paths) != codes:
        message = f"{len(taxonomy.code_paths)} codes have a path and the level has {codes}"
        raise ValueError(message)
    for node in taxonomy.nodes:
        below = [each for each in taxonomy.below(node) if not each.is_merged]
        if node.is_merged:
            continue
        own = taxonomy.code_paths[node.first_code] == node.path
        expected = node.first_code + own
        for each in below:
            if each.first_code != expected or each.end_code <= each.first_code:
                message = f"the codes of {each.path!r} do not follow the ones before"
                raise ValueError(message)
            expected = each.end_code
        if expected != node.end_code:
            message = f"the codes of {node.path!r} end elsewhere than the ones below"
            raise ValueError(message)


def build_taxonomy(paths: Iterable[CategoryPath], max_codes: int) -> Taxonomy:
    """Number the categories of `paths`, one per item, with at most `max_codes` codes.

    Categories that hold items themselves get a code. While there are too many, the leaf with the
    fewest items is merged into its parent (of equals the deepest, then the first in order). An
    empty path counts as "Uncategorised".
    """
    own_items = Counter(path or UNCATEGORISED for path in paths)
    total_items: Counter[CategoryPath] = Counter()
    for path, items in own_items.items():
        for depth in range(len(path) + 1):
            total_items[path[:depth]] += items
    coded = sorted(_merge_leaves(own_items, total_items, max_codes))
    code_of = {path: code for code, path in enumerate(coded)}
    nodes = tuple(_node(path, total_items[path], coded, code_of) for path in sorted(total_items))
    return Taxonomy(nodes, tuple(coded))


def common_root(paths: Iterable[CategoryPath]) -> CategoryPath:
    """Return the longest path that starts every non-empty path of `paths`."""
    distinct = {path for path in paths if path}
    if not distinct:
        return ()
    low, high = min(distinct), max(distinct)
    depth = 0
    while depth < min(len(low), len(high)) and low[depth] == high[depth]:
        depth += 1
    return low[:depth]


def spread_paths(
    paths: Sequence[CategoryPath], root: CategoryPath, levels: int
) -> list[list[CategoryPath]]:
    """Return, for each of `levels` levels, every item's path at that level.

    Level i holds the first i names below `root`: deeper paths are cut, shallower ones filled with
    `REST`. A single level holds the full paths, and an empty path stays empty.
    """
    if levels == 1:
        return [list(paths)]
    depths = range(len(root) + 1, len(root) + levels + 1)
    return [[_of_depth(path, depth) for path in paths] for depth in depths]


def _of_depth(path: CategoryPath, depth: int) -> CategoryPath:
    return (*path[:depth], *(REST,) * (depth - len(path))) if path else path


def path_codes(paths: Sequence[CategoryPath], taxonomy: Taxonomy) -> npt.NDArray[np.int32]:
    """Return the code int32 [N] of every item's path; 0 where nothing of a path is known."""
    code_of = {path: taxonomy.code(path) or 0 for path in set(paths)}
    return np.fromiter((code_of[path] for path in paths), dtype=np.int32, count=len(paths))


def _merge_leaves(
    own_items: Mapping[CategoryPath, int], total_items: Mapping[CategoryPath, int], max_codes: int
) -> set[CategoryPath]:
    """Return the paths that keep a code of their own, at most `max_codes`."""
    held = dict(own_items)
    children = Counter(path[:-1] for path in total_items if path)
    # A merged child's items add up in its parent, which becomes a leaf when the last child is gone.
    leaves = [_LeafRank.of(path, held[path]) for path in total_items if not children[path]]
    heapq.heapify(leaves)
    while len(held) > max_codes:
        path = heapq.heappop(leaves).path
        parent = path[:-1]
        held[parent] = held.get(parent, 0) + held.pop(path)
        children[parent] -= 1
        if not children[parent]:
            heapq.heappush(leaves, _LeafRank.of(parent, held[parent]))
    return set(held)


@dataclass(frozen=True, order=True)
class _LeafRank:
    """Orders leaves by how readily they merge."""

    items: int
    height: int
    path: CategoryPath

    @classmethod
    def of(cls, path: CategoryPath, items: int) -> "_LeafRank":
        return cls(items, -len(path), path)


def _node(
    path: CategoryPath,
    items: int,
    coded: Sequence[CategoryPath],
    code_of: Mapping[CategoryPath, int],
) -> TaxonomyNode:
    depth = len(path)
    first = bisect_left(coded, path)
    end = bisect_right(coded, path, lo=first, key=lambda other: other[:depth])
    if end > first:
        return TaxonomyNode(path, first, end, items, is_merged=False)
    ancestor = path
    while ancestor not in code_of:
        ancestor = ancestor[:-1]
    code = code_of[ancestor]
    return TaxonomyNode(path, code, code + 1, items, is_merged=True)
