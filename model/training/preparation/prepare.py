"""The first stage: a shop's catalogue and events, checked, counted, sorted and split.

Writes `items.parquet`, `events.parquet` and, last, `report.json`. What is merely missing, repeated
or unknown is counted; what makes the input unusable stops with file, row, column and remedy.
"""

import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from model.errors import DataError
from model.history import DISLIKE
from model.training.preparation import splits
from model.training.preparation.catalogue_columns import AttributeType
from model.training.preparation.catalogue_source import TEXTS, CatalogueSource
from model.training.preparation.cold_items import COLD_EVENTS, COLD_ITEMS, hold_out_items
from model.training.preparation.event_source import TIME, EventSource
from model.training.preparation.logged_events import write_logged_events
from model.training.preparation.report import (
    PrepareReport,
    event_counts,
    item_counts,
    report_table,
    unknown_items,
)
from model.training.table_file import FILE, ROW, ROWS_PER_GROUP, TableFile
from model.views import VIEWS

__all__ = ["PrepareConfig", "PrepareReport", "prepare", "report_table"]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_tuple), Field(min_length=1)]


class PrepareConfig(BaseModel):
    """What `prepare` reads and how it splits.

    Files end in .parquet, .csv, .jsonl or .ndjson; a folder is the event log of a service.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: Paths = Field(description="Catalogue file or files.")
    events: Paths = Field(
        description="Event files or the folders of event logs; ties in time keep this order. "
        "Events of type dislike are left out."
    )
    item_columns: dict[str, str] = Field(
        default={},
        description="Our name -> the file's, for item_id, title, brand, description, categories, "
        "attributes and embeddings that are called otherwise.",
    )
    event_columns: dict[str, str] = Field(
        default={},
        description="Our name -> the file's, for user_id, item_id, timestamp and type.",
    )
    attributes: dict[str, AttributeType] = Field(
        default={}, description="Typed attributes to keep, name -> str, int, float or bool."
    )
    embeddings: tuple[str, ...] = Field(
        default=(), description="Named columns that hold an item's embedding as a list of numbers."
    )
    split: Literal["leave_one_out", "time"] = Field(
        default="leave_one_out",
        description="leave_one_out: a user's last event is test, the last but one validation. "
        "time: every event by its timestamp.",
    )
    validation_from: int | datetime | None = Field(
        default=None,
        description="time split: first timestamp of validation, in the events' own unit, or a "
        "date for Unix seconds. With test_from; without both, the fractions decide.",
    )
    test_from: int | datetime | None = Field(
        default=None, description="time split: first timestamp of the test."
    )
    validation_fraction: float = Field(
        default=0.1, gt=0, lt=0.5, description="time split: share of the events in validation."
    )
    test_fraction: float = Field(
        default=0.1, gt=0, lt=0.5, description="time split: share of the events, newest, in test."
    )
    min_history: int = Field(
        default=1,
        ge=1,
        description="Training events a user needs before any of its events is held out (leave one "
        "out), or before it counts as a user with history (time).",
    )

    cold_items: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the items to hold out of the catalogue and of all events, as if they "
        "were not sold yet; `cofine evaluate-cold` inserts them as new ones.",
    )
    cold_seed: int = Field(default=0, ge=0, description="Which items those are.")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        known = {"item_id", "categories", *TEXTS, *self.attributes, *self.embeddings}
        _refuse_unknown("item_columns", self.item_columns, known)
        events = {"user_id", "item_id", "timestamp", "type"}
        _refuse_unknown("event_columns", self.event_columns, events)
        _refuse_views(self.embeddings)
        if (self.validation_from is None) != (self.test_from is None):
            raise ValueError("validation_from and test_from go together; give both or none")
        if self.split != "time" and self.validation_from is not None:
            raise ValueError('validation_from and test_from need split = "time"')
        return self


def prepare(config: PrepareConfig, output: Path) -> PrepareReport:
    """Check, count and split the data; write the prepared folder.

    Args:
        config: The input files and how to read them.
        output: Folder for items.parquet, events.parquet and report.json, made when absent. An
            older report is removed first, so that a folder with a report is always whole.

    Returns:
        What report.json holds.

    Raises:
        DataError: The input cannot be used; the message names file, row, column and remedy.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".partial-") as folder:
        scratch = Path(folder)
        report = _write(config, scratch)
        for name in (COLD_ITEMS, COLD_EVENTS):
            (output / name).unlink(missing_ok=True)
        cold = (COLD_ITEMS, COLD_EVENTS) if config.cold_items else ()
        for name in ("items.parquet", "events.parquet", *cold, "report.json"):
            (scratch / name).replace(output / name)
    return report


def _refuse_unknown(setting: str, columns: dict[str, str], known: set[str]) -> None:
    unknown = sorted(columns.keys() - known)
    if unknown:
        raise ValueError(
            f"{setting} renames {unknown[0]!r}, which is no column of ours; "
            f"known are {', '.join(sorted(known))} (our name first, the file's second)"
        )


