"""The counts of filters: right for each, kept within a bound of memory, never mixed up."""

import numpy as np
import pytest

from model.attributes import AnyOf, Range
from model.availability import Availability
from model.errors import FilterError, UnknownCategoryError
from model.legal_items import LegalItems
from tests.model.training.evaluation.toy_bundle import toy_bundle

BUNDLE = toy_bundle()
NODES = BUNDLE.tree.trie.node_count
LEAVES = np.arange(12)


def legal_items(*, filters_kept: int) -> LegalItems:
    trie, bytes_each = BUNDLE.tree.trie, 4 * NODES
    return LegalItems(trie, BUNDLE.catalog, BUNDLE.attributes, max_bytes=filters_kept * bytes_each)


def below(maximum: float) -> dict[str, Range]:
    return {"price": Range(None, maximum)}


def test_categories_and_filters_must_both_be_passed() -> None:
    legal = legal_items(filters_kept=4)

    found = legal.passing([["Home", "Bath"], ["Home", "Garden"]], {"price": Range(6, 9)})

    assert np.flatnonzero(found.legal(LEAVES)).tolist() == [6, 7, 8, 9]
    assert found.counts[0] == 4
    assert legal.passing([], {}) is legal.everything


def test_the_last_used_are_kept_within_the_bound_of_memory() -> None:
    legal = legal_items(filters_kept=2)
    first, second = legal.passing([], below(1)), legal.passing([], below(2))

    assert legal.passing([], below(1)) is first
    third = legal.passing([], below(3))  # displaces the second, used longest ago
    assert len(legal) == 2
    assert legal.passing([], below(3)) is third
    assert legal.passing([], below(1)) is first
    assert legal.passing([], below(2)) is not second
    assert len(legal) == 2


def test_one_filter_is_kept_whatever_the_bound() -> None:
    legal = legal_items(filters_kept=0)

    assert legal.passing([], below(1)) is legal.passing([], below(1))
    assert len(legal) == 1


def test_the_order_of_conditions_and_values_does_not_matter() -> None:
    legal = legal_items(filters_kept=9)
    paths = [["Home", "Bath"], ["Home", "Garden"]]

    found = legal.passing(paths, {"price": AnyOf((4, 5))})

    assert legal.passing(paths[::-1], {"price": AnyOf((5, 4))}) is found
    assert isinstance(found, Availability)


def test_a_number_is_not_taken_for_a_truth() -> None:
    legal = legal_items(filters_kept=9)
    legal.passing([], {"price": AnyOf((1,))})

    with pytest.raises(FilterError, match="True"):
        legal.passing([], {"price": AnyOf((True,))})


def test_what_the_bundle_does_not_have_is_refused() -> None:
    legal = legal_items(filters_kept=9)

    with pytest.raises(UnknownCategoryError):
        legal.passing([["Nowhere"]], {})
    with pytest.raises(FilterError, match=r"'colour' is no attribute.*there is price"):
        legal.passing([], {"colour": AnyOf(("red",))})
    assert len(legal) == 0
