"""Typed attributes of items (brand, market, price) and the conditions that filters put on them.

Values stay in memory-mapped columns, numbered by leaf; a condition is one comparison of a column.
An item without a value passes no condition on it. Shapes: N items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from model.errors import BundleError, FilterError
from model.strings import StringIndex, StringTable
from model.types import AnyArray, BoolArray

AttributeType: TypeAlias = Literal["str", "int", "float", "bool"]
Scalar: TypeAlias = str | int | float | bool

_KINDS: Mapping[AttributeType, str] = {"str": "i", "int": "i", "float": "f", "bool": "b"}
"""NumPy's kind of a column's values; texts are numbers of words."""
_DTYPES = {"str": np.int32, "int": np.int64, "float": np.float64, "bool": np.bool_}
_ZEROS: Mapping[AttributeType, Scalar] = {"str": "", "int": 0, "float": 0.0, "bool": False}


def suits(type_: AttributeType, value: Scalar) -> bool:
    """Whether an attribute of this type can have the value."""
    if isinstance(value, bool):
        return type_ == "bool"
    if isinstance(value, str):
        return type_ == "str"
    return type_ == "float" or (type_ == "int" and int(value) == value)


@dataclass(frozen=True)
class AnyOf:
    """The value is one of these."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Range:
    """The value lies between two numbers, both included; None is no bound."""

    minimum: float | None = None
    maximum: float | None = None


Condition: TypeAlias = AnyOf | Range
Filters: TypeAlias = Mapping[str, Condition]
"""Conditions by attribute; an item must pass all of them."""


@dataclass(frozen=True)
class Column:
    """One attribute of all items."""

    name: str
    type: AttributeType
    values: AnyArray
    """[N]: int64, float64 or bool; for texts the number of the word, int32."""
    known: BoolArray
    """[N]: whether the item has a value."""
    words: StringTable
    """The distinct texts; empty for other types."""
    word_index: StringIndex

    @classmethod
    def build(cls, name: str, type_: AttributeType, given: Sequence[Scalar | None]) -> "Column":
        """Pack the values [N] of an attribute in leaf order, None where an item has none."""
        words = (
            sorted({str(value) for value in given if value is not None}) if type_ == "str" else []
        )
        numbers = {word: number for number, word in enumerate(words)}
        stand_in = _ZEROS[type_]
        filled = [stand_in if value is None else value for value in given]
        if type_ == "str":
            filled = [numbers.get(str(value), 0) for value in filled]
        return cls(
            name=name,
            type=type_,
            values=np.array(filled, dtype=_DTYPES[type_]),
            known=np.array([value is not None for value in given], dtype=np.bool_),
            words=StringTable.build(words),
            word_index=StringIndex.build(words),
        )

    def passing(self, condition: Condition) -> BoolArray:
        """Which items [N] fulfil the condition.

        Raises:
            FilterError: the condition does not suit the attribute's type.
        """
        if isinstance(condition, AnyOf):
            wanted = [self._stored(value) for value in condition.values]
            numbers = [value for value in wanted if value is not None]
            passing = np.isin(self.values, np.array(numbers, dtype=self.values.dtype))
        else:
            passing = self._between(condition)
        known: BoolArray = passing & self.known
        return known

    def _between(self, bounds: Range) -> BoolArray:
        if self.type not in ("int", "float"):
            raise FilterError(
                self.name,
                f"is of type {self.type} and has no range; give a value or a list of them",
            )
        low, high = bounds.minimum, bounds.maximum
        if low is not None and high is not None and low > high:
            raise FilterError(self.name, f"has min {low} above max {high}; exchange them")
        passing = np.ones(len(self.values), dtype=np.bool_)
        if low is not None:
            passing &= self.values >= low
        if high is not None:
            passing &= self.values <= high
        return passing

    def _stored(self, value: Scalar) -> Scalar | None:
        """The value as the column spells it; None for a text that no item has.

        Raises:
            FilterError: it is of another type.
        """
        is_truth = isinstance(value, bool)
        if self.type == "str" and isinstance(value, str):
            places = self.word_index.candidates(value).tolist()
            return next((place for place in places if self.words[place] == value), None)
        if self.type == "bool" and is_truth:
            return value
        if self.type == "float" and isinstance(value, int | float) and not is_truth:
            return float(value)
        if self.type == "int" and isinstance(value, int | float) and not is_truth:
            return int(value) if int(value) == value else None
        raise FilterError(
            self.name, f"is of type {self.type} and {value!r} is not; give a value of this type"
        )


