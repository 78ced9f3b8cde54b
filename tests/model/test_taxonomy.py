import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.taxonomy import (
    REST,
    UNCATEGORISED,
    Taxonomy,
    build_taxonomy,
    common_root,
    spread_paths,
    verify_partition,
)
from model.types import CategoryPath

NAMES = st.sampled_from(["Care", "Hair", "Makeup", "Nails", "a", " ", "é"])
PATHS = st.lists(st.lists(NAMES, max_size=4).map(tuple), min_size=1, max_size=60)


def code_of(taxonomy: Taxonomy, path: CategoryPath) -> int:
    code = taxonomy.code(path)
    assert code is not None
    return code


@given(paths=PATHS)
def test_every_node_is_exactly_a_range_of_codes(paths: list[CategoryPath]) -> None:
    taxonomy = build_taxonomy(paths, max_codes=256)

    full = [path or UNCATEGORISED for path in paths]
    codes = [code_of(taxonomy, path) for path in paths]
    assert sorted(set(codes)) == list(range(len(taxonomy.code_paths)))
    assert [taxonomy.code_paths[code] for code in codes] == full
    for node in taxonomy.nodes:
        below = {i for i, path in enumerate(full) if path[: len(node.path)] == node.path}
        inside = {i for i, code in enumerate(codes) if node.first_code <= code < node.end_code}
        assert inside == below
        assert node.items == len(below)
        assert not node.is_merged


@given(paths=PATHS, max_codes=st.integers(1, 12))
def test_merging_respects_the_bound_and_loses_no_item(
    paths: list[CategoryPath], max_codes: int
) -> None:
    taxonomy = build_taxonomy(paths, max_codes)

    assert len(taxonomy.code_paths) == min(
        max_codes, len({path or UNCATEGORISED for path in paths})
    )
    nodes = {node.path: node for node in taxonomy.nodes}
    held: Counter[CategoryPath] = Counter()
    for path in paths:
        full = path or UNCATEGORISED
        stands_for = taxonomy.code_paths[code_of(taxonomy, path)]
        assert full[: len(stands_for)] == stands_for  # itself or an ancestor
        held[stands_for] += 1
        for depth in range(len(full) + 1):
            node = nodes[full[:depth]]
            assert node.first_code <= code_of(taxonomy, path) < node.end_code
    assert set(held) == set(taxonomy.code_paths)
    for node in taxonomy.nodes:
        if not node.is_merged:
            inside = taxonomy.code_paths[node.first_code : node.end_code]
            assert all(path[: len(node.path)] == node.path for path in inside)


def test_an_inner_node_with_items_gets_the_first_code_of_its_range() -> None:
    paths: list[CategoryPath] = [("Makeup", "Nails"), ("Makeup",), ("Hair",), ("Makeup", "Eyes")]

    taxonomy = build_taxonomy(paths, max_codes=256)

    assert taxonomy.code_paths == (
        ("Hair",),
        ("Makeup",),
        ("Makeup", "Eyes"),
        ("Makeup", "Nails"),
    )
    (makeup,) = [node for node in taxonomy.nodes if node.path == ("Makeup",)]
    assert (makeup.first_code, makeup.end_code) == (1, 4)


def test_the_smallest_leaf_merges_into_its_parent() -> None:
    paths: list[CategoryPath] = [
        *[("Makeup", "Nails")] * 3,
        *[("Makeup", "Eyes")] * 2,
        ("Makeup", "Lips"),
        ("Makeup",),
        *[("Hair",)] * 4,
    ]

    taxonomy = build_taxonomy(paths, max_codes=4)

    assert ("Makeup", "Lips") not in taxonomy.code_paths
    assert taxonomy.code(("Makeup", "Lips")) == taxonomy.code(("Makeup",)) == 1
    (lips,) = [node for node in taxonomy.nodes if node.path == ("Makeup", "Lips")]
    assert (lips.is_merged, lips.first_code, lips.end_code, lips.items) == (True, 1, 2, 1)


def test_unknown_paths_get_the_deepest_known_category() -> None:
    taxonomy = build_taxonomy([("Makeup", "Nails"), ("Hair",)], max_codes=256)

    assert taxonomy.code(("Makeup", "Nails", "Polish")) == 1
    assert taxonomy.code(("Makeup", "Lips")) == 1
    assert taxonomy.code(("Garden",)) is None
    assert taxonomy.code(()) is None


@given(paths=PATHS, max_codes=st.integers(1, 12))
def test_survives_json(paths: list[CategoryPath], max_codes: int) -> None:
    taxonomy = build_taxonomy(paths, max_codes)

    assert Taxonomy.from_json(json.loads(json.dumps(taxonomy.to_json()))) == taxonomy


def test_paths_spread_over_levels_below_the_common_root() -> None:
    paths: list[CategoryPath] = [("Beauty", "Makeup", "Nails", "Polish"), ("Beauty", "Hair"), ()]

    root = common_root(paths)

    assert root == ("Beauty",)
    assert spread_paths(paths, root, 3) == [
        [("Beauty", "Makeup"), ("Beauty", "Hair"), ()],
        [("Beauty", "Makeup", "Nails"), ("Beauty", "Hair", REST), ()],
        [("Beauty", "Makeup", "Nails", "Polish"), ("Beauty", "Hair", REST, REST), ()],
    ]
    assert spread_paths(paths, root, 2)[1][0] == ("Beauty", "Makeup", "Nails")
    assert spread_paths(paths, root, 1) == [paths]
    assert common_root([(), ()]) == ()
    assert common_root([("A", "B")]) == ("A", "B")


@given(paths=PATHS, most=st.integers(1, 60))
def test_a_tree_that_shares_out_its_codes_is_accepted(paths: list[CategoryPath], most: int) -> None:
    taxonomy = build_taxonomy(paths, most)

    verify_partition(taxonomy, len(taxonomy.code_paths))


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (0, {"end_code": 2}),
        (0, {"path": ("x",)}),
        (1, {"first_code": 1}),
        (1, {"end_code": 9}),
        (2, {"first_code": 0}),
        (2, {"end_code": 1}),
    ],
)
def test_a_tree_whose_codes_overlap_is_refused(place: int, change: dict[str, Any]) -> None:
    taxonomy = build_taxonomy([("a",), ("a", "b"), ("c",)], 9)
    nodes = list(taxonomy.nodes)
    nodes[place] = replace(nodes[place], **change)

    with pytest.raises(ValueError, match="code"):
        verify_partition(Taxonomy(tuple(nodes), taxonomy.code_paths), 3)
