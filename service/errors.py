"""What the service refuses, without any HTTP status (those stand in `service/problems.py`).

ServiceError
    ItemNotFoundError           the catalogue in service does not hold the item
    PlaceNotFoundError          no place of the browsed tree has the path
    InvalidFieldError           a well-formed request names something that does not exist
    BundleNotFoundError         no bundle of this name can be put in service
    BundleRefusedError          the bundle cannot be used
    RolloutConflictError        the rollout does not allow this change, or has changed meanwhile
    QueueFullError              as many requests wait as may wait
    DeadlineExceededError       the request's time is up before its answer
    ClientGoneError             the client closed the connection before its answer
    NotReadyError               the service is starting or draining
    AccessError                 the caller may not do this
        UnauthenticatedError    no key, no user token, or a wrong one
        ForbiddenError          the key may not do this
        RateLimitedError        the key has been used too often
    StateUnavailableError       the user state cannot be reached in time
        EventsNotStoredError    so some events of a request are not stored
    EventLogUnavailableError    the event log cannot be written, or read, in time
SettingsError                   a COFINE_* variable is unknown or has an unusable value

Messages are shown to clients: they name the field, the limit and the remedy, never a user.
"""

from collections.abc import Mapping, Sequence


class ServiceError(Exception):
    """Base of everything that a request can be refused with.

    Attributes:
        detail: one sentence for the client.
        pointer: JSON Pointer fragment of the offending body field (`#/categories/0`), if any.
        retry_after_seconds: when trying again makes sense, if ever.
        extensions: further members of the problem document.
    """

    def __init__(
        self,
        detail: str,
        *,
        pointer: str | None = None,
        retry_after_seconds: int | None = None,
        extensions: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.retry_after_seconds = retry_after_seconds
        self.extensions = dict(extensions or {})


class ItemNotFoundError(ServiceError):
    """The catalogue in service does not hold the item."""


class PlaceNotFoundError(ServiceError):
    """No place of the browsed tree has the path."""


class InvalidFieldError(ServiceError):
    """A well-formed request names something that does not exist; `pointer` says where."""


class BundleNotFoundError(ServiceError):
    """No bundle of this name can be put in service."""


class BundleRefusedError(ServiceError):
    """The bundle cannot be used; the detail says why."""


class RolloutConflictError(ServiceError):
    """The rollout does not allow this change, or was changed at the same time."""


class QueueFullError(ServiceError):
    """As many requests wait for a worker as may wait."""


class DeadlineExceededError(ServiceError):
    """The request's time was up before its answer."""


class ClientGoneError(ServiceError):
    """The client closed the connection before its answer; nobody reads this one."""


class NotReadyError(ServiceError):
    """The service is starting or draining."""


class AccessError(ServiceError):
    """The caller may not do this.

    Attributes:
        reason: a stable word for it, as in the metrics.
    """

    def __init__(self, reason: str, detail: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(detail, retry_after_seconds=retry_after_seconds)
        self.reason = reason


class UnauthenticatedError(AccessError):
    """No key, no user token, or a wrong one."""


class ForbiddenError(AccessError):
    """The key is right, and may not do this."""


class RateLimitedError(AccessError):
    """The key has been used too often."""


class StateUnavailableError(ServiceError):
    """What Redis keeps, of users or of the rollout, could not be read or written in time.

    Attributes:
        reason: `timeout` (no answer within the deadline), `error` (refused or failed) or `open`
            (not tried, because the circuit breaker is open).
    """

    def __init__(
        self,
        reason: str,
        detail: str = "the state is not available; try again later",
        *,
        extensions: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail, retry_after_seconds=1, extensions=extensions)
        self.reason = reason


class EventsNotStoredError(StateUnavailableError):
    """Some events of the request are not known to be stored, or to be logged.

    Attributes:
        extensions: what became of each, in `results`.
    """

    def __init__(self, results: Sequence[Mapping[str, object]]) -> None:
        detail = (
            "some events, `unconfirmed` in `results`, are not known to be stored and logged; "
            "send the request again"
        )
        super().__init__("error", detail, extensions={"results": results})


class CatalogueUnavailableError(ServiceError):
    """The edits of the catalogue could not be read or written in time.

    Attributes:
        reason: as of `StateUnavailableError`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            "the catalogue cannot be edited now; what is served stays, try again later",
            retry_after_seconds=1,
        )
        self.reason = reason


class CatalogueFullError(ServiceError):
    """As many edits are kept as may be."""


class EventLogUnavailableError(ServiceError):
    """The event log could not be written, or read, in time."""

    def __init__(self) -> None:
        super().__init__("the event log is not available; try again later", retry_after_seconds=1)


class SettingsError(Exception):
    """A COFINE_* variable is unknown or has an unusable value."""
