"""Orders of found items that are not the score's alone: calibrated to a user, or drawn by chance.

Shapes: R items found, G groups (coarse codes), T history length, k items wanted.
"""

from typing import Final

import numpy as np

from model.types import AnyArray, FloatArray, IntArray

SMOOTHING: Final = 0.01
"""How much of the user's own shares is mixed into the list's, so that no share is 0."""
COLDEST: Final = 1e-6
"""Temperature of the coldest draw, which is the order by probability: below it numbers overflow."""


def calibrated_order(
    scores: FloatArray, groups: IntArray, history: IntArray, k: int, diversity: float
) -> IntArray:
    """Places of the `k` items whose groups come in the shares of the user's history.

    Greedy maximum of (1 - diversity) * sum of relevance - diversity * KL(user's shares || list's),
    where relevance is the score scaled to 0 .. 1 over the items found (H. Steck, Calibrated
    recommendations, RecSys 2018).

    Args:
        scores: of the items found [R].
        groups: coarse code of each [R].
        history: coarse codes of the history's items [T >= 1].
        k: how many places at most.
        diversity: 0 orders by score, 1 by the shares alone.
    """
    wanted = np.unique(history)
    shares = np.array([(history == group).mean() for group in wanted])
    # Items of groups that the user has not had take room and bring no share.
    slot = np.where(np.isin(groups, wanted), np.searchsorted(wanted, groups), len(wanted))
    spread = float(np.ptp(scores)) or 1.0
    relevance = (scores - scores.min()) / spread
    by_score = np.argsort(-scores, kind="stable")
    counts = np.zeros(len(wanted) + 1)
    chosen: list[int] = []
    left = by_score
    while len(chosen) < k and len(left):
        divergence = _divergences(shares, counts, len(chosen) + 1)[slot[left]]
        gain = (1 - diversity) * relevance[left] - diversity * divergence
        best = int(np.argmax(gain))
        chosen.append(int(left[best]))
        counts[slot[left[best]]] += 1
        left = np.delete(left, best)
    return np.array(chosen, np.int64)


def lacking_groups(found: IntArray, history: IntArray, k: int) -> IntArray:
    """The groups of the history that too few items are found of to fill their share of k places.

    Args:
        found: coarse code of each item found [R].
        history: coarse codes of the history's items [T]; none lacks nothing.
        k: how many places there are.
    """
    groups, times = np.unique(history.astype(np.int64), return_counts=True)
    wanted = np.ceil(k * times / max(1, len(history)))
    have = np.array([np.count_nonzero(found == group) for group in groups])
    return groups[have < wanted] if len(groups) else groups


def _divergences(shares: AnyArray, counts: AnyArray, length: int) -> AnyArray:
    """KL(shares || list's) once an item of each group, or of none of them, is added [G + 1]."""

    def terms(numbers: AnyArray) -> AnyArray:
        mixed = (1 - SMOOTHING) * numbers / length + SMOOTHING * shares
        found: AnyArray = shares * np.log(shares / mixed)
        return found

    without = terms(counts[:-1])
    added = without.sum() - without + terms(counts[:-1] + 1)
    return np.append(added, without.sum())


def drawn_order(
    log_probs: FloatArray, k: int, temperature: float, chance: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """Places of `k` items drawn without replacement, and the propensity of each draw.

    Adding Gumbel noise to log-probabilities and taking the largest draws from them without
    replacement (Kool et al., Stochastic beams, ICML 2019).

    Args:
        log_probs: of the items found [R].
        k: how many to draw at most.
        temperature: above 0; towards 0 the draw becomes the order by probability. Below
            `COLDEST` it is taken for that.
        chance: the random generator.

    Returns:
        Places in the order drawn, and the probability of each draw given those before it, both
        [min(k, R)].
    """
    weights = log_probs.astype(np.float64) / max(temperature, COLDEST)
    order = np.argsort(-(weights + chance.gumbel(size=len(weights))))
    drawn = weights[order]
    # Of what is left at each draw: sums from the end.
    remaining = np.logaddexp.accumulate(drawn[::-1])[::-1]
    return order[:k], np.exp(drawn - remaining)[:k].astype(np.float32)
