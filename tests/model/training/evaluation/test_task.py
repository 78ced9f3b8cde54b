from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from model.catalog import Catalog, build_catalog
from model.errors import ConfigError, StageError
from model.training.evaluation.task import Choice, Task, read_task
from model.training.histories import Split
from tests.model.training.test_histories import EVENTS, write_prepared


def catalog_of(item_ids: Sequence[str]) -> Catalog:
    codes = np.zeros((len(item_ids), 1), np.int32)
    return build_catalog(item_ids, [""] * len(item_ids), [[]] * len(item_ids), codes)


def choice(split: Split = "test", *, users: int | None = None, head_share: float = 0.25) -> Choice:
    return Choice(split, users, seed=0, head_share=head_share)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return write_prepared(tmp_path, EVENTS)


def as_lists(task: Task) -> list[list[int]]:
    return [history.tolist() for history in task.leaves]


def test_items_are_numbered_as_rows_and_as_leaves(prepared: Path) -> None:
    task = read_task(prepared, catalog_of(["d", "c", "b", "a"]), choice())
    assert task.users == ["ann", "cyd", "dee"]
    assert len(task) == task.users_in_split == 3
    assert [history.tolist() for history in task.rows] == [[0, 2, 1], [], [0, 1]]
    assert as_lists(task) == [[3, 1, 2], [], [3, 2]]
    assert task.target_rows.tolist() == [3, 1, 2]
    assert task.targets.tolist() == [0, 2, 1]
    assert task.row_items == 4


def test_items_the_bundle_lacks_are_unknown_targets_and_leave_histories(prepared: Path) -> None:
    task = read_task(prepared, catalog_of(["a", "c"]), choice())
    assert as_lists(task) == [[0, 1], [], [0]]
    assert task.targets.tolist() == [-1, -1, 1]


def test_head_tail_and_cold_follow_training_events(tmp_path: Path) -> None:
    events = [("a", "d", "train"), ("a", "d", "train"), ("a", "c", "train"), ("a", "d", "test")]
    events += [("b", "c", "test"), ("c", "a", "test")]
    task = read_task(write_prepared(tmp_path, events), catalog_of(["a", "c", "d"]), choice())
    assert {kind: mask.tolist() for kind, mask in task.kinds.items()} == {
        "head": [True, False, False],
        "tail": [False, True, False],
        "cold": [False, False, True],
    }
    assert "25%" in task.meanings["head"]


def test_sample_is_drawn_by_seed(tmp_path: Path) -> None:
    events = [(f"u{n:02}", "abcd"[n % 4], "test") for n in range(40)]
    folder, catalog = write_prepared(tmp_path, events), catalog_of("abcd")
    first, again = (read_task(folder, catalog, choice(users=7)) for _ in range(2))
    other = read_task(folder, catalog, Choice("test", 7, seed=1, head_share=0.25))
    assert len(first) == 7
    assert first.users_in_split == 40
    assert first.users == again.users == sorted(first.users)
    assert first.users != other.users
    assert len(read_task(folder, catalog, choice(users=90))) == 40


def test_foreign_bundle_and_empty_split_are_refused(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path, [("ann", "a", "train")])
    with pytest.raises(StageError, match="no item in common"):
        read_task(folder, catalog_of(["x"]), choice())
    with pytest.raises(ConfigError, match=r"'validation'.*no users"):
        read_task(folder, catalog_of(["a"]), choice("validation"))
