"""What a comparison of tokenizers found, as data, JSON, Markdown, terminal table and picture."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
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
COLD_HEADINGS = (
    *("new items R@10", "of the item head", "of chance", "of popularity"),
    *("others N@10", "lost to the new"),
)
RANKING_HEADINGS = (
    *("data set", "tokenizer", "seeds", "ranking", "seen items", "R@10", "N@10"),
    "lost to the beam",
)
COLORS = 10
"""Of Matplotlib's cycle."""
MARKERS = ("o", "s", "^", "D", "v")
"""All of them can be drawn empty."""
LEGEND_ROWS = 14


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


class ColdOutcome(BaseModel):
    """How well items are found that training never saw, and at what cost for the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recall: float = Field(description="Recall@10 of the served ranking where they came next")
    head_recall: float = Field(description="of the item head over the whole catalogue")
    chance_recall: float = Field(description="of ten items drawn at random")
    popularity_recall: float = Field(description="of popularity, which knows no new item")
    others_ndcg: float = Field(description="served NDCG@10 for all other items, before they come")
    cost: float = Field(description="the share of it that is lost once they are there")

    def cells(self) -> list[str]:
        """Return the outcome as text, by `COLD_HEADINGS`."""
        found = (self.recall, self.head_recall, self.chance_recall, self.popularity_recall)
        return [*(f"{each:.4f}" for each in (*found, self.others_ndcg)), f"{self.cost:.1%}"]


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
    train_seconds: float = Field(description="of all epochs and lessons, whatever interrupted them")
    cold: ColdOutcome | None = Field(None, description="where the data set holds items out")

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
        """Return the outcome as text, by `HEADINGS` and, with held-out items, `COLD_HEADINGS`."""
        generator, served = self.ranking(GENERATOR), self.ranking(SERVED)
        cold = self.cold.cells() if self.cold else []
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
    of_each = zip(*(outcome.rankings for outcome in seeds), strict=True)
    cold = [each.cold for each in seeds if each.cold]
    return seeds[0].model_copy(
        update={
            **_means(seeds, numbers),
            "rankings": tuple(map(_mean_ranking, of_each)),
            "cold": ColdOutcome(**_means(cold, ColdOutcome.model_fields)) if cold else None,
        }
    )


def _mean_ranking(seeds: Sequence[Ranking]) -> Ranking:
    lost = [each.lost for each in seeds if each.lost is not None]
    means = _means(seeds, ("recall", "ndcg"))
    return seeds[0].model_copy(update={**means, "lost": mean(lost) if lost else None})


def _means(seeds: Sequence[BaseModel], names: Iterable[str]) -> dict[str, float]:
    return {name: mean(getattr(each, name) for each in seeds) for name in names}


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
        markdown_table(comparison.headings(), comparison.lines()),
        markdown_table(RANKING_HEADINGS, comparison.ranking_lines()),
    ]
    missing = comparison.planned - len(comparison.outcomes)
    note = [f"{missing} of {comparison.planned} combinations are missing."] if missing else []
    return "\n\n".join([*note, *tables]) + "\n"


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
    legend_columns = 1 + (len({outcome.method for outcome in outcomes}) - 1) // LEGEND_ROWS
    datasets = list(dict.fromkeys(outcome.dataset for outcome in outcomes))
    methods = list(dict.fromkeys(outcome.method for outcome in outcomes))
    figure = Figure(figsize=(5 * len(datasets) + 2 * legend_columns, 4), layout="constrained")
    panels = figure.subplots(1, len(datasets), squeeze=False)[0]
    for panel, dataset in zip(panels, datasets, strict=True):
        for outcome in (each for each in outcomes if each.dataset == dataset):
            color, marker = mark(methods.index(outcome.method))
            for ranking, filling in ((SERVED, color), (GENERATOR, "none")):
                ndcg = outcome.ranking(ranking).ndcg
                panel.scatter(
                    *(outcome.collision_rate, ndcg),
                    marker=marker,
                    edgecolors=color,
                    facecolors=filling,
                )
        panel.set(title=dataset, xlabel="items that share an ID, share", ylabel="NDCG@10")
    figure.legend(
        handles=[_handle(name, mark(number)) for number, name in enumerate(methods)],
        loc="outside right upper",
        ncols=legend_columns,
        fontsize="small",
    )
    return figure


def mark(number: int) -> tuple[str, str]:
    """Return colour and marker of the method of this number; no two of fifty are the same."""
    return f"C{number % COLORS}", MARKERS[number // COLORS % len(MARKERS)]


def _handle(name: str, marked: tuple[str, str]) -> Line2D:
    color, marker = marked
    return Line2D([], [], color=color, marker=marker, linestyle="", label=name)
