"""Errors as HTTP: the one table of statuses and the one shape of an error answer.

Every error is `application/problem+json` (RFC 9457) with the members type, title, status, detail,
instance, code, errors, request_id and retryable. `errors` lists offending fields, each with a
`pointer` into the body or the name of a path or query `parameter`, a `code` and a `detail`.
`code` is stable. Nothing here shows the text of an exception that was not written for clients.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.errors import (
    BundleNotFoundError,
    BundleRefusedError,
    CatalogueFullError,
    CatalogueUnavailableError,
    ClientGoneError,
    DeadlineExceededError,
    EventLogUnavailableError,
    EventsNotStoredError,
    ForbiddenError,
    InvalidFieldError,
    ItemNotFoundError,
    NotReadyError,
    PlaceNotFoundError,
    QueueFullError,
    RateLimitedError,
    RolloutConflictError,
    ServiceError,
    StateUnavailableError,
    UnauthenticatedError,
)
from service.log_config import request_id_in_context

MEDIA_TYPE = "application/problem+json"
_ERRORS_SHOWN_MAX = 20
_TEXT_SHOWN_MAX = 300


@dataclass(frozen=True)
class Kind:
    """A kind of error: its HTTP status, its stable code, its title, whether to try again."""

    status: int
    code: str
    title: str
    is_retryable: bool = False


MALFORMED = Kind(400, "malformed_request", "The body is not valid JSON")
ROUTE_NOT_FOUND = Kind(404, "route_not_found", "There is nothing at this address")
METHOD_NOT_ALLOWED = Kind(405, "method_not_allowed", "The address does not take this method")
BODY_TOO_SLOW = Kind(408, "body_too_slow", "The body took too long to come")
BODY_TOO_LARGE = Kind(413, "body_too_large", "The body is too large")
NOT_JSON = Kind(415, "unsupported_media_type", "The body is not declared as JSON")
INVALID = Kind(422, "invalid_request", "The request has unusable fields")
INTERNAL = Kind(500, "internal_error", "The service failed")

KINDS: Mapping[type[ServiceError], Kind] = {
    ItemNotFoundError: Kind(404, "item_not_found", "The catalogue does not hold the item"),
    PlaceNotFoundError: Kind(404, "place_not_found", "The catalogue has no such place"),
    InvalidFieldError: INVALID,
    BundleNotFoundError: Kind(404, "bundle_not_found", "There is no such bundle"),
    BundleRefusedError: Kind(422, "bundle_refused", "The bundle cannot be used"),
    RolloutConflictError: Kind(409, "rollout_conflict", "The rollout cannot be changed like this"),
    CatalogueFullError: Kind(409, "catalogue_full", "No more edits can be kept"),
    CatalogueUnavailableError: Kind(
        503, "catalogue_unavailable", "The catalogue cannot be edited now", is_retryable=True
    ),
    UnauthenticatedError: Kind(401, "unauthenticated", "The caller is not known"),
    ForbiddenError: Kind(403, "forbidden", "The caller may not do this"),
    RateLimitedError: Kind(
        429, "rate_limited", "The key has been used too often", is_retryable=True
    ),
    QueueFullError: Kind(429, "queue_full", "Too many requests are waiting", is_retryable=True),
    ClientGoneError: Kind(499, "client_gone", "The client closed the connection"),
    NotReadyError: Kind(503, "not_ready", "The service is not ready", is_retryable=True),
    StateUnavailableError: Kind(
        503, "state_unavailable", "The state is not available", is_retryable=True
    ),
    EventsNotStoredError: Kind(
        503, "events_not_stored", "Some events are not stored", is_retryable=True
    ),
    EventLogUnavailableError: Kind(
        503, "event_log_unavailable", "The event log is not available", is_retryable=True
    ),
    DeadlineExceededError: Kind(
        504, "deadline_exceeded", "The answer was not ready in time", is_retryable=True
    ),
}

_HTTP_KINDS = {
    kind.status: kind
    for kind in (
        MALFORMED,
        ROUTE_NOT_FOUND,
        METHOD_NOT_ALLOWED,
        BODY_TOO_SLOW,
        BODY_TOO_LARGE,
        NOT_JSON,
        INVALID,
    )
}

_FIELD_DETAILS = {
    "extra_forbidden": "there is no such field; see /openapi.json for the ones there are",
    "model_attributes_type": "Input should be an object",
}
"""In place of the validator's words where those say nothing to a client."""

