"""The tensor search finds what the NumPy search finds."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.availability import legal_below
from model.beam_search import beam_search
from model.training.network import Network, TreeTensors, child_log_probs
from model.training.search_graph import StepGraph
from model.training.search_graph import beam_search as tensor_beam_search
from model.trie import Trie
from model.types import FloatArray, IntArray
from tests.model.training.small_network import small_network


class TorchSteps:
    """One level at a time by the network, as the NumPy search wants it."""

    def __init__(self, network: Network, trie: Trie, tree: TreeTensors) -> None:
        self.network, self.trie, self.tree = network, trie, tree

    def child_log_probs(self, h: FloatArray, nodes: IntArray, depth: int) -> FloatArray:
        parents = torch.from_numpy(nodes)
        slots = torch.arange(self.trie.branching[depth])
        children, taken = self.tree.children(parents, slots)
        vectors = self.tree.vectors[parents]
        query = self.network.generator.query(depth, torch.from_numpy(h).expand_as(vectors), vectors)
        scores = child_log_probs(query, children, taken, self.tree)
        found: FloatArray = scores.masked_fill(~taken, float("-inf")).numpy()
        return found


@settings(max_examples=40, deadline=None)
@given(
    items=st.integers(1, 40),
    codebooks=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    width=st.integers(1, 60),
    share=st.sampled_from([0.0, 0.2, 0.8, 1.0]),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_it_finds_what_the_numpy_search_finds(
    items: int, codebooks: tuple[int, ...], width: int, share: float, seed: int
) -> None:
    network, trie = small_network(items, codebooks, seed=seed)
    tree = network.tree(network.item_vectors())
    generator = np.random.default_rng(seed)
    counts = legal_below(trie, generator.random(items) < share)
    h = generator.normal(size=(2, 8)).astype(np.float32)
    sizes = tuple(torch.arange(size) for size in (width, *trie.branching))
    found = tensor_beam_search(
        network.generator, torch.from_numpy(h), tree, torch.from_numpy(counts), sizes
    )
    for row in range(2):
        expected = beam_search(TorchSteps(network, trie, tree), trie, h[row], counts, width)
        reached = torch.isfinite(found.log_probs[row, :, 0]).numpy()
        leaves = found.nodes[row].numpy()[reached] - trie.item_start
        assert leaves.tolist() == expected.leaves.tolist()
        np.testing.assert_allclose(
            found.log_probs[row].numpy()[reached], expected.log_probs, rtol=1e-4, atol=1e-4
        )
        assert expected.pruned is not None
        np.testing.assert_allclose(float(found.pruned[row].max()), expected.pruned, rtol=1e-4)
        assert reached[: len(leaves)].all()  # places left over come last


@torch.no_grad()
def test_a_search_as_wide_as_the_catalogue_lists_every_item_once() -> None:
    network, trie = small_network()
    tree = network.tree(network.item_vectors())
    sizes = tuple(torch.arange(size) for size in (40, *trie.branching))
    alive = torch.ones(trie.node_count)
    found = tensor_beam_search(network.generator, torch.randn(1, 8), tree, alive, sizes)
    assert sorted((found.nodes[0] - trie.item_start).tolist()) == list(range(40))
    np.testing.assert_allclose(float(found.log_probs.sum(-1).exp().sum()), 1, atol=1e-4)
    assert not torch.isfinite(found.pruned).any()


@torch.no_grad()
def test_the_step_graph_scores_the_children_of_each_depth() -> None:
    network, trie = small_network()
    tree = network.tree(network.item_vectors())
    steps, graph = TorchSteps(network, trie, tree), StepGraph(network)
    h = np.random.default_rng(0).normal(size=8).astype(np.float32)
    for depth in range(trie.levels + 1):
        nodes = np.arange(trie.depth_start[depth], trie.depth_start[depth + 1])
        slots = torch.arange(trie.branching[depth])
        found = graph(
            torch.from_numpy(h),
            torch.from_numpy(nodes),
            torch.tensor([depth]),
            tree.child_start,
            tree.vectors,
            tree.biases,
            slots,
        )
        expected = steps.child_log_probs(h, nodes, depth)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
