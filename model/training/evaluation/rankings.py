"""What is kept of one way of ranking while users are measured: ranks, first ten, list lengths.

Items are numbers here; whether leaves or rows is the caller's business, and the same in one
`Rankings` object. Each user writes to its own place, so threads can share it.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from model.training.evaluation.metrics import (
    CUTOFFS,
    Scores,
    best_items,
    rank_by_score,
    rank_in_list,
    summary,
)
from model.training.evaluation.report import SLICES, Row, Slice
from model.types import BoolArray, IntArray

FIRST = 10
NOBODY = -1


class Rankings:
    """One ranking of Q users, filled in user by user; a user without a list counts as a failure.

    Attributes:
        ranks: [Q] the target's rank, 0 when it is not in the list.
        first: [Q, 10] the best items, -1 where the list is shorter.
        lengths: [Q] items in the list.
    """

    def __init__(self, users: int) -> None:
        self.ranks = np.zeros(users, np.int64)
        self.first = np.full((users, FIRST), NOBODY, np.int64)
        self.lengths = np.zeros(users, np.int64)

    def put_list(self, user: int, items: IntArray, target: int) -> None:
        """Keep a ranked list [R], best first."""
        self.ranks[user] = rank_in_list(items, target)
        self._keep(user, items, len(items))

    def put_scores(self, user: int, scores: Scores, target: int) -> None:
        """Keep a ranking by score [N]; -inf leaves an item out, a target of -1 is never found."""
        self.ranks[user] = rank_by_score(scores, target) if target >= 0 else 0
        self._keep(user, best_items(scores, FIRST), int((~np.isneginf(scores)).sum()))

    def coverage(self, items: int) -> float:
        """Return the share of a catalogue of `items` items that is in anybody's first ten."""
        return int((np.unique(self.first) != NOBODY).sum()) / items

    def row(
        self, name: str, *, seen_masked: bool, items: int, kinds: Mapping[str, BoolArray]
    ) -> Row:
        """Return the metrics.

        Args:
            name: of the ranking.
            seen_masked: whether the items of the history were left out.
            items: size of the catalogue.
            kinds: for head, tail and cold, which of the Q users have such a target.
        """
        parts = {
            kind: Slice(users=int(kinds[kind].sum()), metrics=summary(self.ranks[kinds[kind]]))
            for kind in SLICES
        }
        return Row(
            name=name,
            seen_masked=seen_masked,
            listed=int(self.lengths.max(initial=0)),
            metrics=summary(self.ranks),
            coverage=self.coverage(items),
            short_lists=int((self.lengths < max(CUTOFFS)).sum()),
            slices=parts,
        )

    def _keep(self, user: int, items: IntArray, length: int) -> None:
        best: npt.NDArray[np.int64] = np.asarray(items[:FIRST], np.int64)
        self.first[user, : len(best)] = best
        self.lengths[user] = length
