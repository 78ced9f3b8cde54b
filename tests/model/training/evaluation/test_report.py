import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from model.training.evaluation.report import (
    Evaluation,
    Row,
    SearchError,
    Slice,
    markdown,
    plot_evaluation,
    plot_training,
    tables,
    write_evaluation,
)


def row(name: str, ndcg: float, *, seen_masked: bool) -> Row:
    metrics = {"recall@10": 2 * ndcg, "ndcg@10": ndcg, "mrr": ndcg / 2}
    return Row(
        name=name,
        seen_masked=seen_masked,
        listed=50,
        metrics=metrics,
        coverage=0.25,
        short_lists=1234,
        slices={
            "head": Slice(users=3, metrics=metrics),
            "tail": Slice(users=1, metrics={"ndcg@10": 0.0123}),
            "cold": Slice(users=0, metrics={}),
        },
    )


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(
        bundle="abc123",
        catalogue_version=1,
        split="test",
        users=4,
        users_in_split=10,
        users_without_history=0,
        unknown_targets=0,
        items=157,
        beam_width=50,
        slices={"head": "many", "tail": "few", "cold": "none"},
        rows=[
            row("served ranking", 0.05, seen_masked=True),
            row("popularity", 0.01, seen_masked=True),
            row("served ranking", 0.04, seen_masked=False),
        ],
        search_error=[
            SearchError(
                name="served ranking",
                users=4,
                top_10_differs=0.5,
                ndcg_beam=0.048,
                ndcg_exhaustive=0.05,
            )
        ],
        notes=["A note."],
        seconds=1.5,
    )


def test_rows_are_found_by_name(evaluation: Evaluation) -> None:
    assert evaluation.row("served ranking").metrics["ndcg@10"] == 0.05
    assert evaluation.row("served ranking", seen_masked=False).metrics["ndcg@10"] == 0.04
    with pytest.raises(KeyError, match="oracle"):
        evaluation.row("oracle")


def test_markdown_holds_every_number_and_a_dash_where_there_is_none(
    evaluation: Evaluation,
) -> None:
    text = markdown(evaluation)
    assert "| served ranking | - | - | 0.1000 | - | - | 0.0500 | - | 0.0250 |" in text
    assert (
        "| popularity | 25.0% | - | - | 1,234 | 3 | 0.0200 | 0.0100 | 1 | - | 0.0123 | 0 | - | - |"
        in text
    )
    assert "| served ranking | 4 | 50.0% | 0.0480 | 0.0500 | 4.00% |" in text
    assert "4 of 10 users (a sample)" in text
    assert text.index("## Seen items masked") < text.index("## Seen items not masked")
    assert "- A note." in text


def test_loss_is_unknown_when_exhaustive_search_finds_nothing() -> None:
    error = SearchError(name="x", users=1, top_10_differs=0, ndcg_beam=0, ndcg_exhaustive=0)
    assert error.relative_loss is None


def test_files_hold_the_evaluation_and_nothing_half_written_stays(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_evaluation(evaluation, folder)
    read = json.loads((folder / "evaluation.json").read_text())
    assert Evaluation.model_validate(read) == evaluation
    assert (folder / "evaluation.md").read_text() == markdown(evaluation)
    assert {path.name for path in folder.iterdir()} == {"evaluation.json", "evaluation.md"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_plot_draws_one_group_of_bars_per_masked_ranking(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    plot_evaluation(evaluation, tmp_path / "evaluation.png")
    with Image.open(tmp_path / "evaluation.png") as image:
        assert (image.format, image.height) == ("PNG", round(120 * (0.9 + 2 * 0.65)))


def test_terminal_shows_both_maskings_and_the_search_error(evaluation: Evaluation) -> None:
    console = Console(file=io.StringIO(), width=160)
    for table in tables(evaluation):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "test split, seen items masked" in shown
    assert "test split, seen items not masked" in shown
    assert "4.00%" in shown


def test_training_curves_change_with_the_history(tmp_path: Path) -> None:
    history = [
        {"epoch": 1.0, "head_loss": 8.0, "generator_loss": 8.2, "served": 0.03, "seconds": 60.0},
        {"epoch": 2.0, "head_loss": 7.0, "generator_loss": 7.5, "served": 0.05, "item_head": 0.04},
    ]
    plot_training(history[:1], tmp_path / "curves.png")
    first = (tmp_path / "curves.png").read_bytes()
    plot_training(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() != first
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1320, 480)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_no_epochs_give_an_empty_picture(tmp_path: Path) -> None:
    plot_training([], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()
