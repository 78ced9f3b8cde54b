"""Evidence of transitions for a batch of histories, without what their own targets brought.

The transitions are counted on the histories that train the network. Read as they are, they would
tell it its targets: a history's own pairs are taken out first, for all of its places, later ones
included, so that training meets the evidence that an unknown next item will have.
Shapes: B histories, P training positions, N items, M trie nodes, R items with evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.evidence import log_evidence
from model.training.network import Network
from model.transitions import (
    FADING,
    READ_MOST,
    Transitions,
    expanded,
    pair_scale,
    pairs_of,
    summed,
)
from model.types import AnyArray, FloatArray, IntArray

LEAST = 1e-6
"""Less is what rounding leaves of evidence that was taken out."""


@dataclass(frozen=True)
class BatchEvidence:
    """The logarithm of the evidence of items and of the nodes above them, per position."""

    nodes: int
    """M"""
    keys: tuple[Tensor, ...]
    """Of depth 1 .. L + 1: position * M + node, ascending [R at that depth]."""
    logs: tuple[Tensor, ...]
    """log(1 + e / scale) of each."""
    amounts: Tensor
    """e of the items, in the order of their keys [R]."""

    @classmethod
    def over(cls, network: Network, keys: IntArray, amounts: AnyArray) -> "BatchEvidence":
        """Sum the evidence of items at every node above them.

        Args:
            network: knows which nodes those are.
            keys: position * N + leaf, ascending [R].
            amounts: evidence of each [R].
        """
        total, device = network.depth_start[-1], network.text.device
        position, leaves = np.divmod(keys, len(network.ancestors))
        node_keys, logs, sums = [], [], amounts
        for nodes in network.ancestors.T:
            at = position * total + nodes[leaves]
            first = np.flatnonzero(np.diff(at, prepend=-1))
            sums = np.add.reduceat(amounts, first) if len(first) else amounts
            node_keys.append(torch.from_numpy(at[first]).to(device))
            logs.append(torch.from_numpy(log_evidence(sums)).to(device))
        # The last nodes are the items themselves.
        own = torch.from_numpy(np.asarray(sums, np.float32)).to(device)
        return cls(total, tuple(node_keys), tuple(logs), own)

    def of(self, depth: int, position: Tensor, node: Tensor) -> Tensor:
        """The logarithms for pairs of a position and a child of a node at `depth` [F]."""
        keys, logs = self.keys[depth], self.logs[depth]
        if not len(keys):
            return torch.zeros(node.shape, device=node.device)
        wanted = position * self.nodes + node
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[place] == wanted, logs[place], 0.0)

    def items(self, first_item: int) -> tuple[Tensor, Tensor, Tensor]:
        """Positions (ascending), leaves and logarithms of all items with evidence [R]."""
        keys = self.keys[-1]
        return keys // self.nodes, keys % self.nodes - first_item, self.logs[-1]

    def item_amounts(self, positions: int, first_item: int) -> Tensor:
        """The evidence of every item as a table [P, N]."""
        position, leaf, _ = self.items(first_item)
        table = self.amounts.new_zeros(positions, self.nodes - first_item)
        table[position, leaf] = self.amounts
        return table


def own_evidence(
    transitions: Transitions, histories: Sequence[IntArray], events: IntArray
) -> tuple[IntArray, AnyArray]:
    """Evidence at every position of training histories, without their own pairs.

    Args:
        transitions: counted on these histories and others.
        histories: leaves; position t reads places 0 .. t and predicts place t + 1.
        events: training events per leaf [N].

    Returns:
        Position * N + leaf, ascending, and the evidence of each, both [R]; positions are numbered
        history by history.
    """
    items = len(events)
    read = [history[:-1] for history in histories]
    reader, source, age = _read_places(read)
    sources = np.concatenate(read).astype(np.int64)
    number, places = expanded(transitions.start, sources[source])
    keys = reader[number] * items + transitions.followers[places]
    amounts = transitions.weights[places] * FADING ** age[number]
    # The pairs of each history by its own items, in rows like those of the transitions.
    start, followers, weights, row = _own_pairs(histories, events)
    number, places = expanded(start, row[source])
    own = reader[number] * items + followers[places]
    taken = -weights[places] * FADING ** age[number]
    keys, amounts = summed(np.concatenate([keys, own]), np.concatenate([amounts, taken]))
    left = amounts > LEAST
    return keys[left], amounts[left]


def _read_places(read: Sequence[IntArray]) -> tuple[IntArray, IntArray, IntArray]:
    """All pairs of a position and a place that it reads: position, place, how long ago."""
    lengths = np.array([len(history) for history in read])
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.arange(len(first))
    counts = np.minimum(position - first + 1, READ_MOST)
    reader = np.repeat(position, counts)
    age = np.arange(len(reader)) - np.repeat(np.cumsum(counts) - counts, counts)
    return reader, reader - age, age


def _own_pairs(
    histories: Sequence[IntArray], events: IntArray
) -> tuple[IntArray, IntArray, AnyArray, IntArray]:
    """Each history's own transitions.

    Returns:
        Rows of (history, item) as start, followers and weights, and the row of each read place.
    """
    items = len(events)
    lengths = np.array([len(history) for history in histories])
    owner = np.repeat(np.arange(len(histories)), lengths)
    leaves = np.concatenate([*histories]).astype(np.int64)
    is_read = np.ones(len(leaves), dtype=bool)
    is_read[np.cumsum(lengths) - 1] = False
    rows, row = np.unique((owner * items + leaves)[is_read], return_inverse=True)
    # Pairs of places: their numbers stand for the leaves until owner and leaf are looked up.
    pairs, amounts = pairs_of(np.arange(len(leaves)), owner)
    before, after = pairs.T
    weights = amounts / pair_scale(events, leaves[before], leaves[after])
    at = np.searchsorted(rows, owner[before] * items + leaves[before])
    order = np.argsort(at, kind="stable")
    start = np.searchsorted(at[order], np.arange(len(rows) + 1))
    return start, leaves[after][order], weights[order], row


def batch_evidence(
    network: Network, transitions: Transitions, histories: Sequence[IntArray], events: IntArray
) -> BatchEvidence:
    """`own_evidence` as logarithms at the items and at all nodes above them."""
    keys, amounts = own_evidence(transitions, histories, events)
    return BatchEvidence.over(network, keys, amounts)


def history_evidence(
    network: Network, transitions: Transitions, histories: Sequence[IntArray]
) -> BatchEvidence:
    """Evidence after whole histories that training did not see, one position each."""
    items = len(network.ancestors)
    keys: list[IntArray] = []
    amounts: list[FloatArray] = []
    for row, history in enumerate(histories):
        leaves, found = transitions.evidence(history)
        keys.append(row * items + leaves)
        amounts.append(found)
    return BatchEvidence.over(
        network, np.concatenate(keys, dtype=np.int64), np.concatenate(amounts)
    )
