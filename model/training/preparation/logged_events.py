"""The events of a service's log, as a table that `prepare` reads like any other."""

import json
from pathlib import Path

import polars as pl

from model import event_log

_COLUMNS = ("logged_ms", "user_id", "event_id", "item_id", "timestamp", "type")
_SCHEMA = pl.Schema(
    {name: pl.String() for name in _COLUMNS} | {"logged_ms": pl.Int64(), "timestamp": pl.Float64()}
)


def write_logged_events(log: Path, table: Path) -> None:
    """Compact the log and write its events to `table`, in Parquet; the first of each event id.

    Raises:
        DataError: there is no such folder, or a line is no record.
        OSError: a segment cannot be written.
    """
    event_log.compact(log)
    lines = table.with_suffix(".jsonl")
    with lines.open("w", encoding="utf-8") as file:
        for record in event_log.events(log):
            file.write(json.dumps({name: record[name] for name in _COLUMNS}) + "\n")
    if not lines.stat().st_size:
        pl.DataFrame(schema=_SCHEMA).drop("event_id", "logged_ms").write_parquet(table)
        return
    (
        pl.scan_ndjson(lines, schema=_SCHEMA)
        .sort("logged_ms", maintain_order=True)
        .unique(subset=["user_id", "event_id"], keep="first", maintain_order=True)
        .drop("event_id", "logged_ms")
        .sink_parquet(table, engine="streaming")
    )
