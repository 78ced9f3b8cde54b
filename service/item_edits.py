"""Edits of the live catalogue: what people said of items, and the store that keeps it.

What was said of an item has three parts that change independently: `item`, `hidden` and `offer`.
Each is kept as JSON, as it was sent, and the newest of a part counts; so edits need no merging, and
any bundle can read them. Both stores (this one and `service/redis_item_edits.py`) mean the same:

- A write takes all of its changes or none, and has the next version.
- An item of which nothing is said any more is forgotten.
- A reader that names where it is gets what has changed since then; one that cannot be served so, as
  something was forgotten since, or the store is another one, gets everything.
- A store that has lost what a reader or a writer knows says so and does nothing else, until it is
  given it back (`restore`). What was said there in the meantime stays, and is the newer word.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from model.attributes import Scalar
from model.edits import ItemEdit, Offer
from model.new_items import NewItem
from service.errors import CatalogueFullError

EDITED_ITEMS_MAX = 10_000
EDITS_MAX_BYTES = 32 * 2**20
HIDDEN = "true"
"""The text of the part `hidden`."""
_LOGGER = logging.getLogger(__name__)

Part = Literal["item", "hidden", "offer"]
PARTS: tuple[Part, ...] = get_args(Part)
Parts = Mapping[Part, str]
"""What is said of one item, as JSON."""


class ItemContent(BaseModel):
    """The part `item`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    brand: str = ""
    description: str = ""
    categories: list[list[str]] = []
    attributes: dict[str, Scalar] = {}
    embeddings: dict[str, list[float]] = {}


class OfferContent(BaseModel):
    """The part `offer`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stock: int | None = None
    available_from: float | None = None
    available_until: float | None = None


@dataclass(frozen=True)
class Change:
    """One part of what is said of an item from now on; nothing any more where `text` is None."""

    item_id: str
    part: Part
    text: str | None


@dataclass(frozen=True)
class Position:
    """How much of which store a reader knows."""

    store: str
    """Made up anew for a store that begins empty."""
    version: int
    write: str = ""
    """Made up anew for the write that led here, where a version may be lost and given out again."""

    def includes(self, other: "Position") -> bool:
        """Whether everything that was known there is known here."""
        return self.store == other.store and self.version >= other.version


START = Position("", 0)
"""Knows nothing."""


@dataclass(frozen=True)
class Update:
    """What a reader has to learn."""

    position: Position
    """Where the store is now."""
    parts: Mapping[str, Parts]
    """By item id."""
    is_whole: bool
    """Whether items that are not named have no edits."""


class EditsLostError(Exception):
    """The store, emptied or put back, lacks what the caller knows, who restores it first."""


class EditStore(Protocol):
    """Keeps the edits; operations raise `CatalogueUnavailableError` when it cannot be reached."""

    async def start(self) -> None:
        """Begin to hear of changes."""
        ...

    async def close(self) -> None:
        """End it."""
        ...

    async def write(self, changes: Sequence[Change], known: Position) -> Position:
        """Store the changes, all or none, and return where the store is now.

        Raises:
            CatalogueFullError: there would be more edits than are kept.
            EditsLostError: the store lacks what is known; nothing was stored.
        """
        ...

    async def read(self, known: Position) -> Update | None:
        """Return what has changed since `known`, None where the store has never been written.

        Raises:
            EditsLostError: the store lacks what is known.
        """
        ...

    async def restore(self, position: Position, parts: Mapping[str, Parts]) -> None:
        """Give back what is known at `position` to a store that lacks it."""
        ...

    async def wait_for_change(self, timeout_seconds: float) -> None:
        """Wait until there may be other edits, or until the time is up."""
        ...


class MemoryEdits:
    """Keeps the edits of this process alone, as long as it lives."""

    def __init__(self) -> None:
        self._store = uuid4().hex
        self._parts: dict[str, dict[Part, str]] = {}
        self._version = 0
        self._forgot_at = 0
        self._changed_at: dict[str, int] = {}

    async def start(self) -> None:
        """Do nothing: nobody else makes changes."""

    async def close(self) -> None:
        """Do nothing."""

    async def write(self, changes: Sequence[Change], known: Position) -> Position:  # noqa: ARG002
        """See `EditStore.write`."""
        after = {each.item_id: dict(self._parts.get(each.item_id, {})) for each in changes}
        for each in changes:
            after[each.item_id].pop(each.part, None)
            if each.text is not None:
                after[each.item_id][each.part] = each.text
        kept = {item_id: parts for item_id, parts in (self._parts | after).items() if parts}
        refuse_too_many(len(kept), sum(map(_bytes, kept.values())))
        self._version += 1
        for item_id, parts in after.items():
            self._changed_at[item_id] = self._version
            if not parts:
                self._forgot_at = self._version
                del self._changed_at[item_id]
        self._parts = kept
        return self._position

    async def read(self, known: Position) -> Update | None:
        """See `EditStore.read`."""
        if self._version == 0:
            return None
        is_whole = known.store != self._store or known.version < self._forgot_at
        since = 0 if is_whole else known.version
        changed = {
            item_id: self._parts[item_id] for item_id, at in self._changed_at.items() if at > since
        }
        return Update(self._position, changed, is_whole)

    async def restore(self, position: Position, parts: Mapping[str, Parts]) -> None:
        """Do nothing: this store ends with its readers."""

    async def wait_for_change(self, timeout_seconds: float) -> None:
        """Wait until the time is up."""
        await asyncio.sleep(timeout_seconds)

    @property
    def _position(self) -> Position:
        return Position(self._store, self._version)


def refuse_too_many(items: int, size_bytes: int) -> None:
    """Refuse what would be too much to keep.

    Raises:
        CatalogueFullError: it would.
    """
    if items > EDITED_ITEMS_MAX or size_bytes > EDITS_MAX_BYTES:
        raise CatalogueFullError(
            f"there would be edits of {items} items in {size_bytes} bytes; at most "
            f"{EDITED_ITEMS_MAX} and {EDITS_MAX_BYTES} are kept: train on what has lasted, then "
            "take edits back with POST /v1/items/{item_id}:reset"
        )


def _bytes(parts: Parts) -> int:
    return sum(len(text.encode()) for text in parts.values())


def edit_of(item_id: str, parts: Parts) -> ItemEdit:
    """Return what the parts say of an item; what cannot be read is logged and says nothing."""
    try:
        content = ItemContent.model_validate_json(parts["item"]) if "item" in parts else None
        offer = OfferContent.model_validate_json(parts.get("offer", "{}"))
    except ValidationError as error:
        _LOGGER.error("edit_unreadable", extra={"errors": error.error_count()})
        return ItemEdit(is_hidden="hidden" in parts)
    return ItemEdit(
        None if content is None else _item(item_id, content),
        "hidden" in parts,
        Offer(offer.stock, offer.available_from, offer.available_until),
    )


def _item(item_id: str, content: ItemContent) -> NewItem:
    return NewItem(
        item_id,
        content.title,
        content.brand,
        content.description,
        tuple(tuple(path) for path in content.categories if path),
        content.embeddings,
        content.attributes,
    )
