"""A client of the service in Python: `Client` waits, `AsyncClient` is for event loops.

    with Client("http://127.0.0.1:8000") as cofine:
        shown = cofine.recommend(user_id="ann", k=10)
        cofine.send_events([{"event_id": "1", "user_id": "ann", "item_id": "P0148",
                             "recommendation_id": shown["recommendation_id"]}])

Answers are the service's JSON, typed as dictionaries. A refusal raises `ProblemError` with the
whole problem document, a service that does not answer `UnreachableError`; both are `CofineError`.

A call that may be repeated safely is tried again after a failed connection, a timeout and the
answers 429, 502, 503 and 504, after a random, growing pause or, where the service says one, its
Retry-After: recommending and reading change nothing, an event is known by its id, an erasure is an
erasure. Only `roll_back` is not such a call: it is tried again where nothing can have been done,
after a connection that was never made and after 429.

One method per route, in both clients, with the types of the OpenAPI document, as
`tests/service/test_client.py` checks. Imports nothing else of the service; needs the extra
`client`.
"""

from service.client.blocking import Client
from service.client.bodies import (
    Access,
    ActivateOptions,
    Attribute,
    BatchedAnswer,
    BestItem,
    Bundle,
    BundleReference,
    Bundles,
    CatalogueEdit,
    Choice,
    CountedRequests,
    Degraded,
    Event,
    EventResult,
    EventsAnswer,
    Explanation,
    Exploration,
    ExploreOptions,
    FieldError,
    HistoryEntry,
    Influence,
    Info,
    Item,
    ItemEdit,
    Level,
    Neighbour,
    Offer,
    Place,
    Preview,
    Problem,
    Range,
    Recommendation,
    RecommendBatchAnswer,
    RecommendedItem,
    RecommendOptions,
    Rollout,
    ServedList,
    State,
    Step,
    Taxonomy,
    User,
)
from service.client.calls import CofineError, Patience, ProblemError, UnreachableError
from service.client.event_loop import AsyncClient

__all__ = [
    "Access",
    "ActivateOptions",
    "AsyncClient",
    "Attribute",
    "BatchedAnswer",
    "BestItem",
    "Bundle",
    "BundleReference",
    "Bundles",
    "CatalogueEdit",
    "Choice",
    "Client",
    "CofineError",
    "CountedRequests",
    "Degraded",
    "Event",
    "EventResult",
    "EventsAnswer",
    "Explanation",
    "Exploration",
    "ExploreOptions",
    "FieldError",
    "HistoryEntry",
    "Influence",
    "Info",
    "Item",
    "ItemEdit",
    "Level",
    "Neighbour",
    "Offer",
    "Patience",
    "Place",
    "Preview",
    "Problem",
    "ProblemError",
    "Range",
    "RecommendBatchAnswer",
    "RecommendOptions",
    "Recommendation",
    "RecommendedItem",
    "Rollout",
    "ServedList",
    "State",
    "Step",
    "Taxonomy",
    "UnreachableError",
    "User",
]
