"""Every array of an edited bundle is what building it from its items would give."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from model.attributes import AnyOf, Attributes, Column, Range, Scalar
from model.bundle import Bundle
from model.edited_bundle import with_items
from model.insertion import NewItems
from model.new_items import NewItem
from model.query import Query
from model.recommender import Recommender
from model.transitions import EvidenceBiases
from tests.model.training.evaluation.toy_bundle import ITEMS, WIDTH, toy_bundle

PATHS = [("Home", "Kitchen"), ("Home", "Bath"), ("Home",), ("Outside", "Garden"), ("Gifts",)]
BRANDS = ["Acme", "Bolt", "Zen", ""]


@dataclass(frozen=True)
class Shop:
    bundle: Bundle
    items: dict[str, NewItem]
    """What the catalogue should hold."""


def shop() -> Shop:
    bundle = toy_bundle()
    brands = [BRANDS[row % 2] for row in range(len(ITEMS))]
    column = Column.build("brand", "str", brands)
    bundle = replace(bundle, attributes=Attributes((*bundle.attributes.columns, column)))
    items = {
        item: NewItem(
            item, f"The {item}", brands[row], "", bundle.catalog.paths(row), {}, {"price": row}
        )
        for row, item in enumerate(ITEMS)
    }
    return Shop(bundle, items)


def put(seed: int) -> tuple[Shop, Bundle, list[NewItem], NewItems]:
    """A shop, the same with some items drawn at random put in, and those items."""
    before, chance = shop(), np.random.default_rng(seed)
    names = [*chance.permutation(ITEMS)[:4].tolist(), *(f"new{n}" for n in range(5))]
    wanted = [str(name) for name in chance.permutation(names)[: chance.integers(1, 9)]]
    drawn = []
    for name in wanted:
        chosen = chance.permutation(len(PATHS))[: chance.integers(0, 3)]
        attributes: dict[str, Scalar] = {"price": int(chance.integers(20)), "unheard-of": 1}
        if chance.random() < 0.3:
            attributes = {"price": "a text"}
        brand = BRANDS[chance.integers(len(BRANDS))]
        paths = tuple(PATHS[each] for each in chosen)
        drawn.append(NewItem(name, f"New {name}", brand, "", paths, {}, attributes))
    codes = np.column_stack(
        [chance.integers(0, 3, len(wanted)), chance.integers(0, 4, len(wanted))]
    )
    vectors = chance.normal(size=(len(wanted), WIDTH)).astype(np.float32)
    encoded = NewItems(wanted, codes, vectors)
    items = before.items | {item.item_id: item for item in drawn}
    return Shop(before.bundle, items), with_items(before.bundle, drawn, encoded), drawn, encoded


def passing(bundle: Bundle, **filters: AnyOf | Range) -> set[str]:
    found = np.flatnonzero(bundle.attributes.passing(filters))
    return {bundle.catalog.item_id(leaf) for leaf in found.tolist()}


SEEDS = range(25)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_catalogue_holds_exactly_its_items(seed: int) -> None:
    expected, bundle, *_ = put(seed)
    catalog = bundle.catalog

    assert len(catalog) == len(expected.items) == bundle.manifest.items
    for item_id, item in expected.items.items():
        leaf = catalog.known_leaf(item_id)
        assert catalog.item_id(leaf) == item_id
        assert catalog.title(leaf) == item.title
        assert catalog.paths(leaf) == item.paths
        assert bundle.browse.way(leaf)[-1].first_leaf == leaf
    for path in [*PATHS, ("Outside",), ("Home", "Garden")]:
        below = {
            name
            for name, item in expected.items.items()
            if any(each[: len(path)] == path for each in item.paths)
        }
        if not below and path not in [("Home", "Garden")]:
            continue
        members = catalog.category_items[catalog.category(path)].tolist()
        assert members == sorted(members)
        assert {catalog.item_id(leaf) for leaf in members} == below


@pytest.mark.parametrize("seed", SEEDS)
def test_filters_see_the_values_of_now(seed: int) -> None:
    expected, bundle, *_ = put(seed)
    prices = {
        name: item.attributes["price"]
        for name, item in expected.items.items()
        if isinstance(item.attributes.get("price"), int)
    }

    low = {name for name, price in prices.items() if int(price) <= 9}
    assert passing(bundle, price=Range(None, 9)) == low
    for brand in BRANDS[:3]:
        of_brand = {name for name, item in expected.items.items() if item.brand == brand}
        assert passing(bundle, brand=AnyOf((brand,))) == of_brand


@pytest.mark.parametrize("seed", SEEDS)
def test_items_keep_their_popularity_and_their_learned_vectors(seed: int) -> None:
    expected, bundle, drawn, encoded = put(seed)
    before = expected.bundle
    vectors = {item.item_id: row for item, row in zip(drawn, encoded.vectors, strict=True)}

    for item_id in expected.items:
        leaf, old = bundle.catalog.known_leaf(item_id), before.catalog.leaf(item_id)
        assert bundle.popularity[leaf] == (0 if old is None else before.popularity[old])
        was = before.tree.item_vectors[0 if old is None else old]
        assert np.array_equal(bundle.tree.item_vectors[leaf], vectors.get(item_id, was))


def followers(bundle: Bundle, item_id: str) -> dict[str, float]:
    """The evidence after an item, by item id."""
    leaf = bundle.catalog.known_leaf(item_id)
    leaves, amounts = bundle.transitions.evidence(np.array([leaf]))
    ids = [bundle.catalog.item_id(each) for each in leaves.tolist()]
    return dict(zip(ids, amounts.tolist(), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_items_keep_what_followed_them(seed: int) -> None:
    expected, bundle, *_ = put(seed)
    known = {item_id: followers(expected.bundle, item_id) for item_id in ITEMS}

    assert any(known.values())
    for item_id in expected.items:
        assert followers(bundle, item_id) == known.get(item_id, {})


def test_moving_an_item_moves_its_evidence_to_the_nodes_of_its_new_place() -> None:
    before = toy_bundle()
    moved = NewItem("f", "The f", "", "", (), {}, {})
    vector = before.tree.item_vectors[before.catalog.known_leaf("f")]
    there = NewItems(["f"], np.array([[2, 0]]), vector[None])

    def raised(bundle: Bundle) -> list[float]:
        """By how much the evidence after `a` raises the bias of each room."""
        weights = bundle.manifest.score.evidence_weights
        biases = EvidenceBiases(bundle.tree, bundle.transitions, weights)
        rooms = [1, 2, 3]
        with biases.after(np.array([bundle.catalog.known_leaf("a")])):
            difference = biases.tree.biases[rooms] - bundle.tree.biases[rooms]
        return [float(each) for each in difference]

    was, now = raised(before), raised(with_items(before, [moved], there))

    # `a` was followed by `f`, `c` and `j`.
    assert was[1] > 0
    assert now[1] == 0
    assert now[2] > was[2]
    assert now[0] == was[0] > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_every_item_can_be_recommended_and_found_in_the_tree(seed: int) -> None:
    expected, bundle, *_ = put(seed)

    answer = Recommender(bundle).recommend(
        Query(history=["a"], k=50, exclude_seen=False, choices=1)
    )

    assert {item.item_id for item in answer.items} == set(expected.items)
    assert sum(choice.live_items for choice in answer.choices) == len(expected.items)
    assert sum(choice.probability for choice in answer.choices) == pytest.approx(1, abs=1e-5)
    assert all(item.score <= 0 for item in answer.items if item.source == "generated")


def test_what_is_withheld_is_nowhere_and_counted_nowhere() -> None:
    bundle = toy_bundle().as_of(7, np.array([0, 3, 11]))

    answer = Recommender(bundle).recommend(Query(history=["b"], k=50, choices=12))

    shown = {item.item_id for item in answer.items}
    assert shown == set(ITEMS) - {"a", "d", "l", "b"}
    best = {bundle.catalog.item_id(leaf) for choice in answer.choices for leaf in choice.best}
    assert best == shown
    assert bundle.live_items(0, 12) == 9
    assert [bundle.live_items(leaf, leaf + 1) for leaf in (0, 1, 3, 11)] == [0, 1, 0, 0]
    filtered = Query(k=50, categories=[("Home", "Kitchen")])
    assert {item.item_id for item in Recommender(bundle).recommend(filtered).items} == {"b", "c"}
    assert bundle.catalogue_version == 7


def test_a_history_may_name_what_is_withheld_or_replaced() -> None:
    bundle = toy_bundle()
    withheld = bundle.as_of(1, np.array([2]))

    before = Recommender(bundle).recommend(Query(history=["c"], k=3))
    after = Recommender(withheld).recommend(Query(history=["c"], k=3))

    assert after.unknown_history_items == 0
    assert after.items == before.items
