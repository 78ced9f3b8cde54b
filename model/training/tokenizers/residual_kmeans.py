"""Residual k-means over the text: each level clusters what the levels before left over.

The strongest of the plain codes in GRID (arXiv 2507.22224), where it stands as RK-Means.
"""

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
    left = view("text", items, {}).vectors
    books: list[FloatArray] = []
    for _ in range(config.levels):
        book = fit_codebook(left, config.codes, iterations=config.iterations, seed=config.seed)
        left = left - book[nearest_codes(left, book)]
        books.append(book)
    levels = numbered_levels(LevelKind.TEXT, [len(book) for book in books])
    return [VectorQuantizer(levels, ("text",), tuple(books))]
