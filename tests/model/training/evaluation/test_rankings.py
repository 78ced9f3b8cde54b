import math

import numpy as np
import pytest

from model.training.evaluation.rankings import Rankings

KINDS = {
    "head": np.array([True, False, False]),
    "tail": np.array([False, True, True]),
    "cold": np.array([False, False, False]),
}


def test_lists_and_scores_give_the_same_ranks() -> None:
    lists, scores = Rankings(3), Rankings(3)
    lists.put_list(0, np.array([2, 0, 3]), 0)
    scores.put_scores(0, np.array([0.5, -math.inf, 0.9, 0.5]), 0)
    lists.put_list(1, np.array([2, 0]), 1)
    scores.put_scores(1, np.array([1, -math.inf, 2, -math.inf]), 1)
    assert lists.ranks.tolist() == scores.ranks.tolist() == [2, 0, 0]
    assert (lists.first == scores.first).all()
    assert lists.lengths.tolist() == scores.lengths.tolist() == [3, 2, 0]


def test_target_that_is_not_in_the_catalogue_is_missed() -> None:
    rankings = Rankings(1)
    rankings.put_scores(0, np.array([0.1, 0.9]), -1)
    assert rankings.ranks.tolist() == [0]


def test_row_counts_failures_coverage_and_short_lists() -> None:
    rankings = Rankings(3)
    rankings.put_list(0, np.arange(30), 0)
    rankings.put_list(1, np.array([5, 40]), 40)
    row = rankings.row("x", seen_masked=True, items=44, kinds=KINDS)
    assert row.metrics["recall@5"] == pytest.approx(2 / 3)  # the user without a list counts
    assert row.metrics["mrr"] == pytest.approx((1 + 1 / 2) / 3)
    assert row.coverage == pytest.approx(11 / 44)  # the first ten of user 0, and item 40
    assert row.short_lists == 2
    assert row.listed == 30
    assert row.slices["head"].metrics["recall@5"] == 1
    assert row.slices["tail"].metrics["recall@5"] == 1 / 2
    assert (row.slices["cold"].users, row.slices["cold"].metrics) == (0, {})
