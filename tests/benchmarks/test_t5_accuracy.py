"""The published alternative is trained and measured by our own rules."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from model.errors import StageError
from model.training.histories import HeldOut
from model.training.pipeline import Workspace
from tests.required import skip_for_want_of

if importlib.util.find_spec("transformers") is None:
    skip_for_want_of("transformers", "install the extra `bench`: pip install -e '.[bench]'")

from tests.benchmarks import t5_accuracy
from tests.benchmarks.t5 import StaticSearch, slim
from tests.benchmarks.t5_data import HISTORY, FlatData, random_prefixes, read_flat_data
from tests.benchmarks.t5_ranking import BEAMS, rank
from tests.benchmarks.t5_training import PARTS, T5Training, train

SECONDS = 2.4
"""Of processor time, of which a training here may spend a sixth per part."""


@pytest.fixture(scope="module")
def stages_folder(shop_bundle: Path) -> Path:
    return shop_bundle.parent / "run"


@pytest.fixture(scope="module")
def data(stages_folder: Path) -> FlatData:
    return read_flat_data(Workspace(stages_folder).stages())


def begun(data: FlatData, seconds: float = SECONDS) -> T5Training:
    return T5Training(data, slim(data.tokens.count, width=16, layers=1), seconds / 60)


def quiet() -> Progress:
    return Progress(console=Console(quiet=True))


def test_every_item_has_the_codes_of_our_bundle_and_a_number_among_those_that_share_them(
    data: FlatData, stages_folder: Path
) -> None:
    codes = np.load(stages_folder / "tokenized" / "codes.npy")
    assert len(np.unique(codes, axis=0)) < len(codes), "no two items share a semantic ID here"

    flat = data.tokens.items[data.leaf_of_row]

    assert len(np.unique(flat, axis=0)) == len(codes)
    assert (flat[:, :-1] - data.tokens.first[:-2] == codes).all()
    levels = data.trie.levels
    assert data.trie.depth_start[levels + 1] - data.trie.depth_start[levels] == len(codes)


def test_no_held_out_event_is_ever_learned_from(data: FlatData, stages_folder: Path) -> None:
    prepared = stages_folder / "prepared"
    rows = pl.read_parquet(prepared / "items.parquet")["item_id"].to_list()
    leaf_of = {item: int(data.leaf_of_row[row]) for row, item in enumerate(rows)}
    events = pl.read_parquet(prepared / "events.parquet").filter(split="train")
    by_user = events.group_by("user_id", maintain_order=True).agg("item_id")["item_id"]
    allowed = [[leaf_of[item] for item in items] for items in by_user if len(items) > 1]

    ends = set()
    for number in range(10):
        prefixes = random_prefixes(data.training(), np.random.default_rng(number))
        for user, (prefix, items) in enumerate(zip(prefixes, allowed, strict=True)):
            end = place(prefix.tolist(), items)
            assert end is not None, f"{prefix} is nothing that user {user} did in training"
            ends.add((user, end))
    assert len(ends) > sum(len(items) - 1 for items in allowed) / 2


def place(prefix: list[int], items: list[int]) -> int | None:
    """Where in a history a prefix ends, if it is one of it as the T5 reads it."""
    ends = range(1, len(items))
    return next((e for e in ends if prefix == items[max(0, e - HISTORY) : e + 1]), None)


def test_the_search_finds_every_open_item_with_its_log_probability(data: FlatData) -> None:
    model = slim(data.tokens.count, width=16, layers=1)
    histories = [np.array([3, 14, 15, 92]), np.array([6])]
    tokens, real = data.tokens.batch(histories)
    items = data.trie.item_count
    closed = torch.zeros(2, data.trie.node_count, dtype=torch.bool)
    first = data.trie.depth_start[data.trie.levels]
    closed[0, first + 14] = True

    nodes, totals = StaticSearch(model, data.trie, data.tokens)(
        tokens, 2 * items, real=real, closed=closed
    )

    wanted = [set(range(items)) - {14}, set(range(items))]
    for user, leaves in enumerate(wanted):
        found = torch.isfinite(totals[user])
        reached = (nodes[user][found] - first).tolist()
        assert len(reached) == len(leaves)
        assert set(reached) == leaves
        expected = forced(model, data, histories[user])[reached]
        assert torch.allclose(totals[user][found], expected, atol=1e-4)
        assert all(one >= other for one, other in pairwise(totals[user][found].tolist()))


@torch.inference_mode()
def forced(
    model: torch.nn.Module, data: FlatData, history: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> torch.Tensor:
    """Log-probability of every item [N], each given to the decoder as a whole."""
    labels = torch.from_numpy(data.tokens.items)
    read = data.tokens.history(history).expand(len(labels), -1)
    logits = model(input_ids=read, labels=labels).logits
    log_probs = torch.log_softmax(logits, dim=-1).gather(2, labels.unsqueeze(2))
    total: torch.Tensor = log_probs.sum((1, 2))
    return total


def test_seen_items_are_not_ranked_and_who_has_seen_nothing_fails(data: FlatData) -> None:
    search = StaticSearch(slim(data.tokens.count, width=16, layers=1), data.trie, data.tokens)
    inputs = [np.arange(start, start + 40, dtype=np.int32) for start in (0, 50, 100)]
    nobody = np.zeros(0, dtype=np.int32)
    task = HeldOut(np.arange(4), [*inputs, nobody], np.array([0, 51, 102, 7], dtype=np.int32))
    with quiet() as progress:
        rankings = rank(search, data, task, progress)

    assert rankings.ranks.tolist() == [0, 0, 0, 0]
    assert rankings.lengths.tolist() == [BEAMS, BEAMS, BEAMS, 0]
    for history, first in zip(inputs, rankings.first, strict=False):
        assert not np.isin(first, history).any()
        assert len(set(first.tolist())) == 10
        assert ((first >= 0) & (first < data.trie.item_count)).all()


def test_a_target_has_the_place_in_which_the_search_finds_it(data: FlatData) -> None:
    search = StaticSearch(slim(data.tokens.count, width=16, layers=1), data.trie, data.tokens)
    history = np.array([1, 2, 3], dtype=np.int32)
    users = np.zeros(1, dtype=np.int64)
    with quiet() as progress:
        probe = rank(search, data, HeldOut(users, [history], history[:1]), progress)
        fourth = probe.first[0, 3:4].astype(np.int32)
        found = rank(search, data, HeldOut(users, [history], fourth), progress)

    assert found.ranks.tolist() == [4]


def test_a_training_that_was_stopped_goes_on_with_the_minutes_that_remain(
    data: FlatData, tmp_path: Path
) -> None:
    task = data.task("validation", 20)
    stopped = begun(data)
    with quiet() as progress:
        while not stopped.part_is_learned():
            stopped.learn(SECONDS, progress)
        stopped.validate(task, progress)
        stopped.learn(SECONDS / PARTS / 4, progress)
        stopped.save(tmp_path / "last.ckpt")
        resumed = begun(data)
        resumed.restore(tmp_path / "last.ckpt")
        same = [
            torch.equal(one, other)
            for one, other in zip(
                stopped.model.parameters(), resumed.model.parameters(), strict=True
            )
        ]
        assert all(same)
        assert resumed.seconds == stopped.seconds

        continued = begun(data)
        train(continued, task, tmp_path, progress)
        assert continued.rows[0] == stopped.rows[0]
        assert len(continued.rows) == PARTS
        assert continued.rows[-1]["loss"] < continued.rows[0]["loss"]
        assert continued.seconds >= SECONDS
        minutes = [row["minutes"] for row in continued.rows]
        for part, minute in enumerate(minutes, start=1):
            assert minute >= SECONDS / 60 * part / PARTS

        again = begun(data)
        train(again, task, tmp_path, progress)
        assert (again.samples, again.rows) == (continued.samples, continued.rows)


def test_a_training_of_another_time_is_not_continued(data: FlatData, tmp_path: Path) -> None:
    begun(data).save(tmp_path / "last.ckpt")

    with quiet() as progress, pytest.raises(StageError, match="another configuration"):
        train(begun(data, seconds=60), data.task("validation", 1), tmp_path, progress)


def test_what_was_measured_is_told(
    data: FlatData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t5_accuracy, "VALIDATION_USERS", 20)

    result = t5_accuracy.measure(begun(data), "shop", 30, tmp_path)
    t5_accuracy.draw(result, tmp_path / "t5.png")

    assert result["test_users"] == 30
    assert result["best"] in result["parts"]
    assert result["best"]["ndcg@10"] == max(part["ndcg@10"] for part in result["parts"])
    targets = sum(len(events) - 1 for events in data.training())
    assert result["epochs"] * targets == pytest.approx(result["samples"])
    assert f"{result['test']['ndcg@10']:.4f} |" in t5_accuracy.table(result)
    assert (tmp_path / "t5.png").read_bytes().startswith(b"\x89PNG")
