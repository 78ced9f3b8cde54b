"""The events as they are given: who saw which item when, checked and brought to one form.

Knows nothing of the catalogue or of splits. A timestamp is a whole number (kept as it is), a
number with a fraction, a date or an ISO 8601 text (UTC unless it says otherwise); the latter three
become whole seconds, and what lies between the seconds still decides the order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.errors import DataError
from model.training.table_file import FILE, ROW, Check, TableFile, identifier_check

TIME = "__time__"
"""Name of the sort key: the timestamp at its full resolution."""

_ISO_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")
_MICROSECONDS = 1_000_000
_REMEDY = "give Unix seconds or an ISO 8601 date for every event, or remove the row"


@dataclass(frozen=True)
class EventSource:
    """Where the events come from.

    Attributes:
        tables: The files, in order.
    """

    tables: Sequence[TableFile]

    def normalise(self, scratch: Path) -> pl.LazyFrame:
        """Return every event of every file, in input order, read back from `scratch`.

        Columns: user_id, item_id, type (str, "" when missing), timestamp (int64), and `FILE`,
        `ROW`, `TIME`, which together order ties as they were given.

        Raises:
            DataError: A file, a column or a row cannot be used.
        """
        parts = []
        for number, table in enumerate(self.tables):
            part = scratch / f"events-{number}.parquet"
            frame = table.scan(["user_id", "item_id", "timestamp"], ["type"])
            timestamp, time = _timestamp(table)
            bad_time = Check("timestamp", timestamp.is_null(), "is not a point in time", _REMEDY)
            users, items = (identifier_check(table, name) for name in ("user_id", "item_id"))
            table.refuse_bad_rows(frame, [users, items, bad_time])
            with table.reading():
                frame.select(
                    pl.lit(number, dtype=pl.Int64).alias(FILE),
                    ROW,
                    pl.col("user_id", "item_id").cast(pl.String),
                    pl.col("type").cast(pl.String).fill_null("").str.strip_chars(),
                    timestamp.alias("timestamp"),
                    time.alias(TIME),
                ).sink_parquet(part, engine="streaming")
            parts.append(part)
        return pl.concat([pl.scan_parquet(part) for part in parts])


def _timestamp(table: TableFile) -> tuple[pl.Expr, pl.Expr]:
    """Return timestamp and sort key, both int64 and null where there is no point in time."""
    column, dtype = pl.col("timestamp"), table.dtype("timestamp")
    if table.is_text("timestamp"):
        return _from_text(column)
    if dtype.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        return whole, whole
    if dtype.is_float():
        return _from_microseconds(_scaled(column))
    if dtype in (pl.Datetime, pl.Date):
        return _from_microseconds(column.cast(pl.Datetime("us")).dt.epoch("us"))
    raise DataError(
        f"{table.path}: column {table.source_name('timestamp')!r} has type {dtype}; {_REMEDY}"
    )


def _from_text(column: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Read text that holds only whole numbers like integers, anything else to microseconds."""
    given = column.cast(pl.String).str.strip_chars()
    whole = given.cast(pl.Int64, strict=False)
    iso = given.str.replace(" ", "T", literal=True).str.replace(r"[Zz]$", "+00:00")
    dates = [iso.str.to_datetime(f, strict=False, time_unit="us") for f in _ISO_FORMATS]
    day = given.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    microseconds = pl.coalesce(
        _scaled(given.cast(pl.Float64, strict=False)),
        *(date.dt.epoch("us") for date in (*dates, day)),
    )
    seconds, time = _from_microseconds(microseconds)
    return pl.coalesce(whole, seconds), pl.coalesce(whole * _MICROSECONDS, time)


def _scaled(seconds: pl.Expr) -> pl.Expr:
    return (seconds * _MICROSECONDS).round().cast(pl.Int64, strict=False)


def _from_microseconds(microseconds: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    return microseconds.floordiv(_MICROSECONDS), microseconds
