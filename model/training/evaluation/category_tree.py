"""The category tree of a bundle in numbers: what the first codes can tell, level by level."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from pydantic import BaseModel, ConfigDict

from model.bundle import Bundle
from model.taxonomy import common_root

HEADS = (
    "level",
    "nodes",
    "children",
    "most children",
    "items per node",
    "most items",
    "filled",
    "bits",
)


class TreeLevel(BaseModel):
    """One category level."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    nodes: int
    """Different paths down to here; nodes of equal name below different parents are two."""
    children: float
    """Mean number of nodes below one of the level above."""
    most_children: int
    items: float
    """Mean number of items below a node."""
    most_items: int
    filled: int
    """Items whose path ends above, so that a marked child holds them."""
    bits: float
    """Entropy of the node of an item drawn at random."""

    def cells(self) -> list[str]:
        """The level as `HEADS` wants it."""
        return [
            self.name,
            f"{self.nodes:,}",
            f"{self.children:.1f}",
            f"{self.most_children:,}",
            f"{self.items:.1f}",
            f"{self.most_items:,}",
            f"{self.filled:,}",
            f"{self.bits:.2f}",
        ]


class CategoryTree(BaseModel):
    """The levels, and how deep the paths of the catalogue are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    levels: list[TreeLevel]
    """Coarse to fine; none where clusters of texts stand in for categories."""
    depths: dict[int, int]
    """Items by the number of names in their primary path, below the names that all share."""
    cut: int
    """Items whose path is deeper than the levels, so that its last names have no code."""

    def sentence(self) -> str:
        """Depth of the paths in words."""
        by_depth = ", ".join(f"{depth}: {items:,}" for depth, items in self.depths.items())
        return f"Items by depth of their category path: {by_depth}; cut: {self.cut:,}."


def category_tree(bundle: Bundle) -> CategoryTree:
    """Return the shape of a bundle's category tree."""
    catalog = bundle.catalog
    paths = [catalog.path(leaf) for leaf in range(len(catalog))]
    root = common_root(paths)
    depths = Counter(max(0, len(path) - len(root)) for path in paths)
    levels = list(_levels(bundle, depths))
    # A single level holds whole paths: nothing is cut there, and nothing filled.
    deepest = len(levels) if len(levels) > 1 else max(depths)
    return CategoryTree(
        levels=levels,
        depths=dict(sorted(depths.items())),
        cut=sum(items for depth, items in depths.items() if depth > deepest),
    )


def _levels(bundle: Bundle, depths: Counter[int]) -> Iterator[TreeLevel]:
    trie = bundle.tree.trie
    names = [level.name for level in bundle.manifest.levels if level.kind == "category"]
    for depth, name in enumerate(names, start=1):
        above, here, below = trie.depth_start[depth - 1 : depth + 2]
        first, end = trie.leaf_ranges(np.arange(here, below), depth)
        items = (end - first).astype(np.float64)
        children = np.diff(trie.child_start[above : here + 1])
        shares = items / items.sum()
        yield TreeLevel(
            name=name,
            nodes=len(items),
            children=float(children.mean()),
            most_children=int(children.max()),
            items=float(items.mean()),
            most_items=int(items.max()),
            filled=sum(depths[at] for at in range(depth)) if len(names) > 1 else 0,
            bits=float(-(shares * np.log2(shares)).sum()) + 0.0,
        )
