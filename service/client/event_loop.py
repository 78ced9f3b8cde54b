"""The client for event loops."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack, cast

import httpx2

from service.client.bodies import (
    Access,
    ActivateOptions,
    Bundles,
    CatalogueEdit,
    Event,
    EventsAnswer,
    Exploration,
    ExploreOptions,
    Info,
    Item,
    ItemEdit,
    Offer,
    Preview,
    Recommendation,
    RecommendBatchAnswer,
    RecommendOptions,
    Taxonomy,
    User,
)
from service.client.calls import (
    Attempts,
    Call,
    CofineError,
    Patience,
    ProblemError,
    UnreachableError,
    answer_of,
    headers_of,
    path_of,
)


class AsyncClient:
    """Talks to one service from an event loop; to be closed or used in an `async with`.

    `key` is that of `Client`.
    """

    def __init__(
        self, url: str, patience: Patience | None = None, *, key: str | None = None
    ) -> None:
        self._patience = patience or Patience()
        self._http = httpx2.AsyncClient(
            base_url=url, timeout=self._patience.timeout_seconds, headers=headers_of(key)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def recommend(self, **options: Unpack[RecommendOptions]) -> Recommendation:
        """Return items for a user, a history or nobody in particular."""
        return cast("Recommendation", await self._call(Call("POST", "/v1/recommend", options)))

    async def recommend_batch(self, requests: Sequence[RecommendOptions]) -> RecommendBatchAnswer:
        """Answer several recommendations, each for itself."""
        call = Call("POST", "/v1/recommend:batch", {"requests": requests})
        return cast("RecommendBatchAnswer", await self._call(call))

    async def explore(self, **options: Unpack[ExploreOptions]) -> Exploration:
        """Return where below a path a user is likely to go on, and the best items there."""
        return cast("Exploration", await self._call(Call("POST", "/v1/explore", options)))

    async def taxonomy(self, path: Sequence[str] = ()) -> Taxonomy:
        """Return what lies below a place of the tree, for nobody in particular."""
        call = Call("GET", "/v1/taxonomy", query={"path": path})
        return cast("Taxonomy", await self._call(call))

    async def send_events(self, events: Sequence[Event]) -> EventsAnswer:
        """Store what users did; each event is stored once, however often it is sent."""
        call = Call("POST", "/v1/events", {"events": events})
        return cast("EventsAnswer", await self._call(call))

    async def user(self, user_id: str) -> User:
        """Return what the state holds of a user."""
        return cast("User", await self._call(Call("GET", path_of("users", user_id))))

    async def logged(self, user_id: str) -> list[dict[str, Any]]:
        """Return what the event log holds of a user; a large log takes its time."""
        call = Call("GET", "/v1/event-log", query={"user_id": [user_id]})
        return cast("list[dict[str, Any]]", await self._call(call))

    async def erase_user(self, user_id: str) -> None:
        """Erase everything stored of a user."""
        await self._call(Call("DELETE", path_of("users", user_id)))

    async def item(self, item_id: str, *, neighbours: int = 0) -> Item:
        """Return an item of the catalogue, and as many of the items most like it."""
        query = {"neighbours": [str(neighbours)]} if neighbours else None
        call = Call("GET", path_of("items", item_id), query=query)
        return cast("Item", await self._call(call))

    async def put_items(self, items: Sequence[ItemEdit]) -> CatalogueEdit:
        """Put items into the catalogue, or in the place of those of the same ids."""
        return cast("CatalogueEdit", await self._call(Call("PUT", "/v1/items", {"items": items})))

    async def hide_item(self, item_id: str) -> CatalogueEdit:
        """Recommend an item no more, until it is shown again."""
        call = Call("POST", path_of("items", item_id, "hide"))
        return cast("CatalogueEdit", await self._call(call))

    async def show_item(self, item_id: str) -> CatalogueEdit:
        """Take back that an item is hidden."""
        call = Call("POST", path_of("items", item_id, "show"))
        return cast("CatalogueEdit", await self._call(call))

    async def reset_item(self, item_id: str) -> CatalogueEdit:
        """Take all edits of an item back: it is as the bundle has it, or gone."""
        call = Call("POST", path_of("items", item_id, "reset"))
        return cast("CatalogueEdit", await self._call(call))

    async def set_availability(self, item_id: str, **offer: Unpack[Offer]) -> CatalogueEdit:
        """Tell an item's stock and the time in which it can be had."""
        call = Call("POST", path_of("items", item_id, "availability"), offer)
        return cast("CatalogueEdit", await self._call(call))

    async def info(self) -> Info:
        """Return what is in service, and its limits."""
        return cast("Info", await self._call(Call("GET", "/v1/info")))

    async def access(self) -> Access:
        """Return what the client's key may do."""
        return cast("Access", await self._call(Call("GET", "/v1/access")))

    async def bundles(self) -> Bundles:
        """Return which bundle has which role, and which ones there are; an admin key's."""
        return cast("Bundles", await self._call(Call("GET", "/v1/bundles")))

    async def load_bundle(self, name: str) -> Bundles:
        """Have a bundle open and verified on every replica; it serves nobody yet."""
        return cast("Bundles", await self._call(Call("POST", path_of("bundles", name, "load"))))

    async def activate_bundle(self, name: str, **options: Unpack[ActivateOptions]) -> Bundles:
        """Give a bundle a role: everybody, some users, or compared and not served."""
        call = Call("POST", path_of("bundles", name, "activate"), options)
        return cast("Bundles", await self._call(call))

    async def preview_bundle(self, name: str, **options: Unpack[RecommendOptions]) -> Preview:
        """Return what an open bundle would recommend; shown to nobody, counted nowhere."""
        call = Call("POST", path_of("bundles", name, "preview"), options)
        return cast("Preview", await self._call(call))

    async def roll_back(self, name: str) -> Bundles:
        """Take a bundle's role away; what was active before serves again."""
        call = Call("POST", path_of("bundles", name, "rollback"), is_repeatable=False)
        return cast("Bundles", await self._call(call))

    async def _call(self, call: Call) -> object:
        attempts = Attempts(self._patience, call)
        while True:
            try:
                return answer_of(
                    await self._http.request(
                        call.method, call.path, params=call.query, json=call.body
                    )
                )
            except httpx2.RequestError as error:
                failure: CofineError = UnreachableError(error)
            except ProblemError as error:
                failure = error
            await asyncio.sleep(attempts.pause_after(failure))
