"""The service's settings: read once from COFINE_* variables into a frozen object.

What the bundle says (levels, history length, score) is no setting. Every limit names its unit.
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    DirectoryPath,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.cpu_limit import cpu_limit
from service.errors import SettingsError
from service.redis_address import RedisAddress

PREFIX = "COFINE_"
TEST_PREFIX = "COFINE_TEST_"
_TEST_NAMES = frozenset({"COFINE_REQUIRE"})
SECRET_MIN_CHARACTERS = 32
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")


class Settings(BaseSettings):
    """Everything an operator can choose; each field is the variable COFINE_<NAME>."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    bundle: Path = Field(default=Path("bundles/demo"), description="Folder of the bundle to serve.")
    bundles: Path | None = Field(
        default=None,
        description="Folder that holds the bundle and others that an admin key may put in "
        "service; none by default.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=1, le=65535, description="TCP port to listen on.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe log lines to write."
    )
    workers: int = Field(
        default_factory=cpu_limit,
        ge=1,
        le=256,
        description="Threads that compute recommendations, one request each.",
    )
    threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Threads that ONNX Runtime may use inside one request.",
    )
    queue_max_requests: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Requests that may wait for a worker; one more is answered 429.",
    )
    deadline_ms: int = Field(
        default=1_000,
        ge=1,
        le=600_000,
        description="Time for one recommendation in milliseconds, waiting included; then 504.",
    )
    body_max_bytes: int = Field(
        default=1_048_576,
        ge=1_024,
        description="Largest request body in bytes; a larger one is answered 413.",
    )
    body_deadline_ms: int = Field(
        default=10_000,
        ge=10,
        le=600_000,
        description="Time for a request's head, for its body and for taking its answer, each, in "
        "milliseconds; then the connection is closed, for a body after 408.",
    )
    keys: Path | None = Field(
        default=None,
        description="TOML file of the keys that may call; read again when it changes. None: "
        "everybody may do everything but what needs an admin key.",
    )
    scenarios: Path | None = Field(
        default=None,
        description="TOML file of the presets that requests may name; read again when it changes.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose web pages may call, as https://shop.example, with commas "
        "between them; none by default.",
    )
    console: bool = Field(
        default=True, description="Whether to serve the console, the pages for people at /."
    )
    drain_seconds: float = Field(
        default=2.0,
        ge=0,
        le=600,
        description="How long to keep serving, while /readyz says no, after SIGTERM.",
    )
    state_url: SecretStr = Field(
        default=SecretStr("memory://"),
        description="User state: memory:// (this process, lost at its end), redis://host:port/db, "
        "rediss://host:port/db, unix://path, redis+sentinel://host1,host2/master or "
        "redis+cluster://host1,host2 (rediss+...: with TLS).",
    )
    state_read_deadline_ms: int = Field(
        default=30,
        ge=1,
        le=60_000,
        description="Time to read a user's state for a recommendation, in milliseconds; "
        "then the answer is made without it.",
    )
    state_write_deadline_ms: int = Field(
        default=250,
        ge=1,
        le=60_000,
        description="Time to store events, or to read or erase a user, in milliseconds, and as "
        "much again for the event log; then 503.",
    )
    redis_connections_max: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="Connections to one Redis server; more operations wait.",
    )
    redis_failures_max: int = Field(
        default=5,
        ge=1,
        le=1_000,
        description="Failures in a row after which Redis is not tried until a probe succeeds.",
    )
    redis_probe_interval_ms: int = Field(
        default=1_000,
        ge=10,
        le=60_000,
        description="Time between probes of a failed Redis in milliseconds (plus or minus 20 %).",
    )
    history_max_items: int = Field(
        default=100, ge=1, le=10_000, description="Newest events kept per user, by event time."
    )
    seen_max_items: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Items remembered per user as seen, the most recently seen ones.",
    )
    event_ids_max: int = Field(
        default=1_000,
        ge=100,
        le=100_000,
        description="Event ids remembered per user to recognise repeated ones.",
    )
    event_id_window_seconds: int = Field(
        default=86_400, ge=1, description="How long an event id is remembered, in seconds."
    )
    state_ttl_seconds: int = Field(
        default=2_592_000,
        ge=2,
        description="A user without new events is forgotten after this time in seconds (plus or "
        "minus 10 %).",
    )
    memory_max_entries: int = Field(
        default=2_000_000,
        ge=1,
        description="memory:// only: history entries, seen items and event ids kept in all "
        "(about 150 bytes each); the users longest unused are forgotten beyond it.",
    )
    event_log: Literal["redis"] | DirectoryPath | None = Field(
        default=None,
        description="Where accepted events and impressions are logged to, for `cofine prepare`: a "
        "folder, or `redis` for that of the state; nothing is logged without it.",
    )
    event_log_max_entries: int = Field(
        default=1_000_000,
        ge=1_000,
        le=1_000_000_000,
        description="Event log in Redis only: events that it keeps, and as many impressions, until "
        "`python -m service.drain_log` takes them; beyond it the oldest are lost.",
    )
    recommendation_secrets: SecretStr | None = Field(
        default=None,
        description="Secrets that sign recommendation ids, comma separated, at least 32 characters "
        "each: the first signs, all are accepted. Without them, an event is attributed only by "
        "the process that recommended.",
    )
    otlp_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/]",
        description="OpenTelemetry collector that traces are sent to by HTTP, as "
        "http://host:4318; none are made without one. Needs the extra `tracing`, which the image "
        "has.",
    )

    @field_validator("bundle", "bundles", "keys", "scenarios", "event_log", mode="before")
    @classmethod
    def _refuse_empty_path(cls, given: Any) -> Any:
        if given == "":  # as a path, that would be the working directory
            raise ValueError("is empty: leave the variable out, or name a path")
        return given

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, given: Any) -> Any:
        if isinstance(given, str):
            return tuple(part.strip() for part in given.split(",") if part.strip())
        return given

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    "an origin is scheme, host and perhaps port, as https://shop.example; "
                    "there is no wildcard"
                )
        return origins

    @model_validator(mode="after")
    def _check(self) -> Self:
        url = self.state_url.get_secret_value()
        if not url.startswith("memory://"):
            _check_redis(url)
        if self.state_ttl_seconds < 2 * self.event_id_window_seconds:
            # Event ids must be gone before the user's state can be, whatever the jitter.
            raise ValueError("state_ttl_seconds must be at least twice event_id_window_seconds")
        if any(len(secret) < SECRET_MIN_CHARACTERS for secret in self.signing_secrets()):
            raise ValueError(
                "recommendation_secrets must have at least "
                f"{SECRET_MIN_CHARACTERS} characters each, separated by commas"
            )
        self._check_event_log(url)
        if self.otlp_url is not None and not _has_opentelemetry():
            raise ValueError("otlp_url needs OpenTelemetry: pip install 'cofine[tracing]'")
        return self

    def _check_event_log(self, state_url: str) -> None:
        if self.event_log is None:
            return
        if self.event_log == "redis":
            if state_url.startswith("memory://"):
                raise ValueError("event_log redis needs the state in Redis too: set state_url")
        elif not os.access(self.event_log, os.W_OK | os.X_OK):
            raise ValueError("event_log must be a folder that the service may write")

    def signing_secrets(self) -> list[str]:
        """Return the secrets of recommendation ids, the signing one first."""
        given = self.recommendation_secrets
        return [] if given is None else given.get_secret_value().split(",")


def _check_redis(url: str) -> None:
    try:
        RedisAddress.parse(url)
    except ValueError as error:
        raise ValueError(f"state_url {error}, or be memory://") from None


def _has_opentelemetry() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:  # of a parent, which looking for it imports
        return False


def load_settings(**given: Any) -> Settings:
    """Read the settings from the environment; `given` values win over it.

    Raises:
        SettingsError: a COFINE_* variable that does not exist, or an unusable value. The message
            names each variable and what is wrong with it, never the value.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = [
        name
        for name in sorted(os.environ)
        if name.startswith(PREFIX)
        and name not in known | _TEST_NAMES
        and not name.startswith(TEST_PREFIX)
    ]
    if unknown:
        raise SettingsError(
            f"unknown variable {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(_readable(error)) from None


def _readable(error: ValidationError) -> str:
    """Return "COFINE_PORT: Input should be a valid integer" lines, without the values."""
    return "; ".join(
        f"{PREFIX + str(found['loc'][0]).upper() if found['loc'] else 'settings'}: {found['msg']}"
        for found in error.errors(include_input=False, include_url=False)
    )
