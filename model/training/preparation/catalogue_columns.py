"""How each column of a catalogue is read: texts, category paths, attributes, embeddings.

Each function gives the expression of our column and, where a row can be unusable, its check.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import polars as pl

from model.errors import DataError
from model.training.table_file import ROW, Check, TableFile

AttributeType: TypeAlias = Literal["str", "int", "float", "bool"]

EMBEDDING_PREFIX = "embedding_"
"""How the columns of items.parquet that hold embeddings begin."""
PATHS = pl.List(pl.List(pl.String))
_NUMBERS = pl.List(pl.Float64)
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
_CATEGORIES_REMEDY = (
    'give names from coarse to fine as ["Toys", "Games"], or a list of such lists for several paths'
)
_EMBEDDING_REMEDY = "give a list of numbers, or nothing for an item without an embedding"
_ATTRIBUTE_TYPES: Mapping[AttributeType, pl.DataType] = {
    "str": pl.String(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
}


def text(table: TableFile, column: str) -> pl.Expr:
    """Return `column` as text, "" when missing.

    Raises:
        DataError: The column holds lists or structs.
    """
    if table.dtype(column).is_nested():
        raise DataError(
            f"{table.path}: column {table.source_name(column)!r} has type {table.dtype(column)}; "
            f"{column} must be text (join a list into one text)"
        )
    return pl.col(column).cast(pl.String).fill_null("").str.strip_chars()


def categories(table: TableFile) -> tuple[Check, pl.Expr]:
    """Return check and list of paths, in the given order; a lone path may stand without its list.

    Names are stripped; empty names, empty paths and repeated paths are dropped.

    Raises:
        DataError: The column holds something else than lists of names.
    """
    column, dtype = pl.col("categories"), table.dtype("categories")
    bad = pl.lit(value=False)
    if table.is_text("categories"):
        json_text = column.cast(pl.String).str.strip_chars()
        bad = (json_text != "") & ~json_text.str.contains(r"(?s)^\[.*\]$")
        paths = _json_paths(json_text)
    elif dtype == PATHS:
        paths = column
    elif dtype == pl.List(pl.String):
        paths = column.list.eval(pl.element().implode())
    else:
        raise DataError(
            f"{table.path}: column {table.source_name('categories')!r} has type {dtype}; "
            f"{_CATEGORIES_REMEDY}"
        )
    problem = "is not a list of category names"
    return Check("categories", bad, problem, _CATEGORIES_REMEDY), _clean(paths)


def attribute(table: TableFile, name: str, kind: AttributeType) -> tuple[Check, pl.Expr]:
    """Return check and `attribute_<name>`, null when missing.

    Raises:
        DataError: The column holds lists or structs.
    """
    dtype = table.dtype(name)
    if dtype.is_nested():
        raise DataError(
            f"{table.path}: column {table.source_name(name)!r} has type {dtype}; "
            f"an attribute must be one {kind}"
        )
    has_nan = dtype.is_float() and not table.is_text(name)
    given = pl.col(name).fill_nan(None) if has_nan else pl.col(name)
    given = given.cast(pl.String).str.strip_chars()
    value = _typed(given, kind)
    bad = (given != "") & value.is_null()
    if kind == "float":
        bad |= ~value.is_finite()
    remedy = f"correct the value or declare attribute {name!r} as another type"
    return Check(name, bad, f"is not of type {kind}", remedy), value.alias(f"attribute_{name}")


def embedding(table: TableFile, name: str) -> tuple[Check, pl.Expr]:
    """Return check and `embedding_<name>`, a list of float32, null when missing.

    Raises:
        DataError: The column holds something else than lists of numbers.
    """
    column, dtype = pl.col(name), table.dtype(name)
    bad = pl.lit(value=False)
    if table.is_text(name):
        json_text = column.cast(pl.String).str.strip_chars()
        bad = (json_text != "") & ~json_text.str.contains(r"(?s)^\[.*\]$")
        numbers = pl.when(json_text != "").then(json_text).str.json_decode(_NUMBERS)
    elif isinstance(dtype, pl.List | pl.Array) and _inner(dtype).is_numeric():
        numbers = column.cast(_NUMBERS)
    else:
        raise DataError(
            f"{table.path}: column {table.source_name(name)!r} has type {dtype}; "
            f"{_EMBEDDING_REMEDY}"
        )
    check = Check(name, bad, "is not a list of numbers", _EMBEDDING_REMEDY)
    return check, numbers.cast(pl.List(pl.Float32)).alias(f"embedding_{name}")


def unfit_embedding(name: str) -> Check:
    """Return the check on `embedding_<name>` that every number is there and finite."""
    column = pl.col(f"embedding_{name}")
    fit = column.list.eval(pl.element().is_finite().fill_null(value=False)).list.all()
    bad = ~fit | (column.list.len() == 0)
    return Check(f"embedding_{name}", bad, "is empty or not all finite numbers", _EMBEDDING_REMEDY)


def first_bad_json(
    table: TableFile, frame: pl.LazyFrame, embeddings: Sequence[str]
) -> DataError | None:
    """Return the refusal of the first list that is not the JSON it must be; after a failure only.

    Args:
        table: The file that could not be read.
        frame: Its rows, by our column names.
        embeddings: Names of the embedding columns.
    """
    wanted = {"categories": (str, _CATEGORIES_REMEDY)} | dict.fromkeys(
        embeddings, (float, _EMBEDDING_REMEDY)
    )
    for column, (kind, remedy) in wanted.items():
        if not table.is_text(column):
            continue
        for row, value in frame.select(ROW, column).collect(engine="streaming").iter_rows():
            if value and value.strip() and not _is_list_of(kind, value):
                check = Check(column, pl.lit(value=True), "is not the JSON list it must be", remedy)
                return table.bad_row(frame, row, check)
    return None


def _is_list_of(kind: type[str] | type[float], value: str) -> bool:
    try:
        parsed = json.loads(value)
    except ValueError:
        return False
    leaves = [x for part in parsed for x in (part if isinstance(part, list) else [part])]
    allowed = str if kind is str else (int, float)
    return all(x is None or isinstance(x, allowed) for x in leaves)


def _inner(dtype: pl.List | pl.Array) -> pl.DataType:
    inner = dtype.inner
    return inner() if isinstance(inner, type) else inner


def _json_paths(json_text: pl.Expr) -> pl.Expr:
    several = json_text.str.contains(r"^\[\s*\[")
    listed = pl.when(several).then(json_text).when(json_text != "").then("[" + json_text + "]")
    return listed.str.json_decode(PATHS)


def _clean(paths: pl.Expr) -> pl.Expr:
    path, name = pl.element(), pl.element().str.strip_chars()
    named = paths.list.eval(path.list.eval(name.filter(name != "")))
    distinct = named.list.eval(path.filter(path.list.len() > 0).unique(maintain_order=True))
    return distinct.fill_null(pl.lit([], dtype=PATHS)).alias("categories")


def _typed(given: pl.Expr, kind: AttributeType) -> pl.Expr:
    """Return text `given` as `kind`; null where that cannot be."""
    if kind == "bool":
        lower = given.str.to_lowercase()
        return pl.when(lower.is_in(_TRUE)).then(True).when(lower.is_in(_FALSE)).then(False)
    if kind == "int":
        # A table with gaps often stores whole numbers as floats: 3.0 is 3, 3.5 is refused.
        given = given.str.replace(r"\.0+$", "")
    if kind == "str":
        return pl.when(given != "").then(given)
    return given.cast(_ATTRIBUTE_TYPES[kind], strict=False)
