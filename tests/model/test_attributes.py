"""Typed columns: a condition passes exactly the items that it passes value by value."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.attributes import (
    AnyOf,
    Attributes,
    AttributeType,
    Column,
    Range,
    Scalar,
    attribute_arrays,
    read_attributes,
)
from model.errors import BundleError, FilterError
from model.types import AnyArray

WHOLE = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
REAL = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 0.5, 1.0])
TEXT = st.text(max_size=3) | st.sampled_from(["a", "b", "\u00e9"])
VALUES: dict[AttributeType, st.SearchStrategy[Scalar]] = {
    "str": TEXT,
    "int": WHOLE,
    "float": REAL,
    "bool": st.booleans(),
}


@st.composite
def columns(draw: st.DrawFn) -> tuple[Column, list[Scalar | None], st.SearchStrategy[Scalar]]:
    kind = draw(st.sampled_from([*VALUES]))
    given_ = draw(st.lists(st.none() | VALUES[kind], min_size=1, max_size=12))
    return Column.build("x", kind, given_), given_, VALUES[kind]


@given(data=st.data())
def test_any_of_passes_equal_values(data: st.DataObject) -> None:
    column, given_, values = data.draw(columns())
    held = [each for each in given_ if each is not None]
    some = st.lists(values | st.sampled_from(held) if held else values, min_size=1, max_size=4)
    wanted = data.draw(some)

    passing = column.passing(AnyOf(tuple(wanted)))

    assert passing.tolist() == [each is not None and each in wanted for each in given_]


@given(
    given_=st.lists(st.none() | REAL, min_size=1),
    low=st.none() | REAL,
    width=st.none() | st.floats(0, 10),
)
def test_a_range_includes_both_ends(
    given_: Sequence[float | None], low: float | None, width: float | None
) -> None:
    high = None if width is None else (low or 0.0) + width
    passing = Column.build("x", "float", given_).passing(Range(low, high))

    expected = [
        each is not None and (low is None or each >= low) and (high is None or each <= high)
        for each in given_
    ]
    assert passing.tolist() == expected


@given(case=columns())
def test_columns_are_read_as_they_were_written(
    case: tuple[Column, list[Scalar | None], st.SearchStrategy[Scalar]],
) -> None:
    column, given_, _ = case
    arrays = attribute_arrays(Attributes((column,)))

    (read,) = read_attributes([(column.name, column.type)], arrays, len(given_)).columns

    for value in {each for each in given_ if each is not None}:
        same = read.passing(AnyOf((value,)))
        assert same.tolist() == column.passing(AnyOf((value,))).tolist()


def test_whole_numbers_may_be_written_with_a_point() -> None:
    column = Column.build("size", "int", [1, 2, None])

    assert column.passing(AnyOf((2.0, 1.5))).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("kind", "condition", "said"),
    [
        ("str", AnyOf((1,)), "of type str and 1 is not"),
        ("int", AnyOf(("1",)), "of type int and '1' is not"),
        ("int", AnyOf((True,)), "of type int and True is not"),
        ("float", AnyOf((False,)), "of type float and False is not"),
        ("bool", AnyOf((1,)), "of type bool and 1 is not"),
        ("str", Range(1, 2), "of type str and has no range; give a value"),
        ("bool", Range(1, 2), "of type bool and has no range; give a value"),
        ("int", Range(3, 2), "min 3 above max 2; exchange them"),
    ],
)
def test_what_does_not_suit_the_type_is_refused(
    kind: AttributeType, condition: AnyOf | Range, said: str
) -> None:
    with pytest.raises(FilterError, match=f"attribute 'x' .*{said}"):
        Column.build("x", kind, [None]).passing(condition)


@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("values", np.zeros(2, np.int32)),
        ("values", np.zeros(3, np.float64)),
        ("known", np.zeros(3, np.int64)),
        ("known", np.zeros((3, 1), np.bool_)),
        ("words_offsets", np.array([0, 9], np.int64)),
        ("words_offsets", np.array([], np.int64)),
        ("words_numbers", np.array([7, 0], np.int32)),
        ("words_hashes", np.array([7], np.uint64)),
    ],
)
def test_parts_of_another_bundle_are_refused(file: str, array: AnyArray) -> None:
    arrays = attribute_arrays(Attributes((Column.build("x", "str", ["a", None, "b"]),)))
    arrays[f"attributes/0_{file}.npy"] = array

    with pytest.raises(BundleError, match="attributes/0"):
        read_attributes([("x", "str")], arrays, 3)
