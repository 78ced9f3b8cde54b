"""A bundle and a recommender made by hand, with the answers that tests expect."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from model.browse import BrowseTree
from model.errors import FilterError, UnknownCategoryError
from model.manifest import AttributeFacts, LevelFacts
from model.query import Query, Recommendation, RecommendedItem
from model.strings import StringTable
from model.trie import Trie
from model.types import FloatArray


@dataclass(frozen=True)
class TableItem:
    item_id: str
    title: str
    path: tuple[str, ...]


ITEMS = (
    TableItem("polish", "Nail polish", ("Makeup", "Nails")),
    TableItem("file", "Nail file", ("Makeup", "Nails")),
    TableItem("lipstick", "Lipstick", ("Makeup", "Lips")),
    TableItem("soap", "Soap", ("Bath",)),
    TableItem("a/b é", "Odd name", ("Bath",)),
)
"""Most popular first."""


@dataclass(frozen=True)
class TableCatalog:
    items: tuple[TableItem, ...] = ITEMS

    def __len__(self) -> int:
        return len(self.items)

    def leaf(self, item_id: str) -> int | None:
        ids = [item.item_id for item in self.items]
        return ids.index(item_id) if item_id in ids else None

    def item_id(self, leaf: int) -> str:
        return self.items[leaf].item_id

    def title(self, leaf: int) -> str:
        return self.items[leaf].title

    def path(self, leaf: int) -> tuple[str, ...]:
        return self.items[leaf].path

    def paths(self, leaf: int) -> list[tuple[str, ...]]:
        return [self.items[leaf].path, ("Gifts",)]

    def semantic_id(self, leaf: int) -> tuple[int, ...]:
        return (leaf // 2, leaf)


@dataclass(frozen=True)
class TableManifest:
    levels: tuple[LevelFacts, ...] = (
        LevelFacts(name="category", kind="category", codes=3),
        LevelFacts(name="title", kind="text", codes=5),
    )
    attributes: tuple[AttributeFacts, ...] = (AttributeFacts(name="price", type="float"),)
    history_length: int = 20
    decoder: Literal["autoregressive", "diffusion"] = "autoregressive"


def table_browse() -> BrowseTree:
    """Groups of two items each, without a taxonomy."""
    codes = np.array([[leaf // 2, leaf] for leaf in range(len(ITEMS))], np.int32)
    trie, _ = Trie.build(codes)
    names = StringTable.build([f"Group {node}" for node in range(trie.item_start)])
    titles = StringTable.build([item.title for item in ITEMS])
    return BrowseTree(trie, codes, (), names, titles, titles)


@dataclass(frozen=True)
class TableTree:
    """Vectors of items that turn away from the first one, ten degrees each."""

    @property
    def item_vectors(self) -> FloatArray:
        angles = np.radians(10 * np.arange(len(ITEMS)))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@dataclass(frozen=True)
class TableBundle:
    bundle_id: str = "table"
    catalogue_version: int = 3
    manifest: TableManifest = field(default_factory=TableManifest)
    catalog: TableCatalog = field(default_factory=TableCatalog)
    browse: BrowseTree = field(default_factory=table_browse)
    tree: TableTree = field(default_factory=TableTree)

    def live_items(self, first: int, end: int) -> int:
        return end - first


class TableRecommender:
    """Answers from `ITEMS`: the last history item's category first, then by popularity."""

    def __init__(self, queries: list[Query] | None = None) -> None:
        self.queries = queries if queries is not None else []

    def recommend(self, query: Query) -> Recommendation:
        self.queries.append(query)
        catalog = TableCatalog()
        history = [*query.history, *query.anchors]
        known = [item for item in history if catalog.leaf(item) is not None]
        for path in query.categories:
            if not any(item.path[: len(path)] == tuple(path) for item in ITEMS):
                raise UnknownCategoryError(path)
        for name in query.filters:
            if name != "price":
                raise FilterError(name, "is no attribute of this bundle; there is price")
        dropped = {*query.exclude, *query.anchors}
        if query.exclude_seen:
            dropped |= {*query.history, *query.seen}
        near = ITEMS[catalog.leaf(known[-1]) or 0].path if known else None
        legal = [
            item
            for item in sorted(ITEMS, key=lambda item: item.path != near)
            if item.item_id not in dropped and self._passes(item, query)
        ]
        items = tuple(
            self._item(item, rank, is_generated=item.path == near)
            for rank, item in enumerate(legal[: query.k], start=1)
        )
        seconds = {"encode": 0.001, "decode": 0.002, "resolve": 0.001}
        certified = True if known else None
        return Recommendation(items, len(history) - len(known), certified, seconds)

    def _passes(self, item: TableItem, query: Query) -> bool:
        return not query.categories or any(
            item.path[: len(path)] == tuple(path) for path in query.categories
        )

    def _item(self, item: TableItem, rank: int, *, is_generated: bool) -> RecommendedItem:
        return RecommendedItem(
            item_id=item.item_id,
            rank=rank,
            score=-float(rank),
            source="generated" if is_generated else "popular",
            title=item.title,
            path=item.path,
            semantic_id=TableCatalog().semantic_id(ITEMS.index(item)),
            level_log_probs=(-0.5, -0.25) if is_generated else None,
        )


class GatedRecommender:
    """Computes nothing until the test opens the gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.answered = 0

    def recommend(self, query: Query) -> Recommendation:
        self.entered.release()
        assert self.gate.wait(30), "the test never opened the gate"
        self.answered += 1
        return TableRecommender().recommend(query)


class BrokenRecommender:
    """Has a defect whose message holds what must never be shown."""

    def recommend(self, query: Query) -> Recommendation:
        raise KeyError(f"secret-user {query.history!r}")


def always(recommender: Callable[[], object] | object) -> Callable[[], "TableRecommender"]:
    """Return a factory that gives the same recommender to every worker."""
    return lambda: recommender  # type: ignore[return-value]
