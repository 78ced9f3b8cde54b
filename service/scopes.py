"""What a key may be allowed, and how a route says what it asks for.

A route names the scopes of which a key needs one, in its part of the OpenAPI document; what asks
for none is open to everybody. `service/access_control.py` enforces it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

Scope = Literal["publishable", "read", "write", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
OPEN_SCOPES: frozenset[Scope] = frozenset({"read", "write"})
"""What everybody may do where no keys are configured: never what needs `admin`."""
KEY_SCHEME = "ApiKey"
USER_TOKEN_SCHEME = "UserToken"  # noqa: S105 (a name in the document) # nosec B105
USER_TOKEN_HEADER = "X-User-Token"  # noqa: S105 (a header's name) # nosec B105
SECURITY_SCHEMES: Mapping[str, Mapping[str, str]] = {
    KEY_SCHEME: {"type": "http", "scheme": "bearer"},
    USER_TOKEN_SCHEME: {
        "type": "apiKey",
        "in": "header",
        "name": USER_TOKEN_HEADER,
        "description": "Names the one user that a publishable key is used for.",
    },
}


def allows(*scopes: Scope) -> dict[str, Any]:
    """Return a route's `openapi_extra`: one of `scopes` is needed, or nothing for none."""
    return {"security": [_requirement(scope) for scope in scopes]}


def _requirement(scope: Scope) -> dict[str, list[str]]:
    user_token: dict[str, list[str]] = {USER_TOKEN_SCHEME: []} if scope == "publishable" else {}
    return {KEY_SCHEME: [scope], **user_token}


def declared_scopes(openapi_extra: Mapping[str, Any] | None) -> frozenset[Scope]:
    """Return the scopes that a route's `openapi_extra` names; empty for an open route.

    Raises:
        TypeError: the route does not say; give it `openapi_extra=allows(...)`.
    """
    if openapi_extra is None or "security" not in openapi_extra:
        raise TypeError("a route declares no scopes: give it openapi_extra=allows(...)")
    requirements: Iterable[Mapping[str, list[Scope]]] = openapi_extra["security"]
    return frozenset(scope for each in requirements for scope in each[KEY_SCHEME])
