"""What was shown: gives every answer its id, counts its items and writes them to the event log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict

from service.event_log import EventLog
from service.metrics import Metrics
from service.recommendation_id import RecommendationIds, Recommended


class Shown(Recommended, Protocol):
    """An item that was shown."""

    @property
    def score(self) -> float | None:
        """The score that it was ranked by; None where it was only named."""
        ...

    @property
    def propensity(self) -> float | None:
        """Of this item at this rank; None where nothing was drawn."""
        ...


@dataclass(frozen=True)
class NamedItem:
    """An item that a choice names."""

    item_id: str
    rank: int
    source: str
    score: None = None
    propensity: None = None


class Asked(TypedDict):
    """What of a request is logged with its answer."""

    scenario: NotRequired[str | None]
    context: NotRequired[Mapping[str, Any]]


class Impressions:
    """Takes note of every recommendation that leaves the service."""

    def __init__(self, ids: RecommendationIds, metrics: Metrics, log: EventLog | None) -> None:
        self._ids = ids
        self._metrics = metrics
        self._log = log

    def record(
        self,
        user_id: str | None,
        items: Sequence[Shown],
        *,
        bundle: str,
        variant: str,
        asked: Asked,
    ) -> str:
        """Return the recommendation id of an answer with these items; waits for nothing.

        Args:
            user_id: whom the answer is for, if anybody.
            items: best first.
            bundle: that made it.
            variant: the role of the bundle that answered.
            asked: what the request names of this; what is empty is not logged.
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
                    **{name: value for name, value in asked.items() if value},
                    "items": [_shown(item) for item in items],
                }
            )
        return recommendation_id


def _shown(item: Shown) -> dict[str, Any]:
    shown = {"item_id": item.item_id, "rank": item.rank, "source": item.source}
    told = {"score": item.score, "propensity": item.propensity}
    return shown | {name: value for name, value in told.items() if value is not None}
