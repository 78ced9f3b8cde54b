"""What pods may do, use and run, and how they start and end."""

import math
import re
from collections.abc import Iterator

from tests.deployment.manifests import Manifest, Manifests, Workload
from tests.deployment.policies.settings import service_settings

EXTERNAL_SECRETS = {"cofine-state", "cofine-keys"}
"""Made by the operator, never by these manifests: the password of Redis, and who may call."""

_IMAGE = re.compile(
    r"(?P<name>[^:@]+(:\d+/[^:@]+)?)(:(?P<tag>[\w.-]+))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_OWN_OR_PATCHED = re.compile(r"cofine-\w+:\S+|\S+:v?\d+\.\d+\.\d+(-\S+)?")
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def secured(manifests: Manifests) -> Iterator[str]:
    """Pods keep to the restricted standard, and to less: nothing to write to, no API token."""
    for namespace in manifests.of_kind("Namespace"):
        label = "pod-security.kubernetes.io/enforce"
        if namespace["metadata"].get("labels", {}).get(label) != "restricted":
            yield f"namespace {namespace['metadata']['name']} does not enforce {label}=restricted"
    for account in manifests.of_kind("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"service account {account['metadata']['name']} mounts its token"
    for load in manifests.workloads:
        yield from (f"{load.name}: {wrong}" for wrong in _insecure(load.pod))
        for container in load.containers:
            if container.get("securityContext") != _CONTAINER_SECURITY:
                yield f"{load.name}: securityContext of {container['name']} is not strict"


def _insecure(pod: Manifest) -> Iterator[str]:
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "may run as root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "mounts an API token"
    if pod.get("enableServiceLinks") is not False:
        yield "a Service could set COFINE_PORT"
    for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(forbidden):
            yield f"uses {forbidden}"
    if any("hostPath" in volume for volume in pod.get("volumes", ())):
        yield "mounts a folder of the node"


def sized(manifests: Manifests) -> Iterator[str]:
    """Requests equal limits, in whole CPUs: a pod has what it may use, and is not throttled."""
    for load in manifests.workloads:
        for container in load.containers:
            resources = container.get("resources", {})
            limits = resources.get("limits", {})
            if set(limits) != {"cpu", "memory"} or resources.get("requests") != limits:
                yield f"{load.name}: requests of {container['name']} are not its limits"
            elif not re.fullmatch(r"[1-9]\d*", str(limits["cpu"])):
                yield f"{load.name}: {container['name']} has {limits['cpu']} CPUs, not whole ones"


def pinned(manifests: Manifests) -> Iterator[str]:
    """Images have a tag that stays, in production a digest; those of others name their patch."""
    for load in manifests.workloads:
        for reference in _images(load):
            found = _IMAGE.fullmatch(reference)
            if found is None or (found["tag"], found["digest"]) == (None, None):
                yield f"{load.name}: {reference} has neither tag nor digest"
            elif found["tag"] == "latest":
                yield f"{load.name}: {reference} moves"
            elif manifests.overlay == "production" and found["digest"] is None:
                yield f"{load.name}: {reference} has no digest"
            elif found["digest"] is None and not _OWN_OR_PATCHED.fullmatch(reference):
                yield f"{load.name}: {reference} moves with every patch"


def roomy(manifests: Manifests) -> Iterator[str]:
    """Redis has half as much memory again as it keeps, as docs/operations.md asks for."""
    for load in manifests.workloads:
        for container in load.containers:
            if "redis-server" not in container.get("args", ()):
                continue
            limit = _bytes(container["resources"]["limits"]["memory"])
            kept = _maxmemory(manifests, container)
            if kept is None:
                yield f"{load.name}: {container['name']} has no maxmemory"
            elif kept * 3 > limit * 2:
                yield f"{load.name}: {container['name']} keeps {kept} of {limit} bytes"


def _maxmemory(manifests: Manifests, container: Manifest) -> int | None:
    said = " ".join(container["args"])
    for config in manifests.of_kind("ConfigMap"):
        if "/etc/redis/redis.conf" in said:
            said += " --" + re.sub("\n", " --", config["data"].get("redis.conf", ""))
    found = re.search(r"--maxmemory (\w+)", said)
    return _bytes(found[1]) if found else None


def _bytes(quantity: str) -> int:
    """Of Kubernetes' `512Mi` and of Redis's `256mb`, which mean the same units."""
    found = re.fullmatch(r"(\d+)([KMG])[IB]", quantity.upper())
    assert found is not None, f"{quantity} is no whole number of Ki, Mi, Gi, kb, mb or gb"
    return int(found[1]) << {"K": 10, "M": 20, "G": 30}[found[2]]


def _images(load: Workload) -> Iterator[str]:
    yield from (container["image"] for container in load.containers)
    for volume in load.pod.get("volumes", ()):
        if "image" in volume:
            yield volume["image"]["reference"]


def probed(manifests: Manifests) -> Iterator[str]:
    """What serves has all probes; the service's own never ask Redis."""
    for load in manifests.workloads:
        if load.owner["kind"] not in {"Deployment", "StatefulSet"}:
            continue
        for container in load.pod["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe not in container:
                    yield f"{load.name}: {container['name']} has no {probe}"
                command = container.get(probe, {}).get("exec", {}).get("command", ["", "-e"])
                if command[0] == "redis-cli" and "-e" not in command:
                    yield f"{load.name}: {probe} takes an error of Redis for an answer"
        if load.is_service:
            yield from (f"{load.name}: {wrong}" for wrong in _wrong_probes(load.pod))


def _wrong_probes(pod: Manifest) -> Iterator[str]:
    (service,) = (found for found in pod["containers"] if found["name"] == "service")
    paths = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    for probe, path in paths.items():
        asked = service.get(probe, {}).get("httpGet")
        if asked != {"path": path, "port": "http"}:
            yield f"{probe} asks {asked}, not {path} at the port http"
    startup = service.get("startupProbe", {})
    if startup.get("failureThreshold", 3) * startup.get("periodSeconds", 10) < 60:
        yield "a bundle gets less than a minute to be verified"


def stopped_in_time(manifests: Manifests) -> Iterator[str]:
    """The kubelet waits longer than the sleep, the drain and the last request take."""
    for load in manifests.workloads:
        if not load.is_service:
            continue
        (service,) = (found for found in load.pod["containers"] if found["name"] == "service")
        sleep = service.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if sleep < 1:
            yield f"{load.name}: no preStop sleep, so proxies still send requests"
        settings = service_settings(manifests, service)
        finish = math.ceil(settings.deadline_ms / 1_000) + 1  # as service.__main__ gives it
        needed = sleep + settings.drain_seconds + finish
        given = load.pod.get("terminationGracePeriodSeconds", 0)
        if given <= needed:
            yield f"{load.name}: killed after {given} s, but needs {needed} s to end"


def mounted(manifests: Manifests) -> Iterator[str]:
    """What is mounted or referred to is there, and what is there is mounted."""
    for load in manifests.workloads:
        volumes = {volume["name"]: volume for volume in load.pod.get("volumes", ())}
        claims = {
            one["metadata"]["name"] for one in load.owner["spec"].get("volumeClaimTemplates", ())
        }
        mounts = {one["name"] for box in load.containers for one in box.get("volumeMounts", ())}
        if mounts != volumes.keys() | claims:
            yield f"{load.name}: mounts {sorted(mounts)} of {sorted(volumes.keys() | claims)}"
        for name, volume in volumes.items():
            if len(volume) != 2:
                yield f"{load.name}: volume {name} has not one source"
        yield from (f"{load.name}: {wrong}" for wrong in _missing(manifests, load, volumes))


def _missing(manifests: Manifests, load: Workload, volumes: dict[str, Manifest]) -> Iterator[str]:
    wanted = {
        "ConfigMap": {volume.get("configMap", {}).get("name") for volume in volumes.values()},
        "Secret": {volume.get("secret", {}).get("secretName") for volume in volumes.values()},
        "PersistentVolumeClaim": {
            volume.get("persistentVolumeClaim", {}).get("claimName") for volume in volumes.values()
        },
        "ServiceAccount": {load.pod.get("serviceAccountName")},
    }
    for container in load.containers:
        for source in container.get("envFrom", ()):
            wanted["ConfigMap"].add(source.get("configMapRef", {}).get("name"))
        for variable in container.get("env", ()):
            reference = variable.get("valueFrom", {}).get("secretKeyRef", {})
            wanted["Secret"].add(reference.get("name"))
    for kind, names in wanted.items():
        there = manifests.names(kind) | (EXTERNAL_SECRETS if kind == "Secret" else set())
        for name in sorted(names - {None} - there):
            yield f"there is no {kind} {name}"
