"""The browsed tree: every choice is part of its place, every place is found by its path."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from model.browse import BrowseTree, Place
from model.bundle import Bundle
from model.errors import UnknownPlaceError
from model.strings import StringTable
from model.taxonomy import build_taxonomy
from model.trie import Trie
from tests.model.training.evaluation.toy_bundle import toy_bundle


@pytest.fixture(scope="module")
def tree(shop_bundle: Path) -> BrowseTree:
    return Bundle.open(shop_bundle).browse


def places(tree: BrowseTree, place: Place) -> Iterator[Place]:
    yield place
    for choice in tree.choices(place):
        yield from places(tree, choice)


def browse_tree(paths: Sequence[tuple[str, ...]], *, codes: int, titles: list[str]) -> BrowseTree:
    """One level of category codes and one that tells the items apart."""
    taxonomy = build_taxonomy(paths, codes)
    category = [taxonomy.code(path) for path in paths]
    given = np.array([[code, place] for place, code in enumerate(category)], np.int32)
    trie, order = Trie.build(given)
    names = StringTable.build([f"n{node}" for node in range(trie.item_start)])
    in_order = StringTable.build([titles[place] for place in order])
    return BrowseTree(trie, given[order], (taxonomy,), names, in_order, in_order)


def test_what_fills_a_shallow_path_is_the_rest_of_its_category() -> None:
    paths = [("a", "x"), ("a", "x"), ("a", ""), ("b", "")]
    first = build_taxonomy([path[:1] for path in paths], 9)
    second = build_taxonomy(paths, 9)
    given = np.array(
        [[first.code(path[:1]), second.code(path), n] for n, path in enumerate(paths)], np.int32
    )
    trie, order = Trie.build(given)
    names = StringTable.build([""] * trie.item_start)
    titles = StringTable.build([f"t{place}" for place in order])
    tree = BrowseTree(trie, given[order], (first, second), names, titles, titles)

    assert [place.name for place in tree.choices(tree.root)] == ["a", "b"]
    assert [place.name for place in tree.choices(tree.find(["a"]))] == ["t2", "x"]
    filled = replace(tree, taxonomies=(second,), codes=given[order][:, 1:])
    assert filled._name(1, 1, 0) == "Other a"


def test_choices_share_out_the_items_of_their_place(tree: BrowseTree) -> None:
    seen = list(places(tree, tree.root))

    for place in seen:
        choices = sorted(tree.choices(place), key=lambda choice: choice.first_leaf)
        if place.kind == "item":
            assert not choices
            assert place.items == 1
            continue
        assert len(choices) > 1
        assert choices[0].first_leaf == place.first_leaf
        assert choices[-1].end_leaf == place.end_leaf
        assert all(one.end_leaf == other.first_leaf for one, other in pairwise(choices))
        assert len({choice.name for choice in choices}) == len(choices)
        assert len({choice.depth for choice in choices}) == 1
    items = [place.first_leaf for place in seen if place.kind == "item"]
    assert sorted(items) == list(range(tree.trie.item_count))


def test_every_place_is_found_by_its_path(tree: BrowseTree) -> None:
    for place in places(tree, tree.root):
        assert tree.find(place.path) == place


def test_categories_come_first_and_keep_their_names(tree: BrowseTree) -> None:
    for place in places(tree, tree.root):
        if place.category is not None and place.path:
            assert place.category.path[-1] == place.name
            assert place.items == place.category.items


def test_the_way_to_an_item_narrows_down_to_it(tree: BrowseTree) -> None:
    for leaf in range(0, tree.trie.item_count, 7):
        way = tree.way(leaf)
        assert [place.path for place in way] == [
            way[-1].path[:end] for end in range(1, len(way) + 1)
        ]
        assert (way[-1].first_leaf, way[-1].end_leaf) == (leaf, leaf + 1)
        assert way[-1].name.startswith(tree.titles[leaf] or tree.item_ids[leaf])


def test_an_only_choice_is_left_out_and_may_be_named() -> None:
    tree = toy_bundle().browse  # everything lies below Home

    assert [place.path for place in tree.choices(tree.root)] == [
        ("Kitchen",),
        ("Bath",),
        ("Garden",),
    ]
    short, long = tree.find(["Bath"]), tree.find(["Home", "Bath"])
    assert (short.first_leaf, short.end_leaf) == (long.first_leaf, long.end_leaf) == (4, 8)


def test_items_right_in_a_category_are_a_choice_beside_its_categories() -> None:
    paths = [("Toys",), ("Toys",), ("Toys", "Games"), ("Toys", "Games"), ("Books",), ("Books",)]
    tree = browse_tree(paths, codes=9, titles=list("abcdef"))

    toys = tree.find(["Toys"])
    assert {place.name: place.items for place in tree.choices(toys)} == {
        "Games": 2,
        "Other Toys": 2,
    }
    assert {place.name for place in tree.choices(tree.find(["Toys", "Other Toys"]))} == {"a", "b"}


def test_categories_that_share_a_code_are_one_place() -> None:
    paths = [("Toys",), *[("Toys", name) for name in "xyz"], ("Books",), ("Books",)]
    tree = browse_tree(paths, codes=2, titles=list("abcdef"))

    assert {place.name: place.items for place in tree.choices(tree.root)} == {
        "Toys": 4,
        "Books": 2,
    }
    assert {place.name for place in tree.choices(tree.find(["Toys"]))} == set("abcd")


def test_the_same_name_twice_gets_a_number() -> None:
    paths = [("Books",), ("Books",), ("Books",), ("Toys",)]
    tree = browse_tree(paths, codes=9, titles=["It", "It", "It (2)", "Top"])

    names = [place.name for place in tree.choices(tree.find(["Books"]))]
    assert len(set(names)) == 3
    assert names[0] == "It"
    assert [tree.find(["Books", name]).first_leaf for name in names] == [0, 1, 2]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (["Nowhere"], "no 'Nowhere' below the root"),
        (["Bath", "Nowhere", "x"], "no 'Nowhere' below Bath"),
        (["Bath", ""], "no '' below Bath"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: list[str], said: str) -> None:
    with pytest.raises(UnknownPlaceError, match=said):
        toy_bundle().browse.find(path)
