from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from model.attributes import AnyOf, Condition, Range
from model.beam_search import BeamResult
from model.bundle import Bundle, GoldenCase
from model.decoder import SearchTree
from model.errors import BundleError, ConfigError, UnknownCategoryError
from model.evidence import SCALE
from model.golden_cases import SCORE_TOLERANCE, verify_golden
from model.query import Query, Recommendation, RecommendedItem
from model.recommender import Recommender
from model.transitions import Transitions
from model.types import AnyArray, FloatArray
from tests.model.training.evaluation.toy_bundle import ToyGraphs, toy_bundle

CHAIN = ("popular_in_category", "popular", "default")
"""In the order in which the links of the fallback chain follow one another."""
SOURCES = ("generated", "partial", *CHAIN)
MANY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def bundle(shop_bundle: Path) -> Bundle:
    return Bundle.open(shop_bundle)


@pytest.fixture(scope="module")
def recommender(bundle: Bundle) -> Recommender:
    """One recommender for all queries, so that whatever a query leaves behind would show."""
    return Recommender(bundle)


def all_ids(bundle: Bundle) -> list[str]:
    return [bundle.catalog.item_id(leaf) for leaf in range(len(bundle.catalog))]


def prefixes(bundle: Bundle) -> list[tuple[str, ...]]:
    catalog = bundle.catalog
    paths = {path for leaf in range(len(catalog)) for path in catalog.paths(leaf)}
    return sorted({path[:end] for path in paths for end in range(1, len(path) + 1)})


def legal_ids(bundle: Bundle, query: Query) -> set[str]:
    """What a query allows, read off the catalogue item by item."""
    catalog = bundle.catalog
    banned = set(query.exclude)
    if query.exclude_seen:
        banned |= {*query.history, *query.seen}
    wanted = [tuple(path) for path in query.categories]

    columns = {column.name: column for column in bundle.attributes.columns}
    held = [columns[name].passing(condition) for name, condition in query.filters.items()]

    def passes(leaf: int) -> bool:
        paths = catalog.paths(leaf)
        is_below = not wanted or any(p[: len(w)] == w for p in paths for w in wanted)
        return is_below and all(each[leaf] for each in held)

    return {catalog.item_id(leaf) for leaf in range(len(catalog)) if passes(leaf)} - banned


def filters() -> st.SearchStrategy[dict[str, Condition]]:
    """Conditions on what the synthetic shop declares, some of which nothing passes."""
    prices = st.floats(0, 60)
    price = st.builds(lambda low, width: Range(low, low + width), prices, prices)
    markets = st.lists(st.sampled_from(["AT", "DE", "nowhere"]), min_size=1, max_size=3)
    market = markets.map(lambda each: AnyOf(tuple(each)))
    return st.fixed_dictionaries({}, optional={"price": price, "market": market})


@st.composite
def queries(draw: st.DrawFn, bundle: Bundle) -> Query:
    ids = st.sampled_from(all_ids(bundle))
    with_strangers = st.lists(ids | st.sampled_from(["?", "", "\ud800"]), max_size=8)
    # Often so many that few legal items are left.
    crowd = st.integers(0, len(bundle.catalog)).map(lambda count: all_ids(bundle)[:count])
    return Query(
        history=draw(with_strangers),
        k=draw(st.integers(0, 12) | st.sampled_from([50, 51, 100, 299, 1000])),
        exclude=draw(with_strangers | crowd),
        seen=draw(with_strangers | crowd),
        exclude_seen=draw(st.booleans()),
        categories=draw(st.lists(st.sampled_from(prefixes(bundle)), max_size=3)),
        beam=draw(st.sampled_from([None, 1, 7, 200, "auto"])),
        filters=draw(filters()),
    )


