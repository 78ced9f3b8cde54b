"""What a comparison of tokenizers found, as data, JSON, Markdown, terminal table and picture."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from model.training.stage_files import save_text

HEADINGS = (
    "data set",
    "tokenizer",
    "seed",
    "items sharing an ID",
    "codes used",
    "generator N@10",
    "served R@10",
    "served N@10",
    "tokenize s",
    "train s",
)
COLD_HEADINGS = ("new items R@10", "of popularity", "others N@10", "lost to the new")


class ColdOutcome(BaseModel):
    """How well items are found that training never saw, and at what cost for the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recall: float = Field(description="Recall@10 of the served ranking where they came next")
    popularity_recall: float = Field(description="of popularity")
    others_ndcg: float = Field(description="served NDCG@10 for all other items, before they come")
    cost: float = Field(description="the share of it that is lost once they are there")

    def cells(self) -> list[str]:
        """Return the outcome as text, by `COLD_HEADINGS`."""
        recalls = [f"{each:.4f}" for each in (self.recall, self.popularity_recall)]
        return [*recalls, f"{self.others_ndcg:.4f}", f"{self.cost:.1%}"]


class Outcome(BaseModel):
    """One data set, one method, one seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    method: str
    seed: int
    collision_rate: float = Field(
        description="share of items that share their semantic ID, before buckets are split"
    )
    codes_used: dict[str, int] = Field(description="by level, coarse to fine")
    generator_ndcg: float = Field(description="NDCG@10 on the test, seen items masked")
    served_recall: float = Field(description="Recall@10 of the served ranking, likewise")
    served_ndcg: float = Field(description="NDCG@10 of the served ranking, likewise")
    fit_seconds: float = Field(description="of the stage tokenize")
    train_seconds: float = Field(description="of the stage train")
    cold: ColdOutcome | None = Field(None, description="where the data set holds items out")

    def cells(self) -> list[str]:
        """Return the outcome as text, by `HEADINGS` and, with held-out items, `COLD_HEADINGS`."""
        cold = self.cold.cells() if self.cold else []
        return [
            self.dataset,
            self.method,
            str(self.seed),
            f"{self.collision_rate:.1%}",
            " ".join(map(str, self.codes_used.values())),
            f"{self.generator_ndcg:.4f}",
            f"{self.served_recall:.4f}",
            f"{self.served_ndcg:.4f}",
            f"{self.fit_seconds:.0f}",
            f"{self.train_seconds:.0f}",
            *cold,
        ]


class Comparison(BaseModel):
    """All outcomes so far."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    planned: int = Field(description="combinations that there will be")
    outcomes: list[Outcome]

    def headings(self) -> list[str]:
        """Return what stands above the cells."""
        return [*HEADINGS, *(COLD_HEADINGS if any(each.cold for each in self.outcomes) else ())]

    def lines(self) -> Iterator[list[str]]:
        """Yield the cells of every outcome, and of the mean where a method has several seeds."""
        for _, each in groupby(self.outcomes, key=lambda found: (found.dataset, found.method)):
            seeds = list(each)
            yield from (outcome.cells() for outcome in seeds)
            if len(seeds) > 1:
                yield _mean(seeds)


def _mean(seeds: Sequence[Outcome]) -> list[str]:
    """The cells of what seeds of one method have on average; codes are those of each alone."""
    first = seeds[0]
    numbers = ("collision_rate", "generator_ndcg", "served_recall", "served_ndcg")
    seconds = ("fit_seconds", "train_seconds")
    means: dict[str, Any] = {
        name: mean(getattr(each, name) for each in seeds) for name in numbers + seconds
    }
    cold = [each.cold for each in seeds if each.cold]
    if cold:
        names = ColdOutcome.model_fields
        means["cold"] = ColdOutcome(
            **{name: mean(getattr(each, name) for each in cold) for name in names}
        )
    cells = first.model_copy(update=means).cells()
    cells[HEADINGS.index("seed")] = f"mean of {len(seeds)}"
    cells[HEADINGS.index("codes used")] = ""
    return cells


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write comparison.json, comparison.md and comparison.png into `folder`."""
    save_text(folder / "comparison.json", comparison.model_dump_json(indent=2) + "\n")
    save_text(folder / "comparison.md", markdown(comparison))
    partial = folder / "comparison.partial.png"
    _figure(comparison.outcomes).savefig(partial, dpi=120)
    partial.replace(folder / "comparison.png")


def markdown(comparison: Comparison) -> str:
    """Return the table as Markdown; says where combinations are missing."""
    headings = comparison.headings()
    rows = [headings, ["---"] * len(headings)]
    rows += comparison.lines()
    lines = [f"| {' | '.join(row)} |" for row in rows]
    missing = comparison.planned - len(comparison.outcomes)
    note = [f"{missing} of {comparison.planned} combinations are missing.", ""] if missing else []
    return "\n".join([*note, *lines]) + "\n"


def comparison_table(comparison: Comparison) -> Table:
    """Return the table for a terminal."""
    table = Table(title="Tokenizers")
    for heading in comparison.headings():
        table.add_column(heading)
    for cells in comparison.lines():
        table.add_row(*cells)
    return table


def _figure(outcomes: Sequence[Outcome]) -> Figure:
    """Collisions against NDCG@10, one panel per data set: a filled mark is what is served."""
    datasets = list(dict.fromkeys(outcome.dataset for outcome in outcomes))
    methods = list(dict.fromkeys(outcome.method for outcome in outcomes))
    figure = Figure(figsize=(5 * len(datasets) + 2, 4), layout="constrained")
    panels = figure.subplots(1, len(datasets), squeeze=False)[0]
    for panel, dataset in zip(panels, datasets, strict=True):
        for outcome in (each for each in outcomes if each.dataset == dataset):
            number = methods.index(outcome.method)
            color = f"C{number % 10}"
            label = outcome.method if outcome.seed == outcomes[0].seed else None
            panel.scatter(outcome.collision_rate, outcome.served_ndcg, color=color, label=label)
            panel.scatter(
                outcome.collision_rate, outcome.generator_ndcg, edgecolors=color, facecolors="none"
            )
        panel.set(title=dataset, xlabel="items that share an ID, share", ylabel="NDCG@10")
        panel.legend(fontsize="small")
    return figure
