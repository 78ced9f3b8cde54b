"""The losses against their definition, gradients included."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from model.training import losses
from model.training.losses import (
    Choices,
    Positions,
    generator_loss,
    item_head_loss,
    path_choices,
)
from model.training.network import Network, TreeTensors, child_log_probs
from tests.model.training.small_network import (
    evidence_of_nodes,
    no_evidence,
    small_evidence,
    small_network,
)
from tests.model.training.test_network import brute_log_prob, leaves_below

CATALOGUES = given(
    items=st.integers(1, 30),
    codebooks=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 99),
)
FEW = settings(max_examples=15, deadline=None)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both losses are computed piece by piece; here a piece is a row or two."""
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 70)
    monkeypatch.setattr(losses, "PRODUCTS_AT_ONCE", 7)


def task(network: Network, items: int) -> tuple[Positions, Tensor]:
    """Positions with evidence, and item vectors."""
    vectors = network.item_vectors().detach().requires_grad_()
    h, targets = torch.randn(9, 8, requires_grad=True), torch.randint(items, (9,))
    return Positions(h, targets, small_evidence(network, 9)), vectors


def head_logits(network: Network, positions: Positions, vectors: Tensor) -> Tensor:
    """The item head's formula [P, N]."""
    logs = evidence_of_nodes(positions.evidence, len(positions.h))[:, network.depth_start[-2] :]
    return positions.h @ vectors.T + network.head_evidence_weight * logs


def same_gradients(one: Tensor, other: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    mine, theirs = (
        torch.autograd.grad(3 * loss, inputs, retain_graph=True, materialize_grads=True)
        for loss in (one, other)
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_item_head_is_a_softmax_over_all_items(smoothing: float) -> None:
    network, trie = small_network()
    positions, items = task(network, trie.item_count)
    loss, _ = item_head_loss(network, positions, items, [], smoothing)
    logits = head_logits(network, positions, items)
    plain = functional.cross_entropy(logits, positions.targets, label_smoothing=smoothing)
    same_gradients(loss, plain, [positions.h, items, network.head_evidence_weight])


@FEW
@CATALOGUES
def test_the_head_says_of_a_child_what_it_says_of_the_items_below(
    items: int, codebooks: tuple[int, ...], seed: int
) -> None:
    network, trie = small_network(items, codebooks, seed=seed)
    positions, vectors = task(network, items)
    choices = path_choices(network, positions.targets, network.tree(vectors))
    _, said = item_head_loss(network, positions, vectors, choices)
    p = torch.softmax(head_logits(network, positions, vectors), dim=1)
    for choice, shares in zip(choices, said, strict=True):
        for row, position in enumerate(choice.position.tolist()):
            children = choice.nodes[row][choice.taken[row]].tolist()
            sums = torch.stack([p[position, leaves_below(trie, node)].sum() for node in children])
            expected = sums / sums.sum() if sums.sum() > 1e-5 else torch.zeros_like(sums)
            found = shares[row][choice.taken[row]]
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
            assert not shares[row][~choice.taken[row]].any()


def test_a_sample_of_a_large_catalogue_estimates_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    network, trie = small_network(3000, (8, 8))
    with torch.no_grad():
        h, items = torch.randn(200, 8), network.item_vectors()
        items = 0.3 * items / items.std()
        targets = torch.randint(trie.item_count, (200,))
        choices = path_choices(network, targets, network.tree(items))[:1]
        positions = Positions(h, targets, small_evidence(network, 200))
        full, said = item_head_loss(network, positions, items, choices)
        monkeypatch.setattr(losses, "SAMPLED_SOFTMAX_ITEMS", 1500)
        sampled, guessed = item_head_loss(network, positions, items, choices)
    assert float(sampled) == pytest.approx(float(full), rel=0.02)
    assert float((guessed[0] - said[0]).abs().mean()) < 0.03
    assert not torch.equal(guessed[0], said[0])


def naive_generator_loss(
    network: Network,
    positions: Positions,
    tree: TreeTensors,
    choices: list[Choices],
    taught: list[Tensor],
    share: float,
) -> Tensor:
    """The formula, with every vector in its place."""
    h = positions.h
    logs = evidence_of_nodes(positions.evidence, len(h))
    total = h.new_zeros(())
    for depth, choice in enumerate(choices):
        query = network.generator.query(depth, h[choice.position], tree.vectors[choice.parent])
        known = (
            network.generator.evidence_weights[depth] * logs[choice.position[:, None], choice.nodes]
        )
        log_probs = child_log_probs(query, choice.nodes, choice.taken, tree, known)
        wanted = (1 - share) * functional.one_hot(choice.place, log_probs.shape[1])
        wanted = wanted + share * taught[depth]
        total = total - (wanted * log_probs.masked_fill(~choice.taken, 0.0)).sum()
    return total / len(h)


@FEW
@given(
    items=st.integers(1, 30),
    codebooks=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.7, 1.0]),
)
def test_the_generator_learns_from_the_target_and_from_the_head(
    items: int, codebooks: tuple[int, ...], seed: int, share: float
) -> None:
    network, _ = small_network(items, codebooks, seed=seed)
    positions, vectors = task(network, items)
    tree = network.tree(vectors)
    choices = path_choices(network, positions.targets, tree)
    _, taught = item_head_loss(network, positions, vectors, choices)
    assert not any(shares.requires_grad for shares in taught)  # nobody teaches the teacher
    arguments = (network, positions, tree, choices, taught, share)
    learned = [positions.h, vectors, network.biases, network.offsets]
    learned.append(network.generator.evidence_weights)
    loss, naive = generator_loss(*arguments), naive_generator_loss(*arguments)
    if naive.requires_grad:  # a catalogue without any choice leaves nothing to learn
        same_gradients(loss, naive, learned)


@FEW
@CATALOGUES
@torch.no_grad()
def test_without_a_teacher_it_is_the_negative_log_probability_of_the_path(
    items: int, codebooks: tuple[int, ...], seed: int
) -> None:
    network, trie = small_network(items, codebooks, seed=seed)
    tree = network.tree(network.item_vectors())
    h, targets = torch.randn(6, 8), torch.randint(items, (6,))
    positions = Positions(h, targets, no_evidence(network))
    loss = generator_loss(network, positions, tree, path_choices(network, targets, tree))
    each = [brute_log_prob(network, trie, tree, h[row], int(targets[row])) for row in range(6)]
    assert float(loss) == pytest.approx(-np.mean(each), rel=1e-4, abs=1e-5)


def test_mixed_precision_changes_little() -> None:
    network, trie = small_network()
    positions, vectors = task(network, trie.item_count)

    def both() -> Tensor:
        tree = network.tree(vectors)
        choices = path_choices(network, positions.targets, tree)
        head, taught = item_head_loss(network, positions, vectors, choices)
        return torch.stack([head, generator_loss(network, positions, tree, choices, taught, 0.7)])

    exact = both()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = both()
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=0.02, atol=0.0)
    gradients = torch.autograd.grad(mixed.sum(), [positions.h, vectors])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
