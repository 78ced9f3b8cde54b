"""Views: the vectors of an item that a level can be quantized from.

Knows what stands in for a text that an item does not have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from model.codebook import nearest_codes
from model.errors import ConfigError
from model.item_features import ItemFeatures, unit_rows
from model.types import FloatArray

Codebooks = Mapping[str, FloatArray]
"""Codebooks by level, of the levels before."""


@dataclass(frozen=True)
class FilledVectors:
    """A view's vectors [N, E] after fallbacks, and how many items took which source."""

    vectors: FloatArray
    sources: dict[str, int]


def view(name: str, items: ItemFeatures, books: Codebooks) -> FilledVectors:
    """Return one view of `items`.

    Args:
        name: a key of `VIEWS`, or the name of one of the catalogue's embedding columns.
        items: N items.
        books: codebooks of the levels before; "remainder" reads the one of "title".

    Raises:
        ConfigError: there is no such view, or it needs a codebook that there is not.
    """
    if name in VIEWS:
        return VIEWS[name](items, books)
    if name in items.embeddings:
        return fill([(name, items.embeddings[name])])
    known = ", ".join([*VIEWS, *items.embeddings])
    raise ConfigError(f"tokenize.views names {name!r}, which items do not have; known are {known}")


def fill(sources: Sequence[tuple[str, FloatArray]]) -> FilledVectors:
    """Take each row from the first of `sources`, (name, [N, E]), where it is not zero.

    Rows that are zero everywhere stay zero and count as "none".
    """
    filled = np.zeros_like(sources[0][1])
    is_open = np.ones(len(filled), dtype=np.bool_)
    used: dict[str, int] = {}
    for name, vectors in sources:
        taken = is_open & vectors.any(axis=1)
        filled[taken] = vectors[taken]
        used[name] = int(taken.sum())
        is_open &= ~taken
    used["none"] = int(is_open.sum())
    return FilledVectors(filled, used)


def brand_and_remainder(brand: FloatArray, title: FloatArray, centroids: FloatArray) -> FloatArray:
    """Return the brand plus what the title says beyond its code, unit rows [N, E].

    The remainder is scaled to length 1 before it is added, else the brand would drown it.

    Args:
        brand: [N, E], zero where unknown.
        title: [N, E], zero where the item has none: then there is no remainder either.
        centroids: [N, E], the centroid of each item's title code.
    """
    has_title = title.any(axis=1, keepdims=True)
    remainder = unit_rows(np.where(has_title, title - centroids, np.float32(0)))
    return unit_rows(brand + remainder)


def _title(items: ItemFeatures, _: Codebooks) -> FilledVectors:
    return fill(
        [
            ("title", items.title),
            ("description", items.description),
            ("brand", items.brand),
            ("path", items.category),
        ]
    )


def _description(items: ItemFeatures, books: Codebooks) -> FilledVectors:
    return fill(
        [
            ("description", items.description),
            ("brand", items.brand),
            ("title", _title(items, books).vectors),
        ]
    )


def _remainder(items: ItemFeatures, books: Codebooks) -> FilledVectors:
    """The description, or else what brand and title say beyond the title's code."""
    if "title" not in books:
        raise ConfigError(
            "the view 'remainder' is what the code of a level 'title' before it leaves, and only "
            "method 'kmeans' has one: take it out of tokenize.views"
        )
    title = _title(items, books).vectors
    centroids = books["title"][nearest_codes(title, books["title"])]
    return fill(
        [
            ("description", items.description),
            ("brand and title", brand_and_remainder(items.brand, items.title, centroids)),
            ("title", title),
        ]
    )


def _words(items: ItemFeatures, _: Codebooks) -> FilledVectors:
    return fill([("text", unit_rows(items.title + items.description + items.brand))])


def _text(items: ItemFeatures, _: Codebooks) -> FilledVectors:
    return fill([("text", unit_rows(items.text()))])


def _collaborative(items: ItemFeatures, _: Codebooks) -> FilledVectors:
    observed = int(items.is_observed.sum())
    predicted = int((items.collaborative.any(axis=1) & ~items.is_observed).sum())
    sources = {"events": observed, "text": predicted, "none": len(items) - observed - predicted}
    return FilledVectors(items.collaborative, sources)


VIEWS: Final[Mapping[str, Callable[[ItemFeatures, Codebooks], FilledVectors]]] = {
    "category": lambda items, _: fill([("path", items.category)]),
    "title": _title,
    "description": _description,
    "remainder": _remainder,
    "brand": lambda items, _: fill([("brand", items.brand)]),
    "words": _words,
    "text": _text,
    "collaborative": _collaborative,
}
"""Every view that each catalogue has, by name."""
