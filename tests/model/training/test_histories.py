from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.errors import DataError, StageError
from model.training.histories import Histories, Split, read_histories

EVENTS = [
    ("ann", "a", "train"),
    ("ann", "c", "train"),
    ("ann", "b", "validation"),
    ("ann", "d", "test"),
    ("bob", "d", "train"),
    ("cyd", "b", "test"),
    ("dee", "a", "validation"),
    ("dee", "b", "validation"),
    ("dee", "c", "test"),
    ("dee", "d", "test"),
]


def write_prepared(folder: Path, events: list[tuple[str, str, str]]) -> Path:
    folder.mkdir(exist_ok=True)
    pl.DataFrame({"item_id": ["a", "b", "c", "d"]}).write_parquet(folder / "items.parquet")
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "split"], orient="row")
    frame.write_parquet(folder / "events.parquet")
    (folder / "report.json").write_text("{}")
    return folder


def as_lists(sequences: list[np.typing.NDArray[np.int32]]) -> list[list[int]]:
    return [sequence.tolist() for sequence in sequences]


@pytest.fixture
def histories(tmp_path: Path) -> Histories:
    return read_histories(write_prepared(tmp_path, EVENTS))


def test_flat_arrays_follow_the_file(histories: Histories) -> None:
    assert histories.users == ["ann", "bob", "cyd", "dee"]
    assert len(histories) == 4
    assert histories.items.tolist() == [0, 2, 1, 3, 3, 1, 0, 1, 2, 3]
    assert histories.offsets.tolist() == [0, 4, 5, 6, 10]
    assert histories.items.dtype == np.int32
    assert histories.offsets.dtype == np.int64
    assert histories.splits.dtype == np.uint8


def test_training_sequences_hold_training_events_only(histories: Histories) -> None:
    assert as_lists(histories.training()) == [[0, 2], [3], [], []]
    users, items = histories.training_events()
    assert users.tolist() == [0, 0, 1]
    assert items.tolist() == [0, 2, 3]


def test_complete_sequences_hold_everything(histories: Histories) -> None:
    assert as_lists(histories.complete()) == [[0, 2, 1, 3], [3], [1], [0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("split", "users", "inputs", "targets"),
    [
        ("validation", [0, 3], [[0, 2], []], [1, 0]),
        ("test", [0, 2, 3], [[0, 2, 1], [], [0, 1]], [3, 1, 2]),
    ],
)
def test_held_out_input_is_all_that_came_before_the_first_target(
    histories: Histories,
    split: Split,
    users: list[int],
    inputs: list[list[int]],
    targets: list[int],
) -> None:
    held_out = histories.held_out(split)
    assert held_out.users.tolist() == users
    assert as_lists(held_out.inputs) == inputs
    assert held_out.targets.tolist() == targets


def test_no_events_gives_no_users(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path, EVENTS)
    pl.read_parquet(folder / "events.parquet").clear().write_parquet(folder / "events.parquet")
    histories = read_histories(folder)
    assert len(histories) == 0
    assert histories.training() == []
    assert histories.held_out("test").inputs == []


def test_unfinished_folder_is_refused(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path, EVENTS)
    (folder / "report.json").unlink()
    with pytest.raises(StageError, match=r"report\.json.*cofine prepare"):
        read_histories(folder)


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path, EVENTS)
    (folder / "events.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(StageError, match=r"events\.parquet cannot be read"):
        read_histories(folder)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([("ann", "x", "train")], "item_id 'x'"),
        ([("ann", "a", "later")], "split 'later'"),
        ([("ann", "a", "train"), ("bob", "a", "train"), ("ann", "b", "train")], "not sorted"),
        ([("ann", "a", "test"), ("ann", "b", "train")], "user_id 'ann' has a training event"),
    ],
)
def test_events_that_break_the_format_are_refused(
    tmp_path: Path, events: list[tuple[str, str, str]], message: str
) -> None:
    folder = write_prepared(tmp_path, events)
    with pytest.raises(DataError, match=message):
        read_histories(folder)
