"""A synthetic web shop's catalogue: tree, series, texts and which leaves lead to which.

Items are numbered in tree order, so every department, category, leaf, section and series is a
range of numbers. Knows nothing of users. Letters: N items, M nodes of the category tree.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from model.training.synthesis.words import (
    FAMILIES,
    SECTIONS,
    SERIES_NAMES,
    TREE,
    brand_name,
    plural,
    series_name,
)

Numbers: TypeAlias = npt.NDArray[np.int64]
Weights: TypeAlias = npt.NDArray[np.float64]

ROOT = 0
"""The node of the whole catalogue."""
DEPARTMENT, CATEGORY, LEAF, SECTION = range(4)
"""Rows of `Shop.nodes`, broad to narrow."""

_ITEMS_PER_LEAF = 18
_SERIES_SIZE = 8
_SMALLEST_LEAF, _LARGE_LEAF = 8, 200
_SMALLEST_SECTION, _SECTION_SIZE = 5, 12
_SERIES_PER_BRAND = 4
_ZIPF_EXPONENT = 0.8
_FAMILY_SIZE = 3
_MISSING = {"title": 0.02, "brand": 0.08, "description": 0.12}
_TWO_PATHS = 0.06


@dataclass(frozen=True)
class Shop:
    """Where every item stands.

    Attributes:
        paths: Names of each node from coarse to fine [M]; empty for the root.
        start: First item of each node [M].
        end: One past its last item [M].
        nodes: Department, category, leaf and section node of each item [4, N]; the section is the
            leaf where a leaf has none.
        series: Series of each item [N], numbered in tree order.
        series_start: First item of each item's series [N].
        series_size: Items in each item's series [N], at least 4.
        weight: Popularity of each item inside the catalogue [N], sums to 1.
        cumulative: Weight of all items before each item [N + 1].
        related: The two leaves to which each leaf leads [M, 2]; only the rows of leaves count.
    """

    paths: list[tuple[str, ...]]
    start: Numbers
    end: Numbers
    nodes: Numbers
    series: Numbers
    series_start: Numbers
    series_size: Numbers
    weight: Weights
    cumulative: Weights
    related: Numbers

    def __len__(self) -> int:
        return len(self.series)


def build_shop(items: int, rng: np.random.Generator) -> Shop:
    """Lay out a shop of `items` items, at least 100."""
    tree = _build_tree(items, rng)
    in_section = _series_counts(tree.sizes)  # series per section
    sizes = _series_sizes(tree.sizes, in_section)
    series = np.repeat(np.arange(len(sizes)), sizes)
    section_of_series = np.repeat(np.arange(len(tree.sizes)), in_section)
    nodes = np.repeat(tree.chains, tree.sizes, axis=1)
    weight = (
        np.exp(rng.normal(0.0, 0.5, len(tree.paths)))[nodes[LEAF]]
        * _zipf_within(section_of_series, rng)[series]
        * _zipf_within(series, rng)
    )
    cumulative = np.concatenate([[0.0], np.cumsum(weight / weight.sum())])
    return Shop(
        paths=tree.paths,
        start=tree.start,
        end=tree.end,
        nodes=nodes,
        series=series,
        series_start=np.repeat(np.cumsum(sizes) - sizes, sizes),
        series_size=np.repeat(sizes, sizes),
        weight=np.diff(cumulative),
        cumulative=cumulative,
        related=_related_leaves(tree, rng),
    )


def catalogue(shop: Shop, item_ids: pl.Series, rng: np.random.Generator) -> pl.DataFrame:
    """Return the items as a shop would export them, ascending by item_id.

    Some titles, brands and descriptions are missing, some items stand on two paths.

    Args:
        shop: The layout.
        item_ids: Item id of each item [N].
        rng: Source of chance.
    """
    path = pl.Series([[list(path)] for path in shop.paths], dtype=pl.List(pl.List(pl.String)))
    leaf, section = shop.nodes[LEAF], shop.nodes[SECTION]
    second = np.where(rng.random(len(shop)) < _TWO_PATHS, shop.related[leaf, 0], ROOT)
    frame = _words(shop, rng).select(
        item_ids.alias("item_id"),
        pl.format("{} {} {} {}", "brand", "series", "product", pl.col("place") + 1).alias("title"),
        path.gather(section).alias("first"),
        path.gather(second).alias("second"),
        "brand",
        pl.format(
            "From the {} family: made of {}, for {}. A {} of our {} range.",
            *("family", "material", "use", "product", "section"),
        ).alias("description"),
    )
    return frame.select(
        "item_id",
        _with_gaps("title", len(shop), rng),
        pl.when(pl.Series(second == ROOT))
        .then("first")
        .otherwise(pl.col("first").list.concat("second"))
        .alias("categories"),
        _with_gaps("brand", len(shop), rng),
        _with_gaps("description", len(shop), rng),
    ).sort("item_id")


@dataclass(frozen=True)
class _Tree:
    """The category tree; S sections (leaves without sections count as one)."""

    paths: list[tuple[str, ...]]
    start: Numbers  # [M]
    end: Numbers  # [M]
    chains: Numbers  # [4, S] nodes from department to section
    sizes: Numbers  # [S] items


def _build_tree(items: int, rng: np.random.Generator) -> _Tree:
    leaves = _choose_leaves(items, rng)
    share = rng.dirichlet(np.full(len(leaves), 3.0))
    sizes = _SMALLEST_LEAF + rng.multinomial(items - _SMALLEST_LEAF * len(leaves), share)
    numbers: dict[tuple[str, ...], int] = {(): ROOT}
    chains, section_sizes = [], []
    for leaf, size in zip(leaves, sizes.tolist(), strict=True):
        sections = _sections(size, rng)
        for number, name in enumerate(sections):
            full = leaf if name is None else (*leaf, f"{name} {leaf[-1]}")
            nodes = [numbers.setdefault(full[:depth], len(numbers)) for depth in (1, 2, 3)]
            chains.append([*nodes, numbers.setdefault(full, len(numbers))])
            section_sizes.append((size + number) // len(sections))
    chain_array, size_array = np.array(chains).T, np.array(section_sizes)
    begins = np.cumsum(size_array) - size_array
    start, end = np.full(len(numbers), items), np.zeros(len(numbers), dtype=np.int64)
    for nodes in (np.full_like(begins, ROOT), *chain_array):
        np.minimum.at(start, nodes, begins)
        np.maximum.at(end, nodes, begins + size_array)
    return _Tree(list(numbers), start, end, chain_array, size_array)


def _choose_leaves(items: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Return department, category and product of each leaf, in tree order."""
    leaves = min(max(items // _ITEMS_PER_LEAF, 8), 300)
    departments = min(max(round(leaves ** (1 / 3)), 2), 12)
    categories = min(max(round((leaves / departments) ** 0.5), 2), 5)
    products = min(max(round(leaves / departments / categories), 2), 5)
    return [
        (department, category, plural(product))
        for department in _some(list(TREE), departments, rng)
        for category in _some(list(TREE[department]), categories, rng)
        for product in _some(TREE[department][category], products, rng)
    ]


def _some(names: list[str], count: int, rng: np.random.Generator) -> list[str]:
    return [names[number] for number in sorted(rng.permutation(len(names))[:count].tolist())]


def _sections(size: int, rng: np.random.Generator) -> list[str] | list[None]:
    """Return the names of a leaf's sections, [None] for a leaf that is not divided."""
    is_divided = size >= _LARGE_LEAF or (size >= 2 * _SMALLEST_SECTION and rng.random() < 1 / 3)
    if not is_divided:
        return [None]
    return _some(list(SECTIONS), min(max(size // _SECTION_SIZE, 2), len(SECTIONS)), rng)


def _series_counts(sizes: Numbers) -> Numbers:
    return np.maximum(1, np.rint(sizes / _SERIES_SIZE).astype(np.int64))


def _series_sizes(sizes: Numbers, counts: Numbers) -> Numbers:
    """Divide each section evenly among its series; returns the size of every series."""
    section = np.repeat(np.arange(len(sizes)), counts)
    place = np.arange(len(section)) - np.repeat(np.cumsum(counts) - counts, counts)
    small, larger = np.divmod(sizes, counts)
    return small[section] + (place < larger[section])


def _zipf_within(groups: Numbers, rng: np.random.Generator) -> Weights:
    """Return a Zipf weight for each member of each group, ranks drawn at random.

    Args:
        groups: Group of each member, ascending.
        rng: Source of chance.
    """
    order = np.lexsort((rng.random(len(groups)), groups))
    rank = np.arange(len(groups)) - np.searchsorted(groups, groups)
    weight = np.empty(len(groups))
    weight[order] = (1.0 + rank) ** -_ZIPF_EXPONENT
    return weight


def _related_leaves(tree: _Tree, rng: np.random.Generator) -> Numbers:
    """Lead each leaf to another one of its department and to another one of the whole shop."""
    related = np.zeros((len(tree.paths), 2), dtype=np.int64)
    leaves = np.unique(tree.chains[LEAF])
    department = {leaf: tree.paths[leaf][0] for leaf in leaves.tolist()}
    for leaf in leaves.tolist():
        others = leaves[leaves != leaf]
        near = [other for other in others.tolist() if department[other] == department[leaf]]
        related[leaf] = near[rng.integers(len(near))], others[rng.integers(len(others))]
    return related


def _words(shop: Shop, rng: np.random.Generator) -> pl.DataFrame:
    """Return the words of each item's texts."""
    series_count = int(shop.series[-1]) + 1
    place = np.arange(len(shop)) - shop.series_start
    series_words = [
        series_name(number) for number in rng.permutation(SERIES_NAMES)[:series_count].tolist()
    ]
    brands = max(6, series_count // _SERIES_PER_BRAND)
    brand_words = [brand_name(number) for number in rng.permutation(SERIES_NAMES)[:brands].tolist()]
    brand = rng.integers(brands, size=series_count)[shop.series]
    family = (
        rng.integers(len(FAMILIES), size=series_count)[shop.series] + place // _FAMILY_SIZE
    ) % len(FAMILIES)
    names, materials, uses = (pl.Series(words) for words in zip(*FAMILIES, strict=True))
    last_names = [path[-1] if path else "" for path in shop.paths]
    singular = {plural(x): x for parts in TREE.values() for xs in parts.values() for x in xs}
    products = pl.Series([singular.get(name, "") for name in last_names])
    return pl.DataFrame(
        {
            "brand": pl.Series(brand_words).gather(brand),
            "series": pl.Series(series_words).gather(shop.series),
            "product": products.gather(shop.nodes[LEAF]),
            "place": place,
            "family": names.gather(family),
            "material": materials.gather(family),
            "use": uses.gather(family),
            "section": pl.Series(last_names).gather(shop.nodes[SECTION]),
        }
    )


def _with_gaps(column: str, items: int, rng: np.random.Generator) -> pl.Expr:
    is_missing = pl.Series(rng.random(items) < _MISSING[column])
    return pl.when(is_missing).then(pl.lit("")).otherwise(pl.col(column)).alias(column)
