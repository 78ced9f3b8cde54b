"""decoder.onnx finds what the NumPy search finds, whatever the depth and the shape of the tree."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.availability import legal_below
from model.beam_search import BeamResult, beam_search
from model.decoder import BLOCK
from model.node_hidden import NodeHidden
from model.training.decoder_graph import node_weights, write_decoder_graph
from model.training.network import Network, TreeTensors
from model.trie import Trie
from model.types import AnyArray, FloatArray
from tests.model.training.small_network import small_network
from tests.model.training.test_search_graph import TorchSteps


class ServedSearch:
    """The graph of one network, for any tree of its depth."""

    def __init__(self, network: Network, path: Path) -> None:
        self._weights = node_weights(network)
        write_decoder_graph(network, path)
        self._session = onnxruntime.InferenceSession(str(path))

    def __call__(
        self, h: FloatArray, trie: Trie, tree: TreeTensors, counts: AnyArray, width: int
    ) -> BeamResult:
        hidden = NodeHidden.build(trie, tree.vectors.numpy(), self._weights)
        feeds = {
            "h": h,
            "child_start": trie.child_start,
            "vectors": tree.vectors.numpy(),
            "biases": tree.biases.numpy(),
            "hidden": hidden.table,
            "hidden_rows": hidden.rows,
            "alive": counts,
            "beams": np.arange(width),
        }
        first, *below = trie.branching
        places = [first, *(-(-most // BLOCK) * BLOCK for most in below)]
        feeds |= {f"slots_{depth}": np.arange(size) for depth, size in enumerate(places)}
        nodes, log_probs, pruned = self._session.run(None, feeds)
        reached = np.isfinite(log_probs[:, 0])
        assert reached[: reached.sum()].all()  # places left over come last
        leaves = nodes[reached] - trie.item_start
        return BeamResult(leaves, log_probs[reached], float(pruned.max()))


@pytest.fixture(
    scope="module",
    params=[((5,), {}), ((3, 4, 2), {}), ((2, 30, 3, 2), {}), ((3, 4, 2), {"level_layers": False})],
    ids=["1", "3", "4", "shared layers"],
)
def searched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Network, ServedSearch]:
    codebooks, changes = request.param
    network, _ = small_network(60, codebooks, seed=len(codebooks), **changes)
    return network, ServedSearch(network, tmp_path_factory.mktemp("graph") / "decoder.onnx")


@settings(max_examples=40, deadline=None)
@given(
    items=st.integers(1, 90),
    largest_code=st.integers(0, 40),
    width=st.integers(1, 60),
    share=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_it_finds_what_the_numpy_search_finds(
    searched: tuple[Network, ServedSearch],
    items: int,
    largest_code: int,
    width: int,
    share: float,
    seed: int,
) -> None:
    """On trees that the network never saw, some with nodes of more than one block of children."""
    network, search = searched
    generator = np.random.default_rng(seed)
    levels = len(network.shape.codebook_sizes)
    trie, _ = Trie.build(generator.integers(largest_code + 1, size=(items, levels)))
    nodes = trie.node_count
    tree = TreeTensors(
        torch.from_numpy(trie.child_start.astype(np.int64)),
        torch.from_numpy(generator.normal(size=(nodes, 8)).astype(np.float32)),
        torch.from_numpy(generator.normal(size=nodes).astype(np.float32)),
    )
    counts = legal_below(trie, generator.random(items) < share)
    h = generator.normal(size=8).astype(np.float32)

    found = search(h, trie, tree, counts, width)

    expected = beam_search(TorchSteps(network, trie, tree), trie, h, counts, width)
    assert found.leaves.tolist() == expected.leaves.tolist()
    np.testing.assert_allclose(found.log_probs, expected.log_probs, rtol=1e-4, atol=1e-4)
    assert found.pruned == pytest.approx(expected.pruned, rel=1e-4)
