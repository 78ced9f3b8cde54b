"""The generator's last lessons: what they change, what they leave, and when they are kept."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from model.errors import StageError
from model.training.diffusion_losses import Masking, Objective, diffusion_losses
from model.training.diffusion_network import DiffusionNetwork
from model.training.evidence import batch_evidence
from model.training.losses import Positions, generator_loss, item_head_loss, path_choices
from model.training.network import Network
from model.training.teaching import Lessons, Teaching
from model.training.train import TrainConfig, build_network, load, read_training, refit, train
from model.training.training_set import TrainingSet, padded
from tests.model.training.small_run import SMALL, Folders, Interruption

TAUGHT = SMALL.model_copy(update={"teaching_epochs": 3})


@pytest.fixture(scope="module")
def whole(small_run: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training with lessons that nothing interrupted."""
    output = tmp_path_factory.mktemp("taught") / "trained"
    train(TAUGHT, *small_run.all(), output)
    return output


def restored(checkpoint: Path, data: TrainingSet, config: TrainConfig = TAUGHT) -> Network:
    network = build_network(config, data)
    network.load_state_dict(load(checkpoint)["network"])
    return network.eval()


def distance_to_the_head(network: Network, data: TrainingSet) -> float:
    """Cross-entropy of the generator to the item head over the training histories."""
    leaves, real = padded(data.windows)
    with torch.no_grad():
        items = network.item_vectors()
        h = network.history_encoder(items[leaves[:, :-1]])[real[:, 1:]]
        targets, tree = leaves[:, 1:][real[:, 1:]], network.tree(items)
        evidence = batch_evidence(network, data.transitions, data.windows, data.popularity)
        positions = Positions(h, targets, evidence)
        if isinstance(network, DiffusionNetwork):
            torch.manual_seed(0)  # the same masks for every network
            objective = Objective(Masking(), distillation=1.0)
            return diffusion_losses(network, positions, items, objective)[1].item()
        choices = path_choices(network, targets, tree)
        _, taught = item_head_loss(network, positions, items, choices)
        return generator_loss(network, positions, tree, choices, taught, share=1.0).item()


def vectors(network: Network, data: TrainingSet) -> tuple[Tensor, Tensor]:
    """Item vectors, and a few histories encoded."""
    leaves, _ = padded([window[:-1] for window in data.windows[:10]])
    with torch.no_grad():
        items = network.item_vectors()
        return items, network.history_encoder(items[leaves])


@pytest.mark.parametrize("decoder", ["autoregressive", "diffusion"])
def test_the_generator_comes_closer_to_the_head_which_stays(
    small_run: Folders, tmp_path: Path, decoder: str
) -> None:
    data = small_run.data()
    config = SMALL.model_copy(update={"teaching_epochs": 0, "decoder": decoder})
    train(config, *small_run.all(), tmp_path)
    before = restored(tmp_path / "best.ckpt", data, config)
    after = restored(tmp_path / "best.ckpt", data, config)
    teach(after, data, lessons=3)
    assert distance_to_the_head(after, data) < distance_to_the_head(before, data) - 0.005
    for one, other in zip(vectors(before, data), vectors(after, data), strict=True):
        assert torch.equal(one, other)


def teach(network: Network, data: TrainingSet, lessons: int) -> None:
    given = Lessons(lessons, 0.01, 32, 0, Masking())
    teaching = Teaching(Fabric(accelerator="cpu"), network, data, given)
    for number in range(1, lessons + 1):
        assert all(np.isfinite(loss) for _, loss in teaching.steps(number))
    network.eval()


def test_they_are_kept_when_generator_and_served_ranking_are_no_worse(whole: Path) -> None:
    facts = read_training(whole)
    assert [row["taught"] for row in facts["lessons"]] == [1, 2, 3]
    untaught = max(facts["epochs"], key=lambda row: row["served"])
    last = facts["lessons"][-1]
    is_better = last["generator"] + last["served"] >= untaught["generator"] + untaught["served"]
    assert facts["best"]["taught"] == (3 if is_better else 0)
    assert facts["best"]["served"] == (last if is_better else untaught)["served"]
    kept, taught = (load(whole / name)["network"] for name in ("best.ckpt", "taught.ckpt"))
    same = all(torch.equal(kept[name], taught[name]) for name in kept)
    assert same == (facts["best"]["taught"] == 3)


@pytest.mark.parametrize("lesson", [1, 2])
def test_interrupted_lessons_end_as_if_they_had_not_been(
    lesson: int, whole: Path, small_run: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Teaching.steps

    def interrupted(teaching: Teaching, number: int) -> Iterator[tuple[float, float]]:
        for count, step in enumerate(steps(teaching, number)):
            if number == lesson and count == 1:
                raise Interruption
            yield step

    with monkeypatch.context() as patch:
        patch.setattr(Teaching, "steps", interrupted)
        with pytest.raises(Interruption):
            train(TAUGHT, *small_run.all(), tmp_path)
    train(TAUGHT, *small_run.all(), tmp_path)
    for name in ("best.ckpt", "taught.ckpt"):
        one, other = load(whole / name)["network"], load(tmp_path / name)["network"]
        assert all(torch.equal(one[key], other[key]) for key in one)
    ended, whole_best = read_training(tmp_path)["best"], read_training(whole)["best"]
    assert ended | {"seconds": 0} == whole_best | {"seconds": 0}


def test_lessons_of_another_run_are_refused(
    whole: Path, small_run: Folders, tmp_path: Path
) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    other = load(whole / "taught.ckpt") | {"identity": "another"}
    torch.save(other, tmp_path / "taught.ckpt")
    with pytest.raises(StageError, match=r"taught\.ckpt belongs to another configuration"):
        train(TAUGHT, *small_run.all(), tmp_path)


def test_a_refit_repeats_what_was_chosen(whole: Path, small_run: Folders, tmp_path: Path) -> None:
    refit(TAUGHT, small_run.all(), whole, tmp_path)
    facts = read_training(tmp_path)
    chosen = read_training(whole)["best"]
    assert len(facts["epochs"]) == chosen["epoch"]
    assert len(facts["lessons"]) == chosen["taught"]
