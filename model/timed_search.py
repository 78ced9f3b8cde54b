"""The search that fits into the time that is left.

Usually that is the whole beam search in one call. With less time than it lately took (p95), the
levels are searched one by one with `step.onnx`, as many as there is time for; below them popularity
takes the place of the network. So an answer in a hurry follows the history in the coarse levels and
the crowd in the fine ones, and still is an item that exists and passes the filters.
Shapes: W beams, C children, D width, N items, M nodes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from model.beam_search import BeamResult, beam_search
from model.decoder import Graphs, GraphStepDecoder, SearchTree
from model.recent_times import RecentTimes
from model.types import AnyArray, FloatArray, IntArray

SEARCH: Final = "search"
"""Work of `RecentTimes`: a whole search, by its width."""
COMPLETION: Final = "completion"
"""The levels that were left to popularity, by the width of the search."""


@dataclass(frozen=True)
class TimedResult:
    """What a search found, and how far it came."""

    beams: BeamResult
    levels: int | None
    """Choices from coarse to fine that the network made; None where it made all of them."""


class TimedSearch:
    """Searches one bundle's tree within a time; one per thread."""

    def __init__(
        self, graphs: Graphs, tree: SearchTree, popularity: IntArray, times: RecentTimes
    ) -> None:
        """Search `tree`, whose items have `popularity` [N], leaf order.

        Args:
            graphs: that search.
            tree: the catalogue's.
            popularity: of its items.
            times: of the same thread, of which this keeps those of `SEARCH` by width.
        """
        self._decoder = GraphStepDecoder(graphs, tree)
        self._shares = PopularityDecoder(tree, popularity)
        self._times = times

    def search(self, h: FloatArray, counts: AnyArray, width: int, deadline: float) -> TimedResult:
        """Find the best legal items for h [D] that there is time for.

        Args:
            h: encoded history.
            counts: legal items below each node [M].
            width: beams kept after each level.
            deadline: when the result has to be there, by the clock; a search that begins in time
                but takes longer than lately is not cut off. A width that was not measured lately is
                searched unless even less would take too long: estimates from other widths alone
                would leave it unmeasured for good. A decoder that has no order of levels leaves all
                of them to popularity where there is no time for it.
        """
        started = self._times.now()
        graphs, tree = self._decoder.graphs, self._decoder.tree
        if started + self._times.least(SEARCH, width) > deadline:
            decoder = HurriedDecoder(self._decoder, self._shares, self._times, width, deadline)
            beams = beam_search(decoder, tree.trie, h, counts, width)
            decoder.note_completion()
            return TimedResult(beams, None if decoder.is_whole else decoder.levels)
        beams = graphs.search(h, tree, counts, width)
        self._times.note(SEARCH, started, width)
        return TimedResult(beams, None)


class HurriedDecoder:
    """Scores children with `step.onnx` while there is time, and by popularity from then on."""

    def __init__(
        self,
        decoder: GraphStepDecoder,
        shares: "PopularityDecoder",
        times: RecentTimes,
        width: int,
        deadline: float,
    ) -> None:
        self.levels = 0
        self._decoder = decoder
        self._shares = shares
        self._times = times
        self._width = width
        self._deadline = deadline
        self._stopped_at: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the network scored every level."""
        return self._stopped_at is None

    def child_log_probs(self, h: FloatArray, nodes: IntArray, depth: int) -> FloatArray:
        """See `model.beam_search.StepDecoder`."""
        started, level = self._times.now(), f"level {depth}"
        needed = self._times.least(level, self._width) + self._times.least(COMPLETION, self._width)
        is_late = started + needed > self._deadline
        if self._stopped_at is None and (is_late or not self._decoder.graphs.can_step):
            self._stopped_at = started
        if self._stopped_at is not None:
            return self._shares.child_log_probs(h, nodes, depth)
        log_probs = self._decoder.child_log_probs(h, nodes, depth)
        self._times.note(level, started, self._width)
        self.levels += 1
        return log_probs

    def note_completion(self) -> None:
        """Keep how long the levels without the network took."""
        if self._stopped_at is not None:
            self._times.note(COMPLETION, self._stopped_at, self._width)


class PopularityDecoder:
    """Scores children by their share of the training events below their parent."""

    def __init__(self, tree: SearchTree, popularity: IntArray) -> None:
        """Share out by `popularity` [N], each item's plus one."""
        self._trie = tree.trie
        self._before = np.concatenate([[0.0], np.cumsum(popularity + 1.0)])

    def child_log_probs(
        self,
        h: FloatArray,  # noqa: ARG002 - popularity is the same for everybody
        nodes: IntArray,
        depth: int,
    ) -> FloatArray:
        """See `model.beam_search.StepDecoder`."""
        children = self._trie.child_start[nodes].astype(np.int64)[:, None]
        children = children + np.arange(self._trie.branching[depth])
        is_child = children < self._trie.child_start[nodes + 1][:, None]
        above = np.broadcast_to(self._log_mass(nodes, depth)[:, None], children.shape)
        log_probs: FloatArray = np.full(children.shape, -np.inf, dtype=np.float32)
        shares = self._log_mass(children[is_child], depth + 1) - above[is_child]
        log_probs[is_child] = np.minimum(shares, 0)
        return log_probs

    def _log_mass(self, nodes: IntArray, depth: int) -> AnyArray:
        """Logarithm of the events below each of `nodes` of one depth."""
        first, end = self._trie.leaf_ranges(nodes, depth)
        mass: AnyArray = np.log(self._before[end] - self._before[first])
        return mass