def assert_well_formed(bundle: Bundle, query: Query, answer: Recommendation) -> None:
    catalog, items = bundle.catalog, answer.items
    ids = [item.item_id for item in items]
    legal = legal_ids(bundle, query)
    assert set(ids) <= legal
    assert len(set(ids)) == len(ids) == min(query.k, len(legal))
    assert [item.rank for item in items] == list(range(1, len(items) + 1))
    scores = [item.score for item in items]
    assert scores == sorted(scores, reverse=True)
    assert np.isfinite(scores).all()
    assert max(scores, default=-1.0) <= 0
    sources = [SOURCES.index(item.source) for item in items]
    assert sources == sorted(sources)
    for item in items:
        leaf = catalog.known_leaf(item.item_id)
        assert item.title == catalog.title(leaf)
        assert item.path == catalog.path(leaf)
        assert item.semantic_id == catalog.semantic_id(leaf)
        by_level = item.source not in CHAIN and bundle.manifest.decoder == "autoregressive"
        assert (item.level_log_probs is not None) == by_level


@MANY
@given(data=st.data())
def test_every_answer_keeps_its_promises(
    bundle: Bundle, recommender: Recommender, data: st.DataObject
) -> None:
    query = data.draw(queries(bundle))

    answer = recommender.recommend(query)

    assert_well_formed(bundle, query, answer)
    unknown = [item_id for item_id in query.history if item_id in {"?", "", "\ud800"}]
    assert answer.unknown_history_items == len(unknown)
    cold = len(unknown) == len(query.history)
    assert {item.source for item in answer.items} <= (set(CHAIN[1:]) if cold else {"generated"})
    assert (answer.certified is None) == cold
    # Neither the queries before it nor the recommender's age matter.
    assert Recommender(bundle).recommend(query).items == answer.items
    assert recommender.recommend(query).items == answer.items


@MANY
@given(data=st.data())
def test_popular_answers_keep_the_same_promises(
    bundle: Bundle, recommender: Recommender, data: st.DataObject
) -> None:
    query = data.draw(queries(bundle))

    answer = recommender.popular(query)

    assert_well_formed(bundle, query, answer)
    assert answer.certified is None
    shares = (bundle.popularity + 1) / (bundle.popularity + 1).sum()
    leaves = [bundle.catalog.known_leaf(item.item_id) for item in answer.items]
    np.testing.assert_allclose([item.score for item in answer.items], np.log(shares[leaves]))
    left = [bundle.catalog.known_leaf(i) for i in legal_ids(bundle, query)]
    best = sorted(bundle.popularity[left].tolist(), reverse=True)[: query.k]
    assert bundle.popularity[leaves].tolist() == best


def with_repeats(bundle: Bundle, bias: float) -> Bundle:
    """The same bundle where people come back as often as `bias` says."""
    score = bundle.manifest.score.model_copy(update={"repeat_bias": bias})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"score": score}))


@MANY
@given(data=st.data(), bias=st.sampled_from([-20.0, 0.0, 0.7, 20.0]))
def test_a_certified_answer_is_the_best_of_the_whole_catalogue(
    bundle: Bundle, data: st.DataObject, bias: float
) -> None:
    recommender = Recommender(with_repeats(bundle, bias))
    query = data.draw(queries(bundle))
    leaves = [bundle.catalog.leaf(item_id) for item_id in query.history]
    known = np.array([leaf for leaf in leaves if leaf is not None], np.int64)
    assume(len(known) > 0)

    answer = recommender.recommend(query)

    more = [bundle.catalog.leaf(item_id) for item_id in query.seen]
    seen = np.array([leaf for leaf in [*leaves, *more] if leaf is not None], np.int64)
    with recommender.reading(known) as h:
        everything = recommender.search_exhaustively(h, excluded=np.empty(0, np.int64))
        fused = recommender.score.of_found(h, everything, seen)
    score = {
        bundle.catalog.item_id(int(leaf)): float(value)
        for leaf, value in zip(everything.leaves, fused, strict=True)
    }
    for item in answer.items:
        assert item.score == pytest.approx(score[item.item_id], abs=1e-3)
    if answer.certified:
        exact = sorted((score[i] for i in legal_ids(bundle, query)), reverse=True)[: query.k]
        assert [item.score for item in answer.items] == pytest.approx(exact, abs=1e-3)


