import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.availability import legal_below
from model.beam_search import BeamResult, beam_search
from model.decoder import SearchTree
from model.recent_times import FRESH_SECONDS, RecentTimes
from model.timed_search import PopularityDecoder, TimedSearch
from model.types import AnyArray, FloatArray, IntArray
from tests.model.table_decoder import NOTHING, decoders
from tests.model.test_recent_times import Clock
from tests.model.training.evaluation.toy_bundle import ToyGraphs, toy_bundle

WHOLE_SECONDS, LEVEL_SECONDS = 1.0, 0.5
BUNDLE = toy_bundle()
LEVELS = BUNDLE.tree.trie.levels + 1
H = BUNDLE.tree.item_vectors[3]


class TimedGraphs(ToyGraphs):
    """Take time on a clock of their own: searching at once takes as long as two levels."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.slowness = 1.0
        self.level_seconds = LEVEL_SECONDS

    def search(self, h: FloatArray, tree: SearchTree, counts: AnyArray, width: int) -> BeamResult:
        self.clock.passes(WHOLE_SECONDS * self.slowness * width / 4)
        return super().search(h, tree, counts, width)

    def child_log_probs(
        self, h: FloatArray, nodes: IntArray, depth: int, tree: SearchTree
    ) -> FloatArray:
        self.clock.passes(self.level_seconds)
        return super().child_log_probs(h, nodes, depth, tree)


class Shop:
    """The toy bundle's tree, searched on a clock that only searches move."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.graphs = TimedGraphs(self.clock)
        self.counts = legal_below(BUNDLE.tree.trie, np.ones(12, dtype=bool))
        self.times = RecentTimes(self.clock)
        self.timed = TimedSearch(self.graphs, BUNDLE.tree, BUNDLE.popularity, self.times)

    def levels(self, seconds: float, width: int = 4) -> int | None:
        deadline = self.clock() + seconds
        return self.timed.search(H, self.counts, width, deadline).levels


def test_a_search_is_whole_while_nothing_is_known_or_there_is_time() -> None:
    shop = Shop()

    assert shop.levels(0.0) is None
    assert shop.levels(WHOLE_SECONDS) is None
    assert shop.levels(math.inf) is None


def test_in_a_hurry_as_many_levels_as_there_is_time_for() -> None:
    shop = Shop()
    assert shop.levels(math.inf) is None
    begun = shop.clock()
    # Once to learn what the levels take, for what was never measured is tried.
    assert shop.levels(0.9) == 2
    assert shop.clock() - begun == 2 * LEVEL_SECONDS
    assert [shop.levels(seconds) for seconds in (0.4, 0.5, 0.9, 0.99)] == [0, 1, 1, 1]


def test_all_levels_are_a_whole_search() -> None:
    shop = Shop()
    shop.graphs.slowness = 100
    shop.levels(math.inf)

    assert shop.levels(LEVELS * LEVEL_SECONDS) is None


def slow_shop() -> Shop:
    """A shop where all levels one by one take longer than `WHOLE_SECONDS`."""
    shop = Shop()
    shop.graphs.level_seconds = 0.7 * WHOLE_SECONDS
    return shop


def test_a_wide_search_says_little_of_what_a_narrow_one_takes() -> None:
    shop = slow_shop()
    assert shop.levels(math.inf, width=100) is None

    # A twenty-fifth of its width may take a twenty-fifth of its time, and then it is measured.
    assert shop.levels(WHOLE_SECONDS) is None
    assert shop.levels(WHOLE_SECONDS) is None
    shop.graphs.slowness = 2
    assert shop.levels(WHOLE_SECONDS) is None
    assert shop.levels(WHOLE_SECONDS) is not None


