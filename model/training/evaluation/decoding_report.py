"""What ways of decoding reached: JSON while it is measured, Markdown and a picture to read."""

from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.errors import ConfigError
from model.training.evaluation.category_tree import CategoryTree
from model.training.evaluation.report import markdown_table, tree_parts
from model.training.histories import Split
from model.training.stage_files import save_text

COLUMNS = ("recall@1", "recall@5", "recall@10", "ndcg@5", "ndcg@10")
DIVERSITY = ("distinct_categories", "intra_list_distance")
HEADS = ("decoding", "top-1", "R@5", "R@10", "N@5", "N@10", "categories", "distance", "ms", "p95")
READING = (
    "`top-1` is the share of users whose next item is the first of their list. `categories` counts "
    "the different categories among the first ten items, `distance` is the mean share of levels at "
    "which two of them differ. `ms` is the mean time of encoding and search, one request at a time "
    "on one thread, and `p95` its 95th percentile; both depend on the machine and its other work."
)


class DecodingRow(BaseModel):
    """What one way of decoding reached."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    bundle: str
    """Id of the bundle."""
    folder: str
    """Name of its folder."""
    metrics: dict[str, float]
    diversity: dict[str, float]
    milliseconds: float
    """Mean of a request."""
    milliseconds_p95: float

    def cells(self) -> list[str]:
        """The row as `HEADS` wants it."""
        numbers = [f"{self.metrics[name]:.4f}" for name in COLUMNS]
        diverse = [f"{self.diversity.get(name, 0):.2f}" for name in DIVERSITY]
        times = [f"{self.milliseconds:.1f}", f"{self.milliseconds_p95:.1f}"]
        return [f"{self.name} ({self.folder})", *numbers, *diverse, *times]


class Measured(BaseModel):
    """What rows have to agree on to be compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Split
    users: int
    beam_width: int
    seed: int
    task: str = Field(description="digest of the users' histories and targets")

    def title(self) -> str:
        """In words."""
        return f"{self.split} split, {self.users:,} users, {self.beam_width} beams, seen masked"


class DecodingReport(BaseModel):
    """All rows measured so far."""

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1] = 1
    measured: Measured
    same_codes: bool
    """Whether all bundles give all items the same codes."""
    tree: CategoryTree
    rows: list[DecodingRow]

    def row(self, bundle: str, name: str) -> DecodingRow | None:
        """The row of one way, if it has been measured."""
        found = (row for row in self.rows if (row.bundle, row.name) == (bundle, name))
        return next(found, None)


def read_report(path: Path) -> DecodingReport | None:
    """Return what an earlier run has left at `path`; None without a file.

    Raises:
        ConfigError: the file is something else.
    """
    if not path.is_file():
        return None
    try:
        return DecodingReport.model_validate_json(path.read_bytes())
    except ValidationError as error:
        message = (
            f"{path} is not what `cofine decoders` writes ({error.errors()[0]['msg']}): delete it, "
            "or give another --output"
        )
        raise ConfigError(message) from error


def write_report(report: DecodingReport, output: Path) -> None:
    """Write the Markdown file `output` and, of the same name beside it, a plot and the JSON."""
    _plot(report, output.with_suffix(".png"))
    save_text(output, markdown(report, output))
    save_text(output.with_suffix(".json"), report.model_dump_json(indent=2) + "\n")


def tree_picture(output: Path) -> Path:
    """Where the picture of the category tree lies, beside the Markdown file `output`."""
    return output.with_name(f"{output.stem}-categories.png")


def markdown(report: DecodingReport, output: Path) -> str:
    """The report as a Markdown document that will lie at `output`, beside its pictures."""
    codes = "The same codes" if report.same_codes else "**Different codes**"
    parts = [
        "# Ways of decoding",
        f"{report.measured.title()}. {codes} in all bundles.",
        markdown_table(HEADS, [row.cells() for row in report.rows]),
        READING,
        f"![Accuracy against latency and diversity]({output.with_suffix('.png').name})",
        "## Category tree",
        *tree_parts(report.tree),
        f"![Items by category]({tree_picture(output).name})",
    ]
    return "\n\n".join(parts) + "\n"


def _plot(report: DecodingReport, path: Path) -> None:
    """Draw NDCG@10 against latency and against the distance within lists, as PNG."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    latency, distance = figure.subplots(1, 2, sharey=True)
    for row in report.rows:
        accuracy = row.metrics["ndcg@10"]
        marker = "x" if row.name.endswith("penalty") else "o"
        label = f"{row.name} ({row.folder})"
        latency.plot(row.milliseconds, accuracy, marker, label=label)
        distance.plot(row.diversity.get(DIVERSITY[1], 0), accuracy, marker)
    latency.set(xlabel="milliseconds per request", ylabel="NDCG@10")
    distance.set(xlabel="mean distance of two items of a list")
    for axes in (latency, distance):
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    partial = path.with_name(f".{path.name}.partial")
    with mpl.rc_context({"savefig.dpi": 120}):
        figure.savefig(partial, format="png", metadata={"Software": None})
    partial.replace(path)
