"""What containers are told: settings, secrets and commands."""

import base64
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import get_args, get_type_hints
from unittest.mock import patch

from pydantic import SecretStr
from typer.models import ArgumentInfo

from model.__main__ import app
from service.errors import SettingsError
from service.settings import PREFIX, Settings, load_settings
from tests.deployment.manifests import Manifest, Manifests, Workload

SECRETS = {
    PREFIX + name.upper()
    for name, field in Settings.model_fields.items()
    if SecretStr in (field.annotation, *get_args(field.annotation))
}
_EVENT_LOG = PREFIX + "EVENT_LOG"
_STAND_INS = {
    "url": "redis://redis.example.com:6379/0",
    "recommendation-secrets": "s" * 64,
    "redis-password": "p" * 16,
}
"""By the key in a Secret that is not in the repository."""
_CREDENTIALS = re.compile(r"\w+://[^/\s]*:[^/\s]*@|BEGIN [A-Z ]*PRIVATE KEY|(?i:password|token)=")


def environment(manifests: Manifests, container: Manifest) -> dict[str, str]:
    """The variables that Kubernetes gives to a container; unknown secrets get a stand-in."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= manifests.one("ConfigMap", source["configMapRef"]["name"]).get("data", {})
    for variable in container.get("env", ()):
        value = variable.get("value") or _value(manifests, variable)
        if value is not None:
            found[variable["name"]] = value
    return found


def _value(manifests: Manifests, variable: Manifest) -> str | None:
    """The variable's value from elsewhere, None for an optional one that is not there."""
    reference = variable["valueFrom"].get("secretKeyRef")
    if reference is None:
        return "1"  # a number of the pod's own, as its CPUs
    if reference["name"] not in manifests.names("Secret"):
        return _STAND_INS[reference["key"]]
    data = manifests.one("Secret", reference["name"])["data"]
    if reference["key"] not in data and reference.get("optional"):
        return None
    return base64.b64decode(data[reference["key"]]).decode()


def service_settings(manifests: Manifests, container: Manifest) -> Settings:
    """The settings that the service reads in this container.

    Raises:
        SettingsError: it would refuse to start.
    """
    variables = environment(manifests, container)
    if variables.get(_EVENT_LOG, "redis") != "redis":  # the service looks whether it may write
        variables[_EVENT_LOG] = tempfile.gettempdir()
    with patch.dict(os.environ, variables, clear=True):
        return load_settings()


def configured(manifests: Manifests) -> Iterator[str]:
    """The service starts with its settings, and listens and reads where the pod says."""
    for load in manifests.workloads:
        for container in load.containers:
            if container["name"] == "service":
                yield from (f"{load.name}: {wrong}" for wrong in _unusable(manifests, container))
            elif any(name.startswith(PREFIX) for name in environment(manifests, container)):
                yield f"{load.name}: {container['name']} reads no {PREFIX} variables"


def _unusable(manifests: Manifests, container: Manifest) -> Iterator[str]:
    try:
        settings = service_settings(manifests, container)
    except SettingsError as error:
        yield str(error)
        return
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    if ports.get("http") != settings.port:
        yield f"listens on {settings.port}, but the port http is {ports.get('http')}"
    if settings.host != "0.0.0.0":  # noqa: S104 (reached from outside of the pod)
        yield f"listens on {settings.host} only"
    if settings.state_url.get_secret_value().startswith("memory://"):
        yield "keeps user state in memory, where no other pod sees it"
    yield from _unguarded(manifests, container, settings)
    read_only = {m["mountPath"] for m in container["volumeMounts"] if m.get("readOnly")}
    bundle = PurePosixPath(settings.bundle)
    if not read_only & {str(folder) for folder in (bundle, *bundle.parents)}:
        yield f"the bundle {bundle} is not in a read-only volume"
    log = environment(manifests, container).get(_EVENT_LOG)
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    if log not in {None, "redis"} and log not in writable:
        yield f"the event log {log} is not a volume that may be written"


def _unguarded(manifests: Manifests, container: Manifest, settings: Settings) -> Iterator[str]:
    """In production only callers with a key get in, and keys can change in a running pod."""
    if settings.keys is None:
        if manifests.overlay == "production":
            yield "is open to everybody: COFINE_KEYS is not set"
        return
    folder = str(PurePosixPath(settings.keys).parent)
    mounts = [one for one in container["volumeMounts"] if one["mountPath"] == folder]
    if not mounts or not mounts[0].get("readOnly") or "subPath" in mounts[0]:
        yield f"the keys are not in a read-only volume, whole, at {folder}"


def discreet(manifests: Manifests) -> Iterator[str]:
    """No secret in a ConfigMap, a variable, or the repository."""
    for config in manifests.of_kind("ConfigMap"):
        name = config["metadata"]["name"]
        for key, value in config.get("data", {}).items():
            if key in SECRETS or _CREDENTIALS.search(value):
                yield f"ConfigMap {name} holds a secret in {key}"
    for secret in manifests.of_kind("Secret"):
        for key, value in secret.get("data", {}).items():
            if _CREDENTIALS.search(base64.b64decode(value).decode(errors="replace")):
                yield f"Secret {secret['metadata']['name']}: {key} must not be in the repository"
    for load in manifests.workloads:
        yield from (f"{load.name}: {wrong}" for wrong in _indiscreet(load))


def _indiscreet(load: Workload) -> Iterator[str]:
    for container in load.containers:
        for variable in container.get("env", ()):
            value = variable.get("value", "")
            if value and (variable["name"] in SECRETS or _CREDENTIALS.search(value)):
                yield f"{variable['name']} of {container['name']} holds a secret"


def commanded(manifests: Manifests) -> Iterator[str]:
    """Every `cofine` command exists and has the arguments and options that it gets."""
    for load in manifests.workloads:
        for container in load.containers:
            program, *words = container.get("command", [""])
            if program == "cofine":
                line = f"{load.name}: cofine {' '.join(words)}"
                yield from (f"{line}: {wrong}" for wrong in _misunderstood(words))


def _misunderstood(words: list[str]) -> Iterator[str]:
    name, *given = words
    commands = {
        found.callback.__name__: found.callback
        for found in app.registered_commands
        if found.callback
    }
    if name not in commands:
        yield f"there is no command {name}"
        return
    hints = get_type_hints(commands[name], include_extras=True)
    arguments = {
        parameter
        for parameter, hint in hints.items()
        if any(isinstance(kind, ArgumentInfo) for kind in get_args(hint))
    }
    options = {f"--{parameter.replace('_', '-')}" for parameter in hints.keys() - arguments}
    unknown = {word for word in given if word.startswith("--")} - options
    if unknown:
        yield f"there is no {', '.join(sorted(unknown))}"
    # Every option that is used here takes a value.
    values = sum(word.startswith("--") for word in given)
    if len(given) - 2 * values != len(arguments):
        yield f"takes {len(arguments)} arguments: {', '.join(sorted(arguments))}"
