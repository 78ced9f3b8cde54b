"""Who may call what: the door in front of every route.

`AccessControl` stands before bodies are read: it finds the key, checks it against the scopes that
the route declares, and counts the request. `own_user_only`, a dependency of every route, then holds
a publishable key to the one user that its token names, whatever the body says of others. With no
keys file everything is open but what needs `admin`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api_keys import ApiKey, KeyRing
from service.errors import (
    AccessError,
    ForbiddenError,
    RateLimitedError,
    UnauthenticatedError,
)
from service.keys_file import KeysFile
from service.metrics import Metrics
from service.problems import on_service_error
from service.rate_limits import retry_after_seconds
from service.scopes import OPEN_SCOPES, USER_TOKEN_HEADER, declared_scopes
from service.scopes import Scope as KeyScope
from service.serving import Serving
from service.user_tokens import user_of_token

_CALLER = "cofine_caller"
"""Where the ASGI scope of a request holds its caller."""
_OVER_LIMIT = "cofine_over_limit"
"""Where it says that the caller's own limit is the reason for the refusal."""
_NESTING_MAX = 64


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        route: template of the route that the caller was let through to.
        key: None where no keys are configured, or on an open route.
        user_id: the only user to act for; None where any may be.
    """

    route: str
    key: ApiKey | None = None
    user_id: str | None = None

    @property
    def bucket(self) -> str | None:
        """Name of what the caller's requests are counted in, None for no limit."""
        if self.key is None or self.key.limit is None:
            return None
        return self.key.bucket(self.user_id)


class AccessControl:
    """Lets through who may call; answers 401, 403 or 429 to others."""

    def __init__(
        self, app: ASGIApp, keys: KeysFile, routes: Sequence[APIRoute], metrics: Metrics
    ) -> None:
        """Wrap `app`, whose routes are `routes`.

        Raises:
            TypeError: a route declares no scopes.
        """
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._scopes = [(route, declared_scopes(route.openapi_extra)) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        found = self._route(scope) if scope["type"] == "http" else None
        if found is None:  # the application says what is wrong with the address
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._admit(scope, *found)
        except AccessError as error:
            self._metrics.access_refused[error.reason].inc()
            scope[_OVER_LIMIT] = isinstance(error, RateLimitedError)
            await _refuse(error, scope, receive, send)
            return
        scope[_CALLER] = caller  # in place: what stands around reads the route from it later
        await self._app(scope, receive, send)

    def _route(self, scope: Scope) -> tuple[APIRoute, frozenset[KeyScope]] | None:
        for route, scopes in self._scopes:
            if route.matches(scope)[0] is Match.FULL:
                return route, scopes
        return None

    async def _admit(self, scope: Scope, route: APIRoute, scopes: frozenset[KeyScope]) -> Caller:
        if not scopes:
            return Caller(route.path_format)
        ring = self._keys.ring
        if ring is None:
            if not scopes & OPEN_SCOPES:
                raise ForbiddenError("scope", "this needs an admin key: set COFINE_KEYS")
            return Caller(route.path_format)
        caller = identify(ring, Headers(scope=scope), route.path_format)
        key = caller.key
        if key is None or not scopes & key.scopes:
            raise ForbiddenError("scope", f"the key has none of the scopes {sorted(scopes)}")
        if caller.bucket is not None and key.limit is not None:
            serving: Serving = scope["app"].state.serving
            wait = await serving.rate_limits.wait_seconds(caller.bucket, key.limit)
            if wait > 0:
                raise RateLimitedError(
                    "rate_limit",
                    "the key has been used too often; wait as Retry-After says",
                    retry_after_seconds=retry_after_seconds(wait),
                )
        return caller


def identify(ring: KeyRing, headers: Headers, route: str) -> Caller:
    """Return who sends these headers.

    Raises:
        UnauthenticatedError: no key, a wrong one, or a publishable one without a valid user token.
    """
    given = headers.getlist("authorization")
    scheme, _, presented = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not presented:
        raise UnauthenticatedError("no_key", "send the header Authorization: Bearer <key>, once")
    key = ring.find(presented.strip())
    if not key.is_publishable:
        return Caller(route, key)
    token = headers.get(USER_TOKEN_HEADER)
    if token is None:
        raise UnauthenticatedError(
            "no_user_token",
            f"a publishable key needs a user token in the header {USER_TOKEN_HEADER}",
        )
    return Caller(route, key, user_of_token(token, ring.user_token_secrets))


def is_over_limit(scope: Scope) -> bool:
    """Return whether the request was refused because its key has been used too often."""
    return bool(scope.get(_OVER_LIMIT, False))


def caller_of(request: Request) -> Caller:
    """Return who sent the request.

    Raises:
        TypeError: `AccessControl` has not let it through to this very route; this is a bug.
    """
    caller = request.scope.get(_CALLER)
    route = request.scope.get("route")
    if not isinstance(caller, Caller) or not isinstance(route, APIRoute):
        raise TypeError("a request came past the access control; this is a bug")
    if caller.route != route.path_format:
        raise TypeError("a request was let through to another route; this is a bug")
    return caller


async def own_user_only(request: Request) -> None:
    """Refuse a publishable key that names another user than its token does.

    Every `user_id` anywhere in the address or the body counts, so that no route has to remember it.

    Raises:
        ForbiddenError: one of them is another user's.
    """
    caller = caller_of(request)
    if caller.user_id is None:
        return
    named = [*request.path_params.items(), *request.query_params.multi_items()]
    users = [value for name, value in named if name == "user_id"]
    if request.method not in {"GET", "HEAD"}:  # their bodies are not limited, and nobody reads them
        users += _users_in(await _body(request), _NESTING_MAX)
    if any(user != caller.user_id for user in users):
        metrics: Metrics = request.app.state.serving.metrics
        metrics.access_refused["foreign_user"].inc()
        raise ForbiddenError("foreign_user", "user_id must be the user that the token names")


async def _body(request: Request) -> Any:
    """Return what the framework also gives to the route; None where that is no JSON."""
    try:
        return await request.json() if await request.body() else None
    except ValueError:
        return None


def _users_in(value: Any, nesting: int) -> Iterator[Any]:
    """Yield every `user_id` in a JSON value; what is nested deeper than any body names nobody."""
    if isinstance(value, dict):
        if "user_id" in value and value["user_id"] is not None:
            yield value["user_id"]
        value = list(value.values())
    if isinstance(value, list) and nesting:
        for part in value:
            yield from _users_in(part, nesting - 1)


async def _refuse(error: AccessError, scope: Scope, receive: Receive, send: Send) -> None:
    # The body is not read, so the connection cannot carry another request.
    refusal = await on_service_error(Request(scope), error)
    refusal.headers["Connection"] = "close"
    await refusal(scope, receive, send)
