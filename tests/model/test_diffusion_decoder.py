"""A trained diffusion bundle: the exported search, and what it is served as."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.availability import legal_below
from model.bundle import Bundle
from model.decoder import SearchTree
from model.diffusion_decoder import DiffusionGraphs, GraphMaskedDecoder
from model.edited_bundle import with_new_items
from model.errors import BundleError
from model.golden_cases import verify_golden
from model.insertion import NewItems
from model.new_items import NewItem
from model.query import Query
from model.recommender import Recommender
from model.trie import Trie
from tests.model.bundle_copy import copy_bundle, reseal
from tests.model.some_evidence import some_evidence
from tests.model.test_recommender import CHAIN, all_ids, assert_well_formed, queries

SOME = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def bundle(diffusion_bundle: Path) -> Bundle:
    return Bundle.open(diffusion_bundle)


@pytest.fixture(scope="module")
def graphs(bundle: Bundle) -> DiffusionGraphs:
    assert isinstance(bundle.graphs, DiffusionGraphs)
    return bundle.graphs


def test_the_manifest_names_the_decoder(bundle: Bundle, shop_bundle: Path) -> None:
    assert bundle.manifest.decoder == "diffusion"
    assert bundle.manifest.diffusion is not None
    assert bundle.manifest.diffusion.ordered_levels == 2
    # An older release reads bundles that do not need the newer field.
    assert Bundle.open(shop_bundle).manifest.decoder == "autoregressive"
    assert "diffusion" not in (shop_bundle / "manifest.json").read_text(encoding="utf-8")


@SOME
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    width=st.sampled_from([1, 10, 60, 300]),
    diversity=st.booleans(),
)
def test_the_exported_search_finds_what_the_readable_one_finds(
    bundle: Bundle, graphs: DiffusionGraphs, seed: int, share: float, width: int, diversity: bool
) -> None:
    generator = np.random.default_rng(seed)
    trie = bundle.tree.trie
    legal = generator.random(trie.item_count) < share
    h = graphs.encode(bundle.tree.item_vectors[generator.integers(trie.item_count, size=3)])
    way = replace(graphs.unmasking, diversity=diversity)

    tree = replace(bundle.tree, evidence=some_evidence(trie.item_count, generator))
    found = graphs.by(way).search(h, tree, legal_below(trie, legal), width)
    expected = GraphMaskedDecoder(graphs, tree).search().search(h, legal, width, way)

    assert len(found.leaves) == len(set(found.leaves.tolist())) == min(width, int(legal.sum()))
    assert legal[found.leaves].all()
    np.testing.assert_allclose(found.totals(), expected.totals(), atol=1e-3)


@SOME
@given(data=st.data())
def test_every_answer_keeps_its_promises(bundle: Bundle, data: st.DataObject) -> None:
    query = data.draw(queries(bundle))
    recommender = Recommender(bundle)

    answer = recommender.recommend(query)

    assert_well_formed(bundle, query, answer)
    assert answer.certified is None
    known = [item_id for item_id in query.history if bundle.catalog.leaf(item_id) is not None]
    assert {item.source for item in answer.items} <= ({"generated"} if known else set(CHAIN[1:]))
    assert recommender.recommend(query).items == answer.items


def test_golden_cases_pass(bundle: Bundle) -> None:
    verify_golden(Recommender(bundle))


def test_the_penalty_makes_lists_more_diverse(bundle: Bundle, graphs: DiffusionGraphs) -> None:
    ids = all_ids(bundle)
    diverse = replace(bundle, graphs=graphs.by(replace(graphs.unmasking, diversity=True)))

    def distance(of: Bundle) -> float:
        recommender, total = Recommender(of), 0.0
        for item_id in ids[::15]:
            answer = recommender.recommend(Query([item_id])).items
            codes = np.array([item.semantic_id for item in answer])
            total += float((codes[:, None] != codes).mean())
        return total

    assert distance(diverse) > distance(bundle)


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("code_vectors.npy", lambda array: array[:, :-1], "parts of two"),
        ("code_biases.npy", lambda array: array[:-1], "parts of two"),
        ("code_biases.npy", lambda array: array.astype(np.float64), "float64 instead of float32"),
        ("codes.npy", lambda array: array + 1000, "holds a code beyond"),
    ],
)
def test_a_bundle_whose_codes_do_not_fit_is_refused(
    bundle: Bundle, tmp_path: Path, name: str, change: object, complaint: str
) -> None:
    assert callable(change)
    copy = copy_bundle(bundle.path, tmp_path / "copy")
    np.save(copy / name, change(np.load(copy / name)))
    reseal(copy)

    with pytest.raises(BundleError, match=complaint):
        Bundle.open(copy)


def test_partly_unmasked_ids_are_told_apart_in_a_large_catalogue(
    bundle: Bundle, graphs: DiffusionGraphs
) -> None:
    items, ordered, (levels, largest, width) = 60_000, 2, graphs.table.vectors.shape
    generator = np.random.default_rng(0)
    codes = generator.integers(8, size=(items, levels))
    codes[:, :ordered] = np.stack(np.divmod(generator.integers(200, size=items), 20), axis=1)
    trie, order = Trie.build(codes)
    vectors = generator.normal(size=(trie.node_count, width)).astype(np.float32)
    tree = SearchTree(trie, vectors, np.zeros(trie.node_count, np.float32))
    of_codes = generator.normal(0, 0.3, (levels, largest, width)).astype(np.float32)
    large = graphs.over(replace(graphs.table, codes=codes[order], vectors=of_codes))
    h = generator.normal(size=(width,)).astype(np.float32)
    legal = np.ones(items, dtype=bool)

    found = large.search(h, tree, legal_below(trie, legal), 20)
    expected = GraphMaskedDecoder(large, tree).search().search(h, legal, 20, large.unmasking)

    assert found.leaves.tolist() == expected.leaves.tolist()
    np.testing.assert_allclose(found.totals(), expected.totals(), atol=1e-3)


def test_a_code_that_nobody_had_is_known_by_the_item_that_has_it(
    bundle: Bundle, graphs: DiffusionGraphs
) -> None:
    """All codes of the shop are used: its codebooks are given one more, which no item has."""
    table, dead = graphs.table, graphs.table.biases.shape[1]
    wider = replace(
        table,
        vectors=np.pad(table.vectors, ((0, 0), (0, 1), (0, 0))),
        biases=np.pad(table.biases, ((0, 0), (0, 1))),
    )
    codes = np.array(bundle.catalog.codes[:1])
    codes[0, -1] = dead
    vector = np.array(bundle.tree.item_vectors[:1]) + 1
    new = NewItem("new", title="new", paths=bundle.catalog.paths(0))

    with_dead_codes = replace(bundle, graphs=graphs.over(wider))
    live = with_new_items(with_dead_codes, [new], NewItems(["new"], codes, vector))

    assert isinstance(live.graphs, DiffusionGraphs)
    known = live.graphs.table
    np.testing.assert_array_equal(known.vectors[-1, dead], vector[0])
    np.testing.assert_array_equal(known.vectors[:-1, dead], 0)
    np.testing.assert_array_equal(known.vectors[:, :dead], table.vectors)
    np.testing.assert_array_equal(known.biases[:, :dead], table.biases)
    assert known.codes[live.catalog.known_leaf("new"), -1] == dead
