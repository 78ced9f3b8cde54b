"""Stage `tokenize`: codes for every item.

Reads prepared/ and embedded/, writes tokenized/. The tokenizer makes the levels; this stage
orders them, splits buckets that are too large and reports.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import ConfigError, DataError
from model.item_features import ItemFeatures, concatenated_text, predict_from_text
from model.tokens import Level
from model.training.embedding.text_encoder import TFIDF
from model.training.stage_files import begin_stage, require_stage, save_array, save_json
from model.training.tokenizers.buckets import collision_report, split_buckets, usage_report
from model.training.tokenizers.collaborative import (
    collaborative_vectors,
    fill_from_text,
    read_training_rows,
)
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.features import read_embeddings, read_items
from model.training.tokenizers.report import show_report
from model.training.tokenizers.tokenizer import Tokenizer
from model.types import FloatArray, IntArray


def tokenize(config: TokenizeConfig, prepared: Path, embedded: Path, output: Path) -> None:
    """Write codes, codebooks, taxonomy and collaborative vectors, catalogue order.

    Collaborative vectors and codes depend on training events only. report.json is written last
    and shown as a table.

    Raises:
        StageError: an input folder is missing, unfinished, or of another catalogue.
        DataError: the catalogue is empty.
        ConfigError: `level_order` does not name the levels.
    """
    require_stage(prepared, "report.json", "prepare")
    require_stage(embedded, "meta.json", "embed")
    items, regression = read_features(config, prepared, embedded)
    begin_stage(output, "report.json")
    shutil.rmtree(output / "codebooks", ignore_errors=True)  # an earlier run's levels

    tokenizer = Tokenizer.fit(items, config)
    levels, codes = _ordered(config, tokenizer.levels(), tokenizer.assign(items))
    before = collision_report(codes)
    vectors = np.concatenate([items.text(), items.collaborative], axis=1)
    residual = split_buckets(codes, vectors, config.codes)
    levels = [*levels, *residual.levels]
    codes = np.concatenate([codes, residual.codes], axis=1)

    tokenizer.export(output)
    save_array(output / "codes.npy", codes)
    save_array(output / "collaborative.npy", items.collaborative)
    save_array(output / "collaborative_from_text.npy", regression)
    save_json(output / "levels.json", [level.to_json() for level in levels])
    report: dict[str, Any] = {
        "collisions": collision_report(codes),
        "collisions_before_residual": before,
        "levels": usage_report(codes, levels),
        "method": config.method,
        **tokenizer.facts(items),
    }
    save_json(output / "report.json", report)
    show_report(report)


def read_features(
    config: TokenizeConfig, prepared: Path, embedded: Path
) -> tuple[ItemFeatures, FloatArray]:
    """Return what the tokenizer sees, and the regression [4E + 1, Dc] from text.

    Raises:
        StageError: the embeddings are of another catalogue.
        DataError: the catalogue is empty.
    """
    known = read_items(prepared)
    if not known.item_ids:
        raise DataError(f"{prepared / 'items.parquet'} holds no items: nothing can be tokenized")
    embeddings = read_embeddings(embedded, len(known.item_ids))
    users, rows = read_training_rows(prepared, known.item_ids)
    observed = collaborative_vectors(users, rows, len(known.item_ids), config)
    text = concatenated_text(embeddings)
    if config.fitted is None:
        filled, is_observed, regression = fill_from_text(text, observed, config.ridge)
    else:
        regression = _foreign_regression(config.fitted, embedded)
        filled, is_observed = predict_from_text(text, regression), np.zeros(len(text), np.bool_)
    features = ItemFeatures(
        item_ids=known.item_ids,
        paths=known.paths,
        words=known.words,
        **embeddings,
        collaborative=filled,
        is_observed=is_observed,
        embeddings=known.embeddings,
    )
    return features, regression


def _foreign_regression(fitted: Path, embedded: Path) -> FloatArray:
    """The regression of another catalogue: only it leads to that catalogue's collaborative space.

    Raises:
        StageError: `fitted` is no finished tokenized folder.
        ConfigError: the catalogues cannot have the same text encoder.
    """
    require_stage(fitted, "report.json", "tokenize")
    if json.loads((embedded / "meta.json").read_bytes())["model"] == TFIDF:
        raise ConfigError(
            f"tokenize.fitted {str(fitted)!r} cannot be used with embed.model {TFIDF!r}, which "
            "each catalogue has its own of: choose a sentence encoder for both"
        )
    regression: FloatArray = np.load(fitted / "collaborative_from_text.npy", allow_pickle=False)
    return regression


def _ordered(
    config: TokenizeConfig, levels: Sequence[Level], codes: IntArray
) -> tuple[list[Level], IntArray]:
    if config.level_order is None:
        return list(levels), codes
    names = [level.name for level in levels]
    if sorted(config.level_order) != sorted(names):
        raise ConfigError(
            f"tokenize.level_order {config.level_order!r} must name each of the levels "
            f"{names!r} once"
        )
    order = [names.index(name) for name in config.level_order]
    return [levels[i] for i in order], codes[:, order]
