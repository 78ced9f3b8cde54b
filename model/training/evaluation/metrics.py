"""Ranking metrics for one target per user, and the ranks they are computed from.

Every user counts: a target that is missing from the list has rank 0 and scores zero. Means over no
users are refused instead of being a silent zero. Nothing here knows what produced a ranking.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from model.types import IntArray

CUTOFFS = (5, 10, 20)

Scores = npt.NDArray[np.floating[Any]]


def recall_at(ranks: IntArray, cutoff: int) -> float:
    """Return the share of users whose target is among the first `cutoff`: mean of [rank <= k].

    With one target per user this is also the hit rate.

    Args:
        ranks: [Q] the target's rank, 1 = best, 0 = not in the list.
        cutoff: k, at least 1.
    """
    return float(np.mean(_hits(ranks, cutoff)))


def ndcg_at(ranks: IntArray, cutoff: int) -> float:
    """Return the mean of [rank <= k] / log2(rank + 1); the ideal DCG of one target is 1.

    Args:
        ranks: [Q] the target's rank, 1 = best, 0 = not in the list.
        cutoff: k, at least 1.
    """
    gains = 1.0 / np.log2(np.maximum(ranks, 1) + 1.0)
    return float(np.mean(np.where(_hits(ranks, cutoff), gains, 0.0)))


def reciprocal_rank(ranks: IntArray) -> float:
    """Return the mean of 1 / rank over the whole list (MRR); rank 0 gives 0.

    Args:
        ranks: [Q] the target's rank, 1 = best, 0 = not in the list.
    """
    return float(np.mean(np.where(_known(ranks) > 0, 1.0 / np.maximum(ranks, 1), 0.0)))


def summary(ranks: IntArray) -> dict[str, float]:
    """Return `recall@k` and `ndcg@k` for k = 5, 10, 20, and `mrr`; empty when there are no users.

    With them `recall@1`, the top-1 accuracy.

    Args:
        ranks: [Q] the target's rank, 1 = best, 0 = not in the list.
    """
    if len(ranks) == 0:
        return {}
    values = {f"recall@{cutoff}": recall_at(ranks, cutoff) for cutoff in (1, *CUTOFFS)}
    values |= {f"ndcg@{cutoff}": ndcg_at(ranks, cutoff) for cutoff in CUTOFFS}
    return values | {"mrr": reciprocal_rank(ranks)}


def rank_in_list(items: IntArray, target: int) -> int:
    """Return the 1-based position of the target in a ranked list [R], 0 when it is not there."""
    found = np.flatnonzero(items == target)
    return int(found[0]) + 1 if len(found) else 0


def rank_by_score(scores: Scores, target: int) -> int:
    """Return the target's 1-based rank among all items, best score first.

    Ties go to the item that comes first in the array, whichever the target is. An item with score
    -inf is not in the ranking: as a target it has rank 0.

    Args:
        scores: [N] one score per item.
        target: position of the target in `scores`.
    """
    own = scores[target]
    if np.isneginf(own):
        return 0
    return 1 + int((scores > own).sum()) + int((scores[:target] == own).sum())


def best_items(scores: Scores, count: int) -> IntArray:
    """Return the positions of the `count` best scores, best first, ties by position.

    Items with score -inf are left out, so the answer can be shorter.

    Args:
        scores: [N] one score per item.
        count: how many, at least 1.
    """
    if count < len(scores):
        threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(len(scores))
    candidates = candidates[~np.isneginf(scores[candidates])]
    order = np.argsort(-scores[candidates], kind="stable")
    return candidates[order[:count]]


def _hits(ranks: IntArray, cutoff: int) -> npt.NDArray[np.bool_]:
    if cutoff < 1:
        raise ValueError(f"cutoff must be at least 1, got {cutoff}")
    known = _known(ranks)
    return (known > 0) & (known <= cutoff)


def _known(ranks: IntArray) -> IntArray:
    if len(ranks) == 0:
        raise ValueError("a metric needs at least one user")
    return ranks
