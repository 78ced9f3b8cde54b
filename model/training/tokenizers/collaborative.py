"""Collaborative vectors: which items are bought together, from training events only.

Windowed co-occurrence within a user's events -> positive pointwise mutual information -> truncated
SVD, U sqrt(S) (Levy, Goldberg, Dagan 2015). Items without training events get the vector that a
ridge regression predicts from their texts.

Where a user's next item ranks among the neighbours of the last one (Beauty, 4,000 validation
users, share within the first 10): window 3 .068, window 10 .061; with contexts smoothed by 0.75
.063 and .058; U S .069 and .065, which splits items less evenly and so collides more.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from model.item_features import predict_from_text, unit_rows, with_bias
from model.training.tokenizers.config import TokenizeConfig
from model.types import BoolArray, FloatArray, IntArray

NOISE_SHARE: Final = 1e-4


def read_training_rows(prepared: Path, item_ids: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Return (user, item row) of every training event, each user's events together, in time order.

    Validation and test events are dropped before anything is counted.
    """
    rows = pl.LazyFrame(
        {"item_id": list(item_ids), "row": np.arange(len(item_ids), dtype=np.int64)},
        schema={"item_id": pl.String, "row": pl.Int64},
    )
    events = (
        pl.scan_parquet(prepared / "events.parquet")
        .filter(pl.col("split") == "train")
        .select("user_id", "item_id")
        .join(rows, on="item_id", how="inner", maintain_order="left")
        .select(pl.col("user_id").rle_id().cast(pl.Int64), "row")
        .collect()
    )
    return events["user_id"].to_numpy(), events["row"].to_numpy()


def collaborative_vectors(
    users: IntArray, rows: IntArray, items: int, config: TokenizeConfig
) -> FloatArray:
    """Return unit vectors [N, Dc] from the events; zero for items that co-occur with none.

    Args:
        users: [events], equal for a user's events, which are adjacent and oldest first.
        rows: [events], the items.
        items: N.
        config: window, width and seed.
    """
    vectors = np.zeros((items, config.collaborative_dimensions), dtype=np.float32)
    weights = _positive_information(
        _co_occurrences(users, rows, items, config.collaborative_window)
    )
    active = np.flatnonzero(np.diff(weights.indptr))
    width = min(config.collaborative_dimensions, len(active))
    if width == 0:
        return vectors
    left, values, _ = randomized_svd(
        weights[active][:, active], n_components=width, random_state=config.seed
    )
    projected = left * np.sqrt(values)
    # An item outside the leading directions keeps rounding noise only, which is no signal.
    lengths = np.linalg.norm(projected, axis=1)
    projected[lengths < NOISE_SHARE * np.median(lengths)] = 0.0
    vectors[active, :width] = projected
    return unit_rows(vectors)


def fit_text_regression(text: FloatArray, vectors: FloatArray, ridge: float) -> FloatArray:
    """Return weights [4E + 1, Dc] that predict `vectors` [n, Dc] from `text` [n, 4E].

    The last row is the bias, which is not penalised. All zero without observations.
    """
    if len(text) == 0:
        return np.zeros((text.shape[1] + 1, vectors.shape[1]), dtype=np.float32)
    inputs = with_bias(text).astype(np.float64)
    penalty = np.full(inputs.shape[1], ridge)
    # The bias keeps a trace of a penalty: without it one observation would leave it undetermined.
    penalty[-1] = 1e-6
    gram = inputs.T @ inputs + np.diag(penalty)
    weights = np.linalg.solve(gram, inputs.T @ vectors.astype(np.float64))
    return weights.astype(np.float32)


def fill_from_text(
    text: FloatArray, vectors: FloatArray, ridge: float
) -> tuple[FloatArray, BoolArray, FloatArray]:
    """Predict the rows of `vectors` [N, Dc] that are zero from `text` [N, 4E].

    Returns:
        The filled vectors, which rows were observed [N], and the regression's weights.
    """
    is_observed = np.asarray(vectors.any(axis=1), dtype=np.bool_)
    weights = fit_text_regression(text[is_observed], vectors[is_observed], ridge)
    filled = vectors.copy()
    filled[~is_observed] = predict_from_text(text[~is_observed], weights)
    return filled, is_observed, weights


def _co_occurrences(users: IntArray, rows: IntArray, items: int, window: int) -> Any:
    counts = sparse.csr_matrix((items, items), dtype=np.float64)
    for distance in range(1, window + 1):
        is_pair = (users[distance:] == users[:-distance]) & (rows[distance:] != rows[:-distance])
        left, right = rows[:-distance][is_pair], rows[distance:][is_pair]
        counts = counts + sparse.csr_matrix(
            (np.ones(len(left)), (left, right)), shape=(items, items)
        )
    return (counts + counts.T).tocoo()


def _positive_information(counts: Any) -> Any:
    totals = np.asarray(counts.sum(axis=1)).ravel()
    expected = totals[counts.row] * totals[counts.col] / max(totals.sum(), 1e-12)
    information = np.maximum(np.log(counts.data / expected), 0.0)
    weights = sparse.csr_matrix((information, (counts.row, counts.col)), shape=counts.shape)
    weights.eliminate_zeros()
    return weights
