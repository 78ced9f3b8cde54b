"""How many pods there are, where, and who decides."""

import re
from collections.abc import Iterator

from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from tests.deployment.manifests import Manifest, Manifests

_METRIC = re.compile(r"\b(?!by\b)[a-z_]+(?=\{)")


def scaled(manifests: Manifests) -> Iterator[str]:
    """In production exactly one autoscaler owns the replicas, never fewer than two of them."""
    scalers = manifests.of_kind("HorizontalPodAutoscaler", "ScaledObject")
    (service,) = (load for load in manifests.workloads if load.is_service)
    budgets = manifests.of_kind("PodDisruptionBudget")
    if {budget["spec"].get("maxUnavailable") for budget in budgets} != {1}:
        yield "no PodDisruptionBudget lets exactly one pod go at a time"
    if manifests.overlay != "production":
        if scalers or service.owner["spec"].get("replicas") != 1:
            yield f"{service.name} has not exactly one replica"
        return
    if "replicas" in service.owner["spec"]:
        yield f"{service.name} sets replicas, which every apply would put back"
    if len(scalers) != 1:
        yield f"{len(scalers)} autoscalers of {service.name}, not one"
    for scaler in scalers:
        least, most = _bounds(scaler)
        if not 2 <= least < most:
            yield f"{scaler['kind']} scales from {least} to {most}"


def _bounds(scaler: Manifest) -> tuple[int, int]:
    spec = scaler["spec"]
    names = {
        "HorizontalPodAutoscaler": ("minReplicas", "maxReplicas"),
        "ScaledObject": ("minReplicaCount", "maxReplicaCount"),
    }
    least, most = names[scaler["kind"]]
    return spec.get(least, 0), spec[most]


def measured(manifests: Manifests) -> Iterator[str]:
    """KEDA asks for metrics that the service exports, in the namespace that it scales."""
    known = exported(Metrics().registry)
    for scaler in manifests.of_kind("ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            if trigger["type"] != "prometheus":
                continue
            query = trigger["metadata"]["query"]
            names = set(_METRIC.findall(query))
            if not names:
                yield f"no metric in {query}"
            for name in sorted(names - known):
                yield f"the service exports no {name}"
            namespace = scaler["metadata"]["namespace"]
            if query.count(f'namespace="{namespace}"') != len(_METRIC.findall(query)):
                yield f'{query} does not say namespace="{namespace}"'


def exported(registry: CollectorRegistry) -> set[str]:
    """The names of all samples that the metrics of a registry have."""
    suffixes = {
        "counter": ("_total",),
        "histogram": ("_bucket", "_sum", "_count"),
        "info": ("_info",),
    }
    return {
        metric.name + suffix
        for metric in registry.collect()
        for suffix in suffixes.get(metric.type, ("",))
    }


def spread(manifests: Manifests) -> Iterator[str]:
    """Replicas go to different zones and nodes where they can, and a rollout adds first."""
    for load in manifests.workloads:
        if not load.is_service:
            continue
        found = {
            (one["topologyKey"], one["maxSkew"], one["whenUnsatisfiable"])
            for one in load.pod.get("topologySpreadConstraints", ())
        }
        keys = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        if found != {(key, 1, "ScheduleAnyway") for key in keys}:
            yield f"{load.name} is spread over {sorted(found)}"
        rollout = load.owner["spec"].get("strategy", {}).get("rollingUpdate", {})
        if rollout.get("maxUnavailable") != 0:
            yield f"{load.name} takes a pod away before there is another"
