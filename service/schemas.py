"""The bodies of requests and answers; unknown fields are refused.

Ids are strings of 1 to 256 characters without control characters. Limits that are part of the API
(list sizes) stand here as constants and are told by /v1/info.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.filters import FiltersBody
from service.rollout import Role, Rollout
from service.scopes import Scope

K_MAX = 100
BEAM_MAX = 1_000
HISTORY_MAX = 1_000
EXCLUDE_MAX = 1_000
CATEGORIES_MAX = 50
CATEGORY_DEPTH_MAX = 16
PATH_MAX = 32
EVENTS_MAX = 100
NEIGHBOURS_MAX = 50
ANCHORS_MAX = 10
CONTEXT_MAX = 16
ID_MAX = 256
RECOMMENDATION_ID_MAX = 1_024
FIELDS_MAX = 32
"""More than any object has; beyond it unknown fields are not told one by one."""
DEADLINE_MAX_MS = 600_000
TIMESTAMP_MAX_SECONDS = 4_102_444_800
"""The year 2100: a larger number is milliseconds by mistake."""

_NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]+$"
Identifier = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=ID_MAX, pattern=_NO_CONTROLS),
]
CategoryName = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=ID_MAX)]
CategoryPath = Annotated[list[CategoryName], Field(min_length=1, max_length=CATEGORY_DEPTH_MAX)]
PlacePath = Annotated[list[CategoryName], Field(max_length=PATH_MAX)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
ContextName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
ContextValue = (
    Annotated[str, StringConstraints(max_length=ID_MAX, strict=True)]
    | StrictBool
    | Annotated[float, Field(allow_inf_nan=False, strict=True)]
)
ScenarioName = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
]
EventType = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=32, pattern=r"^[A-Za-z0-9_.-]+$")
]


RecommendationId = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=RECOMMENDATION_ID_MAX)
]


def whole(number: Any) -> Any:
    """Return 12.0 as 12, which JSON Schema does not tell apart; anything else unchanged."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Milliseconds = Annotated[int, Field(ge=1, le=DEADLINE_MAX_MS, strict=True), BeforeValidator(whole)]


def _beam_variant(beam: Any) -> str:
    """Return the tag of the variant; the parentheses keep it out of error pointers."""
    return "(word)" if isinstance(beam, str) else "(number)"


_BeamNumber = Annotated[
    int, Field(ge=1, le=BEAM_MAX, strict=True), BeforeValidator(whole), Tag("(number)")
]
Beam = Annotated[
    _BeamNumber | Annotated[Literal["auto"], Tag("(word)")], Discriminator(_beam_variant)
]


