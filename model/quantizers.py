"""From an item's features to its codes: the one way in which trainer and server assign them.

A quantizer gives the codes of one or several levels. What a tokenizer learned with PyTorch arrives
here as plain arrays: encoders are a few matrices, assignment is hard. Everything is computed in
double precision, so that an item gets the same codes alone and in a batch.

Shapes: N items, E width of a view, F width of what is quantized, K codes of a level.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.codebook import nearest_codes
from model.item_features import ItemFeatures
from model.taxonomy import Taxonomy, path_codes, spread_paths
from model.tokens import Level, LevelKind
from model.types import CategoryPath, FloatArray, IntArray
from model.views import Codebooks, view

Doubles = npt.NDArray[np.float64]


class Quantizer(Protocol):
    """Gives items the codes of some levels."""

    @property
    def levels(self) -> Sequence[Level]:
        """The levels, coarse to fine."""

    @property
    def books(self) -> Codebooks:
        """Codebooks by level that later quantizers may need."""

    def codes(self, items: ItemFeatures, books: Codebooks) -> IntArray:
        """Return codes int32 [N, levels].

        Args:
            items: N items.
            books: codebooks of the levels before.
        """


@dataclass(frozen=True)
class Layer:
    """One affine map."""

    weight: FloatArray
    """[E, F]"""
    bias: FloatArray
    """[F]"""


Layers = tuple[Layer, ...]
"""A perceptron with SiLU between its layers; none at all is the identity."""


def perceive(layers: Layers, vectors: FloatArray | Doubles) -> Doubles:
    """Return what `layers` make of `vectors` [N, E], [N, F]."""
    x = vectors.astype(np.float64)
    for number, layer in enumerate(layers):
        x = x @ layer.weight.astype(np.float64) + layer.bias
        if number + 1 < len(layers):
            x = 0.5 * x * (1 + np.tanh(0.5 * x))  # SiLU, x * sigmoid(x), without overflow
    return x


@dataclass(frozen=True)
class TaxonomyQuantizer:
    """Codes that number the category tree depth-first."""

    levels: tuple[Level, ...]
    root: CategoryPath
    """The names that all paths start with."""
    taxonomies: tuple[Taxonomy, ...]
    """The tree of each level."""

    @property
    def books(self) -> Codebooks:
        """None: no vector is compared."""
        return {}

    def codes(self, items: ItemFeatures, books: Codebooks) -> IntArray:
        """See `Quantizer`; see `Taxonomy.code` for unknown paths."""
        del books
        spread = spread_paths(items.paths, self.root, len(self.levels))
        codes: IntArray = np.stack(
            [path_codes(paths, tree) for paths, tree in zip(spread, self.taxonomies, strict=True)],
            axis=1,
        )
        return codes


@dataclass(frozen=True)
class VectorQuantizer:
    """Views -> encoders -> one vector -> the nearest codeword, level by level on the residual.

    With several views the vector is their mean under `attention`, which scores each view's
    encoding.
    """

    levels: tuple[Level, ...]
    views: tuple[str, ...]
    codebooks: tuple[FloatArray, ...]
    """[K, F] per level."""
    encoders: tuple[Layers, ...] = ()
    """One per view, or none: the view itself is quantized."""
    attention: Layers = ()
    """[F] -> [1]"""

    @property
    def books(self) -> Codebooks:
        """The codebook of each level."""
        return {level.name: book for level, book in zip(self.levels, self.codebooks, strict=True)}

    def codes(self, items: ItemFeatures, books: Codebooks) -> IntArray:
        """See `Quantizer`."""
        left = self.vectors(items, books)
        columns = []
        for book in self.codebooks:
            codes = nearest_codes(left, book)
            left = left - book[codes]
            columns.append(codes)
        return np.stack(columns, axis=1)

    def vectors(self, items: ItemFeatures, books: Codebooks) -> Doubles:
        """Return what is quantized, [N, F]."""
        encoders = self.encoders or ((),) * len(self.views)
        encoded = np.stack(
            [
                perceive(layers, view(name, items, books).vectors)
                for name, layers in zip(self.views, encoders, strict=True)
            ]
        )
        if len(self.views) == 1:
            return np.asarray(encoded[0], dtype=np.float64)
        scores = np.stack([perceive(self.attention, each) for each in encoded])
        weights = np.exp(scores - scores.max(axis=0))
        return np.asarray((encoded * weights / weights.sum(axis=0)).sum(axis=0), dtype=np.float64)


@dataclass(frozen=True)
class HashQuantizer:
    """Codes that say nothing: a hash of the item id, the same everywhere and for ever."""

    levels: tuple[Level, ...]

    @property
    def books(self) -> Codebooks:
        """None."""
        return {}

    def codes(self, items: ItemFeatures, books: Codebooks) -> IntArray:
        """See `Quantizer`."""
        del books
        rows = [[_hashed(item_id, level) for level in self.levels] for item_id in items.item_ids]
        return np.array(rows, dtype=np.int32).reshape(len(items), len(self.levels))


def _hashed(item_id: str, level: Level) -> int:
    text = f"{level.name}\0{item_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) % level.codes


def assign(
    quantizers: Sequence[Quantizer], levels: Sequence[Level], items: ItemFeatures
) -> IntArray:
    """Return the codes int32 [N, L] of `items`.

    Args:
        quantizers: coarse to fine.
        levels: L levels in the order of the semantic ID, which may leave some of the quantizers'
            out. A residual level is none of theirs; a new item joins the first part of a bucket.
        items: N items, not necessarily those that anything was fitted on.
    """
    books: dict[str, FloatArray] = {}
    columns: dict[str, IntArray] = {}
    for quantizer in quantizers:
        names = [level.name for level in quantizer.levels]
        columns |= dict(zip(names, quantizer.codes(items, books).T, strict=True))
        books |= quantizer.books
    codes = np.zeros((len(items), len(levels)), dtype=np.int32)
    for position, level in enumerate(levels):
        if level.kind is not LevelKind.RESIDUAL:
            codes[:, position] = columns[level.name]
    return codes
