"""What requests and answers hold, as the OpenAPI document has it."""

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypeAlias, TypedDict

Scalar: TypeAlias = str | int | float | bool


class Range(TypedDict, total=False):
    """Between two numbers, both included; at least one of them."""

    min: float | None
    max: float | None


class RecommendOptions(TypedDict, total=False):
    """The fields of a recommendation request; the service's documentation defines each."""

    user_id: str | None
    history: Sequence[str] | None
    k: int
    exclude: Sequence[str]
    exclude_seen: bool
    categories: Sequence[Sequence[str]]
    filters: Mapping[str, Scalar | Sequence[Scalar] | Range]
    path: Sequence[str]
    explain: bool
    after: str | None
    anchor: Sequence[str]
    diversity: float
    exploration: float
    scenario: str | None
    context: Mapping[str, Scalar]
    beam: int | Literal["auto"] | None
    deadline_ms: int | None


class ExploreOptions(TypedDict, total=False):
    """The fields of a request to explore; the service's documentation defines each."""

    user_id: str | None
    history: Sequence[str] | None
    path: Sequence[str]
    k: int
    items_per_choice: int
    exclude: Sequence[str]
    exclude_seen: bool
    categories: Sequence[Sequence[str]]
    filters: Mapping[str, Scalar | Sequence[Scalar] | Range]
    deadline_ms: int | None


class Step(TypedDict):
    """One place on the way to an item."""

    name: str
    kind: Literal["category", "group", "item"]
    probability: float


class Influence(TypedDict):
    """What one item of the history does for a recommended one."""

    item_id: str
    log_prob_drop: float


class Explanation(TypedDict):
    """Why an item is recommended."""

    way: list[Step]
    influences: list[Influence]
    certified: bool | None


class RecommendedItem(TypedDict):
    """One recommended item."""

    item_id: str
    rank: int
    score: float
    source: str
    title: str
    path: list[str]
    semantic_id: list[int]
    level_log_probs: list[float] | None
    explanation: Explanation | None
    propensity: float | None


class Degraded(TypedDict):
    """What an answer had to do without."""

    state_unavailable: bool
    levels: int | None
    paging: bool
    explanations: bool


class Recommendation(TypedDict):
    """Recommended items, best first."""

    recommendation_id: str
    bundle: str
    variant: Literal["active", "canary"]
    catalogue_version: int
    items: list[RecommendedItem]
    degraded: Degraded | None
    certified: bool | None
    took_ms: float
    unknown_history_items: int


class FieldError(TypedDict):
    """One offending field of a request."""

    detail: str
    code: str
    pointer: NotRequired[str | None]
    parameter: NotRequired[str | None]


class Problem(TypedDict):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError]
    request_id: str
    retryable: bool
    results: NotRequired["list[EventResult] | None"]


class BatchedAnswer(TypedDict):
    """What became of one recommendation of a batch: an answer or a problem."""

    answer: Recommendation | None
    problem: Problem | None


class RecommendBatchAnswer(TypedDict):
    """What became of the recommendations of a batch, in their order."""

    results: list[BatchedAnswer]


class Place(TypedDict):
    """One place of the tree that people browse."""

    name: str
    path: list[str]
    kind: Literal["category", "group", "item"]
    items: int
    item_id: str | None


class BestItem(TypedDict):
    """An item named in a choice."""

    item_id: str
    title: str
    source: str


class Choice(Place):
    """A place that the user may go on to."""

    probability: float
    best: list[BestItem]
    recommendation_id: str | None


class Exploration(TypedDict):
    """What lies below a place, for one user."""

    recommendation_id: str | None
    bundle: str
    variant: Literal["active", "canary"]
    catalogue_version: int
    path: list[str]
    probability: float
    items_here: int
    choices: list[Choice]
    items: list[RecommendedItem]
    degraded: Degraded | None
    took_ms: float
    unknown_history_items: int


class Taxonomy(TypedDict):
    """What lies below a place, for nobody in particular."""

    bundle: str
    catalogue_version: int
    path: list[str]
    items_here: int
    choices: list[Place]


class Event(TypedDict):
    """One thing that a user did with an item; `timestamp` is in seconds of Unix time."""

    event_id: str
    user_id: str
    item_id: str
    timestamp: NotRequired[float | None]
    type: NotRequired[str]
    recommendation_id: NotRequired[str | None]


