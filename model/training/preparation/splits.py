"""Which events are for training, which for validation, which for the test.

Works on sorted events and knows neither files nor the catalogue.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from model.errors import DataError

SPLITS = ("train", "validation", "test")

LARGEST_POSITION = 9_999
"""Whole numbers up to here are read as positions: as Unix seconds they lie in the first three hours
of 1970, as days before the first web shop."""


def leave_one_out(events: pl.LazyFrame, min_history: int) -> pl.LazyFrame:
    """Add `split`: a user's last event is test, the last but one validation, the rest train.

    Args:
        events: Sorted by user_id, then time.
        min_history: Training events that a user must keep; users with fewer than
            min_history + 2 events are train only.
    """
    from_end = pl.int_range(pl.len(), 0, -1).over("user_id")
    is_held_out = (pl.len().over("user_id") >= min_history + 2) & (from_end <= 2)
    split = (
        pl.when(~is_held_out)
        .then(pl.lit("train"))
        .when(from_end == 2)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("test"))
    )
    return events.with_columns(split.alias("split"))


def by_time(events: pl.LazyFrame, validation_from: int, test_from: int) -> pl.LazyFrame:
    """Add `split`: train before `validation_from`, validation before `test_from`, then test.

    Every event keeps the label of its own time, whatever else its user did.
    """
    split = (
        pl.when(pl.col("timestamp") < validation_from)
        .then(pl.lit("train"))
        .when(pl.col("timestamp") < test_from)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("test"))
    )
    return events.with_columns(split.alias("split"))


def time_bounds(
    events: pl.LazyFrame, given: Sequence[int | datetime | None], fractions: Sequence[float]
) -> tuple[int, int]:
    """Return the timestamps where validation and test begin.

    Args:
        events: With a `timestamp` column.
        given: (validation_from, test_from), both or none; a datetime means Unix seconds, in UTC
            when it names no zone.
        fractions: (validation, test) shares of the events, newest last, used when none is given.
    """
    validation_from, test_from = given
    if validation_from is not None and test_from is not None:
        return _seconds(validation_from), _seconds(test_from)
    validation, test = fractions
    time = pl.col("timestamp")
    first, second = (
        events.select(
            time.quantile(1 - validation - test, "higher").cast(pl.Int64).alias("validation"),
            time.quantile(1 - test, "higher").cast(pl.Int64).alias("test"),
        )
        .collect(engine="streaming")
        .row(0)
    )
    return first, second


def are_positions(events: pl.LazyFrame) -> bool:
    """Say whether timestamps only number the events instead of telling the time.

    They do when no timestamp is negative and none exceeds `LARGEST_POSITION`, or when at least
    half of the users with two or more events have exactly the timestamps 0..n-1 or 1..n.

    Args:
        events: As given, before anything is dropped.
    """
    time = pl.col("timestamp")
    users = events.group_by("user_id").agg(
        pl.len().alias("n"),
        time.n_unique().alias("distinct"),
        time.min().alias("first"),
        time.max().alias("last"),
    )
    is_numbered = (
        pl.col("first").is_between(0, 1)
        & (pl.col("last") - pl.col("first") == pl.col("n") - 1)
        & (pl.col("distinct") == pl.col("n"))
    )
    first, last, share = (
        users.select(
            pl.col("first").min(),
            pl.col("last").max(),
            is_numbered.filter(pl.col("n") > 1).mean().alias("share"),
        )
        .collect(engine="streaming")
        .row(0)
    )
    return bool((first >= 0 and last <= LARGEST_POSITION) or (share or 0.0) >= 0.5)


def split_counts(events: pl.LazyFrame) -> dict[str, int]:
    """Return how many events each split has, in the order of `SPLITS`."""
    counts = dict(events.group_by("split").len().collect(engine="streaming").iter_rows())
    return {name: counts.get(name, 0) for name in SPLITS}


def refuse_empty_splits(events: pl.LazyFrame, remedy: str) -> None:
    """Stop when a split has no event.

    Raises:
        DataError: Names the empty split, all counts and the remedy.
    """
    counts = split_counts(events)
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise DataError(
            f"events: the {empty[0]} split has no event "
            f"({', '.join(f'{name} {count}' for name, count in counts.items())}); {remedy}"
        )


def _seconds(moment: int | datetime) -> int:
    if isinstance(moment, int):
        return moment
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