@MANY
@given(data=st.data())
def test_widening_ends_certified_or_as_wide_as_it_may(bundle: Bundle, data: st.DataObject) -> None:
    narrow = replace(bundle, manifest=bundle.manifest.model_copy(update={"beam_width": 2}))
    query = replace(data.draw(queries(bundle)), k=data.draw(st.integers(1, 12)))
    recommender = Recommender(narrow)

    fixed = recommender.recommend(replace(query, beam=None))
    auto = recommender.recommend(replace(query, beam="auto"))
    widest = recommender.recommend(replace(query, beam=len(bundle.catalog)))

    # The shop has fewer items than the widest beam.
    assert auto.certified is (None if fixed.certified is None else True)
    if fixed.certified in {True, None}:
        assert auto == replace(fixed, stage_seconds=auto.stage_seconds)
    assert [item.score for item in auto.items] == pytest.approx(
        [item.score for item in widest.items], abs=1e-3
    )


@MANY
@given(data=st.data())
def test_an_answer_in_a_hurry_keeps_the_other_promises(
    bundle: Bundle, recommender: Recommender, data: st.DataObject
) -> None:
    query = data.draw(queries(bundle))
    whole = recommender.recommend(query)

    hurried = recommender.recommend(replace(query, deadline=0.0))

    assert_well_formed(bundle, query, hurried)
    assert hurried.certified is None
    assert hurried.unknown_history_items == whole.unknown_history_items
    if whole.certified is None:
        assert hurried.items == whole.items
        return
    assert hurried.levels is not None
    assert hurried.levels < len(bundle.manifest.levels) + 1
    assert {item.source for item in hurried.items} <= ({"partial"} if hurried.levels else {*CHAIN})
    for item in hurried.items:
        if item.level_log_probs is not None:
            assert len(item.level_log_probs) == hurried.levels


@pytest.mark.parametrize("beam", [0, -1])
def test_no_beams_are_refused(beam: int) -> None:
    with pytest.raises(ConfigError, match=f"beam is {beam}"):
        Query(beam=beam)


def test_wide_searches_are_certified(bundle: Bundle, recommender: Recommender) -> None:
    history = all_ids(bundle)[:3]

    assert recommender.recommend(Query(history, k=len(bundle.catalog))).certified is True


def test_the_served_score_is_the_documented_one(bundle: Bundle, recommender: Recommender) -> None:
    history = all_ids(bundle)[10:14]
    h = recommender.encode(np.arange(10, 14)).astype(np.float64)
    facts = bundle.manifest.score
    leaves, amounts = bundle.transitions.evidence(np.arange(10, 14))
    logs = facts.evidence_weights[-1] * np.log1p(amounts / SCALE)
    evidence = dict(zip(leaves.tolist(), logs.tolist(), strict=True))
    assert len(evidence) > 0

    for item in recommender.recommend(Query(history)).items:
        leaf = bundle.catalog.known_leaf(item.item_id)
        own = float(bundle.tree.item_vectors[leaf] @ h) + evidence.get(leaf, 0.0)
        bound = float(np.linalg.norm(h)) * facts.largest_item_norm + max(0, *evidence.values())
        second = facts.fusion_weight * (own - bound)
        assert second <= 0
        assert item.level_log_probs is not None
        assert item.score == pytest.approx(sum(item.level_log_probs) + second, abs=1e-4)
        assert len(item.level_log_probs) == len(bundle.manifest.levels) + 1
        assert max(item.level_log_probs) <= 0


@pytest.mark.parametrize(("bias", "place"), [(20.0, 0), (-20.0, -1)])
def test_where_people_repeat_seen_items_come_first_and_elsewhere_last(
    bundle: Bundle, bias: float, place: int
) -> None:
    ids = all_ids(bundle)
    query = Query([ids[4]], k=len(ids), exclude_seen=False)

    answer = Recommender(with_repeats(bundle, bias)).recommend(query)

    assert len(answer.items) == len(ids)
    assert answer.items[place].item_id == ids[4]
    assert answer.certified


