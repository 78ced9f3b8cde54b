"""What is known of items before they have codes: paths, text vectors, collaborative vectors.

Trainer and server fill the same form, so that an item gets the same codes from both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from model.types import BoolArray, CategoryPath, FloatArray

TEXT_FIELDS: Final = ("category", "title", "description", "brand")
"""The embedded texts, in the order in which they are concatenated wherever they are."""


@dataclass(frozen=True)
class ItemFeatures:
    """N items in any order."""

    item_ids: tuple[str, ...]
    paths: tuple[CategoryPath, ...]
    """Primary category path of each item, () where there is none."""
    words: tuple[str, ...]
    """Title, or the next text there is; names clusters, nothing else."""
    category: FloatArray
    """[N, E], rows of length 1 or zero; so are title, description and brand."""
    title: FloatArray
    description: FloatArray
    brand: FloatArray
    collaborative: FloatArray
    """[N, Dc], rows of length 1 or zero."""
    is_observed: BoolArray
    """[N], whether the collaborative vector comes from events rather than from text."""
    embeddings: Mapping[str, FloatArray] = field(default_factory=dict)
    """The catalogue's own columns by name, [N, width], rows of length 1 or zero."""

    def text(self) -> FloatArray:
        """Return all text vectors side by side, [N, 4E], in the order of `TEXT_FIELDS`."""
        return concatenated_text({field: getattr(self, field) for field in TEXT_FIELDS})

    def __len__(self) -> int:
        return len(self.item_ids)


def category_text(path: Sequence[str]) -> str:
    """Return the names of a category path as the text encoder reads them."""
    return " > ".join(path)


def concatenated_text(embeddings: Mapping[str, FloatArray]) -> FloatArray:
    """Return the fields' vectors [N, E] side by side, [N, 4E], in the order of `TEXT_FIELDS`."""
    return np.concatenate([embeddings[field] for field in TEXT_FIELDS], axis=1)


def predict_from_text(text: FloatArray, weights: FloatArray) -> FloatArray:
    """Return unit collaborative vectors [N, Dc] for items with the text vectors `text` [N, 4E].

    Args:
        text: [N, 4E].
        weights: [4E + 1, Dc], `collaborative_from_text.npy`; the last row is the bias.
    """
    return unit_rows(with_bias(text) @ weights)


def with_bias(text: FloatArray) -> FloatArray:
    """Return `text` [N, 4E] with a column of ones, [N, 4E + 1]."""
    return np.concatenate([text, np.ones((len(text), 1), dtype=np.float32)], axis=1)


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Scale every row of `vectors` [N, E] to length 1; rows of (almost) zero length become zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    scale = np.where(lengths > 1e-9, 1.0 / np.maximum(lengths, 1e-9), 0.0)
    scaled: FloatArray = (vectors * scale).astype(np.float32)
    return scaled
