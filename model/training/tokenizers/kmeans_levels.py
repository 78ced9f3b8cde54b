"""CoFiRec's levels in k-means form (after arXiv 2511.22707).

Title, description and collaborative signal become one level each, quantized on their own: a level
does not see the codes before it. The learned semantic encoder of the paper is left out; centroids
are those of the embeddings themselves.
"""

from model.item_features import ItemFeatures
from model.quantizers import VectorQuantizer
from model.tokens import Level
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.kmeans import fit_codebook
from model.training.tokenizers.levels import kind_of
from model.types import FloatArray
from model.views import view

VIEWS = {"title": "title", "description": "remainder", "collaborative": "collaborative"}
"""The view that each level is made from."""


def fit_kmeans_levels(items: ItemFeatures, config: TokenizeConfig) -> list[VectorQuantizer]:
    """Return one quantizer per level."""
    found: list[VectorQuantizer] = []
    books: dict[str, FloatArray] = {}
    for name, view_name in VIEWS.items():
        if name == "collaborative" and not config.collaborative:
            continue
        vectors = view(view_name, items, books).vectors
        book = fit_codebook(
            vectors,
            config.codes,
            iterations=config.iterations,
            seed=config.seed,
            balanced=config.balanced,
        )
        books[name] = book
        level = Level(name, kind_of([view_name]), len(book))
        found.append(VectorQuantizer((level,), (view_name,), (book,)))
    return found
