"""What a bundle knows, as text: levels, use of the codes, the tree, and one item's place in it.

Reads an opened bundle and prints; measures nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from model.bundle import Bundle
from model.types import CategoryPath, ItemId, Leaf

TITLE_WIDTH = 60


class InspectConfig(BaseModel):
    """How much is shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: int = Field(default=2, ge=1, le=20, description="levels of codes that the tree shows")
    children: int = Field(
        default=8, ge=1, description="codes shown below a node, those with most items"
    )
    neighbours: int = Field(default=10, ge=0, description="nearest items shown for an item")


@dataclass(frozen=True)
class CodeUse:
    """How one level's codes are used."""

    level: str
    kind: str
    codes: int
    """K."""
    used: int
    """Codes that at least one item has."""
    largest: int
    """Items of the most frequent code."""
    perplexity: float
    """exp(entropy) of the codes over items: how many equally frequent codes would be as varied."""


def inspect_bundle(config: InspectConfig, bundle: Bundle, console: Console) -> None:
    """Print the bundle's facts, its levels with their use of codes, and the tree."""
    manifest = bundle.manifest
    console.print(f"[bold]bundle {manifest.bundle_id}[/bold]  format {manifest.format_version}")
    console.print(
        f"{manifest.items:,} items, {manifest.nodes - manifest.items:,} inner nodes, "
        f"width {manifest.width}, histories of {manifest.history_length}, "
        f"beam width {manifest.beam_width}, fusion weight {manifest.score.fusion_weight:g}, "
        f"repeat bias {manifest.score.repeat_bias:g}"
    )
    console.print(levels_table(bundle))
    console.print(buckets_line(bundle))
    console.print(code_tree(bundle, config))


def inspect_item(config: InspectConfig, bundle: Bundle, item_id: ItemId, console: Console) -> None:
    """Print an item's codes, category paths, bucket and nearest items.

    Raises:
        UnknownItemError: the bundle does not hold the item.
    """
    catalog = bundle.catalog
    leaf = catalog.known_leaf(item_id)
    console.print(f"[bold]{escape(item_id)}[/bold]  {escape(catalog.title(leaf))}")
    console.print(f"training events: {int(bundle.popularity[leaf]):,}")
    for path in catalog.paths(leaf) or ((),):
        console.print(f"path: {_shown(path)}")
    codes = Table(title="semantic ID", title_justify="left")
    for column in ("level", "kind", "code", "items with these codes"):
        codes.add_column(column, justify="left" if column in {"level", "kind"} else "right")
    below = [end - first for first, end in _ranges(bundle, leaf)]
    for level, code, items in zip(
        bundle.manifest.levels, catalog.semantic_id(leaf), below, strict=True
    ):
        codes.add_row(level.name, level.kind, str(code), f"{items:,}")
    console.print(codes)
    console.print(neighbours_table(bundle, leaf, config.neighbours))


def code_use(bundle: Bundle) -> list[CodeUse]:
    """Return how each level's codes are used, coarse to fine."""
    uses = []
    for level, codes in zip(bundle.manifest.levels, bundle.catalog.codes.T, strict=True):
        counts = np.bincount(codes, minlength=level.codes)
        shares = counts[counts > 0] / counts.sum()
        entropy = float(-(shares * np.log(shares)).sum())
        used, largest = int((counts > 0).sum()), int(counts.max())
        uses.append(
            CodeUse(level.name, level.kind, level.codes, used, largest, float(np.exp(entropy)))
        )
    return uses


def levels_table(bundle: Bundle) -> Table:
    """Return the levels and their use of codes."""
    table = Table(title="levels, coarse to fine", title_justify="left")
    heads = ("level", "kind", "codes", "used", "dead", "largest code", "perplexity")
    for column in heads:
        table.add_column(column, justify="left" if column in {"level", "kind"} else "right")
    for use in code_use(bundle):
        counts = (use.codes, use.used, use.codes - use.used, use.largest)
        table.add_row(use.level, use.kind, *map("{:,}".format, counts), f"{use.perplexity:.1f}")
    return table


def buckets_line(bundle: Bundle) -> str:
    """Return, in words, how many items share a full semantic ID."""
    trie = bundle.tree.trie
    sizes = np.diff(trie.child_start[trie.depth_start[-3] :])
    shared = int(sizes[sizes > 1].sum())
    return (
        f"{len(sizes):,} semantic IDs; {shared:,} of {trie.item_count:,} items share theirs, "
        f"at most {int(sizes.max()):,} the same one"
    )


