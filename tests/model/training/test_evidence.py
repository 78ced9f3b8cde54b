"""Evidence for training: that of a table which the history itself is not in."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.evidence import batch_evidence, history_evidence, own_evidence
from model.transitions import Transitions
from model.types import IntArray
from tests.model.training.small_network import evidence_of_nodes, no_evidence, small_network
from tests.model.training.test_network import leaves_below

ITEMS = 10
HISTORIES = st.lists(
    st.lists(st.integers(0, ITEMS - 1), min_size=2, max_size=9), min_size=1, max_size=5
)

FEW = settings(max_examples=30, deadline=None)


def arrays(histories: list[list[int]]) -> list[IntArray]:
    return [np.array(history, np.int64) for history in histories]


@FEW
@given(HISTORIES, HISTORIES)
def test_a_history_gives_itself_no_evidence(
    histories: list[list[int]], others: list[list[int]]
) -> None:
    everything = arrays(histories + others)
    events = np.bincount(np.concatenate(everything), minlength=ITEMS)
    keys, amounts = own_evidence(Transitions.count(everything, ITEMS), arrays(histories), events)
    found = dict(zip(keys.tolist(), amounts.tolist(), strict=True))
    position = 0
    for own, history in enumerate(histories):
        rest = [each for number, each in enumerate(everything) if number != own]
        table = Transitions.count(rest, ITEMS)
        # Weights are scaled by the events of all histories, the own one included.
        without = np.bincount(np.concatenate([[], *rest]).astype(int), minlength=ITEMS)
        for end in range(1, len(history)):
            expected = np.zeros(ITEMS)
            for age, item in enumerate(history[:end][::-1]):
                row = slice(table.start[item], table.start[item + 1])
                for follower, weight in zip(table.followers[row], table.weights[row], strict=True):
                    was = (without[item] + 2) * (without[follower] + 2)
                    now = (events[item] + 2) * (events[follower] + 2)
                    expected[follower] += 0.7**age * weight * np.sqrt(was / now)
            for item in range(ITEMS):
                amount = found.pop(position * ITEMS + item, 0.0)
                np.testing.assert_allclose(amount, expected[item], rtol=1e-4, atol=2e-6)
            position += 1
    assert not found


@FEW
@given(HISTORIES, st.integers(0, 20))
def test_nodes_have_the_evidence_of_the_items_below(histories: list[list[int]], seed: int) -> None:
    network, trie = small_network(ITEMS, (3, 2), seed=seed)
    table = Transitions.count(arrays(histories), ITEMS)
    logs = evidence_of_nodes(history_evidence(network, table, arrays(histories)), len(histories))
    for row, history in enumerate(arrays(histories)):
        leaves, amounts = table.evidence(history)
        of_leaf = np.zeros(ITEMS)
        of_leaf[leaves] = amounts
        for node in range(1, trie.node_count):
            expected = np.log1p(of_leaf[leaves_below(trie, node)].sum() / 0.02)
            np.testing.assert_allclose(logs[row, node], expected, rtol=1e-4, atol=1e-5)


def test_a_child_without_evidence_has_none() -> None:
    network, trie = small_network(ITEMS)
    histories = [np.array([0, 3, 5]), np.array([0, 3, 6]), np.array([2, 2])]
    table = Transitions.count(histories, ITEMS)
    events = np.bincount(np.concatenate(histories), minlength=ITEMS)
    evidence = batch_evidence(network, table, histories, events)
    items = torch.arange(ITEMS) + trie.item_start
    first = evidence.of(trie.levels, torch.zeros(ITEMS, dtype=torch.long), items)
    # The other history says what follows 0, the own one nothing.
    assert first.nonzero()[:, 0].tolist() == [3, 6]
    last = evidence.of(trie.levels, torch.full((ITEMS,), 4), items)
    assert not last.any()


def test_without_any_evidence_every_child_still_has_a_number() -> None:
    network, trie = small_network(ITEMS)
    nodes = trie.item_start + torch.arange(6).view(2, 1, 3)

    logs = no_evidence(network).of(trie.levels, torch.arange(2)[:, None, None], nodes)

    assert logs.shape == nodes.shape
    assert not logs.any()
