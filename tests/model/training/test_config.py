"""Presets, run files, and what is said about a wrong setting."""

from pathlib import Path

import pytest

from model.errors import ConfigError
from model.training.config import RunConfig, read_preset, read_run_config

COMPARISONS = (
    "cold.toml",
    "compare.toml",
    "seeds.toml",
)  # many runs in one file: see test_compare.py
EXAMPLES = sorted(
    path
    for path in (Path(__file__).parents[3] / "docs" / "examples").glob("*.toml")
    if path.name not in COMPARISONS
)
GOOD = """
preset = "tiny"
workspace = "run"
bundle = "../out/bundle"
[prepare]
items = "data/items.parquet"
events = ["data/a.csv", "/srv/b.csv"]
"""


def read(folder: Path, text: str) -> RunConfig:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return read_run_config(path)


@pytest.mark.parametrize("name", ["tiny", "demo", "base"])
def test_every_preset_is_valid(name: str) -> None:
    preset = read_preset(name)
    assert preset.train.width % preset.train.heads == 0
    assert preset.train.beam_width >= 10


def test_a_preset_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="preset 'huge' does not exist; choose one of tiny, demo"):
        read_preset("huge")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_valid(path: Path) -> None:
    assert read_run_config(path).bundle.name == path.stem


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = GOOD + '[evaluate]\nplot = "plot.png"\noracle = "/data/oracle.parquet"\n'
    config = read(tmp_path, text)
    assert config.workspace == tmp_path / "run"
    assert config.bundle.resolve() == tmp_path.parent / "out" / "bundle"
    assert config.prepare is not None
    assert list(config.prepare.items) == [tmp_path / "data/items.parquet"]
    assert list(config.prepare.events) == [tmp_path / "data/a.csv", Path("/srv/b.csv")]
    assert config.evaluate.plot == tmp_path / "plot.png"
    assert config.evaluate.oracle == Path("/data/oracle.parquet")


def test_settings_of_the_file_go_over_the_preset(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD + "[train]\nwidth = 40\n")
    assert config.train == read_preset("tiny").train.model_copy(update={"width": 40})
    assert config.embed == read_preset("tiny").embed


def test_without_a_preset_it_is_base(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD.replace('preset = "tiny"', "")).train == read_preset("base").train


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("epoch = 3\n" + GOOD, r"run\.toml: epoch: Extra inputs .* \(got 3\)"),
        (GOOD + "[train]\nepoch = 3\n", r"run\.toml: train\.epoch: Extra inputs .* \(got 3\)"),
        (GOOD + "[serve]\nport = 3\n", r"run\.toml: serve: Extra inputs"),
        (GOOD + '[train]\nepochs = "many"\n', r"train\.epochs: .* valid integer.* \(got 'many'\)"),
        (GOOD + "[train]\nepochs = 0\n", r"train\.epochs: .* greater .* \(got 0\)"),
        (GOOD + "[train]\nheads = 5\n", r"run\.toml: train: heads 5 must divide width \d+$"),
        (GOOD + "[train]\ndropout = 1.0\n", r"train\.dropout: .* less than 1 \(got 1\.0\)"),
        (GOOD + '[train]\ndevice = "tpu"\n', r"train\.device: .*'cpu'.* \(got 'tpu'\)"),
        ("train = 3\n" + GOOD, r"train must be a table, as in \[train\]; got 3"),
        (GOOD.replace("[prepare]", "prepare = 3\n[other]"), r"prepare: .* \(got 3\)|other: Extra"),
        (GOOD.replace('"tiny"', '"huge"'), "preset 'huge' does not exist"),
        (GOOD.replace('"tiny"', "7"), "preset '7' does not exist"),
        (GOOD.replace('workspace = "run"', ""), r"run\.toml: workspace: Field required$"),
        (GOOD.replace('workspace = "run"', "workspace = 7"), r"workspace: .* \(got 7\)"),
        (GOOD.replace('items = "data/items.parquet"', ""), r"prepare\.items: Field required$"),
        (GOOD + "[synthesize]\n", r"run\.toml: give either \[prepare\] .*, or \[synthesize\]$"),
        (GOOD.split("[prepare]", maxsplit=1)[0], r"give either \[prepare\]"),
        (GOOD + "[train\n", r"run\.toml is not TOML"),
        (GOOD + "[synthesize]\nitems = 7\n", r"synthesize\.items: .* \(got 7\)"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_value(
    text: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=complaint) as refused:
        read(tmp_path, text)
    assert "run.toml" in str(refused.value) or "preset" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml does not exist; give the TOML file"):
        read_run_config(tmp_path / "none.toml")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not TOML"):
        read_run_config(tmp_path)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b'preset = "\xff"')
    with pytest.raises(ConfigError, match="is not TOML"):
        read_run_config(path)
