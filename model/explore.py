"""What a user is likely to want next below a place of the browsed tree.

A place's probability is the sum over its trie nodes, which the step graph gives one depth at a time
from the root down; only the nodes above the place are ever scored. Shapes: D width, W nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.availability import Availability
from model.beam_search import StepDecoder
from model.browse import Place
from model.bundle import Bundle
from model.decoder import GraphStepDecoder, SearchTree
from model.trie import Trie
from model.types import BoolArray, FloatArray, IntArray, Leaf


@dataclass(frozen=True)
class Choice:
    """One place that a user may go on to."""

    place: Place
    probability: float
    """Of the next item being here; of all items, not of those that pass the filters."""
    live_items: int
    """Items here that pass the request's filters."""
    best: tuple[Leaf, ...]
    """Some of them: what the search found, best first, then popular ones."""
    searched: int = 0
    """How many of `best` the search found."""


def node_log_probs(
    decoder: StepDecoder, trie: Trie, h: FloatArray, depth: int, nodes: tuple[int, int]
) -> FloatArray:
    """Log-probabilities of the trie nodes `nodes` (first, end) of one depth, [end - first].

    Args:
        decoder: scores children.
        trie: of the whole catalogue.
        h: encoded history [D].
        depth: of the nodes; 0 is the root, which has probability 1.
        nodes: first and end, exclusive.
    """
    first, end = nodes
    if depth == 0:
        return np.zeros(end - first, np.float32)
    starts = trie.child_start[trie.depth_start[depth - 1] : trie.depth_start[depth]]
    ends = np.array([first, end - 1])
    above = np.searchsorted(starts, ends, side="right") - 1 + trie.depth_start[depth - 1]
    parents: IntArray = np.arange(above[0], above[1] + 1)
    inherited = node_log_probs(decoder, trie, h, depth - 1, (int(above[0]), int(above[1]) + 1))
    own = decoder.child_log_probs(h, parents, depth - 1)
    counts = trie.child_start[parents + 1] - trie.child_start[parents]
    is_child = np.arange(own.shape[1]) < counts[:, None]
    flat = (own + inherited[:, None])[is_child]
    skipped = first - int(trie.child_start[parents[0]])
    found: FloatArray = flat[skipped : skipped + end - first]
    return found


def place_probabilities(
    decoder: StepDecoder, trie: Trie, h: FloatArray, places: Sequence[Place]
) -> list[float]:
    """The probability of each of `places`, which are of one depth, given h [D]."""
    first = min(place.first_node for place in places)
    end = max(place.end_node for place in places)
    probabilities = np.exp(node_log_probs(decoder, trie, h, places[0].depth, (first, end)))
    sums = (probabilities[each.first_node - first : each.end_node - first].sum() for each in places)
    return [min(1.0, float(total)) for total in sums]  # rounding can carry a sum above 1


class Explorer:
    """Tells the choices below a place of a bundle's tree."""

    def __init__(self, bundle: Bundle, tree: SearchTree) -> None:
        """Tell of `bundle`, whose `tree` may have a history's evidence in its biases."""
        self._bundle = bundle
        self._decoder = GraphStepDecoder(bundle.graphs, tree)

    def choices(
        self,
        place: Place,
        h: FloatArray | None,
        ranked: IntArray,
        availability: Availability,
        few: int,
    ) -> tuple[Choice, ...]:
        """The choices below `place` that have legal items, the most probable first.

        Args:
            place: whose choices are wanted.
            h: encoded history [D]; without one, probabilities are shares of the training events.
            ranked: leaves that a search found, best first.
            availability: counts of legal items.
            few: items to name in each choice, at most.
        """
        places = self._bundle.browse.choices(place)
        if not places:
            return ()
        probabilities = self.probabilities(places, h)
        found = [
            Choice(
                each,
                probability,
                int(availability.counts[each.first_node : each.end_node].sum()),
                tuple(self._best_below(each, ranked, availability, few)),
                min(few, int(_is_here(each, ranked).sum())),
            )
            for each, probability in zip(places, probabilities, strict=True)
        ]
        alive = [choice for choice in found if choice.live_items]
        return tuple(sorted(alive, key=lambda choice: -choice.probability))

    def probabilities(self, places: Sequence[Place], h: FloatArray | None) -> list[float]:
        """The probability of each of `places`, which are of one depth; see `choices`."""
        if h is not None:
            return place_probabilities(self._decoder, self._bundle.tree.trie, h, places)
        before = self._bundle.shares_before
        return [float(before[each.end_leaf] - before[each.first_leaf]) for each in places]

    def _best_below(
        self, place: Place, ranked: IntArray, availability: Availability, few: int
    ) -> list[Leaf]:
        """A few legal leaves of a place: the first of `ranked` that lie there, then popular ones.

        Items are read only where too few were found, and then those of the place alone.
        """
        best: list[Leaf] = ranked[_is_here(place, ranked)][:few].tolist()
        if len(best) < few:
            here: IntArray = np.arange(place.first_leaf, place.end_leaf)
            here = here[availability.legal(here) & ~np.isin(here, best)]
            ranks = self._bundle.popularity_rank[here]
            wanted = few - len(best)
            if len(here) > wanted:  # to sort few
                popular = np.argpartition(ranks, wanted)[:wanted]
                here, ranks = here[popular], ranks[popular]
            best += here[np.argsort(ranks)].tolist()
        return best


def _is_here(place: Place, leaves: IntArray) -> BoolArray:
    """Which of `leaves` [R] lie at a place."""
    return (leaves >= place.first_leaf) & (leaves < place.end_leaf)