class RequestBody(BaseModel):
    """A body that a client sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _bound_fields(cls, body: Any) -> Any:
        """Refuse at once what would take seconds to refuse field by field."""
        if isinstance(body, dict) and len(body) > FIELDS_MAX:
            raise PydanticCustomError(
                "too_many_fields", "an object may have {most} fields at most", {"most": FIELDS_MAX}
            )
        return body


class RecommendRequest(RequestBody):
    """Whom to recommend to, and within which limits.

    With neither `user_id` nor `history` the answer is what is popular. With both, `history` takes
    the place of the stored history for this request, and the user's stored items still count as
    seen.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "not": {"required": ["diversity", "exploration"]},
            "examples": [
                {"user_id": "u-17", "k": 5},
                {
                    "history": ["B000052YAN", "B00005M9MG"],
                    "k": 10,
                    "categories": [["Makeup", "Nails"]],
                    "filters": {"brand": ["Essie", "OPI"], "price": {"max": 15}},
                    "explain": True,
                },
                {"user_id": "u-17", "beam": "auto", "deadline_ms": 40},
            ],
        }
    )

    user_id: Identifier | None = Field(
        default=None, description="Whose stored history and seen items to use."
    )
    history: Annotated[list[Identifier], Field(max_length=HISTORY_MAX)] | None = Field(
        default=None,
        description="Item ids, oldest first; unknown ones are skipped and counted.",
    )
    k: Annotated[int, BeforeValidator(whole)] = Field(
        default=10, ge=1, le=K_MAX, strict=True, description="How many items."
    )
    exclude: list[Identifier] = Field(
        default=[], max_length=EXCLUDE_MAX, description="Item ids never to return."
    )
    exclude_seen: bool = Field(
        default=True, strict=True, description="Leave out what the user has already had."
    )
    categories: list[CategoryPath] = Field(
        default=[],
        max_length=CATEGORIES_MAX,
        description="Category paths, coarse to fine; an item passes below any of them.",
    )
    filters: FiltersBody = {}
    path: PlacePath = Field(
        default=[],
        description="Names from /v1/explore or /v1/taxonomy: only items of this place. An item "
        "counts where its first category path puts it; `categories` counts all of its paths.",
    )
    explain: bool = Field(
        default=False, strict=True, description="Say of every item why it is there."
    )
    after: RecommendationId | None = Field(
        default=None,
        description="The recommendation_id of the page before: neither its items nor those of the "
        "pages before it are repeated. Known for 30 minutes, and only with the same `user_id`.",
    )
    anchor: list[Identifier] = Field(
        default=[],
        max_length=ANCHORS_MAX,
        description="Items that are being looked at: items like them, and for this user, are "
        "wanted. Read as the newest of the history, never returned.",
    )
    diversity: Share = Field(
        default=0.0,
        description="0 orders by score; 1 by the shares of coarse categories in the history "
        "(calibrated); in between by both.",
    )
    exploration: Share = Field(
        default=0.0,
        description="Above 0 items are drawn by chance from the best ones found, with this "
        "temperature, and each tells its `propensity`; not together with `diversity`.",
    )
    scenario: ScenarioName | None = Field(
        default=None,
        description="Name of one of the service's presets, which /v1/info lists: it stands in for "
        "the fields that the request does not give, and may pin and boost items.",
    )
    context: dict[ContextName, ContextValue] = Field(
        default={},
        json_schema_extra={"additionalProperties": False},  # names that do not match
        max_length=CONTEXT_MAX,
        description="Written to the event log, where there is one, with the recommendation_id and "
        "the items; of no other effect.",
    )
    beam: Beam | None = Field(
        default=None,
        description="How many prefixes the search keeps per level, at least `k`; the bundle's "
        "number by default. `auto` doubles it until the answer is certified or time is up.",
    )
    deadline_ms: Milliseconds | None = Field(
        default=None,
        description="Time for this answer in milliseconds, at most the service's own. When it is "
        "short, the fine levels are popular instead of searched: see `degraded.levels`.",
    )

    @model_validator(mode="after")
    def _has_one_order(self) -> "RecommendRequest":
        if {"diversity", "exploration"} <= self.model_fields_set:
            raise PydanticCustomError(
                "two_orders", "diversity and exploration exclude one another: give one of them"
            )
        return self


class StepBody(BaseModel):
    """One place on the way to an item."""

    name: str
    kind: Literal["category", "group", "item"]
    probability: float = Field(description="Of the next item being there.")


class InfluenceBody(BaseModel):
    """What one item of the history does for a recommended one."""

    item_id: str
    log_prob_drop: float = Field(
        description="How much the log-probability falls without this item; below 0 it speaks "
        "against the recommended one."
    )


class ExplanationBody(BaseModel):
    """Why an item is recommended."""

    way: list[StepBody] = Field(
        description="From broad to narrow; for popular items with shares of training events."
    )
    influences: list[InfluenceBody] = Field(
        description="The newest items of the history, newest first; none where it has only one."
    )
    certified: bool | None = Field(
        description="Whether the list is proven to be the exact best; null where nothing was "
        "searched or the order is not the score's alone."
    )


class RecommendedItemBody(BaseModel):
    """One recommended item."""

    item_id: str
    rank: int = Field(description="1 is best.")
    score: float = Field(
        description="The bundle's ranking score; falls with the rank, but for `diversity`, "
        "`exploration` and pinned items."
    )
    source: str = Field(
        description="`generated` from the history; `partial`, generated in the coarse levels and "
        "popular below; or the link of the fallback chain that it comes from: "
        "`popular_in_category`, popular in the categories that this user is likely to want; "
        "`popular`; `default`, from the bundle's default list, where no event tells what is "
        "popular. Instead of these `boosted` or `pinned` by the scenario."
    )
    title: str
    path: tuple[str, ...] = Field(description="Category names, coarse to fine.")
    semantic_id: tuple[int, ...] = Field(description="One code per level, coarse to fine.")
    level_log_probs: tuple[float, ...] | None = Field(
        default=None,
        description="Per generated level, with `explain`; null for items of the fallback chain.",
    )
    explanation: ExplanationBody | None = Field(default=None, description="With `explain`.")
    propensity: float | None = Field(
        default=None,
        description="With `exploration`: the probability of this item here, given those before.",
    )


