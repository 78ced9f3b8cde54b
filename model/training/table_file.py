"""Input tables in Parquet, CSV or JSON Lines, read lazily with their rows numbered.

Knows formats and how to say where a file is broken; nothing of items or events. Every CSV and JSON
Lines column that is asked for arrives as text (JSON values as their JSON text), Parquet columns
keep their type. Rows count from 1, a CSV header and blank lines not counted.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from model.errors import DataError

ROW = "__row__"
"""Name of the row-number column, 1-based."""
FILE = "__file__"
"""Name of the column with a file's number among several, 0-based."""
ROWS_PER_GROUP = 100_000
"""Row groups of what is written; without a fixed size the same rows differ in bytes run by run."""
SUFFIXES = (".parquet", ".csv", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Check:
    """One way in which a row can be unusable.

    Attributes:
        column: Our name of the column, as it is called in `TableFile.scan`'s frame.
        bad: True for the rows that cannot be used.
        problem: What is wrong, following the value in the message.
        remedy: What the reader can do.
    """

    column: str
    bad: pl.Expr
    problem: str
    remedy: str


@dataclass(frozen=True)
class TableFile:
    """One input file.

    Attributes:
        path: The file; its suffix decides the format.
        columns: Our column name -> the file's, for those that differ.
        setting: Name of the setting that `columns` comes from, for messages.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    setting: str = "item_columns"

    @cached_property
    def schema(self) -> pl.Schema:
        """The file's own column names and types (for CSV all text).

        Raises:
            DataError: The file is missing, of an unknown suffix, empty or broken.
        """
        if self.path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{self.path}: suffix {self.path.suffix!r} is not known; "
                f"give a file that ends in {', '.join(SUFFIXES)}"
            )
        if not self.path.is_file():
            raise DataError(f"{self.path}: there is no such file; check the path")
        if self.path.stat().st_size == 0:
            raise DataError(f"{self.path}: the file is empty; give at least one row")
        with self.reading():
            schema = self._scan({}).collect_schema()
            return pl.Schema({name: dtype for name, dtype in schema.items() if name != ROW})

    def source_name(self, column: str) -> str:
        """Return what the file calls our `column`."""
        return self.columns.get(column, column)

    def dtype(self, column: str) -> pl.DataType:
        """Return the file's type of our `column`, Null when the file does not have it."""
        return self.schema.get(self.source_name(column), pl.Null())

    def is_text(self, column: str) -> bool:
        """Say whether our `column` arrives as text, lists then as their JSON."""
        return self.path.suffix.lower() != ".parquet" or self.dtype(column) in (pl.String, pl.Null)

    def scan(self, required: Sequence[str], optional: Sequence[str]) -> pl.LazyFrame:
        """Return `ROW` and our columns by our names; absent optional ones are all null.

        Args:
            required: Columns that must be in the file.
            optional: Columns that may be absent, unless a rename asks for them.

        Raises:
            DataError: A required or renamed column is not in the file.
        """
        for column in (*required, *optional):
            if (column in required or column in self.columns) and (
                self.source_name(column) not in self.schema
            ):
                raise DataError(
                    f"{self.path}: column {self.source_name(column)!r} (for {column!r}) is "
                    f"missing; the file has {', '.join(map(repr, self.schema.names()))}. Rename "
                    f"it or say in {self.setting} which column holds {column!r}"
                )
        wanted = [*required, *optional]
        present = {self.source_name(c) for c in wanted} & set(self.schema.names())
        return self._scan(dict.fromkeys(sorted(present), pl.String())).select(
            ROW,
            *(
                pl.col(self.source_name(c)).alias(c)
                if self.source_name(c) in present
                else pl.lit(None, dtype=pl.String).alias(c)
                for c in wanted
            ),
        )

    def refuse_bad_rows(self, frame: pl.LazyFrame, checks: Sequence[Check]) -> None:
        """Stop at the first unusable row, if any; one streaming pass for all checks.

        Raises:
            DataError: Names file, row, column, value and remedy.
        """
        if not checks:
            return
        with self.reading():
            first = frame.select(
                pl.col(ROW).filter(check.bad.fill_null(value=False)).min().alias(str(number))
                for number, check in enumerate(checks)
            ).collect(engine="streaming")
        found = [
            (row, check) for row, check in zip(first.row(0), checks, strict=True) if row is not None
        ]
        if not found:
            return
        row, check = min(found, key=lambda pair: pair[0])
        raise self.bad_row(frame, row, check)

    def bad_row(self, frame: pl.LazyFrame, row: int, check: Check) -> DataError:
        """Return the refusal of one row, quoting the value found there."""
        with self.reading():
            value = frame.filter(pl.col(ROW) == row).select(check.column).collect().item(0, 0)
        if isinstance(value, pl.Series):
            value = value.to_list()
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:80] + "..."
        name = self.source_name(check.column.removeprefix("embedding_"))
        return DataError(
            f"{self.path}: row {row}, column {name!r}: {shown} {check.problem}; {check.remedy}"
        )

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn what polars says about a broken file into a DataError that names the place."""
        try:
            yield
        except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
            reason = str(error).strip().split("\n", maxsplit=1)[0]
            raise DataError(
                f"{self.path}: {self._broken_row() or 'the file'} cannot be read as "
                f"{self.path.suffix.lower()} ({reason}); repair it or export it again"
            ) from error

    def _scan(self, text: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        suffix = self.path.suffix.lower()
        if suffix == ".parquet":
            frame = pl.scan_parquet(self.path, glob=False, row_index_name=ROW)
        elif suffix == ".csv":
            frame = pl.scan_csv(self.path, infer_schema=False, glob=False, row_index_name=ROW)
        else:
            # A column that first appears late must be found: the names come from all rows. Once
            # they are known, a given schema spares the second look.
            frame = pl.scan_ndjson(
                self.path, schema=text or None, infer_schema_length=None, row_index_name=ROW
            )
        return frame.with_columns(pl.col(ROW).cast(pl.Int64) + 1)

    def _broken_row(self) -> str | None:
        """Return "row n" of the first row that breaks the format; only called after a failure."""
        suffix = self.path.suffix.lower()
        if suffix == ".parquet":
            return None
        number = self._bad_csv_row() if suffix == ".csv" else self._bad_json_row()
        return None if number is None else f"row {number}"

    def _bad_csv_row(self) -> int | None:
        """The first row that is too long, is not UTF-8 or ends inside a quoted value."""
        number = 0
        with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            rows = csv.reader(lines, strict=True)
            try:
                width = len(next(rows, []))
                for number, row in enumerate((x for x in rows if x), start=1):
                    if len(row) > width or not _is_utf8("".join(row)):
                        return number
            except csv.Error as error:
                return number + 1 if "unexpected end" in str(error) else None
        return None

    def _bad_json_row(self) -> int | None:
        with self.path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for number, line in enumerate((x for x in lines if x.strip()), start=1):
                try:
                    is_row = isinstance(json.loads(line), dict) and _is_utf8(line)
                except ValueError:
                    is_row = False
                if not is_row:
                    return number
        return None


def _is_utf8(text: str) -> bool:
    """Say whether what was read with "surrogateescape" was UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in text)


def identifier_check(table: TableFile, column: str) -> Check:
    """Return the check that every row has a value in the identifier `column`.

    Raises:
        DataError: The column is neither text nor whole numbers.
    """
    dtype = table.dtype(column)
    if not (dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise DataError(
            f"{table.path}: column {table.source_name(column)!r} has type {dtype}; "
            "identifiers must be text or whole numbers"
        )
    empty = pl.col(column).cast(pl.String).fill_null("").str.strip_chars() == ""
    return Check(column, empty, "is empty", f"give every row its {column} or remove the row")
