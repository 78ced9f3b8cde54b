"""The catalogue as it is given: items from one or several files, checked and brought to one form.

Writes `items.parquet` of the prepared folder. Only `item_id` is required of an item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.errors import DataError
from model.training.preparation.catalogue_columns import (
    AttributeType,
    attribute,
    categories,
    embedding,
    first_bad_json,
    text,
    unfit_embedding,
)
from model.training.table_file import FILE, ROW, ROWS_PER_GROUP, TableFile, identifier_check

TEXTS = ("title", "brand", "description")


@dataclass(frozen=True)
class CatalogueSource:
    """Where the items come from.

    Attributes:
        tables: The files, in order.
        attributes: Declared attributes, name -> type.
        embeddings: Names of embedding columns.
    """

    tables: Sequence[TableFile]
    attributes: Mapping[str, AttributeType]
    embeddings: Sequence[str]

    def write(self, items: Path, scratch: Path) -> int:
        """Write the catalogue to `items`, ascending by item_id, each item once.

        Args:
            items: The Parquet file to write.
            scratch: A folder for files that nobody needs afterwards.

        Returns:
            How many rows were dropped because they repeat another row exactly.

        Raises:
            DataError: A file, a column or a row cannot be used.
        """
        parts = [
            self._normalise(number, table, scratch) for number, table in enumerate(self.tables)
        ]
        catalogue = pl.concat([pl.scan_parquet(part) for part in parts])
        for name in self.embeddings:
            self._refuse_uneven_widths(catalogue, name)
        repeats = self._repeats(catalogue)
        if len(repeats):
            catalogue = catalogue.join(repeats.lazy(), on=[FILE, ROW], how="anti")
        catalogue.sort("item_id").drop(FILE, ROW).sink_parquet(
            items, row_group_size=ROWS_PER_GROUP, engine="streaming"
        )
        return len(repeats)

    def _normalise(self, number: int, table: TableFile, scratch: Path) -> Path:
        frame = table.scan(["item_id", *self.attributes, *self.embeddings], ["categories", *TEXTS])
        checked = [
            categories(table),
            *(attribute(table, name, kind) for name, kind in self.attributes.items()),
            *(embedding(table, name) for name in self.embeddings),
        ]
        checks = [identifier_check(table, "item_id"), *(check for check, _ in checked)]
        columns = [
            pl.lit(number, dtype=pl.Int64).alias(FILE),
            pl.col(ROW),
            pl.col("item_id").cast(pl.String),
            *(text(table, column) for column in TEXTS),
            *(column for _, column in checked),
        ]
        table.refuse_bad_rows(frame, checks)
        part = scratch / f"items-{number}.parquet"
        with table.reading():
            try:
                frame.select(columns).sink_parquet(part, engine="streaming")
            except pl.exceptions.PolarsError as error:
                raise first_bad_json(table, frame, self.embeddings) or error from error
        table.refuse_bad_rows(
            pl.scan_parquet(part), [unfit_embedding(name) for name in self.embeddings]
        )
        return part

    def _repeats(self, catalogue: pl.LazyFrame) -> pl.DataFrame:
        """Return file and row of every row that repeats an earlier one exactly.

        Raises:
            DataError: An item_id stands for two different items.
        """
        several = (
            catalogue.group_by("item_id").len().filter(pl.col("len") > 1).select("item_id")
        ).collect(engine="streaming")
        rows = (
            catalogue.join(several.lazy(), on="item_id", how="semi")
            .sort("item_id", FILE, ROW)
            .collect(engine="streaming")
        )
        content = [name for name in rows.columns if name not in (FILE, ROW)]
        distinct = rows.unique(subset=content, keep="first", maintain_order=True)
        others = distinct.filter(~pl.col("item_id").is_first_distinct()).sort(FILE, ROW)
        if len(others):
            other = others.row(0, named=True)
            first = distinct.filter(pl.col("item_id") == other["item_id"]).row(0, named=True)
            table = self.tables[other[FILE]]
            raise DataError(
                f"{table.path}: row {other[ROW]}, column {table.source_name('item_id')!r}: "
                f"{other['item_id']!r} already stands with other content in row {first[ROW]} of "
                f"{self.tables[first[FILE]].path}; keep one of the two rows"
            )
        return rows.filter(~pl.col("item_id").is_first_distinct()).select(FILE, ROW)

    def _refuse_uneven_widths(self, catalogue: pl.LazyFrame, name: str) -> None:
        width = pl.col(f"embedding_{name}").list.len().alias("width")
        found = (
            catalogue.select(FILE, ROW, width)
            .drop_nulls()
            .sort(FILE, ROW)
            .unique("width", keep="first", maintain_order=True)
            .head(2)
            .collect(engine="streaming")
            .rows(named=True)
        )
        if len(found) == 2:
            first, other = found
            table = self.tables[other[FILE]]
            raise DataError(
                f"{table.path}: row {other[ROW]}, column {table.source_name(name)!r}: the "
                f"embedding has {other['width']} numbers, the first has {first['width']}; give "
                "every item an embedding of one width, or none"
            )
