"""Why an item is recommended: the way to it, and what each item of the history does for it.

Shapes: D width, T history length, R items, L levels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from model.beam_search import StepDecoder
from model.browse import BrowseTree, Place
from model.explore import Explorer, node_log_probs
from model.trie import Trie
from model.types import FloatArray, IntArray, ItemId, Leaf

HISTORY_EXPLAINED = 20
"""Newest distinct items of a history that are left out in turn; each costs another scoring."""


@dataclass(frozen=True)
class Step:
    """One place on the way to an item."""

    place: Place
    probability: float
    """Of the next item being there; without a known history the share of training events."""


@dataclass(frozen=True)
class Influence:
    """What one item of the history does for a recommended one."""

    item_id: ItemId
    log_prob_drop: float
    """How much the recommended item's log-probability falls when this one is left out."""


@dataclass(frozen=True)
class Explanation:
    """Why an item is recommended."""

    way: tuple[Step, ...]
    """From broad to narrow, the item last."""
    influences: tuple[Influence, ...]
    """Of the history's newest items, newest first, as many as there was time for; none where there
    is no other to read."""


def leaf_log_probs(decoder: StepDecoder, trie: Trie, h: FloatArray, leaves: IntArray) -> FloatArray:
    """Log-probability of each choice on the way to each of `leaves` [R, L + 1], given h [D]."""
    paths = trie.paths(leaves)
    columns = []
    for depth in range(trie.levels + 1):
        parents, row = np.unique(paths[:, depth], return_inverse=True)
        table = decoder.child_log_probs(h, parents.astype(np.int64), depth)
        columns.append(table[row, paths[:, depth + 1] - trie.child_start[paths[:, depth]]])
    return np.stack(columns, axis=1)


def explain_ways(
    browse: BrowseTree, decoder: StepDecoder, h: FloatArray, leaves: IntArray
) -> list[tuple[Step, ...]]:
    """The way to each of `leaves` [R] with the probability of every place, given h [D]."""
    trie = browse.trie
    coarse = np.exp(node_log_probs(decoder, trie, h, 1, (1, trie.depth_start[2])))
    along = np.exp(np.cumsum(leaf_log_probs(decoder, trie, h, leaves), axis=1))

    def probability(place: Place, row: int) -> float:
        if place.depth == 1:
            return float(coarse[place.first_node - 1 : place.end_node - 1].sum())
        return float(along[row, place.depth - 1])

    return [
        tuple(Step(place, probability(place, row)) for place in browse.way(leaf))
        for row, leaf in enumerate(leaves.tolist())
    ]


def popular_ways(
    browse: BrowseTree, explorer: Explorer, leaves: Sequence[Leaf]
) -> list[tuple[Step, ...]]:
    """The way to each of `leaves` with every place's share of the training events."""
    ways = [browse.way(leaf) for leaf in leaves]
    return [
        tuple(
            Step(place, probability)
            for place, probability in zip(way, explorer.probabilities(way, None), strict=True)
        )
        for way in ways
    ]


def left_out_in_turn(history: IntArray) -> IntArray:
    """Distinct leaves of a history [T, oldest first], newest first; none where it has one only."""
    newest_first, places = np.unique(history[::-1], return_index=True)
    items: IntArray = newest_first[np.argsort(places)][:HISTORY_EXPLAINED].astype(np.int64)
    return items if len(newest_first) > 1 else items[:0]


def explain_influences(
    decoder: StepDecoder,
    trie: Trie,
    reading: Callable[[IntArray], AbstractContextManager[FloatArray]],
    history: IntArray,
    leaves: IntArray,
) -> Iterator[tuple[Leaf, FloatArray]]:
    """What leaving out each item of a history does to the log-probability of `leaves` [R].

    Args:
        decoder: scores children.
        trie: of the whole catalogue.
        reading: from a history [T >= 1] to h [D], for as long as that history is decoded.
        history: leaves that the encoder reads [T], oldest first.
        leaves: recommended items [R].

    Yields:
        Each of `left_out_in_turn`, left out with all its repetitions, and the drops [R].
    """

    def log_probs(read: IntArray) -> FloatArray:
        with reading(read) as h:
            total: FloatArray = leaf_log_probs(decoder, trie, h, leaves).sum(axis=1)
        return total

    whole = log_probs(history)
    for item in left_out_in_turn(history).tolist():
        yield item, whole - log_probs(history[history != item])