class Degraded(BaseModel):
    """What the answer had to do without."""

    state_unavailable: bool = Field(description="The user's stored state could not be read.")
    levels: int | None = Field(
        default=None,
        description="How many levels there was time to search, from coarse on; below them the "
        "most popular items were taken. null for all.",
    )
    paging: bool = Field(
        default=False,
        description="The pages before are not known; their items may be repeated.",
    )
    explanations: bool = Field(
        default=False,
        description="There was no time to explain in full: influences are missing, and "
        "probabilities may be shares of the training events.",
    )


class RecommendAnswer(BaseModel):
    """Recommended items, best first."""

    recommendation_id: str = Field(
        description="Send it with the events that follow, and they are attributed to this answer."
    )
    bundle: str
    variant: Literal["active", "canary"] = Field(description="The role that the bundle has.")
    catalogue_version: int
    items: list[RecommendedItemBody]
    degraded: Degraded | None = Field(description="null for a full answer.")
    certified: bool | None = Field(
        description="Whether the items are proven to be the best of the whole catalogue by the "
        "served score; null where nothing was searched, there was no time for all levels or "
        "the order is not the score's alone, as with anchors, pins and boosts."
    )
    took_ms: float
    unknown_history_items: int = Field(
        description="Items of the history that the catalogue does not hold."
    )


class EventBody(RequestBody):
    """One thing that a user did with an item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "event_id": "6f1d",
                    "user_id": "u-17",
                    "item_id": "B000052YAN",
                    "timestamp": 1700000000.5,
                    "type": "purchase",
                },
                {
                    "event_id": "6f1e",
                    "user_id": "u-17",
                    "item_id": "B000052YAN",
                    "recommendation_id": "AQGa8mQ0uL5c2xhk1w",
                },
            ]
        }
    )

    event_id: Identifier = Field(description="Your name of the event, unique per user.")
    user_id: Identifier
    item_id: Identifier = Field(description="Stored as given, also when not in the catalogue.")
    timestamp: float | None = Field(
        default=None,
        ge=0,
        le=TIMESTAMP_MAX_SECONDS,
        allow_inf_nan=False,
        strict=True,
        description="When it happened, in seconds of Unix time; kept to the millisecond. "
        "Default: now.",
    )
    type: EventType = Field(
        default="view",
        description="`view`, `cart`, `purchase`, `dislike`, or a word of your own. A dislike keeps "
        "the item out of the history and out of every answer to the user.",
    )
    recommendation_id: RecommendationId | None = Field(
        default=None,
        description="Of the answer that showed the item, if one did. The event counts whatever "
        "this is; the result's `attribution` says whether it was recognised.",
    )


class EventBatch(RequestBody):
    """Several events, of one or several users."""

    events: list[EventBody] = Field(min_length=1, max_length=EVENTS_MAX)


def _variant(body: Any) -> str:
    """Return the tag of the body's variant; the parentheses keep it out of error pointers."""
    is_batch = isinstance(body, EventBatch) or (isinstance(body, dict) and "events" in body)
    return "(batch)" if is_batch else "(event)"


EventsRequest = Annotated[
    Annotated[EventBody, Tag("(event)")] | Annotated[EventBatch, Tag("(batch)")],
    Discriminator(_variant),
]


class EventResult(BaseModel):
    """What became of one event."""

    event_id: str
    status: Literal["accepted", "duplicate", "unconfirmed"] = Field(
        description="`unconfirmed` only in a 503: send the event again."
    )
    attribution: Literal["attributed", "invalid", "expired", "not_served"] | None = Field(
        default=None,
        description="What `recommendation_id` was worth; null without one. `invalid`: not from "
        "this service, or its secret is no longer in use. `expired`: older than a day. "
        "`not_served`: the answer did not hold the item.",
    )


class EventsAnswer(BaseModel):
    """What became of the events, in the order of the request."""

    results: list[EventResult]
    accepted: int
    duplicates: int


class HistoryEntryBody(BaseModel):
    """One event of a stored history."""

    item_id: str
    timestamp: float = Field(description="Seconds of Unix time.")
    type: str


class ServedListBody(BaseModel):
    """Items that were served together; kept half an hour, so that a next page repeats none."""

    recommendation_id: str
    expires: float = Field(description="Seconds of Unix time.")
    items: list[str] = Field(description="Item ids, those of earlier pages included.")


class CountedRequestsBody(BaseModel):
    """Requests that count against a key's limit for this user."""

    key: str = Field(description="Name of the publishable key.")
    requests: int = Field(description="Not yet refilled.")


