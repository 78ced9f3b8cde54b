"""A small web shop whose clusters are known."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

ITEM_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "item_id": pl.String,
    "title": pl.String,
    "brand": pl.String,
    "description": pl.String,
    "categories": pl.List(pl.List(pl.String)),
}


@dataclass(frozen=True)
class Item:
    item_id: str
    title: str = ""
    brand: str = ""
    description: str = ""
    path: tuple[str, ...] = ()

    def row(self) -> dict[str, object]:
        categories = [list(self.path)] if self.path else []
        return {
            "item_id": self.item_id,
            "title": self.title,
            "brand": self.brand,
            "description": self.description,
            "categories": categories,
        }


@dataclass(frozen=True)
class Event:
    user_id: str
    item_id: str
    split: str = "train"


@dataclass(frozen=True)
class Shop:
    items: Sequence[Item]
    events: Sequence[Event] = field(default_factory=tuple)

    def write(self, prepared: Path) -> Path:
        prepared.mkdir(parents=True)
        rows = [item.row() for item in self.items]
        pl.DataFrame(rows, schema=ITEM_SCHEMA).write_parquet(prepared / "items.parquet")
        pl.DataFrame(
            {
                "user_id": [event.user_id for event in self.events],
                "item_id": [event.item_id for event in self.events],
                "timestamp": list(range(len(self.events))),
                "type": [""] * len(self.events),
                "split": [event.split for event in self.events],
            },
            schema={
                "user_id": pl.String,
                "item_id": pl.String,
                "timestamp": pl.Int64,
                "type": pl.String,
                "split": pl.String,
            },
        ).write_parquet(prepared / "events.parquet")
        (prepared / "report.json").write_text(json.dumps({}))
        return prepared


KINDS = ("shampoo", "lipstick", "razor", "perfume")
ADJECTIVES = ("soft", "strong", "fresh", "dark", "pure")


def small_shop(*, with_paths: bool = True, targets: Sequence[int] = ()) -> Shop:
    """40 items of 4 kinds; users buy within one kind.

    Args:
        with_paths: whether items have a category.
        targets: item numbers that replace the validation and test targets, 2 per user.
    """
    items = [
        Item(
            item_id=f"item-{number:02d}",
            title=f"{ADJECTIVES[number % 5]} {KINDS[number % 4]} number{number}",
            brand=f"brand{number % 3}" if number % 2 else "",
            description=f"a {KINDS[number % 4]} for every day" if number % 5 == 0 else "",
            path=("Beauty", KINDS[number % 4]) if with_paths else (),
        )
        for number in range(40)
    ]
    events: list[Event] = []
    for user in range(20):
        bought = [4 * ((user * 3 + step) % 10) + user % 4 for step in range(6)]
        if targets:
            bought[4:] = targets[2 * user : 2 * user + 2]
        splits = ["train"] * 4 + ["validation", "test"]
        events += [
            Event(f"user-{user:02d}", f"item-{number:02d}", split)
            for number, split in zip(bought, splits, strict=True)
        ]
    return Shop(items, events)
