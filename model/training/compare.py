"""Tokenizers side by side: every method on every data set, through the whole pipeline.

One TOML file names both; what the runs share is written once at the top:

workspace = "runs/compare"      # paths are relative to this file
preset = "base"
seeds = [0]

[datasets.beauty]               # as [prepare] of a run, or synthesize = { ... }
items = "items.parquet"
events = "events.parquet"

[methods.simcit]                # as [tokenize] of a run
method = "simcit"

[methods.simcit-of-beauty]      # codebooks of another data set
fitted_on = "beauty/simcit"

[methods.kmeans-no-positions]   # its network is trained otherwise
train = { positions = false }

[train]                         # a recipe short enough to be run for each
epochs = 6

Where [datasets.x] has `cold_items`, the items held out are measured as new ones, too.
Every combination keeps its results in `<workspace>/<data set>/<method>/seed-<seed>`, those of the
same data set share `prepare` and `embed`; what is there is not made again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from model.errors import ConfigError
from model.training.comparison import (
    ColdOutcome,
    Comparison,
    Outcome,
    Ranking,
    comparison_table,
    write_comparison,
)
from model.training.config import RunConfig, read_toml, run_config, validated
from model.training.evaluation.cold import ColdEvaluation, evaluate_cold
from model.training.evaluation.report import Evaluation
from model.training.export import Stages
from model.training.pipeline import Stage, StageRunner, Workspace, run_catalogue, run_learning
from model.training.train import read_training

COLD = "cold.json"
"""What a combination's held-out items were measured as, in its workspace."""


class CompareConfig(BaseModel):
    """What is compared; the stages' tables are those of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Path
    preset: str = "base"
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    datasets: dict[str, dict[str, Any]] = Field(min_length=1)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    embed: dict[str, Any] = {}
    tokenize: dict[str, Any] = {}
    train: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}


@dataclass(frozen=True)
class Combination:
    """One data set, one method, one seed."""

    dataset: str
    method: str
    seed: int
    config: RunConfig

    def stages(self) -> Stages:
        """The folders: what the data set's runs share, and what is this one's own."""
        shared = Workspace(self.shared).stages()
        own = Workspace(self.config.workspace).stages()
        return Stages(shared.prepared, shared.embedded, own.tokenized, own.trained)

    @property
    def shared(self) -> Path:
        """The workspace that all runs of the data set share."""
        return self.config.workspace.parents[1]


def compare(path: Path, console: Console) -> Comparison:
    """Run what the TOML file `path` lists; comparison.json, .md and .png are kept up to date.

    Raises:
        ConfigError: the file cannot be used.
        ModelError: a stage cannot go on; what is finished keeps its results.
    """
    combinations = read_combinations(path)
    workspace = combinations[0].shared.parent
    outcomes: list[Outcome] = []
    found = Comparison(planned=len(combinations), outcomes=[])
    for number, each in enumerate(combinations, 1):
        console.rule(f"{number} of {len(combinations)}: {each.dataset}, {each.method}, {each.seed}")
        outcomes.append(_run(each, console))
        found = Comparison(planned=len(combinations), outcomes=outcomes)
        write_comparison(found, workspace)
    console.print(comparison_table(found))
    return found


def read_combinations(path: Path) -> list[Combination]:
    """Return what the TOML file `path` lists, in its order.

    Raises:
        ConfigError: the file cannot be used.
    """
    config = validated(CompareConfig, read_toml(path), str(path))
    return list(_combinations(config, path))


def _combinations(config: CompareConfig, path: Path) -> Iterator[Combination]:
    for dataset, source in config.datasets.items():
        for method, settings in config.methods.items():
            if settings.get("fitted_on", "").split("/")[0] == dataset:
                continue  # its own codebooks: that is the method itself
            for seed in config.seeds:
                given = _given(config, f"{dataset}/{method}/seed-{seed}", source, seed)
                own = _method(config, settings, seed, path)
                given["train"] |= _own_training(own, f"{path}: methods.{method}")
                given["tokenize"] |= own
                yield Combination(dataset, method, seed, run_config(given, path))


def _given(
    config: CompareConfig, place: str, source: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """The TOML of one run but for its method."""
    folder = config.workspace / place
    is_synthetic = "synthesize" in source
    return {
        "preset": config.preset,
        "workspace": str(folder),
        "bundle": str(folder / "bundle"),
        **(source if is_synthetic else {"prepare": source}),
        "embed": config.embed,
        "tokenize": config.tokenize | {"seed": seed},
        "train": config.train | {"seed": seed},
        "evaluate": config.evaluate,
    }


def _method(
    config: CompareConfig, settings: Mapping[str, Any], seed: int, path: Path
) -> dict[str, Any]:
    """The method's own settings: those of [tokenize], and `train` with those of [train]."""
    own = dict(settings)
    fitted_on = own.pop("fitted_on", None)
    if fitted_on is None:
        return own
    dataset, _, method = str(fitted_on).partition("/")
    if dataset not in config.datasets or method not in config.methods:
        raise ConfigError(
            f"{path}: fitted_on {fitted_on!r} must be DATASET/METHOD of this file, and stand "
            f"before it; data sets are {', '.join(config.datasets)}"
        )
    folder = path.resolve().parent / config.workspace / dataset / method / f"seed-{seed}"
    return config.methods[method] | own | {"fitted": str(Workspace(folder).stages().tokenized)}


