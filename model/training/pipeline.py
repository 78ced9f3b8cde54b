"""A whole run, stage by stage; a stage whose inputs are unchanged is skipped.

Each stage leaves a stamp `stages/<stage>.json` in the workspace, written when it is finished: the
fingerprint of its settings, of the stages before it and, for `prepare`, of the input files' bytes;
the digests of the files by which earlier stages report what they made; and the digest of the file
that the stage writes last. A folder that something else has written since, as another workspace
that exports to the same bundle, is not taken for this run's, and a stage is made again when what
it read was: redone by hand with the same settings, for example.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from model import event_log
from model.manifest import FORMAT_VERSION
from model.training.config import RunConfig
from model.training.embedding.embed import embed
from model.training.evaluation.evaluate import EvaluateConfig, evaluate
from model.training.export import ExportConfig, Stages, export
from model.training.preparation.prepare import PrepareConfig, prepare, report_table
from model.training.stage_files import save_json
from model.training.synthesis.synthesize import ATTRIBUTES, synthesize
from model.training.tokenizers.config import TokenizeConfig
from model.training.tokenizers.tokenize import tokenize
from model.training.train import refit, train

FORMAT = 1
"""Raised when a stage's result changes its meaning, so that older ones are made again."""


@dataclass(frozen=True)
class Workspace:
    """Where the stages of a run keep their results."""

    path: Path

    @property
    def synthetic(self) -> Path:
        """Files of the synthetic shop."""
        return self.path / "synthetic"

    def stamp(self, stage: str) -> Path:
        """The file in which a run remembers a stage."""
        return self.path / "stages" / f"{stage}.json"

    def reopen(self, stage: str) -> None:
        """Let the next run go through a stage again, continuing what it can."""
        stamp = self.stamp(stage)
        if stamp.is_file():
            found = json.loads(stamp.read_text())
            save_json(stamp, {key: found[key] for key in ("fingerprint", "read") if key in found})

    def stages(self, *, refit: bool = False) -> Stages:
        """The folders that a bundle is made from."""
        trained = "refitted" if refit else "trained"
        folders = ("prepared", "embedded", "tokenized", trained)
        return Stages(*(self.path / folder for folder in folders))


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: of the stage.
        settings: whatever decides its result, with a faithful `repr`.
        reads: the files that the stages it reads from write last.
        marker: the file that it writes last itself.
        work: makes it.
        clear: remove the marker's folder first where it was made from something else; a bundle
            stays until its successor is whole.
    """

    name: str
    settings: object
    reads: tuple[Path, ...]
    marker: Path
    work: Callable[[], object]
    clear: bool = True


@dataclass
class StageRunner:
    """Runs stages in order and remembers in the workspace which are up to date."""

    workspace: Workspace
    console: Console
    lineage: str = str(FORMAT)
    """Fingerprint of everything before the next stage."""

    def run(self, stage: Stage) -> None:
        """Do the stage unless its marker is there from the same settings and earlier stages."""
        known = f"{self.lineage}\n{stage.name}\n{stage.settings!r}"
        self.lineage = hashlib.sha256(known.encode()).hexdigest()
        read = [_digest(path) for path in stage.reads]
        origin = {"fingerprint": self.lineage, "read": read}
        stamp = self.workspace.stamp(stage.name)
        found = json.loads(stamp.read_text()) if stamp.is_file() else {}
        # A stamp that is older than the memory of what was read says nothing against it.
        same = found.get("fingerprint") == self.lineage and found.get("read", read) == read
        if same and found.get("made") == _digest(stage.marker):
            self.console.print(f"[dim]{stage.name:<10} unchanged, skipped[/dim]")
            return
        if stage.clear and not same:
            # What is there was made from something else; an interrupted run of the same settings
            # is kept, so that training continues at its last epoch.
            shutil.rmtree(stage.marker.parent, ignore_errors=True)
        save_json(stamp, origin)
        self.console.rule(stage.name)
        began = time.perf_counter()
        stage.work()
        seconds = round(time.perf_counter() - began, 1)
        save_json(stamp, {**origin, "made": _digest(stage.marker), "seconds": seconds})
        self.console.print(f"{stage.name} took {seconds:.1f} s")


def run_pipeline(config: RunConfig, console: Console) -> None:
    """Run all stages from the source to the evaluated bundle.

    Raises:
        ModelError: a stage cannot go on; earlier stages keep their results.
    """
    workspace = Workspace(config.workspace)
    runner = StageRunner(workspace, console)
    stages = workspace.stages()
    oracle = run_catalogue(config, runner, stages)
    run_learning(config, runner, stages, oracle)
    if config.refit:
        _run_refit(config, runner, stages)


def run_catalogue(config: RunConfig, runner: StageRunner, stages: Stages) -> Path | None:
    """Run the stages up to `embed`, which know of no tokenizer.

    Returns:
        The oracle of a synthetic shop.
    """
    source, oracle = _source(config, runner)
    runner.run(
        Stage(
            "prepare",
            (source, [_source_digest(path) for path in (*source.items, *source.events)]),
            (),
            stages.prepared / "report.json",
            lambda: runner.console.print(report_table(prepare(source, stages.prepared))),
        )
    )
    runner.run(
        Stage(
            "embed",
            config.embed,
            _markers(stages)[:1],
            stages.embedded / "meta.json",
            lambda: embed(config.embed, stages.prepared, stages.embedded),
        )
    )
    return oracle


def run_learning(
    config: RunConfig, runner: StageRunner, stages: Stages, oracle: Path | None
) -> None:
    """Run the stages from `tokenize` to `evaluate`."""
    folders = (stages.prepared, stages.embedded, stages.tokenized)
    markers = _markers(stages)
    runner.run(
        Stage(
            "tokenize",
            _tokenizing(config.tokenize),
            markers[:2],
            stages.tokenized / "report.json",
            lambda: tokenize(config.tokenize, *folders),
        )
    )
    runner.run(
        Stage(
            "train",
            config.train.model_dump_json(exclude=config.train.idle()),
            markers[:3],
            stages.trained / "training.json",
            lambda: train(config.train, *folders, stages.trained),
        )
    )
    runner.run(_export("export", config, stages, config.bundle))
    measured = _evaluation(config.evaluate, oracle)
    # On a copy of the runner: nothing after it is made from what it measures.
    replace(runner).run(
        Stage(
            "evaluate",
            measured,
            (markers[0], config.bundle / "manifest.json", *filter(None, [measured.oracle])),
            config.bundle / "evaluation.json",
            lambda: evaluate(measured, config.bundle, stages.prepared),
            clear=False,
        )
    )


def _run_refit(config: RunConfig, runner: StageRunner, stages: Stages) -> None:
    folders = (stages.prepared, stages.embedded, stages.tokenized)
    again = runner.workspace.stages(refit=True)
    target = config.bundle.with_name(f"{config.bundle.name}-refit")
    runner.run(
        Stage(
            "refit",
            "",
            _markers(stages),
            again.trained / "training.json",
            lambda: refit(config.train, folders, stages.trained, again.trained),
        )
    )
    runner.run(_export("export-refit", config, again, target))


def _export(name: str, config: RunConfig, stages: Stages, bundle: Path) -> Stage:
    manifest = bundle / "manifest.json"
    work = partial(export, stages, bundle, config.export)
    return Stage(name, _exporting(config.export), _markers(stages), manifest, work, clear=False)


def _markers(stages: Stages) -> tuple[Path, ...]:
    """What `prepare`, `embed`, `tokenize` and training write last, in this order."""
    return (
        stages.prepared / "report.json",
        stages.embedded / "meta.json",
        stages.tokenized / "report.json",
        stages.trained / "training.json",
    )


def _source(config: RunConfig, runner: StageRunner) -> tuple[PrepareConfig, Path | None]:
    """Where the data comes from, and the oracle of a synthetic shop."""
    if config.prepare is not None:
        return config.prepare, None
    settings = config.synthesize
    if settings is None:  # pragma: no cover - RunConfig has one of the two
        raise AssertionError
    folder = runner.workspace.synthetic
    report = folder / "report.json"
    runner.run(Stage("synthesize", settings, (), report, lambda: synthesize(settings, folder)))
    files = {"items": folder / "items.parquet", "events": folder / "events.parquet"}
    return PrepareConfig.model_validate(
        files | {"attributes": ATTRIBUTES}
    ), folder / "oracle.parquet"


def _evaluation(config: EvaluateConfig, oracle: Path | None) -> EvaluateConfig:
    """The settings, with the synthetic shop's oracle where it answers what is measured."""
    if config.split != "test" or config.oracle is not None:
        return config
    return config.model_copy(update={"oracle": oracle})


def _exporting(config: ExportConfig) -> object:
    """The format, and the settings where a bundle without them would answer differently."""
    return FORMAT_VERSION if config == ExportConfig() else (FORMAT_VERSION, config)


def _tokenizing(config: TokenizeConfig) -> object:
    """The settings, and what is in the folder whose codebooks are used."""
    if config.fitted is None:
        return config
    return config, _digest(config.fitted / "codes.npy")


def _source_digest(path: Path) -> str:
    """Return the digest of an input file, or of an event log as compaction leaves it."""
    if not path.is_dir():
        return _digest(path)
    event_log.compact(path)
    return " ".join(_digest(segment) for segment in event_log.segments(path))


def _digest(path: Path) -> str:
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
