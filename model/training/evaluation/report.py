"""What evaluation found, as data, JSON, Markdown, terminal table and pictures.

Knows the numbers and how people read them, not how they were measured.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field
from rich import box
from rich.table import Table

from model.training.evaluation.category_tree import HEADS as TREE_HEADS
from model.training.evaluation.category_tree import CategoryTree

COLUMNS = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "recall@20": "R@20",
    "ndcg@5": "N@5",
    "ndcg@10": "N@10",
    "ndcg@20": "N@20",
    "mrr": "MRR",
}
DIVERSITY = {"distinct_categories": "categories", "intra_list_distance": "distance"}
SLICES = ("head", "tail", "cold")
VALIDATION_LINES = {
    "generator": "generator alone",
    "item_head": "item head",
    "served": "served ranking",
}


class Slice(BaseModel):
    """The metrics of the users whose target is of one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: int = Field(description="users in the slice")
    metrics: dict[str, float] = Field(description="as in a row; empty when there are no users")


class Row(BaseModel):
    """One way of ranking, measured on every user."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="which ranking")
    seen_masked: bool = Field(description="whether the items of the history were left out")
    listed: int = Field(description="most items a list can hold; a target beyond it has rank 0")
    metrics: dict[str, float] = Field(description="recall@k, ndcg@k for k = 5, 10, 20, and mrr")
    coverage: float = Field(description="share of the catalogue that is in any user's top 10")
    short_lists: int = Field(description="users whose list holds fewer than 20 items")
    diversity: dict[str, float] = Field(
        default_factory=dict,
        description="distinct_categories and intra_list_distance of the first ten; of the bundle's "
        "own rankings",
    )
    slices: dict[str, Slice] = Field(description="head, tail and cold targets")


class SearchError(BaseModel):
    """What the beam loses against a search that prunes nothing, on a sample, seen masked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="which ranking")
    users: int = Field(description="users in the sample")
    top_10_differs: float = Field(description="share of users whose first ten differ")
    ndcg_beam: float = Field(description="NDCG@10 with the beam, on the sample")
    ndcg_exhaustive: float = Field(description="NDCG@10 with every item, on the sample")

    @property
    def relative_loss(self) -> float | None:
        """1 - beam / exhaustive NDCG@10; None when the exhaustive search finds no target."""
        if self.ndcg_exhaustive == 0:
            return None
        return 1 - self.ndcg_beam / self.ndcg_exhaustive


class Evaluation(BaseModel):
    """Everything one evaluation measured, and what it was measured on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = 1
    bundle: str = Field(description="id of the bundle")
    catalogue_version: int
    split: str = Field(description="validation or test")
    users: int = Field(description="users measured; every one counts, failures included")
    users_in_split: int = Field(description="users that have a target in the split")
    users_without_history: int = Field(description="of those measured; served by popularity")
    unknown_targets: int = Field(description="targets that the bundle does not hold; all missed")
    items: int = Field(description="size of the catalogue that is ranked")
    beam_width: int
    slices: dict[str, str] = Field(description="what head, tail and cold mean, in words")
    rows: list[Row]
    search_error: list[SearchError]
    categories: CategoryTree | None = Field(default=None, description="shape of the category tree")
    notes: list[str] = Field(description="what a reader of the numbers must know")
    seconds: float = Field(description="wall time of the evaluation")

    def row(self, name: str, *, seen_masked: bool = True) -> Row:
        """Return the row of a ranking.

        Raises:
            KeyError: there is no such row.
        """
        for row in self.rows:
            if (row.name, row.seen_masked) == (name, seen_masked):
                return row
        raise KeyError(f"no row {name!r} with seen_masked={seen_masked}")


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write evaluation.md and, last, evaluation.json into a bundle's folder, each whole or not."""
    _write(folder / "evaluation.md", lambda file: file.write_text(markdown(evaluation), "utf-8"))
    content = evaluation.model_dump_json(indent=2) + "\n"
    _write(folder / "evaluation.json", lambda file: file.write_text(content, "utf-8"))


def markdown(evaluation: Evaluation) -> str:
    """Return the evaluation as a Markdown document."""
    parts = [f"# Evaluation of bundle {evaluation.bundle}", _protocol(evaluation)]
    for seen_masked, title in ((True, "Seen items masked"), (False, "Seen items not masked")):
        rows = [row for row in evaluation.rows if row.seen_masked == seen_masked]
        parts += [
            f"## {title}",
            markdown_table(["ranking", *COLUMNS.values()], map(_metric_cells, rows)),
        ]
        parts += [
            markdown_table(
                ["ranking", "coverage", *DIVERSITY.values(), "short lists", *_slice_heads()],
                map(_kinds, rows),
            )
        ]
    if evaluation.search_error:
        parts += ["## Search error against exhaustive search, seen items masked"]
        parts += [markdown_table(ERROR_HEADS, map(_error_cells, evaluation.search_error))]
    if evaluation.categories is not None:
        parts += ["## Category tree", *tree_parts(evaluation.categories)]
    words = "; ".join(f"{name}: {meaning}" for name, meaning in evaluation.slices.items())
    parts += ["## Reading it", f"Slices by the target's training events: {words}."]
    parts += ["\n".join(f"- {note}" for note in evaluation.notes)]
    return "\n\n".join(parts) + "\n"


def tree_parts(tree: CategoryTree) -> list[str]:
    """The shape of a category tree as a table and a sentence in Markdown."""
    table = markdown_table(TREE_HEADS, [level.cells() for level in tree.levels])
    return [*([table] if tree.levels else []), tree.sentence()]