def _refuse_views(embeddings: Sequence[str]) -> None:
    taken = [name for name in embeddings if name in VIEWS]
    if taken:
        raise ValueError(
            f"embeddings names {taken[0]!r}, which is a view that every catalogue has, as are "
            f"{', '.join(VIEWS)}: give the column another name of ours, as embeddings = "
            f'["my_{taken[0]}"] with item_columns = {{ my_{taken[0]} = "{taken[0]}" }}'
        )


def _write(config: PrepareConfig, folder: Path) -> PrepareReport:
    """Write the three files into `folder`, the report last."""
    catalogue = CatalogueSource(
        [TableFile(path, config.item_columns, "item_columns") for path in config.items],
        config.attributes,
        config.embeddings,
    )
    duplicate_items = catalogue.write(folder / "items.parquet", folder)
    items = pl.scan_parquet(folder / "items.parquet")
    if items.select(pl.len()).collect().item() == 0:
        files = ", ".join(map(str, config.items))
        raise DataError(f"{files}: there is no item; give at least one row")
    tables = [_event_table(config, path, folder) for path in config.events]
    with_dislikes = EventSource(tables).normalise(folder)
    given = with_dislikes.filter(pl.col("type") != DISLIKE)
    unknown = unknown_items(given, items)
    known = _known(given, items, folder / "known.parquet")
    kept = known.select(pl.len()).collect().item()
    if kept == 0:
        raise _nothing_left(config, unknown)
    is_positions = splits.are_positions(given)
    bounds = _split(config, known, is_positions, folder / "events.parquet")
    if config.cold_items:
        hold_out_items(folder, config.cold_items, config.cold_seed)
        items = pl.scan_parquet(folder / "items.parquet")
    events = pl.scan_parquet(folder / "events.parquet")
    given_events = given.select(pl.len()).collect().item()
    all_events = with_dislikes.select(pl.len()).collect().item()
    report = PrepareReport(
        **item_counts(items, events),
        **event_counts(events, config.split, config.min_history),
        **unknown,
        duplicate_items=duplicate_items,
        dislikes=all_events - given_events,
        duplicate_events=given_events - unknown["unknown_item_events"] - kept,
        split=config.split,
        timestamps_are_positions=is_positions,
        validation_from=bounds[0],
        test_from=bounds[1],
    )
    (folder / "report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return report


def _event_table(config: PrepareConfig, path: Path, scratch: Path) -> TableFile:
    if not path.is_dir():
        return TableFile(path, config.event_columns, "event_columns")
    table = scratch / f"log-{len(list(scratch.glob('log-*.parquet')))}.parquet"
    write_logged_events(path, table)
    return TableFile(table)


def _nothing_left(config: PrepareConfig, unknown: Mapping[str, Any]) -> DataError:
    events = ", ".join(map(str, config.events))
    if not unknown["unknown_item_events"]:
        return DataError(f"{events}: there is no event; give at least one row")
    examples = ", ".join(map(repr, unknown["unknown_item_examples"]))
    return DataError(
        f"{events}: no event is left; all {unknown['unknown_item_events']} have an item_id that "
        f"{', '.join(map(str, config.items))} does not hold, {examples} for example. Check that "
        "both use the same item ids"
    )


def _known(given: pl.LazyFrame, items: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    """Write the events of the catalogue's items to `path`, each once, sorted; return them."""
    same = ["user_id", "item_id", TIME, "type"]
    (
        given.join(items.select("item_id"), on="item_id", how="semi")
        .sort("user_id", TIME, FILE, ROW)
        .unique(subset=same, keep="first", maintain_order=True)
        .sink_parquet(path, engine="streaming")
    )
    return pl.scan_parquet(path)


def _split(
    config: PrepareConfig, known: pl.LazyFrame, is_positions: bool, path: Path
) -> tuple[int | None, int | None]:
    """Write the labelled events to `path`; return where validation and test begin, if in time."""
    bounds: tuple[int | None, int | None] = (None, None)
    if config.split == "leave_one_out":
        labelled = splits.leave_one_out(known, config.min_history)
        remedy = f"no user has {config.min_history + 2} events; give more events"
    else:
        _refuse_positions(config, is_positions)
        first, second = splits.time_bounds(
            known,
            (config.validation_from, config.test_from),
            (config.validation_fraction, config.test_fraction),
        )
        bounds = (first, second)
        labelled = splits.by_time(known, first, second)
        remedy = (
            f"validation begins at {first}, the test at {second}: choose validation_from < "
            "test_from inside the events' time, in the events' unit"
        )
    labelled.select("user_id", "item_id", "timestamp", "type", "split").sink_parquet(
        path, row_group_size=ROWS_PER_GROUP, engine="streaming"
    )
    splits.refuse_empty_splits(pl.scan_parquet(path), remedy)
    return bounds


def _refuse_positions(config: PrepareConfig, is_positions: bool) -> None:
    if is_positions:
        column = config.event_columns.get("timestamp", "timestamp")
        raise DataError(
            f"{config.events[0]}: column {column!r} only numbers each user's events (0, 1, 2, ... "
            f"or whole numbers up to {splits.LARGEST_POSITION}) and tells no time, so the events "
            'cannot be split by time; use split = "leave_one_out" or give real timestamps'
        )
