"""The bodies of requests and answers of edits of the live catalogue.

Everything that people send of an item is bounded here, before it is stored.
"""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.filters import AttributeName, ScalarValue
from service.item_edits import Change, ItemContent, OfferContent
from service.schemas import (
    CATEGORY_DEPTH_MAX,
    ID_MAX,
    TIMESTAMP_MAX_SECONDS,
    Identifier,
    RequestBody,
    whole,
)

ITEMS_MAX = 100
TITLE_MAX = 1_000
DESCRIPTION_MAX = 10_000
PATHS_MAX = 16
ATTRIBUTES_MAX = 64
EMBEDDINGS_MAX = 8
EMBEDDING_WIDTH_MAX = 4_096
EMBEDDING_NUMBER_MAX = 1e9
STOCK_MAX = 2**31 - 1

_NO_NULLS = r"^[^\x00]*$"
Title = Annotated[str, StringConstraints(strict=True, max_length=TITLE_MAX, pattern=_NO_NULLS)]
Brand = Annotated[str, StringConstraints(strict=True, max_length=ID_MAX, pattern=_NO_NULLS)]
Description = Annotated[
    str, StringConstraints(strict=True, max_length=DESCRIPTION_MAX, pattern=_NO_NULLS)
]
Path = Annotated[list[Identifier], Field(min_length=1, max_length=CATEGORY_DEPTH_MAX)]
Stock = Annotated[int, Field(ge=0, le=STOCK_MAX, strict=True), BeforeValidator(whole)]
Embedding = Annotated[
    list[
        Annotated[
            float,
            Field(
                ge=-EMBEDDING_NUMBER_MAX, le=EMBEDDING_NUMBER_MAX, strict=True, allow_inf_nan=False
            ),
        ]
    ],
    Field(min_length=1, max_length=EMBEDDING_WIDTH_MAX),
]
Moment = Annotated[float, Field(ge=0, le=TIMESTAMP_MAX_SECONDS, strict=True, allow_inf_nan=False)]


class OfferRequest(RequestBody):
    """Whether and when an item can be had; what is not given is no limit."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"stock": 0}, {"available_from": 1800000000, "stock": 25}, {}]
        }
    )

    stock: Stock | None = Field(
        default=None, description="Pieces left; with 0 the item is not recommended."
    )
    available_from: Moment | None = Field(
        default=None, description="Unix time in seconds from which it is recommended."
    )
    available_until: Moment | None = Field(
        default=None, description="Unix time in seconds from which it is not any more."
    )

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> "OfferRequest":
        begins, ends = self.available_from, self.available_until
        if begins is not None and ends is not None and begins >= ends:
            raise PydanticCustomError(
                "empty_window", "available_until must be later than available_from"
            )
        return self

    def offer_change(self, item_id: str) -> Change:
        """Return what this says of the item."""
        offer = OfferContent(
            stock=self.stock,
            available_from=self.available_from,
            available_until=self.available_until,
        )
        is_limited = bool(offer.model_dump(exclude_none=True))
        text = offer.model_dump_json(exclude_none=True) if is_limited else None
        return Change(item_id, "offer", text)


class ItemBody(OfferRequest):
    """All that is to be known of one item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "item_id": "polish-7",
                    "title": "Nail polish, coral",
                    "categories": [["Makeup", "Nails", "Nail Polish"]],
                    "brand": "Essie",
                    "attributes": {"price": 8.5},
                    "stock": 40,
                }
            ]
        }
    )

    item_id: Identifier = Field(
        description="Of a new item, or of one that this takes the place of."
    )
    title: Title = ""
    brand: Brand = ""
    description: Description = ""
    categories: list[Path] = Field(
        default=[], max_length=PATHS_MAX, description="Category paths, the primary one first."
    )
    attributes: dict[AttributeName, ScalarValue] = Field(
        default={},
        max_length=ATTRIBUTES_MAX,
        description="Values of the attributes that /v1/info lists.",
    )
    embeddings: dict[AttributeName, Embedding] = Field(
        default={},
        max_length=EMBEDDINGS_MAX,
        description="Of an image, of a place, ...: those that the bundle's codes are read from, by "
        "the names of [prepare] embeddings and as wide. One that is not given counts as empty.",
    )

    def changes(self) -> list[Change]:
        """Return what this says of the item."""
        content = ItemContent(
            title=self.title,
            brand=self.brand,
            description=self.description,
            categories=self.categories,
            attributes=self.attributes,
            embeddings=self.embeddings,
        )
        return [
            Change(self.item_id, "item", content.model_dump_json(exclude_defaults=True)),
            self.offer_change(self.item_id),
        ]


class ItemBatch(RequestBody):
    """Several items at once, stored all or none."""

    items: list[ItemBody] = Field(min_length=1, max_length=ITEMS_MAX)

    @model_validator(mode="after")
    def _names_each_once(self) -> "ItemBatch":
        if len({item.item_id for item in self.items}) < len(self.items):
            raise PydanticCustomError("repeated_item", "an item_id comes twice; give each once")
        return self


def _items_variant(body: Any) -> str:
    """Return the tag of the variant; the parentheses keep it out of error pointers."""
    return "(several)" if isinstance(body, dict) and "items" in body else "(one)"


ItemsRequest = Annotated[
    Annotated[ItemBody, Tag("(one)")] | Annotated[ItemBatch, Tag("(several)")],
    Discriminator(_items_variant),
]


class CatalogueAnswer(BaseModel):
    """What an edit has led to."""

    catalogue_version: int = Field(
        description="From which the edit is served: here now, on other replicas within a second."
    )
    items: list[str] = Field(description="Ids of the items that were edited.")
