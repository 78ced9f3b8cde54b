"""What the preset `tiny` learns of shops whose best answer is known.

Measured on the test split, seen items masked, every user counted. The *busy* shop has about fifty
training events per item; in the *sparse* one there are four, and what is known of an item is mostly
what is known of its neighbours in the tree.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.training.config import read_preset
from model.training.embedding.embed import embed
from model.training.evaluation.baselines import (
    Baseline,
    ItemNeighbours,
    Popularity,
    popularity_counts,
)
from model.training.evaluation.metrics import ndcg_at
from model.training.histories import read_histories
from model.training.preparation.prepare import PrepareConfig, prepare
from model.training.synthesis.synthesize import SynthesizeConfig, synthesize
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.tokenize import tokenize
from model.training.train import TrainingRun, load, train
from model.training.training_set import read_training_set
from model.training.validation import ValidationScores, validate

PRESET = read_preset("tiny")
BUSY = SynthesizeConfig(items=600, users=3000)
SPARSE = SynthesizeConfig(items=3000, users=1200)


def make_shop(config: SynthesizeConfig, folder: Path) -> Path:
    """Take a shop through the stages before the tokenizer."""
    synthesize(config, folder / "synthetic")
    files = {name: [folder / "synthetic" / f"{name}.parquet"] for name in ("items", "events")}
    prepare(PrepareConfig.model_validate(files), folder / "prepared")
    embed(PRESET.embed, folder / "prepared", folder / "embedded")
    return folder


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(BUSY, tmp_path_factory.mktemp("busy"))


@pytest.fixture(scope="module")
def busy_run(busy: Path) -> TrainingRun:
    return trained_run(busy, PRESET.tokenize)


@pytest.fixture(scope="module")
def busy_scores(busy_run: TrainingRun) -> ValidationScores:
    return scores_on_test(busy_run)


def trained_run(shop: Path, settings: TokenizeConfig) -> TrainingRun:
    """A finished training, at the epoch that validation chose."""
    name = "-".join(settings.level_order or ["coarse-to-fine"])
    tokenized, trained = shop / f"tokenized-{name}", shop / f"trained-{name}"
    tokenize(settings, shop / "prepared", shop / "embedded", tokenized)
    folders = (shop / "prepared", shop / "embedded", tokenized)
    train(PRESET.train, *folders, trained)
    length = PRESET.train.history_length
    data = read_training_set(*folders, history_length=length, refit=False)
    run = TrainingRun(PRESET.train, data)
    run.restore(load(trained / "best.ckpt"))
    return run


def scores_on_test(run: TrainingRun) -> ValidationScores:
    return validate(
        run.network, run.data.transitions, run.data.held_out("test"), PRESET.train.beam_width
    )


def baseline_ndcg(shop: Path, model: Baseline) -> float:
    task = read_histories(shop / "prepared").held_out("test")
    scores = model.scores(task.inputs)
    users = np.arange(len(task.targets))
    for user, seen in enumerate(task.inputs):
        scores[user, seen] = -np.inf
    own = scores[users, task.targets]
    # Ties count as won by the baseline: the most that it can be credited with.
    return ndcg_at((scores > own[:, None]).sum(axis=1) + 1, 10)


@pytest.mark.slow
def test_it_comes_close_to_the_best_answer(busy: Path, busy_scores: ValidationScores) -> None:
    oracle = json.loads((busy / "synthetic" / "report.json").read_text())["oracle_ndcg_at_10"]
    assert busy_scores.generator >= 0.8 * oracle


@pytest.mark.slow
def test_it_beats_popularity_and_item_neighbours(busy: Path, busy_scores: ValidationScores) -> None:
    histories = read_histories(busy / "prepared")
    popularity = baseline_ndcg(busy, Popularity(popularity_counts(histories, BUSY.items)))
    neighbours = baseline_ndcg(busy, ItemNeighbours.fit(histories, BUSY.items))
    assert busy_scores.generator > neighbours > popularity


@pytest.mark.slow
def test_the_served_ranking_needs_the_generator(
    busy_run: TrainingRun, busy_scores: ValidationScores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every child as likely as the next: the item head only ranks what such a search reaches."""

    def asks_nothing(depth: int, h: Tensor, parents: Tensor) -> Tensor:
        return torch.zeros_like(h)

    with monkeypatch.context() as patch, torch.no_grad():
        biases = torch.zeros_like(busy_run.network.biases)
        patch.setattr(busy_run.network.generator, "query", asks_nothing)
        patch.setattr(busy_run.network.biases, "data", biases)
        weights = busy_run.network.generator.evidence_weights
        patch.setattr(weights, "data", torch.zeros_like(weights))
        uniform = scores_on_test(busy_run)
    assert uniform.served < 0.8 * busy_scores.served
    assert uniform.item_head == pytest.approx(busy_scores.item_head)


@pytest.mark.slow
def test_it_is_worse_with_the_levels_in_another_order(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """On average over the orders that put each other level first, the rest turning with it.

    In a busy shop the order does not matter: every level is quantized on its own, and with enough
    events any tree of the items can be learned.
    """
    sparse = make_shop(SPARSE, tmp_path_factory.mktemp("sparse"))
    order = ["category", "title", "description", "collaborative"]
    shuffled = [
        scores_on_test(
            trained_run(sparse, PRESET.tokenize.model_copy(update={"level_order": turned}))
        ).generator
        for turned in (order[first:] + order[:first] for first in (1, 2, 3))
    ]
    assert np.mean(shuffled) < scores_on_test(trained_run(sparse, PRESET.tokenize)).generator
