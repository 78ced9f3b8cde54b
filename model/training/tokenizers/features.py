"""What a tokenizer sees of the catalogue."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from model.errors import StageError
from model.training.embedding.embed import TEXT_FIELDS, primary_paths
from model.types import BoolArray, CategoryPath, FloatArray


@dataclass(frozen=True)
class ItemFeatures:
    """N items in catalogue order."""

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

    def text(self) -> FloatArray:
        """Return all text vectors side by side, [N, 4E], in the order of `TEXT_FIELDS`."""
        return concatenated_text({field: getattr(self, field) for field in TEXT_FIELDS})


def concatenated_text(embeddings: dict[str, FloatArray]) -> FloatArray:
    """Return the fields' vectors [N, E] side by side, [N, 4E], in the order of `TEXT_FIELDS`."""
    return np.concatenate([embeddings[field] for field in TEXT_FIELDS], axis=1)


def read_items(prepared: Path) -> tuple[tuple[str, ...], tuple[CategoryPath, ...], tuple[str, ...]]:
    """Return item ids, primary paths and naming words of the catalogue."""
    items = pl.read_parquet(
        prepared / "items.parquet",
        columns=["item_id", "title", "brand", "description", "categories"],
    )
    texts = zip(items["title"], items["description"], items["brand"], strict=True)
    words = tuple(title or description or brand for title, description, brand in texts)
    return tuple(items["item_id"]), tuple(primary_paths(items["categories"])), words


def read_embeddings(embedded: Path, items: int) -> dict[str, FloatArray]:
    """Return the text vectors [N, E] by field.

    Raises:
        StageError: the embeddings are not those of a catalogue of `items` items.
    """
    embeddings = {
        field: np.load(embedded / f"{field}.npy", allow_pickle=False) for field in TEXT_FIELDS
    }
    for field, vectors in embeddings.items():
        if len(vectors) != items:
            raise StageError(
                f"{embedded / field}.npy has {len(vectors)} rows for a catalogue of {items} items: "
                "run `cofine embed` again"
            )
    return embeddings
