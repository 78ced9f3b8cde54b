"""Buckets: the items that share a full semantic ID, and how large ones are split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.tokens import MAX_BUCKET, Level, LevelKind
from model.types import FloatArray, IntArray


@dataclass(frozen=True)
class ResidualLevels:
    """The levels added so that no bucket holds more than `MAX_BUCKET` items."""

    levels: tuple[Level, ...]
    codes: IntArray
    """int32 [N, len(levels)]."""


def bucket_rows(codes: IntArray) -> list[npt.NDArray[np.int64]]:
    """Return the item rows of every bucket of `codes` [N, L], ascending within and among them."""
    if codes.shape[1] == 0:
        return [np.arange(len(codes), dtype=np.int64)]
    _, bucket = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(bucket.ravel(), kind="stable").astype(np.int64)
    sizes = np.bincount(bucket.ravel())
    return np.split(order, np.cumsum(sizes)[:-1])


def split_buckets(codes: IntArray, vectors: FloatArray, max_codes: int) -> ResidualLevels:
    """Split the buckets of `codes` [N, L] by residual levels until all are small enough.

    A bucket of n items becomes ceil(n / 32) parts of equal size, ordered along the first
    principal direction of `vectors` [N, D]; items of small buckets get code 0. More than
    32 * `max_codes` items in one bucket take more than one level.
    """
    levels: list[Level] = []
    columns: list[npt.NDArray[np.int32]] = []
    while True:
        current = np.concatenate([codes, *(column[:, None] for column in columns)], axis=1)
        large = [rows for rows in bucket_rows(current) if len(rows) > MAX_BUCKET]
        if not large and current.shape[1] > 0:
            break
        column = np.zeros(len(codes), dtype=np.int32)
        for rows in large:
            parts = min(-(-len(rows) // MAX_BUCKET), max_codes)
            ordered = rows[_principal_order(vectors[rows])]
            for code, part in enumerate(np.array_split(ordered, parts)):
                column[part] = code
        name = "residual" if not levels else f"residual_{len(levels) + 1}"
        levels.append(Level(name, LevelKind.RESIDUAL, int(column.max(initial=0)) + 1))
        columns.append(column)
    stacked = np.array(columns, dtype=np.int32).reshape(len(columns), len(codes)).T
    return ResidualLevels(tuple(levels), np.ascontiguousarray(stacked))


def collision_report(codes: IntArray) -> dict[str, Any]:
    """Return how items of `codes` [N, L] collide."""
    sizes = np.array([len(rows) for rows in bucket_rows(codes)], dtype=np.int64)
    shared = sizes[sizes > 1]
    return {
        "items": len(codes),
        "distinct_ids": len(sizes),
        "items_sharing_an_id": int(shared.sum()),
        "shared_ids": len(shared),
        "largest_bucket": int(sizes.max(initial=0)),
    }


def usage_report(codes: IntArray, levels: Sequence[Level]) -> list[dict[str, Any]]:
    """Return per level how many codes are used and dead, and the perplexity of their use."""
    report = []
    for column, level in zip(codes.T, levels, strict=True):
        counts = np.bincount(column, minlength=level.codes)
        shares = counts[counts > 0] / counts.sum()
        report.append(
            {
                **level.to_json(),
                "used": int((counts > 0).sum()),
                "dead": int((counts == 0).sum()),
                "perplexity": round(float(np.exp(-(shares * np.log(shares)).sum())), 3),
            }
        )
    return report


def _principal_order(vectors: FloatArray) -> IntArray:
    """Return the rows of `vectors` [n, D] along their first principal direction, ties by row."""
    centred = vectors.astype(np.float64)
    centred -= centred.mean(axis=0)
    if centred.shape[0] < centred.shape[1]:
        # The projections are the first eigenvector of the smaller Gram matrix, up to scale.
        values, directions = np.linalg.eigh(centred @ centred.T)
        positions = directions[:, -1] * np.sqrt(max(values[-1], 0.0))
    else:
        _, directions = np.linalg.eigh(centred.T @ centred)
        positions = centred @ directions[:, -1]
    # An eigenvector's sign is arbitrary; rounding keeps equal vectors equal.
    positions = positions * np.sign(positions[np.argmax(np.abs(positions))] or 1.0)
    return np.argsort(np.round(positions, 6), kind="stable")
