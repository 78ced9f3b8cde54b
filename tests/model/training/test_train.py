"""The training loop: resuming, stopping, refitting, and what it refuses."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from model.diffusion_search import ANY_ORDER_ITEMS_MAX
from model.errors import ConfigError, StageError, TrainingError
from model.training import train as training
from model.training.train import (
    TrainConfig,
    TrainingRun,
    fingerprint,
    load,
    losses,
    read_training,
    refit,
    refuse_idle_penalty,
    train,
    validation_task,
)
from model.trie import Trie
from tests.model.training.small_run import SMALL, Folders, Interruption

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def whole(small_run: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole") / "trained"
    train(SMALL, *small_run.all(), output)
    return output


def rows(trained: Path) -> list[dict[str, float]]:
    epochs = read_training(trained)["epochs"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in epochs]


def assert_same_training(one: Path, other: Path) -> None:
    assert rows(one) == rows(other)
    for name in ("best.ckpt", "last.ckpt"):
        states = [load(folder / name)["network"] for folder in (one, other)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    epoch: int, whole: Path, small_run: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_steps = TrainingRun.steps

    def interrupted(run: TrainingRun, number: int) -> Iterator[tuple[float, float, float]]:
        for count, step in enumerate(run_steps(run, number)):
            if number == epoch + 1 and count == 1:  # amid the epoch after
                raise Interruption
            yield step

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "steps", interrupted)
        with pytest.raises(Interruption):
            train(SMALL, *small_run.all(), tmp_path)
    assert len(load(tmp_path / "last.ckpt")["epochs"]) == epoch
    with pytest.raises(StageError, match="did not finish"):
        read_training(tmp_path)
    train(SMALL, *small_run.all(), tmp_path)
    assert_same_training(whole, tmp_path)


@pytest.mark.parametrize("killed_at", ["best.ckpt", "last.ckpt"])
def test_an_interruption_between_checkpoints_loses_nothing(
    killed_at: str,
    whole: Path,
    small_run: Folders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    best = read_training(whole)["best"]["epoch"]
    save = training.save

    def interrupted(path: Path, identity: str, state: dict[str, object]) -> None:
        epochs = state["epochs"]
        if path.name == killed_at and isinstance(epochs, list) and len(epochs) == best:
            path.with_suffix(".partial").write_bytes(b"half a checkpoint")
            raise Interruption
        save(path, identity, state)

    with monkeypatch.context() as patch:
        patch.setattr(training, "save", interrupted)
        with pytest.raises(Interruption):
            train(SMALL, *small_run.all(), tmp_path)
    train(SMALL, *small_run.all(), tmp_path)
    assert_same_training(whole, tmp_path)


def test_a_finished_training_is_not_repeated(
    whole: Path, small_run: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (whole / "best.ckpt").read_bytes()
    monkeypatch.setattr(TrainingRun, "steps", None)  # would fail
    assert train(SMALL, *small_run.all(), whole) == read_training(whole)["best"]
    assert (whole / "best.ckpt").read_bytes() == before


def test_it_learns_and_leaves_what_it_promises(whole: Path) -> None:
    facts = read_training(whole)
    epochs = facts["epochs"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4]
    for name in ("head_loss", "generator_loss"):
        assert epochs[-1][name] < epochs[0][name] - 0.1
    assert facts["best"]["epoch"] == max(epochs, key=lambda row: row["served"])["epoch"]
    assert (whole / "curves.png").read_bytes().startswith(PNG)
    assert "NaN" not in (whole / "training.json").read_text()
    assert not list(whole.glob("*.partial"))


def test_the_seed_decides(whole: Path, small_run: Folders, tmp_path: Path) -> None:
    train(SMALL.model_copy(update={"seed": 1}), *small_run.all(), tmp_path)
    assert rows(tmp_path) != rows(whole)


def test_it_stops_when_validation_no_longer_improves(small_run: Folders, tmp_path: Path) -> None:
    # So small a rate changes no ranking: the first epoch stays the best.
    config = SMALL.model_copy(update={"learning_rate": 1e-12, "patience": 2, "epochs": 9})
    train(config, *small_run.all(), tmp_path)
    facts = read_training(tmp_path)
    assert len(facts["epochs"]) == 3
    assert facts["best"]["epoch"] == 1


def test_a_checkpoint_of_another_configuration_is_refused(
    whole: Path, small_run: Folders, tmp_path: Path
) -> None:
    (tmp_path / "last.ckpt").write_bytes((whole / "last.ckpt").read_bytes())
    other = SMALL.model_copy(update={"learning_rate": 0.02})
    with pytest.raises(StageError, match=f"another configuration .* delete {tmp_path}"):
        train(other, *small_run.all(), tmp_path)


def test_a_checkpoint_of_other_events_is_refused(
    whole: Path, small_run: Folders, tmp_path: Path
) -> None:
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    for name in ("report.json", "items.parquet"):
        (prepared / name).write_bytes((small_run.prepared / name).read_bytes())
    events = pl.read_parquet(small_run.prepared / "events.parquet")
    first = events["user_id"][0]
    events.filter(pl.col("user_id") != first).write_parquet(prepared / "events.parquet")
    (tmp_path / "last.ckpt").write_bytes((whole / "last.ckpt").read_bytes())
    with pytest.raises(StageError, match="other data"):
        train(SMALL, prepared, small_run.embedded, small_run.tokenized, tmp_path)


def test_the_device_may_change_on_the_way(whole: Path, small_run: Folders, tmp_path: Path) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    train(SMALL.model_copy(update={"device": "auto"}), *small_run.all(), tmp_path)
    assert rows(tmp_path) == rows(whole)


def test_a_damaged_checkpoint_is_refused(whole: Path, small_run: Folders, tmp_path: Path) -> None:
    content = (whole / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(StageError, match=f"{tmp_path}/last.ckpt is not a checkpoint"):
        train(SMALL, *small_run.all(), tmp_path)


class Evil:
    """Runs code where a checkpoint is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    torch.save({"identity": Evil(tmp_path / "ran")}, tmp_path / "last.ckpt")
    with pytest.raises(StageError, match="not a checkpoint"):
        load(tmp_path / "last.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_loss_that_is_no_number_stops_the_training(small_run: Folders, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) in epoch 1; lower learning_rat"
    ):
        train(config, *small_run.all(), tmp_path)
    assert not (tmp_path / "training.json").exists()


