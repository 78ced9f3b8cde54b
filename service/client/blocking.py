"""The client that waits."""

import time
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


class Client:
    """Talks to one service; safe for threads, to be closed or used in a `with`.

    `key` is what the service's operator issued; without one, a service that asks for keys refuses.
    """

    def __init__(
        self, url: str, patience: Patience | None = None, *, key: str | None = None
    ) -> None:
        self._patience = patience or Patience()
        self._http = httpx2.Client(
            base_url=url, timeout=self._patience.timeout_seconds, headers=headers_of(key)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommend(self, **options: Unpack[RecommendOptions]) -> Recommendation:
        """Return items for a user, a history or nobody in particular."""
        return cast("Recommendation", self._call(Call("POST", "/v1/recommend", options)))

    def recommend_batch(self, requests: Sequence[RecommendOptions]) -> RecommendBatchAnswer:
        """Answer several recommendations, each for itself."""
        call = Call("POST", "/v1/recommend:batch", {"requests": requests})
        return cast("RecommendBatchAnswer", self._call(call))

    def explore(self, **options: Unpack[ExploreOptions]) -> Exploration:
        """Return where below a path a user is likely to go on, and the best items there."""
        return cast("Exploration", self._call(Call("POST", "/v1/explore", options)))

    def taxonomy(self, path: Sequence[str] = ()) -> Taxonomy:
        """Return what lies below a place of the tree, for nobody in particular."""
        return cast("Taxonomy", self._call(Call("GET", "/v1/taxonomy", query={"path": path})))

    def send_events(self, events: Sequence[Event]) -> EventsAnswer:
        """Store what users did; each event is stored once, however often it is sent."""
        return cast("EventsAnswer", self._call(Call("POST", "/v1/events", {"events": events})))

    def user(self, user_id: str) -> User:
        """Return what the state holds of a user."""
        return cast("User", self._call(Call("GET", path_of("users", user_id))))

    def logged(self, user_id: str) -> list[dict[str, Any]]:
        """Return what the event log holds of a user; a large log takes its time."""
        call = Call("GET", "/v1/event-log", query={"user_id": [user_id]})
        return cast("list[dict[str, Any]]", self._call(call))

    def erase_user(self, user_id: str) -> None:
        """Erase everything stored of a user."""
        self._call(Call("DELETE", path_of("users", user_id)))

    def item(self, item_id: str, *, neighbours: int = 0) -> Item:
        """Return an item of the catalogue, and as many of the items most like it."""
        query = {"neighbours": [str(neighbours)]} if neighbours else None
        call = Call("GET", path_of("items", item_id), query=query)
        return cast("Item", self._call(call))

    def put_items(self, items: Sequence[ItemEdit]) -> CatalogueEdit:
        """Put items into the catalogue, or in the place of those of the same ids."""
        return cast("CatalogueEdit", self._call(Call("PUT", "/v1/items", {"items": items})))

    def hide_item(self, item_id: str) -> CatalogueEdit:
        """Recommend an item no more, until it is shown again."""
        call = Call("POST", path_of("items", item_id, "hide"))
        return cast("CatalogueEdit", self._call(call))

    def show_item(self, item_id: str) -> CatalogueEdit:
        """Take back that an item is hidden."""
        call = Call("POST", path_of("items", item_id, "show"))
        return cast("CatalogueEdit", self._call(call))

    def reset_item(self, item_id: str) -> CatalogueEdit:
        """Take all edits of an item back: it is as the bundle has it, or gone."""
        call = Call("POST", path_of("items", item_id, "reset"))
        return cast("CatalogueEdit", self._call(call))

    def set_availability(self, item_id: str, **offer: Unpack[Offer]) -> CatalogueEdit:
        """Tell an item's stock and the time in which it can be had."""
        call = Call("POST", path_of("items", item_id, "availability"), offer)
        return cast("CatalogueEdit", self._call(call))

    def info(self) -> Info:
        """Return what is in service, and its limits."""
        return cast("Info", self._call(Call("GET", "/v1/info")))

    def access(self) -> Access:
        """Return what the client's key may do."""
        return cast("Access", self._call(Call("GET", "/v1/access")))

    def bundles(self) -> Bundles:
        """Return which bundle has which role, and which ones there are; an admin key's."""
        return cast("Bundles", self._call(Call("GET", "/v1/bundles")))

    def load_bundle(self, name: str) -> Bundles:
        """Have a bundle open and verified on every replica; it serves nobody yet."""
        return cast("Bundles", self._call(Call("POST", path_of("bundles", name, "load"))))

    def activate_bundle(self, name: str, **options: Unpack[ActivateOptions]) -> Bundles:
        """Give a bundle a role: everybody, some users, or compared and not served."""
        call = Call("POST", path_of("bundles", name, "activate"), options)
        return cast("Bundles", self._call(call))

    def preview_bundle(self, name: str, **options: Unpack[RecommendOptions]) -> Preview:
        """Return what an open bundle would recommend; shown to nobody, counted nowhere."""
        call = Call("POST", path_of("bundles", name, "preview"), options)
        return cast("Preview", self._call(call))

    def roll_back(self, name: str) -> Bundles:
        """Take a bundle's role away; what was active before serves again."""
        call = Call("POST", path_of("bundles", name, "rollback"), is_repeatable=False)
        return cast("Bundles", self._call(call))

    def _call(self, call: Call) -> object:
        attempts = Attempts(self._patience, call)
        while True:
            try:
                return answer_of(
                    self._http.request(call.method, call.path, params=call.query, json=call.body)
                )
            except httpx2.RequestError as error:
                failure: CofineError = UnreachableError(error)
            except ProblemError as error:
                failure = error
            time.sleep(attempts.pause_after(failure))