def test_a_width_without_times_of_its_own_is_tried_where_a_narrower_one_is_in_time() -> None:
    shop = slow_shop()
    assert shop.levels(math.inf, width=2) is None

    assert shop.levels(WHOLE_SECONDS / 4, width=4) is not None
    assert shop.levels(WHOLE_SECONDS, width=8) is None
    assert shop.levels(WHOLE_SECONDS, width=8) is not None


def test_what_is_always_in_a_hurry_is_measured_again_whatever_is_searched_besides() -> None:
    shop = slow_shop()
    shop.graphs.slowness = 5
    shop.levels(math.inf)
    shop.graphs.slowness = 1

    outcomes = []
    for _ in range(4):
        shop.levels(math.inf, width=20)
        outcomes.append(shop.levels(WHOLE_SECONDS))
    assert outcomes[0] is not None
    assert outcomes[-1] is None


def test_levels_are_expected_to_take_what_they_took_at_their_width() -> None:
    shop = Shop()
    shop.graphs.slowness = 100
    shop.levels(math.inf)
    shop.graphs.level_seconds = 4 * LEVEL_SECONDS
    assert shop.levels(0.9 * LEVEL_SECONDS, width=40) == 1
    shop.graphs.level_seconds = LEVEL_SECONDS

    assert shop.levels(0.9 * LEVEL_SECONDS, width=4) == 1
    assert shop.levels(0.9 * LEVEL_SECONDS, width=40) == 0


def test_one_slow_moment_is_forgotten() -> None:
    shop = Shop()
    shop.graphs.slowness = 5
    shop.levels(math.inf)
    shop.graphs.slowness = 1

    assert shop.levels(0.9) is not None
    shop.clock.passes(FRESH_SECONDS + 0.1)
    assert shop.levels(0.9) is None
    assert shop.levels(1.0) is None


@pytest.mark.parametrize("levels", range(LEVELS))
def test_the_coarse_levels_are_the_networks_and_the_fine_ones_popular(levels: int) -> None:
    shop = Shop()
    shop.levels(math.inf, width=12)
    shop.levels(LEVELS * LEVEL_SECONDS, width=12)
    deadline = shop.clock() + levels * LEVEL_SECONDS

    found = shop.timed.search(H, shop.counts, 12, deadline)

    assert found.levels == levels
    exact = beam_search_all(shop)
    mass = BUNDLE.popularity + 1.0
    for leaf, steps in zip(found.beams.leaves, found.beams.log_probs, strict=True):
        np.testing.assert_allclose(steps[:levels], exact[int(leaf)][:levels])
        path = BUNDLE.tree.trie.paths(np.array([leaf]))[0]
        first, end = BUNDLE.tree.trie.leaf_ranges(path[levels : levels + 1], levels)
        share = mass[leaf] / mass[first[0] : end[0]].sum()
        np.testing.assert_allclose(steps[levels:].sum(), np.log(share), atol=1e-5)


def beam_search_all(shop: Shop) -> dict[int, FloatArray]:
    found = ToyGraphs().search(H, BUNDLE.tree, shop.counts, 12)
    return dict(zip(found.leaves.tolist(), found.log_probs, strict=True))


@given(decoder=decoders(), data=st.data())
def test_popularity_is_a_distribution_over_items(decoder: object, data: st.DataObject) -> None:
    trie = decoder.trie  # type: ignore[attr-defined]
    popularity = np.array(
        data.draw(st.lists(st.integers(0, 50), min_size=trie.item_count, max_size=trie.item_count))
    )
    nothing = np.zeros((trie.node_count, 1), np.float32)
    shares = PopularityDecoder(SearchTree(trie, nothing, nothing[:, 0]), popularity)
    everything = legal_below(trie, np.ones(trie.item_count, dtype=bool))

    found = beam_search(shares, trie, NOTHING, everything, trie.item_count)

    expected = np.log((popularity + 1) / (popularity + 1).sum())
    np.testing.assert_allclose(found.totals(), expected[found.leaves], atol=1e-5)
    assert (found.log_probs <= 0).all()
