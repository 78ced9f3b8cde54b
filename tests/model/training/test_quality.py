"""What the preset `tiny` learns of a shop whose best answer is known.

Measured on the test split, seen items masked, every user counted.
"""

import json
from pathlib import Path

import numpy as np
import pytest

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
from model.training.validation import validate

ITEMS, USERS = 600, 3000
PRESET = read_preset("tiny")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    synthesize(SynthesizeConfig(items=ITEMS, users=USERS), folder / "synthetic")
    files = {name: [folder / "synthetic" / f"{name}.parquet"] for name in ("items", "events")}
    prepare(PrepareConfig.model_validate(files), folder / "prepared")
    embed(PRESET.embed, folder / "prepared", folder / "embedded")
    return folder


@pytest.fixture(scope="module")
def generator_ndcg(shop: Path) -> float:
    return trained_ndcg(shop, PRESET.tokenize)


def trained_ndcg(shop: Path, settings: TokenizeConfig) -> float:
    """NDCG@10 of the generator alone, at the epoch that validation chose."""
    name = "-".join(settings.level_order or ["coarse-to-fine"])
    tokenized, trained = shop / f"tokenized-{name}", shop / f"trained-{name}"
    tokenize(settings, shop / "prepared", shop / "embedded", tokenized)
    folders = (shop / "prepared", shop / "embedded", tokenized)
    train(PRESET.train, *folders, trained)
    length = PRESET.train.history_length
    data = read_training_set(*folders, history_length=length, refit=False)
    run = TrainingRun(PRESET.train, data)
    run.restore(load(trained / "best.ckpt"))
    return validate(run.network, data.held_out("test"), PRESET.train.beam_width).generator


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
def test_it_comes_close_to_the_best_answer(shop: Path, generator_ndcg: float) -> None:
    oracle = json.loads((shop / "synthetic" / "report.json").read_text())["oracle_ndcg_at_10"]
    assert generator_ndcg >= 0.8 * oracle


@pytest.mark.slow
def test_it_beats_popularity_and_item_neighbours(shop: Path, generator_ndcg: float) -> None:
    histories = read_histories(shop / "prepared")
    popularity = baseline_ndcg(shop, Popularity(popularity_counts(histories, ITEMS)))
    neighbours = baseline_ndcg(shop, ItemNeighbours.fit(histories, ITEMS))
    assert generator_ndcg > neighbours > popularity


@pytest.mark.slow
def test_it_is_worse_with_the_levels_in_another_order(shop: Path, generator_ndcg: float) -> None:
    """Not so with every order: one that begins with the collaborative level is as good here."""
    order = ["description", "title", "collaborative", "category"]
    shuffled = trained_ndcg(shop, PRESET.tokenize.model_copy(update={"level_order": order}))
    assert shuffled < generator_ndcg
