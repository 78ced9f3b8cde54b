"""The network against brute force, item by item and node by node."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.training.network import Network, TreeTensors, child_log_probs
from model.trie import Trie
from tests.model.training.small_network import small_network

# Tensors of float32 that took different ways.
RTOL, ATOL = 1e-4, 1e-5


def children_of(trie: Trie, node: int) -> range:
    return range(int(trie.child_start[node]), int(trie.child_start[node + 1]))


def leaves_below(trie: Trie, node: int) -> list[int]:
    if node >= trie.item_start:
        return [node - trie.item_start]
    return [leaf for child in children_of(trie, node) for leaf in leaves_below(trie, child)]


def brute_log_prob(network: Network, trie: Trie, tree: TreeTensors, h: Tensor, leaf: int) -> float:
    """Log-probability of a leaf: one softmax over real children after the other."""
    total = 0.0
    path = trie.paths(np.array([leaf]))[0]
    for depth, (parent, child) in enumerate(pairwise(path.tolist())):
        query = network.generator.query(depth, h, tree.vectors[parent])
        logits = {
            node: float(query @ tree.vectors[node] + tree.biases[node])
            for node in children_of(trie, int(parent))
        }
        total += logits[child] - float(np.logaddexp.reduce(list(logits.values())))
    return total


@torch.no_grad()
def test_node_vectors_are_the_mean_of_the_items_below_and_an_offset() -> None:
    network, trie = small_network()
    items = network.item_vectors()
    tree = network.tree(items)
    for node in range(trie.item_start):
        expected = items[leaves_below(trie, node)].mean(0) + network.offsets[node]
        torch.testing.assert_close(tree.vectors[node], expected, rtol=RTOL, atol=ATOL)
    assert torch.equal(tree.vectors[trie.item_start :], items)


def test_biases_start_at_the_log_of_the_items_below() -> None:
    _, trie = small_network()
    torch.manual_seed(0)
    shape, text = small_network()[0].shape, torch.randn(trie.item_count, 7)
    codes = torch.zeros(trie.item_count, trie.levels)
    fresh = Network(shape, trie, text, codes, torch.ones(trie.item_count))
    below = [len(leaves_below(trie, node)) for node in range(trie.node_count)]
    torch.testing.assert_close(fresh.biases.detach(), torch.log(torch.tensor(below).float()))
    assert not fresh.offsets.any()


@settings(max_examples=15, deadline=None)
@given(
    items=st.integers(1, 30),
    codebooks=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_the_probabilities_of_all_items_sum_to_one(
    items: int, codebooks: tuple[int, ...], seed: int
) -> None:
    network, trie = small_network(items, codebooks, seed=seed)
    tree = network.tree(network.item_vectors())
    h = torch.randn(8)
    total = sum(np.exp(brute_log_prob(network, trie, tree, h, leaf)) for leaf in range(items))
    assert total == pytest.approx(1, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(items=st.integers(1, 30), codebooks=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_path_nodes_are_the_paths_of_the_trie(items: int, codebooks: list[int]) -> None:
    network, trie = small_network(items, tuple(codebooks))
    leaves = np.arange(items)
    assert np.array_equal(network.path_nodes(torch.from_numpy(leaves)), trie.paths(leaves))


@torch.no_grad()
def test_only_children_that_exist_have_probability() -> None:
    network, trie = small_network()
    tree = network.tree(network.item_vectors())
    parents = torch.arange(trie.depth_start[1], trie.depth_start[2])
    slots = torch.arange(trie.branching[1] + 2)
    nodes, taken = tree.children(parents, slots)
    query = network.generator.query(1, torch.randn(len(parents), 8), tree.vectors[parents])
    probabilities = child_log_probs(query, nodes, taken, tree).exp()
    assert taken.sum(1).tolist() == [len(children_of(trie, int(node))) for node in parents]
    assert not probabilities[~taken].any()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(parents)))
    for row, parent in enumerate(parents.tolist()):
        assert nodes[row][taken[row]].tolist() == list(children_of(trie, parent))


@torch.no_grad()
def test_the_encoder_reads_nothing_later_than_its_position() -> None:
    network, _ = small_network()
    before = torch.randn(3, 6, 8)
    after = before.clone()
    after[:, 4] = torch.randn(3, 8)
    encoded, changed = network.history_encoder(before), network.history_encoder(after)
    torch.testing.assert_close(encoded[:, :4], changed[:, :4])
    assert ((encoded[:, 4:] - changed[:, 4:]).abs().amax(-1) > 1e-3).all()


@torch.no_grad()
def test_padding_after_a_history_changes_nothing() -> None:
    network, _ = small_network()
    items = torch.randn(1, 3, 8)
    padded = torch.cat([items, torch.randn(1, 2, 8)], dim=1)
    torch.testing.assert_close(
        network.history_encoder(items)[0, -1], network.history_encoder(padded)[0, 2]
    )


@torch.no_grad()
def test_the_order_of_a_history_matters() -> None:
    network, _ = small_network()
    items = torch.randn(1, 4, 8)
    swapped = items[:, [1, 0, 2, 3]]
    difference = network.history_encoder(items) - network.history_encoder(swapped)
    assert float(difference[0, -1].abs().max()) > 1e-3


@torch.no_grad()
def test_without_positions_a_history_is_a_set() -> None:
    """Of one block: a second one reads what a causal first one has said of each prefix."""
    network, _ = small_network(positions=False, blocks=1)
    ordered, _ = small_network(blocks=1)
    items = torch.randn(1, 4, 8)
    swapped = items[:, [1, 2, 0, 3]]

    for encode in (network.history_encoder, network.history_encoder.newest):
        torch.testing.assert_close(encode(items)[:, -1:], encode(swapped)[:, -1:])
    difference = ordered.history_encoder(items) - ordered.history_encoder(swapped)
    assert float(difference[0, -1].abs().max()) > 1e-3
    assert "history_encoder.position.weight" not in network.state_dict()


@torch.no_grad()
def test_levels_without_layers_of_their_own_ask_alike() -> None:
    shared, _ = small_network(level_layers=False)
    apart, _ = small_network()
    h, parents = torch.randn(2, 5, 8)

    alike = [shared.generator.query(depth, h, parents) for depth in range(4)]
    assert all(torch.equal(alike[0], query) for query in alike)
    first, second = (apart.generator.query(depth, h, parents) for depth in range(2))
    assert float((first - second).abs().max()) > 1e-3
    sizes = [sum(each.numel() for each in net.generator_parameters()) for net in (shared, apart)]
    assert sizes[0] < sizes[1]


@torch.no_grad()
def test_own_vectors_are_left_out_at_random_in_training_only() -> None:
    network, _ = small_network()
    encoder = network.item_encoder
    whole = encoder.describe(network.text, network.codes) + encoder.identity.weight
    described = encoder.describe(network.text, network.codes)
    torch.testing.assert_close(network.item_vectors()[1:], whole[1:])
    network.train()
    vectors = network.item_vectors()
    kept = torch.isclose(vectors, whole, rtol=RTOL, atol=ATOL).all(1)
    left_out = torch.isclose(vectors, described, rtol=RTOL, atol=ATOL).all(1)
    assert (kept | left_out).all()
    assert 5 <= int(kept.sum()) <= 35  # of 40, each with probability 1/2


def test_items_never_trained_on_have_no_vector_of_their_own() -> None:
    network, _ = small_network()
    described = network.item_encoder.describe(network.text, network.codes)
    torch.testing.assert_close(network.item_vectors()[0], described[0])
    own = network.item_encoder.identity.weight
    (gradient,) = torch.autograd.grad(network.item_vectors().sum(), own)
    assert not gradient[0].any()
    assert gradient[1:].all()


@torch.no_grad()
def test_loaded_parameters_read_the_text_in_their_own_basis() -> None:
    network, trie = small_network(seed=1)
    text = torch.randn(trie.item_count, 7)
    network.project(text)
    # Eigenvectors are known up to their signs: another machine may find the opposite ones.
    state = network.state_dict() | {"text_basis": -network.text_basis}
    network.load_state_dict(state)
    network.project(text)
    torch.testing.assert_close(network.text, text @ network.text_basis)
    torch.testing.assert_close(network.text_basis, state["text_basis"])


def test_the_text_basis_keeps_what_varies_most() -> None:
    torch.manual_seed(0)
    strong = torch.randn(50, 5) @ torch.randn(5, 7)
    network, trie = small_network(50)
    fresh = Network(network.shape, trie, strong, network.codes, torch.ones(50))
    basis = fresh.text_basis
    torch.testing.assert_close(basis.T @ basis, torch.eye(5), rtol=RTOL, atol=ATOL)
    # Five dimensions hold all of a text that has only five.
    torch.testing.assert_close(fresh.text @ basis.T, strong, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_newest_position_is_encoded_as_among_all_others() -> None:
    network, _ = small_network()
    for length in (1, 2, 6):
        items = torch.randn(3, length, 8)
        everywhere = network.history_encoder(items)[:, -1]
        torch.testing.assert_close(network.history_encoder.newest(items), everywhere)
