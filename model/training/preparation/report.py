"""What `prepare` found in the data: the counts, and how they are shown."""

from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from rich.markup import escape
from rich.table import Table

from model.training.preparation.catalogue_source import TEXTS
from model.training.preparation.splits import split_counts


class PrepareReport(BaseModel):
    """What `prepare` found; counts are of what was kept unless a name says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int
    items_without_events: int
    items_with_several_paths: int
    deepest_path: int = Field(description="Names in the longest category path.")
    missing: dict[str, int] = Field(description="Field -> items (type: events) that lack it.")
    duplicate_items: int = Field(description="Rows dropped because they repeat an item exactly.")
    events: int
    users: int
    unknown_item_events: int = Field(description="Events dropped: their item is not in items.")
    unknown_items: int
    unknown_item_examples: tuple[str, ...] = Field(description="The most frequent, at most five.")
    dislikes: int = Field(description="Events dropped: of type dislike.")
    duplicate_events: int = Field(description="Events dropped: same user, item, time and type.")
    split: Literal["leave_one_out", "time"]
    split_events: dict[str, int]
    users_with_too_little_history: int = Field(
        description="leave_one_out: users that are train only. time: users with held-out events "
        "but fewer than min_history training events."
    )
    first_timestamp: int
    last_timestamp: int
    timestamps_are_positions: bool
    validation_from: int | None
    test_from: int | None


def report_table(report: PrepareReport) -> Table:
    """Return the report as a table for the terminal."""
    table = Table(title="Prepared data", show_header=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    for name, value in report.model_dump().items():
        label = name.replace("_", " ")
        if isinstance(value, dict):
            for key, count in value.items():
                table.add_row(f"{label}: {escape(key)}", f"{count:,}")
        elif isinstance(value, tuple):
            table.add_row(label, escape(", ".join(value)) or "-")
        elif isinstance(value, int) and not isinstance(value, bool) and "time" not in name:
            table.add_row(label, f"{value:,}")
        else:
            table.add_row(label, "-" if value is None else str(value))
    return table


def item_counts(items: pl.LazyFrame, events: pl.LazyFrame) -> dict[str, Any]:
    """Count the prepared items.

    Args:
        items: The prepared items.
        events: The prepared events.
    """
    paths = pl.col("categories")
    extra = [
        name
        for name in items.collect_schema().names()
        if name.startswith(("attribute_", "embedding_"))
    ]
    seen = events.select("item_id").unique()
    counted = items.select(
        pl.len().alias("items"),
        (paths.list.len() > 1).sum().alias("items_with_several_paths"),
        paths.list.eval(pl.element().list.len())
        .list.max()
        .max()
        .fill_null(0)
        .alias("deepest_path"),
        *((pl.col(name) == "").sum() for name in TEXTS),
        (paths.list.len() == 0).sum(),
        *(pl.col(name).is_null().sum() for name in extra),
    ).collect(engine="streaming")
    row = counted.row(0, named=True)
    unseen = items.join(seen, on="item_id", how="anti").select(pl.len())
    return {
        "items": row["items"],
        "items_without_events": unseen.collect(engine="streaming").item(),
        "items_with_several_paths": row["items_with_several_paths"],
        "deepest_path": row["deepest_path"],
        "missing": {name: row[name] for name in (*TEXTS, "categories", *extra)}
        | {"type": _count(events, pl.col("type") == "")},
    }


def event_counts(events: pl.LazyFrame, split: str, min_history: int) -> dict[str, Any]:
    """Count the prepared events.

    Args:
        events: The prepared events, with their split.
        split: How they were split, "leave_one_out" or "time".
        min_history: Training events that make a user one with history.
    """
    row = (
        events.select(
            pl.len().alias("events"),
            pl.col("user_id").n_unique().alias("users"),
            pl.col("timestamp").min().alias("first_timestamp"),
            pl.col("timestamp").max().alias("last_timestamp"),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )
    is_train = pl.col("split") == "train"
    users = events.group_by("user_id").agg(
        is_train.sum().alias("train"), (~is_train).sum().alias("held_out")
    )
    has_target = pl.col("held_out") > 0
    short = (
        ~has_target if split == "leave_one_out" else (has_target & (pl.col("train") < min_history))
    )
    return row | {
        "split_events": split_counts(events),
        "users_with_too_little_history": _count(users, short),
    }


def unknown_items(given: pl.LazyFrame, items: pl.LazyFrame) -> dict[str, Any]:
    """Count the events whose item is not in the catalogue, and name the most frequent ones.

    Args:
        given: The events as given.
        items: The prepared items.
    """
    unknown = (
        given.join(items.select("item_id"), on="item_id", how="anti")
        .group_by("item_id")
        .len()
        .sort("len", "item_id", descending=[True, False])
        .collect(engine="streaming")
    )
    return {
        "unknown_item_events": int(unknown["len"].sum()),
        "unknown_items": len(unknown),
        "unknown_item_examples": tuple(unknown["item_id"].head(5)),
    }


def _count(frame: pl.LazyFrame, rows: pl.Expr) -> int:
    return int(frame.select(rows.sum()).collect(engine="streaming").item())
