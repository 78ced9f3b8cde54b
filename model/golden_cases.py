"""The answers that a bundle was exported with: whoever gives others must not serve it."""

import numpy as np

from model.errors import BundleError
from model.query import Query
from model.recommender import Recommender

SCORE_TOLERANCE = 2e-2
"""How far a score may lie from the same score computed on another machine.

Another processor's last float32 bit can tip a component of h to the next float16 number; measured
on a trained bundle, one such step moves a score among the best ten by up to 4e-3.
"""


def verify_golden(recommender: Recommender) -> None:
    """Answer the bundle's golden cases; also warms everything up.

    Raises:
        BundleError: an answer differs from the one given at export, or there is none.
    """
    for number, case in enumerate(recommender.bundle.golden):
        try:
            answer = recommender.recommend(Query(case.history, k=len(case.items))).items
        except Exception as error:  # a bad graph or array can cause any
            message = (
                f"golden case {number} of bundle {recommender.bundle.bundle_id} cannot be "
                f"answered: {error!r}"
            )
            raise BundleError(message) from error
        expected = dict(zip(case.items, case.scores, strict=True))
        same_scores = len(answer) == len(case.scores) and np.allclose(
            [item.score for item in answer], case.scores, atol=SCORE_TOLERANCE
        )
        # Items whose scores are equal within the tolerance may change places, or the last place.
        same_items = all(
            abs(item.score - expected.get(item.item_id, case.scores[-1])) <= SCORE_TOLERANCE
            for item in answer
        )
        if not (same_scores and same_items):
            message = (
                f"golden case {number} of bundle {recommender.bundle.bundle_id} is answered "
                "differently here than at export: this machine cannot serve it"
            )
            raise BundleError(message)
