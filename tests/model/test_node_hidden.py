from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import node_hidden
from model.node_hidden import NodeHidden, asked_nodes
from model.trie import Trie
from model.types import FloatArray, IntArray
from tests.model.table_decoder import semantic_ids

WIDTH = 3


def drawn(trie: Trie, seed: int) -> tuple[FloatArray, FloatArray]:
    """Vectors and weights."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(trie.node_count, WIDTH)).astype(np.float32)
    weights = generator.normal(size=(trie.levels + 1, WIDTH, 2 * WIDTH)).astype(np.float32)
    return vectors, weights


@settings(deadline=None)
@given(semantic_ids(), st.integers(0, 99), st.integers(1, 5))
def test_every_node_that_is_asked_has_the_product_of_its_vector(
    codes: IntArray, seed: int, at_once: int
) -> None:
    trie, _ = Trie.build(codes)
    vectors, weights = drawn(trie, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_hidden, "NODES_AT_ONCE", at_once)
        hidden = NodeHidden.build(trie, vectors, weights)

    assert hidden.table.dtype == np.float32
    assert hidden.rows.dtype == np.int32
    assert hidden.rows.shape == (trie.item_start,)
    asked = []
    for depth, (here, after) in enumerate(pairwise(trie.depth_start[:-1])):
        for node in range(here, after):
            children = trie.child_start[node + 1] - trie.child_start[node]
            if node > 0 and children == 1:
                assert hidden.rows[node] == 0
                continue
            expected = [sum(vectors[node] * weights[depth, :, x]) for x in range(2 * WIDTH)]
            np.testing.assert_allclose(hidden.table[hidden.rows[node]], expected, atol=1e-5)
            asked.append(node)
    assert asked_nodes(trie).tolist() == asked
    assert len(hidden.table) == len(asked)


@pytest.mark.parametrize("levels", [1, 4])
def test_a_single_item_has_a_row_for_the_root(levels: int) -> None:
    trie, _ = Trie.build(np.zeros((1, levels), np.int32))
    vectors, weights = drawn(trie, 0)

    hidden = NodeHidden.build(trie, vectors, weights)

    assert hidden.rows.tolist() == [0] * (levels + 1)
    np.testing.assert_allclose(hidden.table, vectors[:1] @ weights[0], rtol=1e-6)


def test_a_table_read_again_is_the_same() -> None:
    trie, _ = Trie.build(np.random.default_rng(0).integers(3, size=(30, 3)))
    vectors, weights = drawn(trie, 0)
    built = NodeHidden.build(trie, vectors, weights)

    read = NodeHidden.known(trie, built.table, weights)

    assert read.rows.tolist() == built.rows.tolist()
