"""What a search spends its time on, on a clock that only the work itself moves."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from model import served_search
from model.availability import legal_below
from model.beam_search import BeamResult
from model.boosts import Boost, BoostSums
from model.bundle import Bundle
from model.decoder import SearchTree
from model.query import Query
from model.recent_items import RecentItems
from model.recent_times import RecentTimes
from model.served_score import ServedScore
from model.served_search import Found, ServedSearch
from model.types import AnyArray, BoolArray, FloatArray
from tests.model.test_recent_times import Clock
from tests.model.training.evaluation.toy_bundle import ITEMS, ToyGraphs, toy_bundle

NOTHING = np.empty(0, np.int64)
SEARCH_SECONDS, PROOF_SECONDS, COUNTING_SECONDS = 1.0, 100.0, 10.0


class TimedGraphs(ToyGraphs):
    """Take a second per search."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.widths: list[int] = []

    def search(self, h: FloatArray, tree: SearchTree, counts: AnyArray, width: int) -> BeamResult:
        self.clock.passes(SEARCH_SECONDS)
        self.widths.append(width)
        return super().search(h, tree, counts, width)


class TimedScore(ServedScore):
    """Takes long to read the vectors of all items."""

    def __init__(self, bundle: Bundle, clock: Clock) -> None:
        super().__init__(bundle)
        self.clock = clock
        self.proofs = 0

    def second_terms(self, h: FloatArray, first: int = 0, end: int | None = None) -> FloatArray:
        self.clock.passes(PROOF_SECONDS)
        self.proofs += 1
        return super().second_terms(h, first, end)


class Watched(np.ndarray[Any, Any]):
    """Counts that tell how many of them were compared at once."""

    compared: list[int]

    def __gt__(self, other: Any) -> Any:
        self.compared.append(self.size)
        return np.asarray(self) > other

    def __array_finalize__(self, source: Any) -> None:
        self.compared = getattr(source, "compared", [])


@dataclass
class Shop:
    """The toy bundle behind a search that is two items wide."""

    clock: Clock
    graphs: TimedGraphs
    score: TimedScore
    search: ServedSearch
    counts: AnyArray

    @classmethod
    def open(cls, beam_width: int = 2) -> "Shop":
        clock = Clock()
        graphs = TimedGraphs(clock)
        bundle = toy_bundle(beam_width=beam_width)
        object.__setattr__(bundle, "graphs", graphs)
        score = TimedScore(bundle, clock)
        boosts = BoostSums(bundle.catalog, bundle.attributes)
        items, times = RecentItems(bundle.catalog), RecentTimes(clock)
        search = ServedSearch(bundle, score, items, boosts, times)
        counts = legal_below(bundle.tree.trie, np.ones(12, bool))
        return cls(clock, graphs, score, search, counts)

    def find(self, seconds: float = math.inf, leaf: int = 3, **asked: Any) -> Found:
        query = Query(ITEMS[leaf], deadline=self.clock() + seconds, **asked)
        h = self.score.tree.item_vectors[leaf]
        return self.search.find(query, h, NOTHING, self.counts)


@pytest.fixture
def shop() -> Shop:
    return Shop.open()


@pytest.mark.parametrize(
    "asked",
    [
        {"diversity": 0.5},
        {"exploration": 0.5},
        {"anchors": "e"},
        {"boosts": (Boost(1.0, items=("a",)),)},
        {"seconds": -1.0},
        {"k": 0},
    ],
)
def test_nothing_is_read_for_a_proof_that_cannot_be_given(shop: Shop, asked: Any) -> None:
    shop.find(**{"k": 2, **asked})

    assert shop.score.proofs == 0


def test_a_proof_that_there_is_no_time_for_is_left_out(shop: Shop) -> None:
    assert shop.find(k=2, beam="auto").certified is True
    assert shop.score.proofs == 1
    begun = shop.clock()

    assert shop.find(seconds=4 * SEARCH_SECONDS, k=2, beam="auto").levels is None

    assert shop.score.proofs == 1
    assert shop.clock() - begun <= 4 * SEARCH_SECONDS
    assert shop.find(seconds=2 * PROOF_SECONDS, k=2, beam="auto").certified is True


def test_a_proof_is_read_once_however_often_the_search_is_widened(shop: Shop) -> None:
    searches = []
    for leaf in range(12):
        for k in range(1, 9):
            before = len(shop.graphs.widths), shop.score.proofs
            assert shop.find(leaf=leaf, k=k, beam="auto").certified is True
            searches.append(len(shop.graphs.widths) - before[0])
            assert shop.score.proofs - before[1] <= 1
    assert max(searches) > 1


def test_a_proof_that_turns_out_too_long_is_given_up(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_search, "PROVEN_AT_ONCE", 3)

    hurried = shop.find(seconds=1.5 * PROOF_SECONDS, k=2)

    assert hurried.certified is False
    assert shop.score.proofs == 1
    assert shop.find(k=2).certified is True
    assert shop.score.proofs == 1 + 4


def test_an_ordinary_request_never_looks_at_every_item() -> None:
    shop = Shop.open(beam_width=12)  # proven without a look at the others
    counts = shop.counts.view(Watched)
    shop.counts = counts

    assert shop.find(k=2).certified is True
    assert 12 not in counts.compared
    shop.find(k=2, anchors="e")
    assert 12 in counts.compared


def test_a_pool_takes_the_time_of_counting_its_items_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(trie: Any, legal: BoolArray) -> AnyArray:
        shop.clock.passes(COUNTING_SECONDS)
        return legal_below(trie, legal)

    monkeypatch.setattr(served_search, "legal_below", slowly)
    boosts = tuple(Boost(float(shift), items=("abcdefgh"[shift - 1],)) for shift in range(1, 9))
    shop.find(k=1, boosts=boosts)
    begun, before = shop.clock(), len(shop.graphs.widths)
    seconds = SEARCH_SECONDS + 1.5 * (COUNTING_SECONDS + SEARCH_SECONDS)

    shop.find(seconds=seconds, k=1, boosts=boosts)

    assert len(shop.graphs.widths) - before == 2
    assert shop.clock() - begun <= seconds


def test_what_nobody_waits_for_is_not_made_better(shop: Shop) -> None:
    boosts = (Boost(1.0, items=("a",)),)
    for asked in ({"beam": "auto"}, {"boosts": boosts}):
        before = len(shop.graphs.widths)

        assert shop.find(k=4, is_abandoned=lambda: True, **asked).levels is None

        assert len(shop.graphs.widths) - before == 1
    assert shop.score.proofs == 0
