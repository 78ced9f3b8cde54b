"""Whether a list is proven to hold the best items of the whole catalogue.

An item under a pruned prefix scores at most the log-probability of that prefix, because
log-probabilities only fall along a path, plus whatever its score has besides: the *headroom* of the
items that the search did not reach. When the last item of the list is above that sum for the best
prefix that was pruned, no item is missing from the list.
Shapes: N items, R items reached.
"""

from collections.abc import Callable

import numpy as np

from model.beam_search import BeamResult
from model.types import AnyArray, FloatArray, IntArray

TOLERANCE = 1e-4
"""What the float32 sums on both sides are trusted to."""


class Headroom:
    """How far above its prefix's log-probability an item of one query can score."""

    def __init__(self, terms: FloatArray | None, legal: AnyArray, bonus: float) -> None:
        """Bound the terms besides the log-probability.

        Args:
            terms: of every item [N], leaf order; None where they are only known to be at most 0.
            legal: more than 0 where an item may be recommended [N].
            bonus: the most that any item gets on top.
        """
        self._terms = None if terms is None else np.where(legal > 0, terms, -np.inf)
        self._bonus = bonus

    def beyond(self, reached: IntArray) -> float:
        """The most for a legal item that is not among `reached` leaves [R]; -inf without any."""
        if self._terms is None:
            return self._bonus
        left = self._terms.copy()
        left[reached] = -np.inf
        return float(left.max()) + self._bonus


def is_certified(
    found: BeamResult, scores: FloatArray, k: int, *, headroom: Callable[[], float]
) -> bool | None:
    """Whether no item beyond `found`, which have `scores` [R], can belong to the best `k`.

    None where the search does not know what it left behind. `headroom` is asked only where it
    decides, for it may read the whole catalogue.
    """
    if found.pruned is None:
        return None
    if k == 0 or found.pruned == -np.inf:
        return True
    if len(scores) < k:
        return False
    return bool(np.sort(scores)[-k] >= found.pruned + headroom() + TOLERANCE)
