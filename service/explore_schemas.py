"""The bodies of browsing: places of the tree, with and without a user."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.filters import FiltersBody
from service.schemas import (
    CATEGORIES_MAX,
    EXCLUDE_MAX,
    HISTORY_MAX,
    K_MAX,
    PATH_MAX,
    CategoryName,
    CategoryPath,
    Degraded,
    Identifier,
    Milliseconds,
    PlacePath,
    RecommendedItemBody,
    RequestBody,
    whole,
)

ITEMS_PER_CHOICE_MAX = 10


class ExploreRequest(RequestBody):
    """Whom to show around, and where.

    `user_id`, `history`, `exclude`, `exclude_seen`, `categories` and `filters` mean what they mean
    in a recommendation.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "u-17"},
                {"history": ["B000052YAN"], "path": ["Makeup", "Nails"], "k": 5},
            ]
        }
    )

    user_id: Identifier | None = None
    history: Annotated[list[Identifier], Field(max_length=HISTORY_MAX)] | None = None
    path: PlacePath = Field(default=[], description="Where to look; names of earlier choices.")
    k: Annotated[int, BeforeValidator(whole)] = Field(
        default=10, ge=0, le=K_MAX, strict=True, description="How many items below the path."
    )
    items_per_choice: Annotated[int, BeforeValidator(whole)] = Field(
        default=3,
        ge=0,
        le=ITEMS_PER_CHOICE_MAX,
        strict=True,
        description="How many items to name in each choice, at most.",
    )
    exclude: list[Identifier] = Field(default=[], max_length=EXCLUDE_MAX)
    exclude_seen: bool = Field(default=True, strict=True)
    categories: list[CategoryPath] = Field(default=[], max_length=CATEGORIES_MAX)
    filters: FiltersBody = Field(default={})
    deadline_ms: Milliseconds | None = Field(
        default=None, description="As in a recommendation; it concerns `items`, not `choices`."
    )


class PlaceBody(BaseModel):
    """One place of the browsed tree."""

    name: str = Field(description="Of the category or item; of a group its most telling words.")
    path: tuple[str, ...] = Field(description="For `path` in a request.")
    kind: Literal["category", "group", "item"]
    items: int = Field(description="Items here; of those that pass, where a request has filters.")
    item_id: str | None = Field(default=None, description="Of an item.")


class BestItem(BaseModel):
    """An item named in a choice."""

    item_id: str
    title: str
    source: str = Field(description="As of a recommended item.")


class ChoiceBody(PlaceBody):
    """A place that the user may go on to."""

    probability: float = Field(
        description="Of the next item being here, of all items; without a known history the "
        "share of training events. The choices of a place sum to it, those left out for want of "
        "items that pass included."
    )
    best: list[BestItem]
    recommendation_id: str | None = Field(
        description="For events on `best`, as that of a recommendation; null without any."
    )


class ExploreAnswer(BaseModel):
    """What lies below a place, for one user."""

    recommendation_id: str | None = Field(
        description="For events on `items`, as that of a recommendation; null without any."
    )
    bundle: str
    variant: Literal["active", "canary"] = Field(description="The role that the bundle has.")
    catalogue_version: int
    path: tuple[str, ...]
    probability: float = Field(description="Of the next item being at `path`.")
    items_here: int = Field(description="Items at `path` that pass.")
    choices: list[ChoiceBody] = Field(description="The most probable first; none below an item.")
    items: list[RecommendedItemBody] = Field(description="The best ones at `path`.")
    degraded: Degraded | None = Field(description="null for a full answer.")
    took_ms: float
    unknown_history_items: int


class TaxonomyQuery(BaseModel):
    """What a request asks of the tree; other parameters are refused."""

    model_config = ConfigDict(extra="forbid")

    path: list[CategoryName] = Field(
        default=[],
        max_length=PATH_MAX,
        description="Where to look: one parameter for each name.",
    )


class TaxonomyAnswer(BaseModel):
    """What lies below a place, for nobody in particular."""

    bundle: str
    catalogue_version: int
    path: tuple[str, ...]
    items_here: int
    choices: list[PlaceBody] = Field(description="In the order of the tree.")