def test_refit_takes_all_events_for_the_chosen_epochs(
    whole: Path, small_run: Folders, tmp_path: Path
) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    facts = read_training(whole)
    facts["best"] = facts["epochs"][1] | {"fusion_weight": 0.15, "taught": 0}
    (chosen / "training.json").write_text(json.dumps(facts))
    last = refit(SMALL, small_run.all(), chosen, tmp_path / "refitted")
    refitted = read_training(tmp_path / "refitted")
    assert refitted["refit"] is True
    assert len(refitted["epochs"]) == 2
    assert refitted["best"] == refitted["epochs"][1] == last
    assert last["fusion_weight"] == 0.15
    assert "NaN" not in (tmp_path / "refitted" / "training.json").read_text()
    # The parameters are those of a run by hand over all events.
    run = TrainingRun(SMALL, small_run.data(refit=True))
    for epoch in (1, 2):
        assert sum(1 for _ in run.steps(epoch)) > 0
    state = load(tmp_path / "refitted" / "best.ckpt")["network"]
    assert all(torch.equal(state[name], value) for name, value in run.network.state_dict().items())


def test_refit_needs_a_finished_training(small_run: Folders, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="did not finish"):
        refit(SMALL, small_run.all(), tmp_path, tmp_path / "refitted")


def test_validation_ranks_a_fixed_sample_of_users_with_a_history(small_run: Folders) -> None:
    data = small_run.data()
    assert len(validation_task(data, 1000).users) == 80
    sample = validation_task(data, 30)
    assert sample.users.tolist() == validation_task(data, 30).users.tolist()
    place = {int(user): row for row, user in enumerate(data.held_out("validation").users)}
    whole = data.held_out("validation")
    for user, history, target in zip(*sample, strict=True):
        assert history.tolist() == whole.inputs[place[int(user)]].tolist()
        assert target == whole.targets[place[int(user)]]


