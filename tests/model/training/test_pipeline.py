"""A whole run: what is done again, what is skipped, and what an interruption leaves."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from model.bundle import Bundle
from model.errors import BundleError, ModelError
from model.training.config import read_run_config
from model.training.pipeline import Stage, StageRunner, Workspace, run_pipeline
from model.training.stage_files import save_json
from model.training.train import TrainingRun, load

STAGES = ("synthesize", "prepare", "embed", "tokenize", "train", "export", "evaluate")
TRAIN = """
width = 8
heads = 2
history_length = 6
batch_size = 16
text_components = 8
learning_rate = 0.01
validation_users = 50
beam_width = 10
device = "cpu"
"""
SHOP = """
preset = "tiny"
workspace = "run"
bundle = "bundle"
[synthesize]
items = 100
users = 60
seed = 1
[evaluate]
exhaustive_users = 5
users = 20
"""


class Interruption(BaseException):
    """Stands for Ctrl-C and the like."""


def run(folder: Path, text: str) -> list[str]:
    """Run `text` as a TOML file in `folder`; returns the stages that were not skipped."""
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    told = io.StringIO()
    run_pipeline(read_run_config(path), Console(width=200, file=told))
    skipped = [name for name in STAGES if f"{name:<10} unchanged, skipped" in told.getvalue()]
    done = [name for name in STAGES if f"{name} took" in told.getvalue()]
    assert not set(skipped) & set(done)
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    assert run(folder, shop(2)) == list(STAGES)
    return folder


def shop(epochs: int, more: str = "") -> str:
    return f"{SHOP}{more}\n[train]\nepochs = {epochs}\n{TRAIN}"


@pytest.mark.slow
def test_what_is_unchanged_is_skipped_and_what_follows_a_change_is_not(folder: Path) -> None:
    run(folder, shop(2))
    before = Bundle.open(folder / "bundle").bundle_id
    assert run(folder, shop(2)) == []
    # 1. Settings of the measurement change nothing else.
    assert run(folder, shop(2, 'split = "validation"')) == ["evaluate"]
    measured = json.loads((folder / "bundle" / "evaluation.json").read_text())
    assert measured["split"] == "validation"
    assert "oracle" not in {row["name"] for row in measured["rows"]}  # it answers the test split
    # 2. Where training runs is no setting of its result.
    assert run(folder, shop(2).replace('"cpu"', '"auto"')) == ["evaluate"]
    measured = json.loads((folder / "bundle" / "evaluation.json").read_text())
    assert "oracle" in {row["name"] for row in measured["rows"]}
    assert Bundle.open(folder / "bundle").bundle_id == before
    # 3. A setting of training does.
    other = shop(2).replace("learning_rate = 0.01", "learning_rate = 0.02")
    assert run(folder, other) == ["train", "export", "evaluate"]
    assert Bundle.open(folder / "bundle").bundle_id != before
    # 4. What is lost is made again.
    (folder / "bundle" / "evaluation.json").unlink()
    assert run(folder, other) == ["evaluate"]


def interrupted_at(epoch: int, monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> int:
    """Run `text` until training reaches `epoch`; returns the epochs that the checkpoint holds."""
    run_steps, started = TrainingRun.steps, []

    def steps(run: TrainingRun, number: int) -> Iterator[tuple[float, float, float]]:
        if number >= epoch:
            raise Interruption
        started.append(number)
        return run_steps(run, number)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "steps", steps)
        with pytest.raises(Interruption):
            run(folder, text)
    assert len(load(folder / "run" / "trained" / "last.ckpt")["epochs"]) == epoch - 1
    return len(started)


def test_an_interrupted_training_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interrupted_at(2, monkeypatch, tmp_path, shop(4)) == 1
    assert not (tmp_path / "bundle").exists()
    assert interrupted_at(4, monkeypatch, tmp_path, shop(4)) == 2  # the second and the third


def test_an_interrupted_training_of_other_settings_does_not_stand_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interrupted_at(3, monkeypatch, tmp_path, shop(4)) == 2
    assert interrupted_at(2, monkeypatch, tmp_path, shop(5)) == 1


@pytest.mark.slow
def test_other_bytes_in_the_files_make_everything_anew(folder: Path, tmp_path: Path) -> None:
    synthetic = folder / "run" / "synthetic"
    for name in ("items.parquet", "events.parquet"):
        (tmp_path / name).write_bytes((synthetic / name).read_bytes())
    source = '[prepare]\nitems = "items.parquet"\nevents = "events.parquet"\n'
    settings = SHOP.replace("[synthesize]\nitems = 100\nusers = 60\nseed = 1\n", source)
    text = f"{settings}[train]\nepochs = 1\n{TRAIN}"
    assert run(tmp_path, text) == [name for name in STAGES if name != "synthesize"]
    assert run(tmp_path, text) == []
    bundle = Bundle.open(tmp_path / "bundle").bundle_id
    events = pl.read_parquet(tmp_path / "events.parquet")
    events[: len(events) - 5].write_parquet(tmp_path / "events.parquet")
    # 1. A later stage that fails leaves the bundle that is there in place.
    broken = text.replace("learning_rate = 0.01", "learning_rate = 1e30")
    with pytest.raises(ModelError, match="lower learning_rate"):
        run(tmp_path, broken)
    assert Bundle.open(tmp_path / "bundle").bundle_id == bundle
    # 2. Put right, everything follows the new files.
    assert run(tmp_path, text) == ["train", "export", "evaluate"]
    assert run(tmp_path, text) == []
    assert Bundle.open(tmp_path / "bundle").bundle_id != bundle


@dataclass
class Shop:
    """A workspace of its own whose one stage writes the bundle of its name."""

    name: str
    folder: Path
    exports: int = 0

    def run(self, bundle: Path) -> int:
        """Run the stage; returns how often it has really been done."""
        marker = bundle / "manifest.json"
        workspace = Workspace(self.folder / self.name)
        runner = StageRunner(workspace, Console(file=io.StringIO()))
        runner.run(Stage("export", "", (), marker, lambda: self.export(marker), clear=False))
        return self.exports

    def export(self, marker: Path) -> None:
        self.exports += 1
        save_json(marker, {"shop": self.name})


def test_a_bundle_that_another_workspace_has_written_is_made_again(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    first, second = Shop("first", tmp_path), Shop("second", tmp_path)
    # 1. The second run exports over the first one's bundle.
    assert first.run(shared) == 1
    assert second.run(shared) == 1
    # 2. Both have finished with the same settings, yet only the second's bundle is there.
    assert first.run(shared) == 2
    assert json.loads((shared / "manifest.json").read_text()) == {"shop": "first"}
    assert first.run(shared) == 2
    # 3. So it is when a run is pointed at the folder of another's.
    assert second.run(own) == 2
    assert first.run(own) == 3
    assert json.loads((own / "manifest.json").read_text()) == {"shop": "first"}


@pytest.mark.slow
def test_a_training_done_again_by_hand_is_exported_again(folder: Path) -> None:
    run(folder, shop(2))
    Workspace(folder / "run").reopen("train")  # as `cofine train` does
    shutil.rmtree(folder / "run" / "trained")
    assert run(folder, shop(2)) == ["train", "export", "evaluate"]
    assert run(folder, shop(2)) == []
    # A stamp that does not tell what was read, as those written before stamps told it, is believed.
    stamp = folder / "run" / "stages" / "export.json"
    found = json.loads(stamp.read_text())
    save_json(stamp, {key: value for key, value in found.items() if key != "read"})
    assert run(folder, shop(2)) == []


def test_a_stage_is_made_anew_when_what_it_reads_has_changed(tmp_path: Path) -> None:
    source, folder = tmp_path / "report.json", tmp_path / "made"
    runs: list[list[str]] = []

    def work() -> None:
        folder.mkdir(exist_ok=True)
        runs.append(sorted(path.name for path in folder.iterdir()))
        (folder / "checkpoint").touch()
        save_json(folder / "marker.json", json.loads(source.read_text()))

    def run_stage(report: str) -> list[list[str]]:
        save_json(source, {"report": report})
        stage = Stage("train", "", (source,), folder / "marker.json", work)
        StageRunner(Workspace(tmp_path), Console(file=io.StringIO())).run(stage)
        return runs

    assert run_stage("first") == [[]]
    assert run_stage("first") == [[]]
    # 1. What was made from something else is not continued.
    assert run_stage("second") == [[], []]
    # 2. What was interrupted is, as long as it reads the same.
    (folder / "marker.json").unlink()
    assert run_stage("second") == [[], [], ["checkpoint"]]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    text = 'preset = "tiny"\nworkspace = "run"\nbundle = "bundle"\n'
    text += '[prepare]\nitems = "none.parquet"\nevents = "none.csv"\n'
    with pytest.raises(ModelError, match=r"none\.(parquet|csv)"):
        run(tmp_path, text)
    with pytest.raises(BundleError):
        Bundle.open(tmp_path / "bundle")


@pytest.mark.slow
def test_a_refit_makes_a_second_bundle_which_measuring_does_not_touch(folder: Path) -> None:
    text = "refit = true\n" + shop(1)
    run(folder, text)
    again = folder / "bundle-refit"
    opened = Bundle.open(again)
    events = pl.read_parquet(folder / "run" / "prepared" / "events.parquet")
    assert opened.popularity.sum() == len(events)
    assert opened.manifest.facts["refit"] is True
    stamps = [folder / "run" / "stages" / f"{name}.json" for name in ("refit", "export-refit")]
    before = [stamp.stat().st_mtime_ns for stamp in stamps]
    assert run(folder, "refit = true\n" + shop(1, "seed = 1")) == ["evaluate"]
    assert [stamp.stat().st_mtime_ns for stamp in stamps] == before
    assert Bundle.open(again).bundle_id == opened.bundle_id