def tables(evaluation: Evaluation) -> list[Table]:
    """Return the evaluation as tables for a terminal."""
    made = []
    for seen_masked, title in ((True, "seen items masked"), (False, "seen items not masked")):
        rows = [row for row in evaluation.rows if row.seen_masked == seen_masked]
        heads = ["ranking", *COLUMNS.values(), "cover"]
        cells = [[*_metric_cells(row), f"{row.coverage:.1%}"] for row in rows]
        made.append(terminal_table(f"{evaluation.split} split, {title}", heads, cells))
    if evaluation.search_error:
        cells = [_error_cells(error) for error in evaluation.search_error]
        made.append(terminal_table("search error", ERROR_HEADS, cells))
    return made


def plot_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Draw NDCG@10 of every ranking, over all targets and per slice, seen items masked, as PNG."""
    rows = [row for row in evaluation.rows if row.seen_masked]
    figure = Figure(figsize=(9, 0.9 + 0.65 * len(rows)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / (1 + len(SLICES))
    for place, kind in enumerate(("all", *SLICES)):
        values = [_ndcg_of(row, kind) for row in rows]
        axes.barh([y + place * height for y in range(len(rows))], values, height, label=kind)
    axes.set_yticks([y + 1.5 * height for y in range(len(rows))], [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"NDCG@10 on the {evaluation.split} split, seen items masked")
    figure.legend(title="targets", loc="outside right upper")
    _save(figure, path)


def plot_training(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw training curves as PNG: losses by epoch, validation NDCG@10 by minutes of training.

    Args:
        history: one mapping per epoch. Every key that ends in `loss` is a part of the training
            loss; `generator`, `item_head` and `served` are validation NDCG@10; `epoch` is its
            number, counted from 1 when it is missing; `seconds` is what it took, validation left
            out. Values that are not there leave a gap.
        path: the PNG file; its folder exists.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    losses, validation = figure.subplots(1, 2)
    epochs = [row.get("epoch", number) for number, row in enumerate(history, start=1)]
    parts = sorted({key for row in history for key in row if key.endswith("loss")})
    _draw(losses, epochs, history, {key: key.replace("_", " ") for key in parts})
    losses.xaxis.get_major_locator().set_params(integer=True)
    losses.set(title="training loss", xlabel="epoch")
    minutes = list(itertools.accumulate(row.get("seconds", 0.0) / 60 for row in history))
    _draw(validation, minutes, history, VALIDATION_LINES)
    validation.set(title="validation NDCG@10", xlabel="minutes of training")
    _save(figure, path)


def _draw(
    axes: Any,  # an Axes; matplotlib's type is not exported for annotations of arrays of them
    places: Sequence[float],
    history: Sequence[Mapping[str, float]],
    lines: Mapping[str, str],
) -> None:
    axes.grid(alpha=0.3)
    for key, label in lines.items():
        if any(key in row for row in history):
            values = [row.get(key, float("nan")) for row in history]
            axes.plot(places, values, marker=".", label=label)
    if axes.lines:
        axes.legend()


def _save(figure: Figure, path: Path) -> None:
    # A Figure made without pyplot draws with Agg, in any thread and without a screen.
    with mpl.rc_context({"savefig.dpi": 120}):
        _write(path, lambda file: figure.savefig(file, format="png", metadata={"Software": None}))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    # Beside the folder, not in it: a bundle with a file that it does not know is refused.
    temporary = path.parent.with_name(f".{path.parent.name}.{path.name}.partial")
    write(temporary)
    temporary.replace(path)


def _protocol(evaluation: Evaluation) -> str:
    sampled = "" if evaluation.users == evaluation.users_in_split else " (a sample)"
    return (
        f"{evaluation.split.capitalize()} split, {evaluation.users:,} of "
        f"{evaluation.users_in_split:,} users{sampled}, one target each; full ranking of "
        f"{evaluation.items:,} items on item ids; beam width {evaluation.beam_width}; "
        f"catalogue version {evaluation.catalogue_version}."
    )


def _metric_cells(row: Row) -> list[str]:
    return [row.name, *(_number(row.metrics.get(name)) for name in COLUMNS)]


def _slice_heads() -> list[str]:
    return [f"{kind} {head}" for kind in SLICES for head in ("users", "R@10", "N@10")]


def _kinds(row: Row) -> list[str]:
    diverse = [_number(row.diversity.get(name)) for name in DIVERSITY]
    cells = [row.name, f"{row.coverage:.1%}", *diverse, f"{row.short_lists:,}"]
    for kind in SLICES:
        part = row.slices[kind]
        cells += [f"{part.users:,}", *(_number(part.metrics.get(f"{m}@10")) for m in METRICS)]
    return cells


METRICS = ("recall", "ndcg")
ERROR_HEADS = ["ranking", "users", "top 10 differs", "N@10 beam", "N@10 exhaustive", "lost"]


def _error_cells(error: SearchError) -> list[str]:
    lost = "-" if error.relative_loss is None else f"{error.relative_loss:.2%}"
    values = [_number(error.ndcg_beam), _number(error.ndcg_exhaustive)]
    return [error.name, f"{error.users:,}", f"{error.top_10_differs:.1%}", *values, lost]


def _ndcg_of(row: Row, kind: str) -> float:
    metrics = row.metrics if kind == "all" else row.slices[kind].metrics
    return metrics.get("ndcg@10", 0.0)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, numbers to the right."""
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def terminal_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table for a terminal, names cut at their first comma."""
    # Sparing with room, so that a terminal of 80 columns shows every number whole.
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    for name, *cells in rows:
        table.add_row(name.partition(",")[0].partition(" (")[0], *cells)
    return table