def _own_training(method: dict[str, Any], where: str) -> dict[str, Any]:
    """Take `train` out of a method's settings."""
    own = method.pop("train", {})
    if not isinstance(own, dict):
        raise ConfigError(
            f"{where}.train must be a table, as in train = {{ positions = false }}; got {own!r}"
        )
    return own


def _run(combination: Combination, console: Console) -> Outcome:
    config, stages = combination.config, combination.stages()
    shared = StageRunner(Workspace(combination.shared), console)
    oracle = run_catalogue(config, shared, stages)
    own = Workspace(config.workspace)
    runner = StageRunner(own, console, shared.lineage)
    run_learning(config, runner, stages, oracle)
    if config.prepare is None or not config.prepare.cold_items:
        return _outcome(combination, stages, own)
    runner.run(_cold(config, stages))
    return _outcome(combination, stages, own).model_copy(update={"cold": _cold_outcome(own)})


def _cold(config: RunConfig, stages: Stages) -> Stage:
    """Measure the items that were held out."""
    users, output = config.evaluate.users, config.workspace / COLD
    return Stage(
        "evaluate-cold",
        users,
        (stages.prepared / "report.json", config.bundle / "manifest.json"),
        output,
        lambda: evaluate_cold(config.bundle, stages.prepared, users=users, output=output),
        clear=False,
    )


def _outcome(combination: Combination, stages: Stages, own: Workspace) -> Outcome:
    tokens = _json(stages.tokenized / "report.json")
    measured = Evaluation.model_validate(_json(combination.config.bundle / "evaluation.json"))
    before = tokens["collisions_before_residual"]
    return Outcome(
        dataset=combination.dataset,
        method=combination.method,
        seed=combination.seed,
        collision_rate=before["items_sharing_an_id"] / before["items"],
        codes_used={level["name"]: level["used"] for level in tokens["levels"]},
        rankings=tuple(_rankings(measured)),
        fit_seconds=_json(own.stamp("tokenize"))["seconds"],
        # Not those of the stage: they are of its last attempt where it was interrupted.
        train_seconds=60 * read_training(stages.trained)["minutes"],
    )


def _rankings(measured: Evaluation) -> Iterator[Ranking]:
    lost = {error.name: error.relative_loss for error in measured.search_error}
    for row in measured.rows:
        yield Ranking(
            name=row.name,
            seen_masked=row.seen_masked,
            recall=row.metrics["recall@10"],
            ndcg=row.metrics["ndcg@10"],
            lost=lost.get(row.name) if row.seen_masked else None,
        )


def _cold_outcome(own: Workspace) -> ColdOutcome:
    found = ColdEvaluation.model_validate_json((own.path / COLD).read_bytes())
    return ColdOutcome(
        recall=found.cold_recall,
        head_recall=found.cold_head_recall,
        chance_recall=found.cold_chance_recall,
        popularity_recall=found.cold_popularity_recall,
        others_ndcg=found.warm_ndcg_before,
        cost=found.cost(),
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
