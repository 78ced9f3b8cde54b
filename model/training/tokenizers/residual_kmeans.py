"""Residual k-means over the text: each level clusters what the levels before left over.

The strongest of the plain codes in GRID (arXiv 2507.22224), where it stands as RK-Means.
"""

import numpy as np

from model.codebook import nearest_codes
from model.item_features import ItemFeatures
from model.quantizers import VectorQuantizer
from model.tokens import LevelKind
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.kmeans import fit_codebook
from model.training.tokenizers.levels import numbered_levels
from model.types import FloatArray
from model.views import view


def fit_residual_kmeans(items: ItemFeatures, config: TokenizeConfig) -> list[VectorQuantizer]:
    """Return one quantizer of `config.levels` levels."""
    books = residual_codebooks(view("text", items, {}).vectors, config)
    levels = numbered_levels(LevelKind.TEXT, [len(book) for book in books])
    return [VectorQuantizer(levels, ("text",), tuple(books))]


def residual_codebooks(vectors: FloatArray, config: TokenizeConfig) -> list[FloatArray]:
    """Return the codebooks [K, E] of `config.levels` levels over `vectors` [N, E]."""
    books: list[FloatArray] = []
    for codes in config.sizes():
        book = fit_codebook(
            vectors,
            codes,
            iterations=config.iterations,
            seed=config.seed,
            balanced=config.balanced,
        )
        vectors = vectors - book[nearest_codes(vectors, book)]
        books.append(np.ascontiguousarray(book))
    return books
