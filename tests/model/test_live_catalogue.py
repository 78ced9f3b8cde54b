"""Edits on a real bundle, encoded by its own encoders."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from model.bundle import Bundle
from model.edits import ItemEdit, Offer
from model.live_catalogue import LiveCatalogue
from model.new_items import NewItem
from model.query import Query
from model.recommender import Recommender

NOW = 1_000.0


@pytest.fixture(scope="module", params=["shop_bundle", "diffusion_bundle"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    path: Path = request.getfixturevalue(request.param)
    return Bundle.open(path)


def like(bundle: Bundle, leaf: int, **changes: object) -> NewItem:
    catalog = bundle.catalog
    given = {"item_id": catalog.item_id(leaf), "title": catalog.title(leaf), **changes}
    return NewItem(**given, paths=catalog.paths(leaf))  # type: ignore[arg-type]


def arrays(bundle: Bundle) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return [bundle.tree.vectors, bundle.tree.biases, bundle.catalog.codes, bundle.popularity]


def test_the_way_to_the_same_edits_does_not_matter(bundle: Bundle) -> None:
    edits = {f"new {n}": ItemEdit(like(bundle, n, item_id=f"new {n}")) for n in range(4)}
    edits[bundle.catalog.item_id(9)] = ItemEdit(like(bundle, 9, title="Something else"))
    at_once = LiveCatalogue(bundle).with_edits(edits, 5, NOW)
    stepwise, names = LiveCatalogue(bundle), list(reversed(edits))
    states = [
        stepwise.with_edits({name: edits[name] for name in names[:known]}, known, NOW)
        for known in range(1, len(names) + 1)
    ]
    state = states[-1]

    assert state.catalogue_version == at_once.catalogue_version == 5
    for one, other in zip(arrays(state), arrays(at_once), strict=True):
        assert np.array_equal(one, other)
    query = Query(history=["new 1"], k=20)
    assert Recommender(state).recommend(query).items == Recommender(at_once).recommend(query).items
    assert stepwise.with_edits({}, 6, NOW).tree is bundle.tree


def test_small_edits_change_nothing_but_what_is_withheld(bundle: Bundle) -> None:
    live = LiveCatalogue(bundle)
    first, second = (bundle.catalog.item_id(leaf) for leaf in (3, 7))
    with_item: Mapping[str, ItemEdit] = {"new": ItemEdit(like(bundle, 3, item_id="new"))}
    before = live.with_edits(with_item, 1, NOW)

    edits = {
        **with_item,
        first: ItemEdit(is_hidden=True),
        second: ItemEdit(offer=Offer(available_from=NOW + 1)),
        "unknown": ItemEdit(is_hidden=True),
    }
    after, later = live.with_edits(edits, 2, NOW), live.with_edits(edits, 2, NOW + 1)

    assert after.tree is before.tree
    assert after.catalog is before.catalog
    names = [{state.catalog.item_id(leaf) for leaf in state.withheld} for state in (after, later)]
    assert names == [{first, second}, {first}]


@pytest.mark.parametrize("put", [[], ["new"]])
def test_orders_of_the_items_are_computed_once_for_all_offers(
    bundle: Bundle, put: list[str]
) -> None:
    live = LiveCatalogue(bundle)
    edits = {name: ItemEdit(like(bundle, 3, item_id=name)) for name in put}
    before = live.with_edits(edits, 1, NOW)
    after = live.with_edits({**edits, bundle.catalog.item_id(7): ItemEdit(is_hidden=True)}, 2, NOW)

    for name in ("by_popularity", "popularity_rank", "popular_by_category", "default_order"):
        assert getattr(after, name) is getattr(before, name), name


def test_offers_change_where_items_cannot_be_made(bundle: Bundle) -> None:
    live = LiveCatalogue(bundle)
    put = {name: ItemEdit(like(bundle, 3, item_id=name)) for name in ("stays", "goes")}
    before = live.with_edits(put, 1, NOW)
    hidden = bundle.catalog.item_id(7)
    unmade = ItemEdit(like(bundle, 4, item_id="unmade"), is_hidden=True)

    edits = {"stays": put["stays"], "unmade": unmade, hidden: ItemEdit(is_hidden=True)}
    after = live.with_offers(edits, 2, NOW)

    assert (after.tree, after.catalogue_version) == (before.tree, 2)
    assert {after.catalog.item_id(leaf) for leaf in after.withheld} == {"goes", hidden}
    assert len(live.with_edits(edits, 3, NOW).catalog) == len(bundle.catalog) + 2


def test_an_item_that_stays_where_it_is_keeps_what_was_learned(bundle: Bundle) -> None:
    leaf = int(bundle.by_popularity[0])
    same = like(bundle, leaf, attributes={"price": 1.25})
    state = LiveCatalogue(bundle).with_edits({same.item_id: ItemEdit(same)}, 1, NOW)

    assert state.catalog.known_leaf(same.item_id) == leaf
    assert np.array_equal(state.tree.item_vectors, bundle.tree.item_vectors)
    assert np.allclose(state.tree.vectors, bundle.tree.vectors, atol=1e-6)
    assert np.allclose(state.tree.biases, bundle.tree.biases, atol=1e-6)
    query = Query(history=[bundle.catalog.item_id(5)], k=10)
    found, expected = (Recommender(each).recommend(query).items for each in (state, bundle))
    assert [item.item_id for item in found] == [item.item_id for item in expected]
    price = next(column for column in state.attributes.columns if column.name == "price")
    assert price.values[leaf] == 1.25


def test_a_new_text_gives_a_new_place_and_keeps_the_popularity(bundle: Bundle) -> None:
    leaf = int(bundle.by_popularity[0])
    other = int(np.argmax(bundle.catalog.codes[:, 0] != bundle.catalog.codes[leaf, 0]))
    moved = NewItem(
        bundle.catalog.item_id(leaf),
        title=bundle.catalog.title(other),
        paths=bundle.catalog.paths(other),
    )
    state = LiveCatalogue(bundle).with_edits({moved.item_id: ItemEdit(moved)}, 1, NOW)

    now = state.catalog.known_leaf(moved.item_id)
    assert len(state.catalog) == len(bundle.catalog)
    assert state.catalog.semantic_id(now)[0] == bundle.catalog.semantic_id(other)[0]
    assert state.popularity[now] == bundle.popularity[leaf]
    answer = Recommender(state).recommend(Query(history=[moved.item_id], k=5))
    assert answer.unknown_history_items == 0