class EventResult(TypedDict):
    """What became of one event."""

    event_id: str
    status: str
    attribution: str | None


class EventsAnswer(TypedDict):
    """What became of the events, in their order."""

    results: list[EventResult]
    accepted: int
    duplicates: int


class HistoryEntry(TypedDict):
    """One event of a stored history."""

    item_id: str
    timestamp: float
    type: str


class ServedList(TypedDict):
    """Items that were served together; `expires` is in seconds of Unix time."""

    recommendation_id: str
    expires: float
    items: list[str]


class CountedRequests(TypedDict):
    """Requests that count against a key's limit for a user."""

    key: str
    requests: int


class User(TypedDict):
    """What the state holds of a user."""

    user_id: str
    history: list[HistoryEntry]
    history_items: int
    seen_items: int
    disliked: list[str]
    seen: list[str]
    event_ids: list[str]
    events: int
    history_version: int
    served_lists: list[ServedList]
    counted_requests: list[CountedRequests]


class Offer(TypedDict, total=False):
    """Whether and when an item can be had; what is left out is no limit."""

    stock: int | None
    available_from: float | None
    available_until: float | None


class ItemEdit(Offer):
    """An item to put into the catalogue; the service's documentation defines each field."""

    item_id: str
    title: NotRequired[str]
    brand: NotRequired[str]
    description: NotRequired[str]
    categories: NotRequired[Sequence[Sequence[str]]]
    attributes: NotRequired[Mapping[str, Scalar]]
    embeddings: NotRequired[Mapping[str, Sequence[float]]]


class CatalogueEdit(TypedDict):
    """From which version of the catalogue an edit is served, and of which items."""

    catalogue_version: int
    items: list[str]


class Neighbour(TypedDict):
    """An item near another one."""

    item_id: str
    title: str
    path: list[str]
    semantic_id: list[int]
    likeness: float


class Item(TypedDict):
    """One item of the catalogue in service."""

    item_id: str
    title: str
    path: list[str]
    paths: list[list[str]]
    semantic_id: list[int]
    available: bool
    bundle: str
    catalogue_version: int
    neighbours: list[Neighbour] | None


class Level(TypedDict):
    """One level of the semantic IDs."""

    name: str
    codebook_size: int


class Attribute(TypedDict):
    """An attribute that items can be filtered by."""

    name: str
    type: Literal["str", "int", "float", "bool"]


class State(TypedDict):
    """The store of user state."""

    kind: Literal["memory", "redis"]
    available: bool


class Info(TypedDict):
    """What is in service, and its limits."""

    version: str
    bundle: str
    catalogue_version: int
    items: int
    decoder: Literal["autoregressive", "diffusion"]
    levels: list[Level]
    attributes: list[Attribute]
    scenarios: list[str]
    limits: dict[str, int]
    state: State
    access: Literal["open", "keys"]


class Access(TypedDict):
    """What the caller may do."""

    access: Literal["open", "keys"]
    scopes: list[Literal["publishable", "read", "write", "admin"]]
    user_id: str | None


class BundleReference(TypedDict):
    """A bundle as all replicas know it: its folder's name and its id."""

    name: str
    bundle: str


class Rollout(TypedDict):
    """Which bundle has which role."""

    version: int
    active: BundleReference
    previous: BundleReference | None
    canary: BundleReference | None
    canary_percent: float
    shadow: BundleReference | None
    loaded: BundleReference | None


class Bundle(TypedDict):
    """A bundle that could be put in service."""

    name: str
    bundle: str
    open: bool
    catalogue_failure: str | None


class Bundles(TypedDict):
    """What a replica has in service, and what there is to choose from."""

    rollout: Rollout
    failure: str | None
    bundles: list[Bundle]


class Preview(TypedDict):
    """What a bundle would recommend."""

    name: str
    bundle: str
    decoder: Literal["autoregressive", "diffusion"]
    items: list[RecommendedItem]
    degraded: Degraded | None
    certified: bool | None
    took_ms: float
    unknown_history_items: int


class ActivateOptions(TypedDict, total=False):
    """Which role to give a bundle; `active` without one."""

    role: Literal["active", "canary", "shadow"]
    percent: float