@dataclass(frozen=True)
class Attributes:
    """What the items of a bundle can be filtered by."""

    columns: tuple[Column, ...] = ()

    def passing(self, filters: Filters) -> BoolArray:
        """Which items [N] pass all conditions; at least one must be given.

        Raises:
            FilterError: an attribute that the bundle does not have, or a condition of another type.
        """
        by_name = {column.name: column for column in self.columns}
        for name in filters:
            if name not in by_name:
                there = ", ".join(sorted(by_name)) or "none"
                raise FilterError(name, f"is no attribute of this bundle; there is {there}")
        passing = [by_name[name].passing(condition) for name, condition in filters.items()]
        every: BoolArray = np.logical_and.reduce(passing)
        return every


def attribute_arrays(attributes: Attributes) -> dict[str, AnyArray]:
    """The columns as arrays by file name; names are in the manifest, for they may be any text."""
    arrays: dict[str, AnyArray] = {}
    for number, column in enumerate(attributes.columns):
        stem = f"attributes/{number}"
        arrays |= {f"{stem}_values.npy": column.values, f"{stem}_known.npy": column.known}
        if column.type == "str":
            arrays[f"{stem}_words_blob.npy"] = column.words.blob
            arrays[f"{stem}_words_offsets.npy"] = column.words.offsets
            arrays[f"{stem}_words_hashes.npy"] = column.word_index.hashes
            arrays[f"{stem}_words_numbers.npy"] = column.word_index.numbers
    return arrays


def read_attributes(
    facts: Sequence[tuple[str, AttributeType]], arrays: Mapping[str, AnyArray], items: int
) -> Attributes:
    """The columns of `facts` (name and type) from the arrays of a bundle with `items` items.

    Raises:
        BundleError: a column is of another type or length than it should be.
        KeyError: an array is missing.
    """
    columns = tuple(
        _read_column(f"attributes/{number}", name, type_, arrays)
        for number, (name, type_) in enumerate(facts)
    )
    for number, column in enumerate(columns):
        _verify(f"attributes/{number}", column, items)
    return Attributes(columns)


def _read_column(
    stem: str, name: str, type_: AttributeType, arrays: Mapping[str, AnyArray]
) -> Column:
    values, known = arrays[f"{stem}_values.npy"], arrays[f"{stem}_known.npy"]
    if type_ != "str":
        return Column(name, type_, values, known, StringTable.build([]), StringIndex.build([]))
    words = StringTable(arrays[f"{stem}_words_blob.npy"], arrays[f"{stem}_words_offsets.npy"])
    index = StringIndex(arrays[f"{stem}_words_hashes.npy"], arrays[f"{stem}_words_numbers.npy"])
    return Column(name, type_, values, known, words, index)


def _verify(stem: str, column: Column, items: int) -> None:
    if column.values.shape != (items,) or column.known.shape != (items,):
        message = f"{stem} is not one value for each of {items} items: parts of two bundles"
        raise BundleError(message)
    if column.values.dtype.kind != _KINDS[column.type] or column.known.dtype.kind != "b":
        message = f"{stem} holds {column.values.dtype} instead of {column.type}: export again"
        raise BundleError(message)
    if column.type == "str":
        _verify_words(stem, column)


def _verify_words(stem: str, column: Column) -> None:
    words, index = column.words, column.word_index
    bounds = words.offsets
    lies_well = bounds.ndim == 1 and len(bounds) > 0 and bool(np.all(np.diff(bounds) >= 0))
    if not lies_well or bounds[[0, -1]].tolist() != [0, words.blob.size]:
        message = f"{stem}_words starts and ends beyond what its file holds: parts of two bundles"
        raise BundleError(message)
    for numbers, wanted in ((index.numbers, (len(words),)), (index.hashes, (len(words),))):
        if numbers.shape != wanted:
            message = f"{stem}_words has {len(words)} words, its index {numbers.shape}"
            raise BundleError(message)
    found = index.numbers
    if found.size and not 0 <= int(found.min()) <= int(found.max()) < len(words):
        message = f"{stem}_words points at words that are not there: parts of two bundles"
        raise BundleError(message)