def test_training_without_validation_users_is_refused(small_run: Folders, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    for name in ("report.json", "items.parquet"):
        (prepared / name).write_bytes((small_run.prepared / name).read_bytes())
    events = pl.read_parquet(small_run.prepared / "events.parquet")
    events.filter(pl.col("split") == "train").write_parquet(prepared / "events.parquet")
    with pytest.raises(StageError, match="no user has a validation event"):
        train(SMALL, prepared, small_run.embedded, small_run.tokenized, tmp_path / "trained")


def test_ablations_that_are_not_asked_for_leave_a_training_what_it_was(
    small_run: Folders,
) -> None:
    """A checkpoint from before there were any goes on."""
    data = small_run.data()
    settings = {"positions", "level_layers"}

    assert settings <= SMALL.idle()
    for name in settings:
        other = SMALL.model_copy(update={name: False})
        assert name not in other.idle()
        assert fingerprint(other, data) != fingerprint(SMALL, data)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValidationError, match="heads 3 must divide width 64"):
        TrainConfig(heads=3)


def test_losses_are_means_over_all_predicted_positions(small_run: Folders) -> None:
    data = small_run.data()
    network = TrainingRun(SMALL, data).network.eval()
    batch = np.arange(5)
    together = torch.stack(losses(network, data, batch, SMALL))
    alone = torch.stack([torch.stack(losses(network, data, [row], SMALL)) for row in batch])
    positions = torch.tensor([float(len(data.windows[row]) - 1) for row in batch])
    expected = (alone * positions.unsqueeze(1)).sum(0) / positions.sum()
    torch.testing.assert_close(together, expected)


@pytest.mark.slow
def test_another_process_continues_bit_for_bit(
    whole: Path, small_run: Folders, tmp_path: Path
) -> None:
    """Nothing hangs on what a process happened to do before: kill one, continue in another."""
    script = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from model.training import train as t\n"
        "config = t.TrainConfig.model_validate_json(sys.argv[1])\n"
        "save = t.save\n"
        "def once(path, *rest):\n"
        "    save(path, *rest)\n"
        "    if path.name == 'last.ckpt' and len(rest[1]['epochs']) == 2:\n"
        "        os.kill(os.getpid(), 9)\n"
        "t.save = once\n"
        "t.train(config, *map(Path, sys.argv[2:]))\n"
    )
    arguments = [SMALL.model_dump_json(), *map(str, (*small_run.all(), tmp_path))]
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=False, capture_output=True
    )
    assert ended.returncode == -9, ended.stderr.decode()
    train(SMALL, *small_run.all(), tmp_path)
    assert_same_training(whole, tmp_path)


def test_a_penalty_that_would_do_nothing_is_refused() -> None:
    number = np.arange(ANY_ORDER_ITEMS_MAX + 1)
    codes = np.stack([np.zeros_like(number), number // 256, number % 256], axis=1)
    large, _ = Trie.build(codes)
    small, _ = Trie.build(codes[:-1])
    asked = TrainConfig(decoder="diffusion", diversity_penalty=True)

    with pytest.raises(ConfigError, match=r"largest category has 2,049 items"):
        refuse_idle_penalty(asked, large, 1)
    refuse_idle_penalty(asked, small, 1)
    refuse_idle_penalty(asked, large, 2)
    refuse_idle_penalty(TrainConfig(decoder="diffusion"), large, 1)