def test_seen_items_come_back_only_when_asked_for(bundle: Bundle, recommender: Recommender) -> None:
    ids = all_ids(bundle)
    query = Query(ids[:2], k=len(ids), seen=ids[2:5], exclude=ids[5:7])

    hidden = {item.item_id for item in recommender.recommend(query).items}
    shown = {
        item.item_id for item in recommender.recommend(replace(query, exclude_seen=False)).items
    }

    assert hidden == set(ids[7:])
    assert shown == {*ids[:5], *ids[7:]}


def test_hiding_items_does_not_change_the_scores_of_others(
    bundle: Bundle, recommender: Recommender
) -> None:
    ids = all_ids(bundle)
    query = Query(ids[:2], k=10)
    before = recommender.recommend(query).items

    after = recommender.recommend(replace(query, exclude=[before[0].item_id])).items

    assert [item.item_id for item in after[:9]] == [item.item_id for item in before[1:]]
    assert [item.score for item in after[:9]] == [item.score for item in before[1:]]


def test_any_path_of_an_item_lets_it_pass(bundle: Bundle, recommender: Recommender) -> None:
    ids = all_ids(bundle)
    for path in prefixes(bundle):
        query = Query(ids[:1], k=len(ids), categories=[path], exclude_seen=False)
        found = {item.item_id for item in recommender.recommend(query).items}
        assert found == legal_ids(bundle, query) != set()


@pytest.mark.parametrize("path", [(), ("No such shelf",), ("\ud800",)])
def test_a_category_that_no_item_has_is_refused(
    recommender: Recommender, path: Sequence[str]
) -> None:
    for answer in (recommender.recommend, recommender.popular):
        with pytest.raises(UnknownCategoryError):
            answer(Query(categories=[path]))


def test_a_negative_k_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is -1"):
        Query(k=-1)


def test_nothing_legal_gives_nothing(bundle: Bundle, recommender: Recommender) -> None:
    ids = all_ids(bundle)

    assert recommender.recommend(Query(ids[:3], exclude=ids)).items == ()
    assert recommender.recommend(Query(exclude=ids)).items == ()
    assert len(recommender.recommend(Query(ids[:3])).items) == 10


def test_an_unknown_history_is_a_cold_start(recommender: Recommender) -> None:
    unknown = recommender.recommend(Query(["?", "!"]))

    assert unknown.items == recommender.recommend(Query()).items
    assert unknown.items == recommender.popular(Query()).items
    assert unknown.unknown_history_items == 2
    assert unknown.certified is None


def test_a_cold_start_shows_nothing_seen(recommender: Recommender) -> None:
    first = recommender.popular(Query(k=3)).items

    answer = recommender.recommend(Query(["?"], k=3, seen=[first[0].item_id]))

    assert [item.item_id for item in answer.items[:2]] == [item.item_id for item in first[1:]]


def test_only_the_newest_part_of_a_long_history_counts(
    bundle: Bundle, recommender: Recommender
) -> None:
    length = bundle.manifest.history_length
    ids = all_ids(bundle)
    long, newest = ids[: length + 30], ids[30 : length + 30]

    whole = recommender.recommend(Query(long, exclude_seen=False)).items
    part = recommender.recommend(Query(newest, seen=long, exclude_seen=False)).items
    assert whole == part
    # But all of it is hidden.
    hidden = recommender.recommend(Query(long, k=len(ids))).items
    assert {item.item_id for item in hidden} == set(ids[length + 30 :])


def test_the_order_of_a_history_counts(bundle: Bundle, recommender: Recommender) -> None:
    ids = all_ids(bundle)[::60]

    forth = recommender.encode(np.arange(0, 300, 60))
    back = recommender.encode(np.arange(0, 300, 60)[::-1])

    assert np.abs(forth - back).max() > 0.01
    answers = [recommender.recommend(Query(history)).items for history in (ids, ids[::-1])]
    assert answers[0] != answers[1]


