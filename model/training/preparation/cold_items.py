"""Items held out of everything, to be met later as new ones.

A random share of the catalogue leaves items.parquet and all events: the prepared folder is that of
a shop which has never sold them. `cold_items.parquet` keeps the items, `cold_events.parquet` the
test events that ask for one of them.
"""

from pathlib import Path

import numpy as np
import polars as pl

from model.errors import DataError
from model.training.table_file import ROWS_PER_GROUP

COLD_ITEMS, COLD_EVENTS = "cold_items.parquet", "cold_events.parquet"


def hold_out_items(folder: Path, share: float, seed: int) -> None:
    """Take `share` of the items out of `folder`'s items.parquet and events.parquet.

    Raises:
        DataError: no test event asks for one of the items drawn.
    """
    items = pl.read_parquet(folder / "items.parquet")
    events = pl.read_parquet(folder / "events.parquet")
    drawn = np.zeros(len(items), dtype=np.bool_)
    count = max(1, round(share * len(items)))
    drawn[np.random.default_rng(seed).permutation(len(items))[:count]] = True
    cold = items.filter(pl.Series(drawn))
    is_cold = pl.col("item_id").is_in(cold["item_id"].implode())
    asked = events.filter(is_cold & (pl.col("split") == "test"))
    if not len(asked):
        raise DataError(
            f"no test event has one of the {count} items that cold_items = {share} held out: "
            "raise the share, or draw others with cold_seed"
        )
    cold.write_parquet(folder / COLD_ITEMS)
    asked.select("user_id", "item_id").write_parquet(folder / COLD_EVENTS)
    _replace(folder / "items.parquet", items.filter(pl.Series(~drawn)))
    _replace(folder / "events.parquet", events.filter(~is_cold))


def _replace(path: Path, frame: pl.DataFrame) -> None:
    """Write `frame` to `path`, which may still be mapped into memory."""
    partial = path.with_name(f"{path.name}.partial")
    frame.write_parquet(partial, row_group_size=ROWS_PER_GROUP)
    partial.replace(path)
