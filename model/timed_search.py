"""The search that fits into the time that is left.

Usually that is the whole beam search in one call. With less time than it lately took (p95), the
levels are searched one by one with `step.onnx`, as many as there is time for; below them popularity
takes the place of the network. So an answer in a hurry follows the history in the coarse levels and
the crowd in the fine ones, and still is an item that exists and passes the filters.
Shapes: W beams, C children, D width, N items, M nodes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.beam_search import BeamResult, beam_search
from model.decoder import Graphs, SearchTree
from model.recent_times import RecentTimes
from model.types import AnyArray, FloatArray, IntArray


@dataclass(frozen=True)
class TimedResult:
    """What a search found, and how far it came."""

    beams: BeamResult
    levels: int | None
    """Choices from coarse to fine that the network made; None where it made all of them."""


class TimedSearch:
    """Searches one bundle's tree within a time; one per thread."""

    def __init__(
        self,
        graphs: Graphs,
        tree: SearchTree,
        popularity: IntArray,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Search `tree`, whose items have `popularity` [N], leaf order; `now` reads the clock."""
        self._graphs = graphs
        self._tree = tree
        self._shares = PopularityDecoder(tree, popularity)
        self._times = RecentTimes(now)
        self._widths: set[int] = set()

    def over(self, graphs: Graphs, tree: SearchTree, popularity: IntArray) -> "TimedSearch":
        """The same thread's search of another tree, which knows how long it took lately."""
        other = TimedSearch(graphs, tree, popularity, self._times.now)
        other._times, other._widths = self._times, self._widths
        return other

    def search(self, h: FloatArray, counts: AnyArray, width: int, deadline: float) -> TimedResult:
        """Find the best legal items for h [D] that there is time for.

        Args:
            h: encoded history.
            counts: legal items below each node [M].
            width: beams kept after each level.
            deadline: when the result has to be there, by the clock; a search that begins in time
                but takes longer than lately is not cut off. A decoder that has no order of levels
                leaves all of them to popularity where there is no time for it.
        """
        if not self.has_time(width, deadline):
            decoder = HurriedDecoder(self._graphs, self._tree, self._shares, self._times, deadline)
            beams = beam_search(decoder, self._tree.trie, h, counts, width)
            decoder.note_completion()
            return TimedResult(beams, None if decoder.is_whole else decoder.levels)
        started = self._times.now()
        beams = self._graphs.search(h, self._tree, counts, width)
        self._times.note(width, started)
        self._widths.add(width)
        return TimedResult(beams, None)

    def has_time(self, width: int, deadline: float) -> bool:
        """Whether a whole search of this width would lately have been done by `deadline`."""
        return self._times.now() + self._expected_seconds(width) <= deadline

    def _expected_seconds(self, width: int) -> float:
        """The p95 of the nearest width measured lately, larger in proportion; 0 without any."""
        measured = {each: self._times.p95(each) for each in self._widths}
        lately = {each: seconds for each, seconds in measured.items() if seconds is not None}
        if not lately:
            return 0.0
        nearest = min(lately, key=lambda each: abs(each - width))
        return lately[nearest] * max(1.0, width / nearest)


class HurriedDecoder:
    """Scores children with `step.onnx` while there is time, and by popularity from then on."""

    def __init__(
        self,
        graphs: Graphs,
        tree: SearchTree,
        shares: "PopularityDecoder",
        times: RecentTimes,
        deadline: float,
    ) -> None:
        self.levels = 0
        self._graphs = graphs
        self._tree = tree
        self._shares = shares
        self._times = times
        self._deadline = deadline
        self._stopped_at: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the network scored every level."""
        return self._stopped_at is None

    def child_log_probs(self, h: FloatArray, nodes: IntArray, depth: int) -> FloatArray:
        """See `model.beam_search.StepDecoder`."""
        started = self._times.now()
        needed = (self._times.p95(f"level {depth}") or 0.0) + (self._times.p95("complete") or 0.0)
        is_late = started + needed > self._deadline
        if self._stopped_at is None and (is_late or not self._graphs.can_step):
            self._stopped_at = started
        if self._stopped_at is not None:
            return self._shares.child_log_probs(h, nodes, depth)
        log_probs = self._graphs.child_log_probs(h, nodes, depth, self._tree)
        self._times.note(f"level {depth}", started)
        self.levels += 1
        return log_probs

    def note_completion(self) -> None:
        """Keep how long the levels without the network took."""
        if self._stopped_at is not None:
            self._times.note("complete", self._stopped_at)


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
