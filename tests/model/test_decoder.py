from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from model.availability import legal_below
from model.beam_search import BeamResult, beam_search
from model.bundle import Bundle
from model.decoder import GraphStepDecoder, SearchTree
from model.node_hidden import NodeHidden
from model.trie import Trie
from model.types import BoolArray, FloatArray, IntArray

FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WIDTHS = st.sampled_from([1, 2, 3, 10, 50, 1000])
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bundle(shop_bundle: Path) -> Bundle:
    return Bundle.open(shop_bundle)


def assert_same_search(
    bundle: Bundle, tree: SearchTree, h: FloatArray, legal: BoolArray, width: int
) -> BeamResult:
    """Search with decoder.onnx and step by step, and compare."""
    counts = legal_below(tree.trie, legal)
    found = bundle.graphs.search(h, tree, counts, width)
    steps = GraphStepDecoder(bundle.graphs, tree)
    expected = beam_search(steps, tree.trie, h, counts, width)

    assert len(found.leaves) == min(width, int(legal.sum()))
    assert legal[found.leaves].all()
    assert len(set(found.leaves.tolist())) == len(found.leaves)
    np.testing.assert_allclose(found.totals(), expected.totals(), atol=TOLERANCE)
    assert found.pruned is not None
    assert expected.pruned is not None
    np.testing.assert_allclose(found.pruned, expected.pruned, atol=TOLERANCE)
    scores = dict(zip(expected.leaves.tolist(), expected.log_probs, strict=True))
    for leaf, log_probs in zip(found.leaves.tolist(), found.log_probs, strict=True):
        if leaf in scores:
            np.testing.assert_allclose(log_probs, scores[leaf], atol=TOLERANCE)
        else:  # Only a tie at the end of the list may bring another item.
            assert abs(log_probs.sum() - expected.totals()[-1]) <= TOLERANCE
    return found


@FEW
@given(data=st.data(), width=WIDTHS)
def test_the_graph_equals_the_reference_on_its_own_catalogue(
    bundle: Bundle, data: st.DataObject, width: int
) -> None:
    items = len(bundle.catalog)
    history = data.draw(st.lists(st.integers(0, items - 1), min_size=1, max_size=20))
    legal = data.draw(npst.arrays(np.bool_, items, fill=st.booleans()))
    h = bundle.graphs.encode(bundle.tree.item_vectors[history])

    assert_same_search(bundle, bundle.tree, h, legal, width)


@FEW
@given(data=st.data(), width=WIDTHS, seed=st.integers(0, 2**32 - 1))
def test_the_graph_equals_the_reference_on_catalogues_it_never_saw(
    bundle: Bundle, data: st.DataObject, width: int, seed: int
) -> None:
    shape = (data.draw(st.integers(1, 30), label="items"), bundle.tree.trie.levels)
    largest = data.draw(st.integers(0, 5), label="largest code")
    codes = data.draw(npst.arrays(np.int32, shape, elements=st.integers(0, largest)))
    legal = data.draw(npst.arrays(np.bool_, shape[0]))

    tree, h = random_tree(bundle, codes, seed)

    assert_same_search(bundle, tree, h, legal, width)


def random_tree(bundle: Bundle, codes: IntArray, seed: int) -> tuple[SearchTree, FloatArray]:
    """A tree of the bundle's depth and width with random vectors, and an h."""
    generator = np.random.default_rng(seed)
    trie, _ = Trie.build(codes)
    vectors = generator.normal(scale=0.3, size=(trie.node_count, bundle.manifest.width))
    biases = generator.normal(size=trie.node_count)
    h = generator.normal(size=bundle.manifest.width)
    tree = SearchTree(trie, vectors.astype(np.float32), biases.astype(np.float32))
    known = bundle.tree.hidden
    assert known is not None
    hidden = NodeHidden.build(trie, tree.vectors, known.weights)
    return replace(tree, hidden=hidden), h.astype(np.float32)


@pytest.mark.parametrize("width", [1, 50])
@pytest.mark.parametrize("largest_code", [0, 200])
@pytest.mark.parametrize("items", [1, 2, 400])
def test_extreme_catalogues(bundle: Bundle, items: int, largest_code: int, width: int) -> None:
    """One item, one bucket of all items, more children than the export ever saw."""
    levels = bundle.tree.trie.levels
    codes = np.random.default_rng(items).integers(largest_code + 1, size=(items, levels))
    tree, h = random_tree(bundle, codes, seed=items)
    only_last = np.arange(items) == items - 1

    assert_same_search(bundle, tree, h, np.ones(items, dtype=bool), width)
    assert_same_search(bundle, tree, h, ~only_last, width)
    found = assert_same_search(bundle, tree, h, only_last, width)

    assert found.leaves.tolist() == [items - 1]
    assert found.pruned == -np.inf


def test_nothing_legal_gives_nothing(bundle: Bundle) -> None:
    tree = bundle.tree
    h = bundle.graphs.encode(tree.item_vectors[:2])

    found = assert_same_search(bundle, tree, h, np.zeros(tree.trie.item_count, dtype=bool), 10)

    assert found.leaves.shape == (0,)
    assert found.log_probs.shape == (0, tree.trie.levels + 1)
    assert found.pruned == -np.inf


def test_a_tree_without_what_is_known_of_its_queries_is_refused(bundle: Bundle) -> None:
    tree = replace(bundle.tree, hidden=None)
    h = bundle.graphs.encode(tree.item_vectors[:2])

    with pytest.raises(ValueError, match="reads `hidden` of the tree"):
        bundle.graphs.search(h, tree, np.ones(tree.trie.node_count, np.int32), 10)


def test_probabilities_of_all_items_sum_to_one(bundle: Bundle) -> None:
    tree = bundle.tree
    h = bundle.graphs.encode(tree.item_vectors[[5, 6, 7]])
    counts = legal_below(tree.trie, np.ones(tree.trie.item_count, dtype=bool))

    found = bundle.graphs.search(h, tree, counts, tree.trie.item_count)

    assert sorted(found.leaves.tolist()) == list(range(tree.trie.item_count))
    assert float(np.exp(found.totals()).sum()) == pytest.approx(1.0, abs=1e-4)


def test_encodings_are_float16_numbers_in_float32(bundle: Bundle) -> None:
    for length in (1, 2, bundle.manifest.history_length):
        h = bundle.graphs.encode(bundle.tree.item_vectors[:length])

        assert h.shape == (bundle.manifest.width,)
        assert h.dtype == np.float32
        assert h.astype(np.float16).astype(np.float32).tolist() == h.tolist()
        assert np.isfinite(h).all()


def test_new_items_get_vectors_of_the_same_width(bundle: Bundle) -> None:
    codes = bundle.catalog.codes[:3]
    text = np.random.default_rng(0).normal(size=(3, text_columns(bundle))).astype(np.float32)

    vectors = bundle.graphs.item_vectors(text, codes)
    alone = [bundle.graphs.item_vectors(text[[row]], codes[[row]])[0] for row in range(3)]

    assert vectors.shape == (3, bundle.manifest.width)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors, alone, atol=1e-5)


def text_columns(bundle: Bundle) -> int:
    """E: the collaborative code is predicted from the same text, with one row for a constant."""
    rows: int = np.load(bundle.path / "collaborative_from_text.npy").shape[0]
    return rows - 1
