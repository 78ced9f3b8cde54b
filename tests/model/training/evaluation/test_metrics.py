import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.training.evaluation.metrics import (
    CUTOFFS,
    best_items,
    ndcg_at,
    rank_by_score,
    rank_in_list,
    recall_at,
    reciprocal_rank,
    summary,
)

RANKS = np.array([1, 0, 3, 10, 11], np.int64)
SCORES = st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=12)


def test_recall_is_the_share_of_targets_within_the_cutoff() -> None:
    assert recall_at(RANKS, 5) == 2 / 5
    assert recall_at(RANKS, 10) == 3 / 5
    assert recall_at(RANKS, 20) == 4 / 5


def test_ndcg_discounts_by_the_position() -> None:
    assert ndcg_at(RANKS, 5) == pytest.approx((1 + 1 / math.log2(4)) / 5)
    assert ndcg_at(RANKS, 10) == pytest.approx((1 + 1 / 2 + 1 / math.log2(11)) / 5)


def test_reciprocal_rank_uses_the_whole_list() -> None:
    assert reciprocal_rank(RANKS) == pytest.approx((1 + 1 / 3 + 1 / 10 + 1 / 11) / 5)


def test_no_users_give_no_means() -> None:
    none = np.empty(0, np.int64)
    assert summary(none) == {}
    with pytest.raises(ValueError, match="at least one user"):
        recall_at(none, 5)
    with pytest.raises(ValueError, match="at least one user"):
        ndcg_at(none, 5)
    with pytest.raises(ValueError, match="at least one user"):
        reciprocal_rank(none)
    with pytest.raises(ValueError, match="cutoff"):
        recall_at(RANKS, 0)


def test_metrics_agree_with_ranx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # a minute of compiling for forty users
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ranx compiles with numba, whose warnings are not ours
        from ranx import Qrels, Run, evaluate  # noqa: PLC0415

        generator = np.random.default_rng(7)
        lists = np.stack([generator.permutation(60)[:30] for _ in range(40)])
        targets = generator.integers(0, 60, 40)
        relevant = {f"u{q}": {f"i{target}": 1} for q, target in enumerate(targets)}
        ranked = {
            f"u{q}": {f"i{item}": float(-rank) for rank, item in enumerate(items)}
            for q, items in enumerate(lists)
        }
        names = [f"{name}@{k}" for name in ("recall", "ndcg") for k in CUTOFFS]
        names += ["recall@1", "mrr"]
        expected = evaluate(Qrels(relevant), Run(ranked), names)
    ranks = np.array([rank_in_list(*pair) for pair in zip(lists, targets, strict=True)])
    assert 0 < (ranks == 0).sum() < len(ranks)
    assert summary(ranks) == pytest.approx(expected, abs=1e-6)


def test_rank_in_list() -> None:
    items = np.array([7, 3, 9])
    assert [rank_in_list(items, target) for target in (7, 9, 4)] == [1, 3, 0]
    assert rank_in_list(np.empty(0, np.int64), 4) == 0


@given(SCORES, st.integers(1, 14))
def test_best_items_and_ranks_agree_with_a_full_sort(values: list[float], count: int) -> None:
    scores = np.array(values, np.float32)
    ranked = [i for i in sorted(range(len(values)), key=lambda i: -values[i]) if values[i] > -1e9]
    assert best_items(scores, count).tolist() == ranked[:count]
    for target in range(len(values)):
        expected = ranked.index(target) + 1 if target in ranked else 0
        assert rank_by_score(scores, target) == expected
