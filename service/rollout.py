"""Which bundle serves whom: the one thing that all replicas agree on, and where it is kept.

A rollout names bundles by their folder's name *and* their id, so that replicas whose folders differ
notice. It is changed as a whole, and every change has the next version: of two changes made at the
same time one is refused.
"""

import asyncio
import hashlib
from typing import Annotated, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.errors import RolloutConflictError

Role = Literal["active", "canary", "shadow"]

BundleName = Annotated[
    str,
    StringConstraints(strict=True, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"),
]


class BundleReference(BaseModel):
    """A bundle as all replicas know it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Of its folder, below COFINE_BUNDLES.")
    bundle: str = Field(description="Its id.")


class Rollout(BaseModel):
    """Which bundle has which role."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=0, description="Grows by one with every change.")
    active: BundleReference = Field(description="Serves everybody whom the canary does not.")
    previous: BundleReference | None = Field(
        default=None, description="Was active before, and is kept ready for a rollback."
    )
    canary: BundleReference | None = Field(default=None, description="Serves some users.")
    canary_percent: float = Field(default=0, ge=0, le=100, description="Of the users.")
    shadow: BundleReference | None = Field(
        default=None, description="Computes what is served, too; compared and counted, not served."
    )
    loaded: BundleReference | None = Field(default=None, description="Ready and without a role.")

    @property
    def references(self) -> frozenset[BundleReference]:
        """Every bundle that a replica has to have open."""
        return frozenset(self._by_role())

    def named(self, name: str) -> BundleReference | None:
        """Return the bundle of this name, that with the greatest role; None where none has one."""
        return next((each for each in self._by_role() if each.name == name), None)

    def _by_role(self) -> list[BundleReference]:
        roles = (self.active, self.canary, self.shadow, self.loaded, self.previous)
        return [each for each in roles if each is not None]

    def with_loaded(self, wanted: BundleReference) -> Self:
        """Return the rollout that also has `wanted` ready; loading it again changes nothing."""
        has_role = wanted in self.references
        return self._next(loaded=self.loaded if has_role else wanted)

    def with_role(self, wanted: BundleReference, role: Role, percent: float) -> Self:
        """Return the rollout in which `wanted` has the role, and no other one beside.

        Raises:
            RolloutConflictError: it is active, which a smaller role would not change.
        """
        if role != "active" and wanted == self.active:
            raise RolloutConflictError("the bundle is active: activate another one first")
        free = self._without_minor_roles(wanted)
        if role == "canary":
            return free._next(canary=wanted, canary_percent=percent)
        if role == "shadow":
            return free._next(shadow=wanted)
        if wanted == self.active:
            return free._next()
        return free._next(active=wanted, previous=self.active)

    def rolled_back(self, wanted: BundleReference) -> Self | None:
        """Return the rollout without `wanted`; None where it has no role, or none is before it."""
        if wanted == self.active:
            if self.previous is None:
                return None
            free = self._without_minor_roles(self.previous)
            return free._next(active=self.previous, previous=None, loaded=self.active)
        if wanted in {self.canary, self.shadow, self.loaded}:
            return self._without_minor_roles(wanted)._next()
        return None

    def _without_minor_roles(self, wanted: BundleReference) -> Self:
        changes: dict[str, object] = {
            name: None for name in ("canary", "shadow", "loaded") if getattr(self, name) == wanted
        }
        if "canary" in changes:
            changes["canary_percent"] = 0
        return self.model_copy(update=changes)

    def _next(self, **changes: object) -> Self:
        return self.model_copy(update={"version": self.version + 1, **changes})


def is_in_canary(user_id: str, canary: BundleReference, percent: float) -> bool:
    """Whether the user is among the first `percent` of all users, in an order of this bundle's own.

    The same on every replica and for ever; a larger percentage keeps the users of a smaller one.
    """
    digest = hashlib.sha256(f"{canary.bundle}\0{user_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < percent / 100 * 2**64


class RolloutStore(Protocol):
    """Keeps the rollout; operations raise `StateUnavailableError` when it cannot be reached."""

    async def start(self) -> None:
        """Begin to hear of changes."""
        ...

    async def close(self) -> None:
        """End it."""
        ...

    async def read(self) -> Rollout | None:
        """Return the rollout, None when there has never been a change."""
        ...

    async def write(self, rollout: Rollout) -> bool:
        """Store the rollout unless another one of its version, or a later one, is there."""
        ...

    async def wait_for_change(self, timeout_seconds: float) -> None:
        """Wait until there may be another rollout, or until the time is up."""
        ...


class MemoryRolloutStore:
    """Keeps the rollout of this process alone; its end is the end of every change."""

    def __init__(self) -> None:
        self._rollout: Rollout | None = None

    async def start(self) -> None:
        """Do nothing: nobody else makes changes."""

    async def close(self) -> None:
        """Do nothing."""

    async def read(self) -> Rollout | None:
        """Return the rollout, None when there has never been a change."""
        return self._rollout

    async def write(self, rollout: Rollout) -> bool:
        """Store the rollout unless another one of its version, or a later one, is there."""
        current = 0 if self._rollout is None else self._rollout.version
        if rollout.version != current + 1:
            return False
        self._rollout = rollout
        return True

    async def wait_for_change(self, timeout_seconds: float) -> None:
        """Wait until the time is up."""
        await asyncio.sleep(timeout_seconds)
