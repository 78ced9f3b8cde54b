"""What a comparison of tokenizers found, as data, JSON, Markdown, terminal table and picture."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from model.training.evaluation.evaluate import GENERATOR, SERVED
from model.training.evaluation.report import markdown_table
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
RANKING_HEADINGS = (
    *("data set", "tokenizer", "seeds", "ranking", "seen items", "R@10", "N@10"),
    "lost to the beam",
)


class Ranking(BaseModel):
    """How well one way of ranking does on the test."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="which ranking")
    seen_masked: bool = Field(description="whether the items of the history were left out")
    recall: float = Field(description="Recall@10")
    ndcg: float = Field(description="NDCG@10")
    lost: float | None = Field(
        description="share of NDCG@10 that the beam loses to exhaustive search, if measured"
    )


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
    rankings: tuple[Ranking, ...]
    fit_seconds: float = Field(description="of the stage tokenize")
    train_seconds: float = Field(description="of the stage train")

    def ranking(self, name: str) -> Ranking:
        """Return one that leaves seen items out.

        Raises:
            KeyError: there is no such ranking.
        """
        for each in self.rankings:
            if each.name == name and each.seen_masked:
                return each
        raise KeyError(f"no ranking {name!r} without seen items")

    def cells(self) -> list[str]:
        """Return the outcome as text, by `HEADINGS`."""
        generator, served = self.ranking(GENERATOR), self.ranking(SERVED)
        return [
            self.dataset,
            self.method,
            str(self.seed),
            f"{self.collision_rate:.1%}",
            " ".join(map(str, self.codes_used.values())),
            f"{generator.ndcg:.4f}",
            f"{served.recall:.4f}",
            f"{served.ndcg:.4f}",
            f"{self.fit_seconds:.0f}",
            f"{self.train_seconds:.0f}",
        ]


class Comparison(BaseModel):
    """All outcomes so far."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    planned: int = Field(description="combinations that there will be")
    outcomes: list[Outcome]

    def lines(self) -> Iterator[list[str]]:
        """Yield the cells of every outcome, and of the mean where a method has several seeds."""
        for seeds in self._methods():
            yield from (outcome.cells() for outcome in seeds)
            if len(seeds) > 1:
                cells = _mean(seeds).cells()
                cells[HEADINGS.index("seed")] = f"mean of {len(seeds)}"
                cells[HEADINGS.index("codes used")] = ""
                yield cells

    def ranking_lines(self) -> Iterator[list[str]]:
        """Yield the cells of every ranking of every method, means over its seeds."""
        for seeds in self._methods():
            for each in _mean(seeds).rankings:
                yield [
                    *(seeds[0].dataset, seeds[0].method, str(len(seeds)), each.name),
                    "masked" if each.seen_masked else "kept",
                    *(f"{each.recall:.4f}", f"{each.ndcg:.4f}"),
                    "" if each.lost is None else f"{each.lost:.1%}",
                ]

    def _methods(self) -> Iterator[list[Outcome]]:
        """The seeds of every method on every data set."""
        for _, seeds in groupby(self.outcomes, key=lambda found: (found.dataset, found.method)):
            yield list(seeds)


def _mean(seeds: Sequence[Outcome]) -> Outcome:
    """What seeds of one method have on average; codes are those of the first."""
    numbers = ("collision_rate", "fit_seconds", "train_seconds")
    means: dict[str, Any] = {name: mean(getattr(each, name) for each in seeds) for name in numbers}
    of_each = zip(*(outcome.rankings for outcome in seeds), strict=True)
    means["rankings"] = tuple(map(_mean_ranking, of_each))
    return seeds[0].model_copy(update=means)


def _mean_ranking(seeds: Sequence[Ranking]) -> Ranking:
    lost = [each.lost for each in seeds if each.lost is not None]
    return seeds[0].model_copy(
        update={
            "recall": mean(each.recall for each in seeds),
            "ndcg": mean(each.ndcg for each in seeds),
            "lost": mean(lost) if lost else None,
        }
    )


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write comparison.json, comparison.md and comparison.png into `folder`."""
    save_text(folder / "comparison.json", comparison.model_dump_json(indent=2) + "\n")
    save_text(folder / "comparison.md", markdown(comparison))
    partial = folder / "comparison.partial.png"
    _figure(comparison.outcomes).savefig(partial, dpi=120)
    partial.replace(folder / "comparison.png")


def markdown(comparison: Comparison) -> str:
    """Return the tables as Markdown; says where combinations are missing."""
    tables = [
        markdown_table(HEADINGS, comparison.lines()),
        markdown_table(RANKING_HEADINGS, comparison.ranking_lines()),
    ]
    missing = comparison.planned - len(comparison.outcomes)
    note = [f"{missing} of {comparison.planned} combinations are missing."] if missing else []
    return "\n\n".join([*note, *tables]) + "\n"


def comparison_table(comparison: Comparison) -> Table:
    """Return the table for a terminal."""
    table = Table(title="Tokenizers")
    for heading in HEADINGS:
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
            served, generator = outcome.ranking(SERVED).ndcg, outcome.ranking(GENERATOR).ndcg
            panel.scatter(outcome.collision_rate, served, color=color, label=label)
            panel.scatter(outcome.collision_rate, generator, edgecolors=color, facecolors="none")
        panel.set(title=dataset, xlabel="items that share an ID, share", ylabel="NDCG@10")
        panel.legend(fontsize="small")
    return figure