def test_a_stored_encoding_answers_like_a_fresh_one(recommender: Recommender) -> None:
    h = recommender.encode(np.array([1, 2, 3]))
    stored = h.astype(np.float16).tobytes()

    restored = np.frombuffer(stored, np.float16).astype(np.float32)

    assert restored.tolist() == h.tolist()


def test_item_scores_are_those_of_the_item_head(bundle: Bundle, recommender: Recommender) -> None:
    h = recommender.encode(np.array([4]))

    scores = recommender.score.of_item_head(h)
    with recommender.reading(np.array([4])):
        with_evidence = recommender.score.of_item_head(h)

    followers, _ = bundle.transitions.evidence(np.array([4]))
    assert np.flatnonzero(with_evidence != scores).tolist() == followers.tolist()
    assert scores.shape == (len(bundle.catalog),)
    assert scores[7] == pytest.approx(float(bundle.tree.item_vectors[7] @ h), abs=1e-5)
    norm = bundle.manifest.score.largest_item_norm
    assert scores.max() <= np.linalg.norm(h) * norm


def test_searches_restore_what_they_exclude(bundle: Bundle, recommender: Recommender) -> None:
    h = recommender.encode(np.array([4]))
    nothing = np.empty(0, np.int64)
    before = recommender.search(h, 20, excluded=nothing)

    without = recommender.search(h, 20, excluded=before.leaves[:5])
    rest = recommender.search_exhaustively(h, excluded=before.leaves[:5])
    after = recommender.search(h, 20, excluded=nothing)

    assert after.leaves.tolist() == before.leaves.tolist()
    assert not set(without.leaves.tolist()) & set(before.leaves[:5].tolist())
    assert len(rest.leaves) == len(bundle.catalog) - 5


def test_threads_with_their_own_recommenders_agree(bundle: Bundle) -> None:
    ids = all_ids(bundle)
    asked = [Query(ids[start : start + 3], exclude=ids[start + 3 :: 2]) for start in range(0, 40)]
    alone = Recommender(bundle)
    expected = [alone.recommend(query).items for query in asked]

    def answer_all(_: int) -> list[tuple[RecommendedItem, ...]]:
        own = Recommender(bundle)
        return [own.recommend(query).items for query in asked]

    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(answer_all, range(4)):
            assert answers == expected


def test_stages_are_timed(bundle: Bundle, recommender: Recommender) -> None:
    warm = recommender.recommend(Query(all_ids(bundle)[:2])).stage_seconds
    cold = recommender.recommend(Query()).stage_seconds

    assert list(warm) == ["encode", "decode", "resolve"]
    assert list(cold) == ["resolve"]
    assert min(*warm.values(), *cold.values()) >= 0


# Small worlds, every number of which is known


class ShortSightedGraphs(ToyGraphs):
    """A search that gives up after two items."""

    def search(self, h: FloatArray, tree: SearchTree, counts: AnyArray, width: int) -> BeamResult:
        found = super().search(h, tree, counts, width)
        return BeamResult(found.leaves[:2], found.log_probs[:2], float(found.totals()[2]))


def test_popular_items_fill_up_below_generated_ones() -> None:
    bundle = replace(toy_bundle(), graphs=ShortSightedGraphs())
    query = Query("c", k=6, exclude="ab", categories=[("Home", "Kitchen"), ("Home", "Bath")])

    answer = Recommender(bundle).recommend(query)

    assert_well_formed(bundle, query, answer)
    sources = [item.source for item in answer.items]
    # Five of the eight items below the filter are legal: c is seen, a and b are excluded.
    assert sources[:2] == ["generated"] * 2
    assert len(sources) == 5
    assert set(sources[2:]) <= set(CHAIN[:2])
    assert {item.item_id for item in answer.items} == set("defgh")
    assert answer.items[2].score <= answer.items[1].score


