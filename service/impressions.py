"""What was shown: gives every answer its id and counts its items."""

from collections.abc import Sequence

from model.recommender import RecommendedItem
from service.metrics import Metrics
from service.recommendation_id import RecommendationIds

DEFAULT_VARIANT = "default"


class Impressions:
    """Takes note of every recommendation that leaves the service."""

    def __init__(self, ids: RecommendationIds, metrics: Metrics) -> None:
        self._ids = ids
        self._metrics = metrics

    def record(
        self,
        items: Sequence[RecommendedItem],
        *,
        bundle: str,
        variant: str = DEFAULT_VARIANT,
    ) -> str:
        """Return the recommendation id of an answer with these items; waits for nothing.

        Args:
            items: best first.
            bundle: that made it.
            variant: of the experiment that chose the bundle.
        """
        recommendation_id = self._ids.issue(items, bundle=bundle, variant=variant)
        for item in items:
            self._metrics.count_impression(item.source, item.rank)
        return recommendation_id