def code_tree(bundle: Bundle, config: InspectConfig) -> Tree:
    """Return the tree of codes with the items below each and what they have in common."""
    items = len(bundle.catalog)
    root = Tree(f"all items ({items:,})")
    _grow(root, bundle, config, (0, items), 0)
    return root


def nearest_items(bundle: Bundle, leaf: Leaf, count: int) -> list[tuple[Leaf, float]]:
    """Return the `count` items whose vectors have the largest cosine with an item's, and it."""
    vectors = bundle.tree.item_vectors
    norms = np.linalg.norm(vectors, axis=1)
    products = vectors @ vectors[leaf]
    cosines = products / np.maximum(norms * norms[leaf], np.finfo(np.float32).tiny)
    cosines[leaf] = -np.inf
    nearest = np.argsort(-cosines, kind="stable")[: min(count, len(cosines) - 1)]
    return [(int(other), float(cosines[other])) for other in nearest]


def neighbours_table(bundle: Bundle, leaf: Leaf, count: int) -> Table:
    """Return the nearest items of an item."""
    table = Table(title="nearest items by item vector", title_justify="left")
    for column in ("cosine", "item", "title", "path", "semantic ID"):
        table.add_column(column, justify="right" if column == "cosine" else "left")
    catalog = bundle.catalog
    for other, cosine in nearest_items(bundle, leaf, count):
        table.add_row(
            f"{cosine:.3f}",
            escape(catalog.item_id(other)),
            escape(catalog.title(other)[:TITLE_WIDTH]),
            _shown(catalog.path(other)),
            " ".join(map(str, catalog.semantic_id(other))),
        )
    return table


def _ranges(bundle: Bundle, leaf: Leaf) -> Iterator[tuple[int, int]]:
    """Yield the leaves (first, end) below each node on the way to a leaf, root left out."""
    trie = bundle.tree.trie
    nodes = trie.paths(np.array([leaf]))[0]
    for depth in range(1, trie.levels + 1):
        first, end = trie.leaf_ranges(nodes[depth : depth + 1], depth)
        yield int(first[0]), int(end[0])


def _grow(
    branch: Tree, bundle: Bundle, config: InspectConfig, leaves: tuple[int, int], level: int
) -> None:
    if level == min(config.depth, len(bundle.manifest.levels)):
        return
    first, end = leaves
    codes, starts = np.unique(bundle.catalog.codes[first:end, level], return_index=True)
    bounds = np.append(starts, end - first) + first
    order = np.argsort(-np.diff(bounds), kind="stable")
    shown = np.sort(order[: config.children])
    for place in shown:
        own = (int(bounds[place]), int(bounds[place + 1]))
        name = bundle.manifest.levels[level].name
        label = f"{name} {int(codes[place])}: {own[1] - own[0]:,} items"
        grown = branch.add(f"{label}  [dim]{describe(bundle, *own)}[/dim]")
        _grow(grown, bundle, config, own, level + 1)
    if len(order) > len(shown):
        rest = int(np.diff(bounds)[order[config.children :]].sum())
        branch.add(f"... {len(order) - len(shown):,} more with {rest:,} items")


def describe(bundle: Bundle, first: Leaf, end: Leaf) -> str:
    """Return what the items in a range of leaves have in common, with the most popular one's title.

    The common part of their primary category paths, which for a category's range is its name.
    """
    catalog = bundle.catalog
    common = catalog.path(first)
    for leaf in range(first + 1, end):
        common = _common(common, catalog.path(leaf))
        if not common:
            break
    popular = first + int(np.argmax(bundle.popularity[first:end]))
    name = catalog.title(popular)[:TITLE_WIDTH] or catalog.item_id(popular)
    return f"{_shown(common)}; {escape(name)}"


def _common(one: CategoryPath, other: CategoryPath) -> CategoryPath:
    for depth, (name, others) in enumerate(zip(one, other, strict=False)):
        if name != others:
            return one[:depth]
    return one[: len(other)]


def _shown(path: CategoryPath) -> str:
    return escape(" > ".join(path)) if path else "(no category)"