def test_equal_scores_are_served_in_leaf_order() -> None:
    bundle = toy_bundle()
    still = np.zeros_like(bundle.tree.vectors)
    tree = SearchTree(bundle.tree.trie, still, np.zeros_like(bundle.tree.biases))
    nothing = Transitions.count([], 12)
    even = replace(bundle, tree=tree, transitions=nothing, popularity=np.ones(12, np.int64))
    recommender = Recommender(even)

    cold = recommender.recommend(Query(k=12)).items
    warm = recommender.recommend(Query("l", k=12, exclude_seen=False)).items

    assert [item.item_id for item in cold] == list("abcdefghijkl")
    by_score = sorted(warm, key=lambda item: (-item.score, item.item_id))
    assert [item.item_id for item in warm] == [item.item_id for item in by_score]


def test_k_above_the_beam_width_widens_the_search() -> None:
    recommender = Recommender(toy_bundle(beam_width=2))

    assert len(recommender.recommend(Query("a", k=12)).items) == 11
    assert recommender.recommend(Query("a", k=12)).items[-1].source == "generated"


# Golden cases


def test_golden_cases_pass_where_they_were_written(recommender: Recommender) -> None:
    assert len(recommender.bundle.golden) >= 2
    verify_golden(recommender)


def shifted(case: GoldenCase) -> GoldenCase:
    return replace(case, scores=tuple(score - 2 * SCORE_TOLERANCE for score in case.scores))


def one_altered(case: GoldenCase) -> GoldenCase:
    return replace(case, scores=(*case.scores[:-1], case.scores[-1] - 2 * SCORE_TOLERANCE))


def exchanged(case: GoldenCase) -> GoldenCase:
    return replace(case, items=(case.items[-1], *case.items[1:-1], case.items[0]))


def of_another_item(case: GoldenCase) -> GoldenCase:
    return replace(case, items=("?", *case.items[1:]))


def of_another_history(case: GoldenCase) -> GoldenCase:
    return replace(case, history=case.history[:-1])


def not_a_number(case: GoldenCase) -> GoldenCase:
    return replace(case, scores=(*case.scores[:-1], float("nan")))


def too_many(case: GoldenCase) -> GoldenCase:
    return replace(case, items=case.items + ("?",) * 300, scores=case.scores + (-99.0,) * 300)


@pytest.mark.parametrize(
    "alter",
    [shifted, one_altered, exchanged, of_another_item, of_another_history, not_a_number, too_many],
)
def test_golden_cases_notice_another_answer(
    bundle: Bundle, alter: Callable[[GoldenCase], GoldenCase]
) -> None:
    *others, last = bundle.golden
    altered = replace(bundle, golden=(*others, alter(last)))

    with pytest.raises(BundleError, match=f"golden case {len(others)} of bundle"):
        verify_golden(Recommender(altered))


def test_golden_cases_forgive_the_last_bits(bundle: Bundle) -> None:
    nudged = tuple(
        replace(case, scores=tuple(score + SCORE_TOLERANCE / 2 for score in case.scores))
        for case in bundle.golden
    )

    verify_golden(Recommender(replace(bundle, golden=nudged)))


def test_a_step_of_float16_is_within_the_tolerance(
    bundle: Bundle, recommender: Recommender
) -> None:
    """What another processor's rounding can do to h may not make it refuse the bundle."""
    h = recommender.encode(np.array([3, 30, 200]))
    nothing, everything = np.empty(0, np.int64), len(bundle.catalog)

    def scores(of: FloatArray) -> FloatArray:
        found = recommender.search(of, everything, excluded=nothing)
        fused: FloatArray = recommender.score.of_found(of, found, nothing)[np.argsort(found.leaves)]
        return fused

    before = scores(h)
    best = np.argsort(-before)[:10]
    for place in range(len(h)):
        moved = h.astype(np.float16)
        moved[place] = np.nextafter(moved[place], np.float16(np.inf))
        after = scores(moved.astype(np.float32))
        assert np.abs(after - before)[best].max() < SCORE_TOLERANCE / 2
