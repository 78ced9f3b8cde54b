"""What was shown: gives every answer its id, counts its items and writes them to the event log."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.recommender import RecommendedItem
from service.event_log import EventLog
from service.metrics import Metrics
from service.recommendation_id import RecommendationIds


class Impressions:
    """Takes note of every recommendation that leaves the service."""

    def __init__(self, ids: RecommendationIds, metrics: Metrics, log: EventLog | None) -> None:
        self._ids = ids
        self._metrics = metrics
        self._log = log

    def record(
        self,
        user_id: str | None,
        items: Sequence[RecommendedItem],
        *,
        bundle: str,
        variant: str,
        context: Mapping[str, Any],
    ) -> str:
        """Return the recommendation id of an answer with these items; waits for nothing.

        Args:
            user_id: whom the answer is for, if anybody.
            items: best first.
            bundle: that made it.
            variant: the role of the bundle that answered.
            context: what the caller wants logged with it.
        """
        recommendation_id = self._ids.issue(items, bundle=bundle, variant=variant)
        self._metrics.count_impressions((item.source, item.rank) for item in items)
        if self._log is not None:
            self._log.offer_impression(
                {
                    "recommendation_id": recommendation_id,
                    "user_id": user_id,
                    "bundle": bundle,
                    "variant": variant,
                    **({"context": context} if context else {}),
                    "items": [_shown(item) for item in items],
                }
            )
        return recommendation_id


def _shown(item: RecommendedItem) -> dict[str, Any]:
    shown = {
        "item_id": item.item_id,
        "rank": item.rank,
        "source": item.source,
        "score": item.score,
    }
    return shown if item.propensity is None else {**shown, "propensity": item.propensity}
