import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import strings as strings_module
from model.catalog import Catalog, Groups, build_catalog, category_key
from model.errors import UnknownCategoryError, UnknownItemError

PATHS: list[list[tuple[str, ...]]] = [
    [("Beauty", "Nails"), ("Gifts",)],
    [],
    [("Beauty",)],
    [("Beauty", "Nails", "Polish"), ("Beauty", "Sale")],
    [("Beauty/Nails",), ('Say "hi", you', "a\\b")],
]
IDS = ["a", "b/1", "ünï", "", "日本,语"]


def small_catalog() -> Catalog:
    codes = np.array([[number, 0] for number in range(len(IDS))], np.int32)
    return build_catalog(IDS, ["A", "", "Ü", "", "語"], PATHS, codes)


def below(catalog: Catalog, *path: str) -> list[int]:
    found: list[int] = catalog.category_items[catalog.category(path)].tolist()
    return found


def test_items_are_found_by_id_and_by_leaf() -> None:
    catalog = small_catalog()

    assert len(catalog) == 5
    assert [catalog.item_id(leaf) for leaf in range(5)] == IDS
    assert [catalog.leaf(item_id) for item_id in IDS] == [0, 1, 2, 3, 4]
    assert [catalog.title(leaf) for leaf in range(5)] == ["A", "", "Ü", "", "語"]
    assert catalog.semantic_id(3) == (3, 0)


@given(named=st.lists(st.sampled_from([*IDS, "?", "a ", "\ud800", "\0"])))
def test_many_are_found_at_once_in_their_order(named: list[str]) -> None:
    catalog = small_catalog()

    leaves = catalog.leaves(named)

    assert leaves.tolist() == [IDS.index(item_id) for item_id in named if item_id in IDS]
    assert leaves.dtype == np.int64


@pytest.mark.parametrize("stranger", ["A", "a ", "b", "\0", "\ud800", "u\u0308nï"])
def test_other_ids_are_unknown(stranger: str) -> None:
    catalog = small_catalog()

    assert catalog.leaf(stranger) is None
    with pytest.raises(UnknownItemError) as refusal:
        catalog.known_leaf(stranger)
    assert refusal.value.item_id == stranger


def test_ids_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = np.uint64(2**64 - 1)
    monkeypatch.setattr(strings_module, "string_hashes", lambda ids: np.full(len(ids), shared))
    catalog = small_catalog()

    assert [catalog.leaf(item_id) for item_id in IDS] == [0, 1, 2, 3, 4]
    assert catalog.leaf("stranger") is None
    assert catalog.leaves(["", "stranger", "a", "b/1", "a"]).tolist() == [3, 0, 1, 0]
    assert below(catalog, "Beauty", "Sale") == [3]
    with pytest.raises(UnknownCategoryError):
        catalog.category(["stranger"])


def test_an_item_counts_for_every_prefix_of_each_of_its_paths() -> None:
    catalog = small_catalog()

    assert below(catalog, "Beauty") == [0, 2, 3]
    assert below(catalog, "Beauty", "Nails") == [0, 3]
    assert below(catalog, "Beauty", "Nails", "Polish") == [3]
    assert below(catalog, "Beauty", "Sale") == [3]
    assert below(catalog, "Gifts") == [0]


def test_names_may_hold_any_character() -> None:
    catalog = small_catalog()

    assert below(catalog, "Beauty/Nails") == [4]
    assert below(catalog, 'Say "hi", you') == [4]
    assert below(catalog, 'Say "hi", you', "a\\b") == [4]
    assert catalog.paths(4) == (("Beauty/Nails",), ('Say "hi", you', "a\\b"))


def test_the_first_path_is_the_primary_one() -> None:
    catalog = small_catalog()

    assert catalog.path(0) == ("Beauty", "Nails")
    assert catalog.paths(0) == (("Beauty", "Nails"), ("Gifts",))
    assert catalog.path(1) == ()
    assert catalog.paths(1) == ()


@pytest.mark.parametrize(
    "path", [(), ("",), ("Nails",), ("Beauty", "Nails", "Polish", "Red"), ("\ud800",), ("beauty",)]
)
def test_a_path_that_no_item_has_is_refused(path: tuple[str, ...]) -> None:
    with pytest.raises(UnknownCategoryError, match="not in the catalogue") as refusal:
        small_catalog().category(path)

    assert refusal.value.path == path


def test_a_catalogue_without_paths() -> None:
    catalog = build_catalog(["x"], [""], [[[]]], np.zeros((1, 1), np.int32))

    assert catalog.paths(0) == ()
    with pytest.raises(UnknownCategoryError):
        catalog.category(["x"])


def test_a_path_given_twice_counts_once() -> None:
    catalog = build_catalog(["x"], [""], [[("A", "B"), ("A", "B")]], np.zeros((1, 1), np.int32))

    assert catalog.paths(0) == (("A", "B"),)
    assert below(catalog, "A") == [0]


def test_different_paths_have_different_keys() -> None:
    paths = [["a", "b"], ["a,b"], ['a","b'], ["a b"], [], [""], ["", ""]]

    assert len({category_key(path) for path in paths}) == len(paths)


def test_groups() -> None:
    groups = Groups.build([[3, 1], [], [2]])

    assert [groups[number].tolist() for number in range(3)] == [[3, 1], [], [2]]