_DETAILS = {
    400: "send one JSON value in UTF-8",
    404: "see /openapi.json for the addresses of this service",
    405: "see the Allow header for the methods of this address",
}


def problem(
    kind: Kind,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, object] | None = None,
) -> Response:
    """Return the error answer of `kind`; `extensions` are further members."""
    request_id = request_id_in_context.get()
    body = problem_body(kind, detail, request_id=request_id, errors=errors, extensions=extensions)
    return Response(body, kind.status, dict(headers or {}), MEDIA_TYPE)


def problem_body(
    kind: Kind,
    detail: str,
    *,
    request_id: str | None,
    errors: Sequence[Mapping[str, str]] = (),
    extensions: Mapping[str, object] | None = None,
) -> str:
    """Return the document of an error answer, as JSON."""
    body: dict[str, object] = {
        "type": f"urn:cofine:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": f"urn:cofine:request:{request_id}",
        "code": kind.code,
        "errors": list(errors),
        "request_id": request_id,
        "retryable": kind.is_retryable,
        **(extensions or {}),
    }
    # ASCII, because a field's name can hold what UTF-8 cannot.
    return json.dumps(body)


async def on_service_error(_: Request, error: Exception) -> Response:
    """Answer an error that the service raised on purpose."""
    if not isinstance(error, ServiceError):
        raise error
    return service_problem(error)


def service_problem(error: ServiceError) -> Response:
    """Return the answer for an error that the service raised on purpose."""
    kind = KINDS[type(error)]
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = 'Bearer realm="cofine"'
    errors = []
    if error.pointer is not None:
        errors = [{"detail": error.detail, "code": kind.code, "pointer": error.pointer}]
    return problem(kind, error.detail, errors=errors, headers=headers, extensions=error.extensions)


async def on_http_exception(_: Request, error: Exception) -> Response:
    """Answer what the framework refuses: unknown addresses, methods, unreadable bodies."""
    if not isinstance(error, HTTPException):
        raise error
    kind = _HTTP_KINDS.get(error.status_code, INTERNAL)
    detail = _DETAILS.get(error.status_code, kind.title)
    return problem(kind, detail, headers=error.headers)


async def on_validation_error(request: Request, error: Exception) -> Response:
    """Answer a request whose parts do not fit the schema."""
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        return problem(MALFORMED, _DETAILS[400])
    if _is_undeclared_body(request, found):
        return problem(NOT_JSON, "send the header Content-Type: application/json")
    shown = [_field_error(each) for each in found[:_ERRORS_SHOWN_MAX]]
    where = shown[0].get("pointer") or shown[0].get("parameter")
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return problem(INVALID, f"{where}: {shown[0]['detail']}{more}", errors=shown)


def internal_problem() -> Response:
    """Return the answer for a defect of the service; what failed stands in the log only."""
    return problem(INTERNAL, "the service failed; report the request_id")


def _is_undeclared_body(request: Request, found: Sequence[Any]) -> bool:
    """Whether the whole body is refused because it does not say that it is JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    is_whole_body = any(tuple(each["loc"]) == ("body",) for each in found)
    has_body = request.headers.get("content-length", "0") != "0" or (
        "transfer-encoding" in request.headers
    )
    return is_whole_body and has_body and not is_json


def _field_error(found: Mapping[str, Any]) -> dict[str, str]:
    """Return one entry of `errors`: never the value, which may be a user's."""
    source, *parts = found["loc"]
    code = str(found["type"])
    entry = {"detail": _FIELD_DETAILS.get(code, _shortened(str(found["msg"]))), "code": code}
    if source == "body":
        # Parts in parentheses name a variant of the schema, not a field.
        fields = [str(part) for part in parts if not str(part).startswith("(")]
        escaped = [field.replace("~", "~0").replace("/", "~1") for field in fields]
        entry["pointer"] = _shortened("#" + "".join(f"/{field}" for field in escaped))
    else:
        entry["parameter"] = _shortened(".".join(str(part) for part in parts))
    return entry


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_SHOWN_MAX else text[:_TEXT_SHOWN_MAX] + "..."
