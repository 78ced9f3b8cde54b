"""Reads what a tokenizer sees of the catalogue from the stages before."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from model.errors import StageError
from model.item_features import TEXT_FIELDS, unit_rows
from model.training.embedding.embed import primary_paths
from model.training.preparation.catalogue_columns import EMBEDDING_PREFIX
from model.types import CategoryPath, FloatArray


@dataclass(frozen=True)
class CatalogueItems:
    """The N items of a prepared catalogue, in its order, as far as no stage has embedded them."""

    item_ids: tuple[str, ...]
    paths: tuple[CategoryPath, ...]
    """Primary paths."""
    words: tuple[str, ...]
    """What names clusters."""
    embeddings: dict[str, FloatArray]
    """The catalogue's own columns by name, [N, width], rows of length 1, or zero where empty."""


def read_items(prepared: Path) -> CatalogueItems:
    """Read the catalogue."""
    items = pl.read_parquet(prepared / "items.parquet")
    texts = zip(items["title"], items["description"], items["brand"], strict=True)
    return CatalogueItems(
        item_ids=tuple(items["item_id"]),
        paths=tuple(primary_paths(items["categories"])),
        words=tuple(title or description or brand for title, description, brand in texts),
        embeddings={
            name.removeprefix(EMBEDDING_PREFIX): _embeddings(items[name])
            for name in items.columns
            if name.startswith(EMBEDDING_PREFIX)
        },
    )


def _embeddings(column: pl.Series) -> FloatArray:
    """Return unit vectors [N, width] of a column of lists; zero where there is none."""
    width = int(column.list.len().max() or 1)  # type: ignore[arg-type]
    vectors = np.zeros((len(column), width), dtype=np.float32)
    given = column.is_not_null().to_numpy()
    if given.any():
        vectors[given] = np.array(column.drop_nulls().to_list(), dtype=np.float32)
    return unit_rows(vectors)


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
