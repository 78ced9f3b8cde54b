"""Stage `embed`: one vector per text field of every item.

Reads prepared/, writes embedded/. Vectors of sentence transformers are cached by content beside
the output folder, so that a second run and an interrupted one encode only what is new.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.item_features import TEXT_FIELDS, category_text
from model.training.embedding.cache import EmbeddingCache
from model.training.embedding.text_encoder import (
    PACKAGED_MODEL,
    TFIDF,
    SentenceEncoder,
    TextEncoder,
    TfidfEncoder,
    missing_packages,
)
from model.training.stage_files import begin_stage, require_stage, save_array, save_json
from model.types import FloatArray

CACHE_CHUNK: Final = 1024
"""Texts encoded between two writes of the cache: what an interruption can cost."""


class EmbedConfig(BaseModel):
    """Settings of the stage `embed`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        default=PACKAGED_MODEL,
        min_length=1,
        description="'all-minilm-l6-v2' (packaged, no hub), 'tfidf' (TF-IDF + SVD), a folder of a "
        "sentence transformer, or its name where a model hub is reachable.",
    )
    dimensions: int = Field(
        default=128, ge=2, le=1024, description="Width of the vectors; used by 'tfidf' only."
    )
    batch_size: int = Field(
        default=64, ge=1, le=4096, description="Texts per forward pass of a sentence transformer."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the randomised SVD of 'tfidf'.")


def embed(config: EmbedConfig, prepared: Path, output: Path) -> None:
    """Write the embeddings of every item's texts, catalogue order.

    `output` gets category.npy, title.npy, description.npy and brand.npy, float32 [N, E], rows of
    length 1 or all zero where the text is empty; text_encoder/; and meta.json, written last.

    Raises:
        StageError: `prepared` is missing or unfinished.
        ConfigError: the model is neither installed nor reachable.
    """
    require_stage(prepared, "report.json", "prepare")
    texts = read_texts(prepared)
    begin_stage(output, "meta.json")
    distinct = sorted({text for field in texts.values() for text in field if text})
    encoder = _make_encoder(config, distinct)
    vectors = _encode(encoder, distinct, output.parent / "cache")
    row_of = {text: row for row, text in enumerate(distinct)}
    for field, values in texts.items():
        save_array(output / f"{field}.npy", _gather(values, row_of, vectors))
    facts = encoder.export(output / "text_encoder")
    save_json(output / "text_encoder" / "encoder.json", facts)
    save_json(output / "meta.json", _meta(config, encoder, texts, vectors))


def read_texts(prepared: Path) -> dict[str, list[str]]:
    """Return the text of every field in `TEXT_FIELDS`, catalogue order; "" where there is none.

    The category's text is the names of the item's primary path, joined for the text model alone.
    """
    items = pl.read_parquet(prepared / "items.parquet")
    texts = {field: items[field].to_list() for field in TEXT_FIELDS if field != "category"}
    texts["category"] = [category_text(path) for path in primary_paths(items["categories"])]
    return {field: [text.strip() for text in texts[field]] for field in TEXT_FIELDS}


def primary_paths(categories: pl.Series) -> list[tuple[str, ...]]:
    """Return each item's first path of `categories`, list[list[str]]; () where there is none."""
    return [tuple(paths[0]) if paths else () for paths in categories.to_list()]


def _make_encoder(config: EmbedConfig, corpus: Sequence[str]) -> TextEncoder:
    model = config.model
    missing = missing_packages(model) if model == PACKAGED_MODEL else []
    if missing:
        model = TFIDF
        Console(stderr=True).print(
            Panel(
                f"{' and '.join(missing)} not installed: embedding with TF-IDF + SVD instead of "
                f"{PACKAGED_MODEL}. Recommendations will be weaker; install cofine\\[text].",
                title="weaker text embeddings",
                border_style="bold yellow",
            )
        )
    if model == TFIDF:
        return TfidfEncoder(corpus, dimensions=config.dimensions, seed=config.seed)
    return SentenceEncoder(model, batch_size=config.batch_size)


def _encode(encoder: TextEncoder, texts: Sequence[str], cache_root: Path) -> FloatArray:
    with _progress() as progress:
        task = progress.add_task(f"embedding with {encoder.model}", total=len(texts))

        def advance(count: int) -> None:
            progress.advance(task, count)

        if encoder.cache_key is None:
            return encoder.encode(texts, advance)
        name = hashlib.sha256(encoder.cache_key.encode()).hexdigest()[:16]
        cache = EmbeddingCache(cache_root / name, encoder.cache_key)
        missing = cache.missing(texts)
        advance(len(texts) - len(missing))
        for chunk in _chunks(missing):
            cache.add(chunk, encoder.encode(chunk, advance))
        if not texts:
            return encoder.encode(texts, advance)
        return cache.vectors(texts)


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    by_length = sorted(texts, key=lambda text: (len(text), text))
    for start in range(0, len(by_length), CACHE_CHUNK):
        yield by_length[start : start + CACHE_CHUNK]


def _gather(texts: Sequence[str], row_of: Mapping[str, int], vectors: FloatArray) -> FloatArray:
    gathered = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
    present = [row for row, text in enumerate(texts) if text]
    gathered[present] = vectors[[row_of[texts[row]] for row in present]]
    return gathered


def _meta(
    config: EmbedConfig,
    encoder: TextEncoder,
    texts: Mapping[str, Sequence[str]],
    vectors: FloatArray,
) -> dict[str, Any]:
    return {
        "model": encoder.model,
        "requested_model": config.model,
        "dimensions": int(vectors.shape[1]),
        "items": len(texts["title"]),
        "distinct_texts": len(vectors),
        "present": {field: sum(map(bool, values)) for field, values in texts.items()},
    }


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
