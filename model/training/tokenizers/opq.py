"""Optimized product quantization over the text (Ge et al. 2013, by faiss).

A learned rotation, then one codebook for each of the equal parts of the rotated vector; the
rotation also brings the width down.
"""

import faiss
import numpy as np

from model.item_features import ItemFeatures
from model.quantizers import Layer, VectorQuantizer
from model.tokens import LevelKind
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.kmeans import distinct_rows, fit_codebook, one_thread
from model.training.tokenizers.levels import numbered_levels
from model.types import FloatArray
from model.views import view


def fit_opq(items: ItemFeatures, config: TokenizeConfig) -> list[VectorQuantizer]:
    """Return one quantizer per part, whose encoder is its share of the rotation."""
    vectors = view("text", items, {}).vectors
    rotations = _rotations(distinct_rows(vectors), config)
    books = [
        fit_codebook(
            np.ascontiguousarray(vectors @ rotation),
            config.codes,
            iterations=config.iterations,
            seed=config.seed,
        )
        for rotation in rotations
    ]
    levels = numbered_levels(LevelKind.TEXT, [len(book) for book in books])
    return [
        VectorQuantizer(
            (level,), ("text",), (book,), ((Layer(rotation, np.zeros_like(rotation[0])),),)
        )
        for level, book, rotation in zip(levels, books, rotations, strict=True)
    ]


def _rotations(points: FloatArray, config: TokenizeConfig) -> list[FloatArray]:
    """Return the rotation of the distinct `points` [n, E] in `config.levels` parts [E, F]."""
    given, parts = points.shape[1], config.levels
    width = min(given // parts, config.width) * parts
    if len(points) <= config.codes or width == 0:
        # As many codes as points, or fewer numbers than parts: every part may see all of a vector.
        return [np.eye(given, dtype=np.float32)] * parts
    matrix = faiss.OPQMatrix(given, parts, width)
    matrix.niter = config.iterations
    quantizer = faiss.ProductQuantizer(width, parts, config.codes.bit_length() - 1)
    quantizer.cp.min_points_per_centroid = 1
    matrix.pq = quantizer
    with one_thread():
        matrix.train(points)
    rotation = faiss.vector_to_array(matrix.A).reshape(width, given).T
    return [np.ascontiguousarray(part) for part in np.split(rotation, parts, axis=1)]
