"""Windows, batches and the tokenized catalogue."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import StageError
from model.history import truncate
from model.training.training_set import _windows, batches, padded
from tests.model.training.small_run import Folders

HISTORIES = st.lists(st.integers(0, 1000), max_size=60, unique=True).map(np.array)
LENGTHS = st.integers(1, 20)


@given(HISTORIES, LENGTHS)
def test_windows_predict_every_event_but_the_first_once(leaves: np.ndarray, length: int) -> None:
    windows = list(_windows(leaves, length))
    predicted = [item for window in windows for item in window[1:].tolist()]
    assert sorted(predicted) == sorted(leaves[1:].tolist())
    assert all(2 <= len(window) <= length + 1 for window in windows)
    text = leaves.tolist()
    for window in windows:  # each is a stretch of the history
        start = text.index(window[0])
        assert text[start : start + len(window)] == window.tolist()


@given(HISTORIES, LENGTHS)
def test_the_newest_window_reads_what_serving_would_read(leaves: np.ndarray, length: int) -> None:
    windows = list(_windows(leaves, length))
    if len(leaves) < 2:
        assert not windows
    else:
        assert windows[0][:-1].tolist() == truncate(leaves[:-1], length).tolist()
        assert windows[0][-1] == leaves[-1]


@given(
    st.lists(st.integers(2, 30), min_size=1, max_size=300),
    st.integers(1, 40),
    st.integers(0, 10),
)
def test_batches_hold_every_window_once_and_follow_the_seed(
    lengths: list[int], size: int, seed: int
) -> None:
    windows = [np.arange(length) for length in lengths]
    plan = batches(windows, size, np.random.default_rng(seed))
    again = batches(windows, size, np.random.default_rng(seed))
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(windows)))
    assert all(1 <= len(batch) <= size for batch in plan)
    assert [batch.tolist() for batch in plan] == [batch.tolist() for batch in again]


def test_another_seed_shuffles_otherwise() -> None:
    windows = [np.arange(5)] * 100
    plans = [batches(windows, 10, np.random.default_rng(seed)) for seed in (0, 1)]
    assert np.concatenate(plans[0]).tolist() != np.concatenate(plans[1]).tolist()


def test_padding_comes_last_and_is_marked() -> None:
    leaves, real = padded([np.array([3, 4, 5]), np.array([6])])
    assert leaves.tolist() == [[3, 4, 5], [6, 0, 0]]
    assert real.tolist() == [[True, True, True], [True, False, False]]


def test_items_are_in_leaf_order(small_run: Folders) -> None:
    catalogue = small_run.data().catalogue
    codes = np.load(small_run.tokenized / "codes.npy")
    assert np.array_equal(catalogue.codes, codes[catalogue.order])
    assert sorted(map(tuple, codes)) == list(map(tuple, catalogue.codes))
    assert np.array_equal(catalogue.leaf_of_row[catalogue.order], np.arange(100))
    ids = pl.read_parquet(small_run.prepared / "items.parquet")["item_id"].to_list()
    keys = [(tuple(codes[row]), ids[row]) for row in catalogue.order]
    assert keys == sorted(keys)


def test_training_counts_training_events_and_refit_all(small_run: Folders) -> None:
    events = pl.read_parquet(small_run.prepared / "events.parquet")
    training = small_run.data()
    assert training.popularity.sum() == (events["split"] == "train").sum()
    assert small_run.data(refit=True).popularity.sum() == len(events)
    assert np.array_equal(training.trained().numpy(), training.popularity > 0)


def test_an_unfinished_stage_is_refused(small_run: Folders, tmp_path: Path) -> None:
    for number, name in enumerate(("embedded", "tokenized")):
        folders = [small_run.prepared, small_run.embedded, small_run.tokenized]
        folders[number + 1] = tmp_path / name
        with pytest.raises(StageError, match=name):
            Folders(*folders).data()


def test_a_catalogue_of_another_size_is_refused(small_run: Folders, tmp_path: Path) -> None:
    other = tmp_path / "tokenized"
    other.mkdir()
    for name in ("report.json", "levels.json"):
        (other / name).write_bytes((small_run.tokenized / name).read_bytes())
    np.save(other / "codes.npy", np.load(small_run.tokenized / "codes.npy")[:-1])
    with pytest.raises(StageError, match=r"100 items and .* 99"):
        Folders(small_run.prepared, small_run.embedded, other).data()


def test_a_catalogue_nobody_bought_twice_from_is_refused(
    small_run: Folders, tmp_path: Path
) -> None:
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    for name in ("report.json", "items.parquet"):
        (prepared / name).write_bytes((small_run.prepared / name).read_bytes())
    events = pl.read_parquet(small_run.prepared / "events.parquet")
    events.unique("user_id", keep="first", maintain_order=True).write_parquet(
        prepared / "events.parquet"
    )
    with pytest.raises(StageError, match="two training events"):
        Folders(prepared, small_run.embedded, small_run.tokenized).data()
