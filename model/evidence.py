"""How much evidence of transitions counts in a logit; `model/transitions.py` says what it is.

The evidence of a trie node or of a code is the sum of that of its items. The logarithm is of the
sum, so whoever scores it has to add up first.
Shapes: N items, R items with evidence, L levels.
"""

from dataclasses import dataclass

import numpy as np

from model.types import AnyArray, FloatArray, IntArray

SCALE = 0.02
"""Evidence that counts as little."""


def log_evidence(amounts: AnyArray) -> FloatArray:
    """log(1 + e / scale)."""
    logs: FloatArray = np.log1p(amounts / SCALE).astype(np.float32)
    return logs


@dataclass(frozen=True)
class ItemEvidence:
    """What is known of single items after one history."""

    leaves: IntArray
    """Items with evidence, ascending, int64 [R]."""
    amounts: FloatArray
    """e of each [R]."""

    @classmethod
    def of(cls, amounts: FloatArray) -> "ItemEvidence":
        """Out of `amounts` [N], most of them zero; an empty array knows of no item."""
        leaves = np.flatnonzero(amounts)
        return cls(leaves, amounts[leaves])
