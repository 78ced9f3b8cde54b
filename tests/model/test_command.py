"""The command `cofine`, as a shell runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from model.__main__ import main

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "decoders",
    "prepare",
    "synthesize",
    "embed",
    "tokenize",
    "train",
    "export",
    "evaluate",
    "inspect",
    "recommend",
    "run",
)


@pytest.fixture(autouse=True)
def plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are as long as they are, whatever terminal the tests run in."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")


def cofine(*arguments: str | Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["cofine", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_help_names_every_command_without_loading_torch() -> None:
    script = (
        "import sys\n"
        "from model.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'polars', 'onnxruntime', 'matplotlib', 'faiss'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    for arguments in (["--help"], ["train", "--help"]):
        ended = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            check=False,
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "120"},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        if arguments == ["--help"]:
            assert [name for name in COMMANDS if name not in ended.stdout] == []


def test_an_error_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    """In a process of its own: no traceback, nothing on stdout."""
    config = tmp_path / "run.toml"
    config.write_text('workspace = "run"\nbundle = "bundle"\n')
    ended = subprocess.run(
        [sys.executable, "-m", "model", "run", str(config)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    # Brackets are what the user has to type: they are not taken for markup.
    message = "give either [prepare] with items and events, or [synthesize]"
    assert ended.stderr == f"error: {config}: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("run", "none.toml"), "none.toml does not exist"),
        (("prepare", "w", "--items", "none.csv", "--events", "none.csv"), "none.csv"),
        (("prepare", "w", "--items", "a", "--events", "b", "--split", "x"), "split: "),
        (("prepare", "w", "--items", "a", "--events", "b", "--item-column", "x"), "got 'x'"),
        (
            ("prepare", "w", "--items", "a", "--events", "b", "--attribute", "x"),
            "NAME=TYPE.*got 'x'",
        ),
        (("prepare", "w", "--items", "a", "--events", "b", "--attribute", "x=y"), "attributes.x: "),
        (("prepare", "w", "--items", "a", "--events", "b", "--test-from", "1"), "go together"),
        (("prepare", "w", "--items", "a", "--events", "b", "--min-history", "0"), "min_history: "),
        (("synthesize", "s", "--items", "7"), "items: .* \\(got 7\\)"),
        (("embed", "w", "--preset", "huge"), "preset 'huge' does not exist"),
        (("embed", "w"), "w/prepared"),
        (("tokenize", "w"), "w/prepared"),
        (("train", "w"), "w/embedded"),
        (("train", "w", "--refit"), "w/trained has no training.json"),
        (("export", "w", "b"), "w/trained has no training.json"),
        (("evaluate", "b"), "needs --workspace, the folder that"),
        (("evaluate", "b", "--workspace", "w"), "b is not a bundle"),
        (("evaluate", "b", "--workspace", "w", "--split", "x"), "split: .* \\(got 'x'\\)"),
        (("decoders", "b", "--workspace", "w"), "b is not a bundle"),
        (("decoders", "b", "--workspace", "w", "--beam-width", "0"), "beam_width: .*got 0"),
        (("inspect", "b"), "b is not a bundle"),
        (("recommend", "b", "u", "o"), "b is not a bundle"),
        (("recommend", "b", "u", "o", "--k", "0"), "k: .* \\(got 0\\)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_refused_is_told_in_one_line(
    arguments: tuple[str, ...],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cofine(*arguments, monkeypatch=monkeypatch) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert re.search(complaint, told.err), told.err


def test_a_file_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cofine("synthesize", tmp_path / "file" / "shop", monkeypatch=monkeypatch) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert str(tmp_path / "file") in told.err


def test_a_wrong_option_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cofine("train", "w", "--epochs", "3", monkeypatch=monkeypatch) == 2
    assert "--epochs" in capsys.readouterr().err


def test_the_stages_before_training_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, workspace = tmp_path / "shop", tmp_path / "run"
    made = cofine("synthesize", shop, "--items", "100", "--users", "60", monkeypatch=monkeypatch)
    assert made == 0
    pl.read_parquet(shop / "items.parquet").rename({"title": "name"}).write_parquet(
        shop / "renamed.parquet"
    )
    steps: list[tuple[str | Path, ...]] = [
        (
            *("prepare", workspace, "--items", shop / "renamed.parquet"),
            *("--events", shop / "events.parquet", "--item-column", "title=name"),
        ),
        ("embed", workspace, "--preset", "tiny"),
        ("tokenize", workspace, "--preset", "tiny"),
    ]
    stamps = [workspace / "stages" / f"{name}.json" for name in ("prepare", "embed", "tokenize")]
    for stamp, step in zip(stamps, steps, strict=True):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text('{"fingerprint": "of a run", "made": "by a run"}')
        assert cofine(*step, monkeypatch=monkeypatch) == 0
        # The folder no longer holds what the run put there: the next one makes it again.
        assert json.loads(stamp.read_text()) == {"fingerprint": "of a run"}
    assert pl.read_parquet(workspace / "prepared" / "items.parquet")["title"].str.len_chars().max()
    assert (workspace / "tokenized" / "report.json").is_file()


def test_prepare_takes_attributes_embeddings_and_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [{"item_id": f"i{n}", "price": n / 2, "picture": [float(n), 1.0]} for n in range(4)]
    pl.DataFrame(items).write_parquet(tmp_path / "items.parquet")
    days = [f"2024-01-{day:02}" for day in range(1, 9)]
    rows = [{"user_id": "u", "item_id": f"i{n % 4}", "timestamp": d} for n, d in enumerate(days)]
    pl.DataFrame(rows).write_csv(tmp_path / "events.csv")
    files = ("--items", tmp_path / "items.parquet", "--events", tmp_path / "events.csv")
    kept = ("--attribute", "price=float", "--embedding", "picture", "--min-history", "2")
    split = ("--split", "time", "--validation-from", "2024-01-05", "--test-from", "1704585600")
    command = ("prepare", tmp_path / "run", *files, *kept, *split)
    assert cofine(*command, monkeypatch=monkeypatch) == 0
    prepared = pl.read_parquet(tmp_path / "run" / "prepared" / "items.parquet")
    assert prepared["attribute_price"].to_list() == [0, 0.5, 1, 1.5]
    assert prepared["embedding_picture"].to_list() == [[n, 1.0] for n in range(4)]
    events = pl.read_parquet(tmp_path / "run" / "prepared" / "events.parquet")
    assert events["split"].to_list() == ["train"] * 4 + ["validation"] * 2 + ["test"] * 2


@pytest.fixture
def finished(shop_bundle: Path, tmp_path: Path) -> Path:
    """A copy of a finished workspace and its bundle."""
    shutil.copytree(shop_bundle.parent / "run", tmp_path / "run")
    shutil.copytree(shop_bundle, tmp_path / "bundle")
    return tmp_path


@pytest.mark.slow
def test_a_finished_training_is_continued_exported_and_read(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, bundle = finished / "run", finished / "bundle"
    before = (bundle / "manifest.json").read_text()
    assert cofine("export", workspace, bundle, monkeypatch=monkeypatch) == 0
    assert "bundle " in capsys.readouterr().out
    assert (bundle / "manifest.json").read_text() == before  # made anew, and the same
    oracle = workspace / "synthetic" / "oracle.parquet"
    measure = ("evaluate", bundle, "--workspace", workspace, "--users", "20", "--oracle", oracle)
    assert cofine(*measure, monkeypatch=monkeypatch) == 0
    assert "oracle" in (bundle / "evaluation.md").read_text()
    assert cofine("inspect", bundle, monkeypatch=monkeypatch) == 0
    items = pl.read_parquet(workspace / "prepared" / "items.parquet")
    item = items["item_id"][0]
    capsys.readouterr()
    assert cofine("inspect", bundle, item, monkeypatch=monkeypatch) == 0
    assert item in capsys.readouterr().out
    assert cofine("inspect", bundle, "no-such-item", monkeypatch=monkeypatch) == 2
    assert "'no-such-item' is not in the catalogue" in capsys.readouterr().err
    lists = finished / "lists.parquet"
    asked = ("recommend", bundle, workspace / "prepared", lists, "--k", "5")
    assert cofine(*asked, monkeypatch=monkeypatch) == 0
    assert len(pl.read_parquet(lists)) > 0


SMALLEST = """
preset = "tiny"
workspace = "run"
bundle = "bundle"
[synthesize]
items = 100
users = 60
[train]
epochs = 1
width = 8
[evaluate]
exhaustive_users = 0
users = 20
"""


@pytest.mark.slow
def test_run_skips_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(SMALLEST, encoding="utf-8")
    assert cofine("run", path, monkeypatch=monkeypatch) == 0
    assert "skipped" not in capsys.readouterr().out

    assert cofine("run", path, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.count("unchanged, skipped") == 7
