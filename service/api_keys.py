"""Keys: who calls, what the caller may do and how often.

The keys file is TOML and holds no key, only SHA-256 digests: keys are 256 random bits, which nobody
guesses, so that a slow hash would protect nothing. It also holds the secrets of user tokens:

    [[keys]]
    name = "shop-backend"
    sha256 = "9f86..."                      # of the key
    scopes = ["read", "write"]
    expires = 2027-01-01T00:00:00Z          # optional
    limit = { requests_per_second = 50, burst = 100 }   # optional; needed when publishable

    [[user_token_secrets]]
    name = "2026-11"                        # `kid` of the tokens
    secret = "..."                          # 32 characters at least

A publishable key stands in web pages: it has no other scope, and each user of it has the limit.
"""

import hashlib
import hmac
import secrets
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from service.errors import SettingsError, UnauthenticatedError
from service.scopes import Scope

KEY_PREFIX = "cofine_"
"""So that scanners of source code recognise a key that was committed."""
KEYS_MAX = 1_000
KEY_MAX_CHARACTERS = 256
WINDOW_MAX_SECONDS = 3_600.0
"""Within which a spent limit is whole again, and so how long a bucket is remembered at most."""

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Entry(BaseModel):
    """A part of the keys file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Limit(Entry):
    """How often a key may be used: `burst` requests at once, refilled evenly."""

    requests_per_second: float = Field(gt=0, le=1e6, allow_inf_nan=False)
    burst: int = Field(ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _refills_in_time(self) -> Self:
        if self.burst / self.requests_per_second > WINDOW_MAX_SECONDS:
            raise ValueError(
                f"burst / requests_per_second must be at most {WINDOW_MAX_SECONDS:.0f} seconds"
            )
        return self


class ApiKey(Entry):
    """One key, without the key itself."""

    name: _Name
    sha256: _Digest
    scopes: frozenset[Scope] = Field(min_length=1)
    expires: AwareDatetime | None = None
    limit: Limit | None = None

    @model_validator(mode="after")
    def _publishable_is_harmless(self) -> Self:
        if "publishable" in self.scopes:
            if len(self.scopes) > 1:
                raise ValueError("a publishable key has no other scope: make two keys")
            if self.limit is None:
                raise ValueError("a publishable key needs a limit for each of its users")
        return self

    @property
    def is_publishable(self) -> bool:
        """Whether the key is for web pages, and needs a user token."""
        return "publishable" in self.scopes

    def bucket(self, user_id: str | None) -> str:
        """Return the name of what requests with the key are counted in; users have their own."""
        if user_id is None:
            return self.name
        return f"{self.name}:{hashlib.sha256(user_id.encode()).hexdigest()[:32]}"


class UserTokenSecret(Entry):
    """What the shop's backend signs user tokens with."""

    name: _Name
    secret: SecretStr = Field(min_length=32)


class KeyRing(Entry):
    """All keys, and all secrets of user tokens; what a keys file says."""

    keys: tuple[ApiKey, ...] = Field(min_length=1, max_length=KEYS_MAX)
    user_token_secrets: tuple[UserTokenSecret, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for what, values in (
            ("keys with the name", [key.name for key in self.keys]),
            ("keys with the sha256", [key.sha256 for key in self.keys]),
            ("user_token_secrets with the name", [each.name for each in self.user_token_secrets]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"there are two {what} {twice[0]!r}: rename or remove one")
        if not self.user_token_secrets and any(key.is_publishable for key in self.keys):
            raise ValueError("a publishable key needs user_token_secrets")
        return self

    def find(self, presented: str) -> ApiKey:
        """Return the key that was presented.

        Takes as long for a right key as for a wrong one: digests are compared in constant time, and
        all of them are.

        Raises:
            UnauthenticatedError: there is no such key, or it has expired.
        """
        digest = key_digest(presented[:KEY_MAX_CHARACTERS])
        found = [key for key in self.keys if hmac.compare_digest(key.sha256, digest)]
        if not found:
            raise UnauthenticatedError(
                "unknown_key", "the key is unknown; send one of this service"
            )
        key = found[0]
        if key.expires is not None and key.expires <= datetime.now(UTC):
            raise UnauthenticatedError("expired_key", "the key has expired; send its successor")
        return key


def parse_keys(text: str, source: str) -> KeyRing:
    """Return what the text of the keys file `source` says.

    Raises:
        SettingsError: it cannot be used; the message names the place, never what stands there.
    """
    try:
        return KeyRing.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        place = f"line {error.lineno}" if hasattr(error, "lineno") else "some line"
        message = f"COFINE_KEYS: {source} is not TOML ({place}); see service/api_keys.py"
        raise SettingsError(message) from None
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in found["loc"]) or "the file"
        raise SettingsError(f"COFINE_KEYS: {source}: {place}: {found['msg']}") from None


def key_digest(key: str) -> str:
    """Return what the keys file says of a key: its SHA-256 in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    """Return a new key of 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def entry_text(name: str, key: str, scopes: Sequence[str]) -> str:
    """Return the key's entry for the keys file, with a cautious limit where one is needed."""
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    lines = [
        "[[keys]]",
        f'name = "{name}"',
        f'sha256 = "{key_digest(key)}"',
        f"scopes = [{listed}]",
    ]
    if "publishable" in scopes:
        lines.append("limit = { requests_per_second = 5, burst = 20 }  # of each user")
    return "\n".join(lines) + "\n"