class UserAnswer(BaseModel):
    """What the state holds of a user; all empty for an unknown one."""

    user_id: str
    history: list[HistoryEntryBody] = Field(description="Oldest first.")
    history_items: int
    seen_items: int
    disliked: list[str] = Field(description="Item ids, in no order; never recommended to the user.")
    seen: list[str] = Field(description="Item ids, more than the history holds.")
    event_ids: list[str] = Field(description="Kept for a while, to recognise repeated events.")
    events: int = Field(description="Events accepted since the user became known.")
    history_version: int
    served_lists: list[ServedListBody] = Field(description="Newest first.")
    counted_requests: list[CountedRequestsBody] = Field(description="Where there are any.")


class NeighbourBody(BaseModel):
    """An item near another one."""

    item_id: str
    title: str
    path: tuple[str, ...]
    semantic_id: tuple[int, ...]
    likeness: float = Field(description="Cosine of the angle between the item vectors, -1 to 1.")


class ItemAnswer(BaseModel):
    """One item of the catalogue in service."""

    item_id: str
    title: str
    path: tuple[str, ...]
    paths: list[tuple[str, ...]]
    semantic_id: tuple[int, ...]
    available: bool = Field(
        description="Whether it may be recommended now: not hidden, in stock, in its time."
    )
    bundle: str
    catalogue_version: int
    neighbours: list[NeighbourBody] | None = Field(
        default=None, description="The most alike first; null where none were asked for."
    )


class ActivateRequest(RequestBody):
    """Which role to give a bundle."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{}, {"role": "canary", "percent": 5}, {"role": "shadow"}]}
    )

    role: Role = Field(
        default="active",
        description="`active`: everybody; `canary`: some users; `shadow`: computed, not served.",
    )
    percent: float = Field(
        default=5,
        gt=0,
        le=100,
        allow_inf_nan=False,
        strict=True,
        description="Of the users, by a hash of the user id; for `canary` only.",
    )


class BundleBody(BaseModel):
    """A bundle that could be put in service."""

    name: str
    bundle: str = Field(description="Its id.")
    open: bool = Field(description="Whether this replica has it open and verified.")
    catalogue_failure: str | None = Field(
        description="Why it lacks some edits of the catalogue here, which are tried again."
    )


class BundlesAnswer(BaseModel):
    """What this replica has in service, and what there is to choose from."""

    rollout: Rollout
    failure: str | None = Field(description="Why this replica does not follow a newer rollout.")
    bundles: list[BundleBody]


class LevelBody(BaseModel):
    """One level of the semantic IDs."""

    name: str
    codebook_size: int


class AttributeBody(BaseModel):
    """An attribute that items can be filtered by."""

    name: str
    type: Literal["str", "int", "float", "bool"]


class StateBody(BaseModel):
    """The store of user state."""

    kind: Literal["memory", "redis"]
    available: bool


class InfoAnswer(BaseModel):
    """What is in service, and its limits."""

    version: str
    bundle: str
    catalogue_version: int
    items: int
    decoder: Literal["autoregressive", "diffusion"] = Field(
        description="What writes the codes. A diffusion decoder certifies nothing, and has no "
        "probability per level: `explain` and /v1/explore are refused."
    )
    levels: list[LevelBody] = Field(description="Coarse to fine.")
    attributes: list[AttributeBody] = Field(description="What `filters` may name, with its type.")
    scenarios: list[str] = Field(description="What `scenario` may name.")
    limits: dict[str, int] = Field(description="Each name ends with its unit.")
    state: StateBody
    access: Literal["open", "keys"] = Field(
        description="`open` where everybody may call, because no keys are configured."
    )


class AccessAnswer(BaseModel):
    """What the caller may do."""

    access: Literal["open", "keys"] = Field(description="As in /v1/info.")
    scopes: list[Scope] = Field(description="Of the key; without keys, what everybody may do.")
    user_id: str | None = Field(description="The only user to act for; null where any may be.")


class LiveAnswer(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ReadyAnswer(BaseModel):
    """The service can be sent requests."""

    status: Literal["ready"] = "ready"
    bundle: str
    state: StateBody


class FieldError(BaseModel):
    """One offending field."""

    detail: str
    code: str
    pointer: str | None = Field(default=None, description="Into the body: `#/events/0/item_id`.")
    parameter: str | None = Field(default=None, description="Of the path or the query.")


class Problem(BaseModel):
    """Every error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="Stable; decide by this one.")
    errors: list[FieldError]
    request_id: str
    retryable: bool
    results: list[EventResult] | None = Field(
        default=None, description="Of code events_not_stored: what became of each event."
    )
