"""Nothing held out reaches what is fitted: every validation and test target is made another
user's, all stages run anew from there, and everything they leave is the same byte for byte."""

import numpy as np
import polars as pl
import pytest
import torch

from model.training.evaluation.baselines import ItemNeighbours, popularity_counts
from model.training.histories import read_histories
from model.training.train import build_network
from model.training.training_set import TrainingSet
from tests.model.training.small_run import SMALL, Folders, derive


@pytest.fixture(scope="module")
def permuted(small_run: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The same run with every validation and test target another user's."""
    folder = tmp_path_factory.mktemp("permuted")
    folders = Folders(folder / "prepared", folder / "embedded", folder / "tokenized")
    folders.prepared.mkdir()
    for path in small_run.prepared.iterdir():
        (folders.prepared / path.name).write_bytes(path.read_bytes())
    events = pl.read_parquet(small_run.prepared / "events.parquet")
    generator = np.random.default_rng(0)
    items = events["item_id"].to_numpy().copy()
    for split in ("validation", "test"):
        rows = np.flatnonzero((events["split"] == split).to_numpy())
        items[rows] = items[generator.permutation(rows)]
    assert (items != events["item_id"].to_numpy()).sum() > 100
    events = events.with_columns(pl.Series("item_id", items))
    events.write_parquet(folders.prepared / "events.parquet")
    return derive(folders)


def test_held_out_targets_reach_no_stage_before_training(
    small_run: Folders, permuted: Folders
) -> None:
    names = [
        *(f"embedded/{field}.npy" for field in ("category", "title", "description", "brand")),
        "tokenized/codes.npy",
        "tokenized/collaborative.npy",
        "tokenized/collaborative_from_text.npy",
        "tokenized/levels.json",
        "tokenized/taxonomy.json",
        *(f"tokenized/codebooks/{p.name}" for p in (small_run.tokenized / "codebooks").iterdir()),
    ]
    for name in names:
        whole = (small_run.prepared.parent / name).read_bytes()
        assert whole == (permuted.prepared.parent / name).read_bytes(), name


def test_held_out_targets_reach_no_baseline(small_run: Folders, permuted: Folders) -> None:
    one, other = (read_histories(folders.prepared) for folders in (small_run, permuted))
    assert np.array_equal(popularity_counts(one, 100), popularity_counts(other, 100))
    asked = one.training()
    np.testing.assert_array_equal(
        ItemNeighbours.fit(one, 100).scores(asked), ItemNeighbours.fit(other, 100).scores(asked)
    )


def test_held_out_targets_do_not_reach_training(small_run: Folders, permuted: Folders) -> None:
    one, other = small_run.data(), permuted.data()
    assert [window.tolist() for window in one.windows] == [
        window.tolist() for window in other.windows
    ]
    assert np.array_equal(one.popularity, other.popularity)
    for name in ("start", "followers", "weights"):
        tables = [getattr(data.transitions, name) for data in (one, other)]
        assert np.array_equal(*tables), name
    assert _initial_state_is_the_same(one, other)
    # And the check can fail: a refit does see them.
    refits = [folders.data(refit=True) for folders in (small_run, permuted)]
    pairs = zip(*(refit.windows for refit in refits), strict=True)
    assert any(a.tolist() != b.tolist() for a, b in pairs)
    assert refits[0].transitions.followers.tolist() != refits[1].transitions.followers.tolist()


def _initial_state_is_the_same(one: TrainingSet, other: TrainingSet) -> bool:
    states = []
    for data in (one, other):
        torch.manual_seed(0)
        network = build_network(SMALL, data)
        states.append({**network.state_dict(), "trained": network.trained, "text": network.text})
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])
