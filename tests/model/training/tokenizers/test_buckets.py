import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tokens import MAX_BUCKET, Level, LevelKind
from model.training.tokenizers.buckets import (
    bucket_rows,
    collision_report,
    split_buckets,
    usage_report,
)
from model.types import IntArray


def largest_bucket(*codes: IntArray) -> int:
    joined = np.concatenate(codes, axis=1).astype(np.int32)
    return max(len(rows) for rows in bucket_rows(joined))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    items=st.integers(1, 400),
    codes=st.integers(1, 4),
    levels=st.integers(0, 2),
    max_codes=st.integers(2, 8),
)
def test_no_bucket_is_too_large(
    seed: int, items: int, codes: int, levels: int, max_codes: int
) -> None:
    random = np.random.default_rng(seed)
    column = random.integers(0, codes, (items, levels)).astype(np.int32)
    vectors = random.normal(size=(items, 3)).astype(np.float32)

    residual = split_buckets(column, vectors, max_codes)

    assert largest_bucket(column, residual.codes) <= MAX_BUCKET
    for found, level in zip(residual.codes.T, residual.levels, strict=True):
        assert level.kind is LevelKind.RESIDUAL
        assert 0 <= found.min() <= found.max() < level.codes <= max_codes
    small = [rows for rows in bucket_rows(column) if len(rows) <= MAX_BUCKET]
    assert all(not residual.codes[rows].any() for rows in small)


def test_ten_thousand_identical_items() -> None:
    codes = np.zeros((10_000, 1), dtype=np.int32)

    residual = split_buckets(codes, np.ones((10_000, 5), np.float32), 256)

    assert [level.name for level in residual.levels] == ["residual", "residual_2"]
    assert largest_bucket(codes, residual.codes) <= MAX_BUCKET
    assert (np.diff(residual.codes[:, 0]) >= 0).all()  # ties are broken by row


@pytest.mark.parametrize("width", [3, 500])  # fewer and more columns than items
def test_parts_are_balanced_and_follow_the_principal_direction(width: int) -> None:
    random = np.random.default_rng(0)
    position = random.permutation(100)
    vectors = random.normal(scale=1e-4, size=(100, width)).astype(np.float32)
    vectors[:, 1] += position

    residual = split_buckets(np.zeros((100, 1), np.int32), vectors, 256)

    codes = residual.codes[:, 0]
    assert np.bincount(codes).tolist() == [25, 25, 25, 25]
    ordered = codes[np.argsort(position)]
    assert (np.diff(ordered) >= 0).all() or (np.diff(ordered) <= 0).all()


def test_small_buckets_need_no_level() -> None:
    codes = np.repeat(np.arange(3, dtype=np.int32), MAX_BUCKET)[:, None]

    assert split_buckets(codes, np.ones((len(codes), 2), np.float32), 256).levels == ()


def test_reports_count_collisions_and_use() -> None:
    codes = np.array([[0, 1], [0, 1], [2, 1], [2, 0], [2, 0], [2, 0]], dtype=np.int32)

    assert collision_report(codes) == {
        "items": 6,
        "distinct_ids": 3,
        "items_sharing_an_id": 5,
        "shared_ids": 2,
        "largest_bucket": 3,
    }
    first, second = usage_report(
        codes, [Level("a", LevelKind.TEXT, 4), Level("b", LevelKind.TEXT, 2)]
    )
    assert (first["used"], first["dead"]) == (2, 2)
    assert (second["used"], second["dead"], second["perplexity"]) == (2, 0, 2.0)
