"""What people say of items while the catalogue is served: what is kept, never what is made of it.

An edit has three parts that change independently: what the item is, whether it is hidden, and what
is on offer of it. It is the same whatever bundle is in service.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from model.new_items import NewItem


@dataclass(frozen=True)
class Offer:
    """When and whether an item can be had; None is no limit."""

    stock: int | None = None
    """Pieces left."""
    available_from: float | None = None
    """Unix time from which it can be had."""
    available_until: float | None = None
    """Unix time from which it can not any more."""

    def is_open(self, now: float) -> bool:
        """Whether the item can be had at `now`, Unix time."""
        begins = -float("inf") if self.available_from is None else self.available_from
        ends = float("inf") if self.available_until is None else self.available_until
        return self.stock != 0 and begins <= now < ends

    def next_change(self, now: float) -> float | None:
        """The first moment after `now` that may change the answer, None without one."""
        moments = (self.available_from, self.available_until)
        return min((each for each in moments if each is not None and each > now), default=None)


@dataclass(frozen=True)
class ItemEdit:
    """All that has been said of one item."""

    item: NewItem | None = None
    """None: as the bundle has it."""
    is_hidden: bool = False
    offer: Offer = Offer()

    def allows(self, now: float) -> bool:
        """Whether the item may be recommended at `now`, Unix time."""
        return not self.is_hidden and self.offer.is_open(now)


def next_change(edits: Iterable[ItemEdit], now: float) -> float | None:
    """The first moment after `now` at which an offer begins or ends, None without one."""
    changes = (edit.offer.next_change(now) for edit in edits)
    return min((change for change in changes if change is not None), default=None)
