"""Evidence of items as a history may or may not bring it."""

import numpy as np

from model.types import FloatArray


def some_evidence(items: int, generator: np.random.Generator) -> FloatArray:
    """Of some items [N], or of none."""
    known = generator.random(items) < generator.choice([0.0, 0.3])
    evidence: FloatArray = (known * generator.exponential(0.1, items)).astype(np.float32)
    return evidence
