"""Who finds whom by labels, and who may talk to whom."""

from collections.abc import Iterator

from tests.deployment.manifests import Manifest, Manifests, Workload

ALLOWED_EGRESS = {53, 6379}
"""DNS and Redis: nothing else is called by a pod."""
REDIS_BUS = 16_379
"""What only servers of a Redis Cluster call, and those that listen there, too."""


def selected(manifests: Manifests) -> Iterator[str]:
    """Whatever selects by labels finds what it is meant for, and the ports it names."""
    for load in manifests.workloads:
        yield from (f"{load.name}: {wrong}" for wrong in _misses_itself(load))
    for one in manifests.objects:
        find_wrong = _SELECTORS.get(one["kind"])
        if find_wrong is not None:
            yield from (f"{_called(one)}: {wrong}" for wrong in find_wrong(manifests, one))


def _called(one: Manifest) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def _misses_itself(load: Workload) -> Iterator[str]:
    selector = load.owner["spec"].get("selector", {}).get("matchLabels", {})
    if not selector.items() <= load.labels.items():
        yield "does not select its own pods"
    for constraint in load.pod.get("topologySpreadConstraints", ()):
        if constraint["labelSelector"]["matchLabels"] != selector:
            yield f"is spread over {constraint['topologyKey']} by the labels of other pods"


def _bad_service(manifests: Manifests, service: Manifest) -> Iterator[str]:
    found = manifests.selected(service["spec"]["selector"])
    if len(found) != 1:
        yield f"selects {[load.name for load in found]}, not one workload"
    for port in service["spec"]["ports"]:
        for load in found:
            if port["targetPort"] not in load.port_names:
                yield f"{load.name} has no port {port['targetPort']}"


def _bad_budget(manifests: Manifests, budget: Manifest) -> Iterator[str]:
    if len(manifests.selected(budget["spec"]["selector"]["matchLabels"])) != 1:
        yield "does not select one workload"


def _bad_scaler(manifests: Manifests, scaler: Manifest) -> Iterator[str]:
    target = scaler["spec"]["scaleTargetRef"]
    if target["name"] not in manifests.names(target["kind"]):
        yield f"scales {target['kind']} {target['name']}, which is not there"


def _bad_monitor(manifests: Manifests, monitor: Manifest) -> Iterator[str]:
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [
        service
        for service in manifests.of_kind("Service")
        if wanted <= service["metadata"].get("labels", {}).items()
    ]
    if len(found) != 1:
        yield f"selects {len(found)} Services, not one"
    ports = {port["name"] for service in found for port in service["spec"]["ports"]}
    for endpoint in monitor["spec"]["endpoints"]:
        if endpoint["port"] not in ports:
            yield f"the Service has no port {endpoint['port']}"
        if endpoint["path"] != "/metrics":
            yield f"scrapes {endpoint['path']}, not /metrics"


def _bad_policy(manifests: Manifests, policy: Manifest) -> Iterator[str]:
    labels = policy["spec"]["podSelector"].get("matchLabels", {})
    targets = manifests.selected(labels)
    if labels and not targets:
        yield "selects no pods"
    for rule in policy["spec"].get("ingress", ()):
        names = {port["port"] for port in rule.get("ports", ())}
        for load in targets:
            if not names <= load.port_names:
                yield f"{load.name} has no ports {sorted(names - load.port_names)}"
    for peer in _peers(policy):
        if "namespaceSelector" in peer or "podSelector" not in peer:
            continue
        if not manifests.selected(peer["podSelector"].get("matchLabels", {})):
            yield "names pods of this namespace that are not there"


_SELECTORS = {
    "Service": _bad_service,
    "PodDisruptionBudget": _bad_budget,
    "HorizontalPodAutoscaler": _bad_scaler,
    "ScaledObject": _bad_scaler,
    "ServiceMonitor": _bad_monitor,
    "NetworkPolicy": _bad_policy,
}


def _peers(policy: Manifest) -> Iterator[Manifest]:
    for rule in policy["spec"].get("ingress", ()):
        yield from rule.get("from", ())
    for rule in policy["spec"].get("egress", ()):
        yield from rule.get("to", ())


def isolated(manifests: Manifests) -> Iterator[str]:
    """One namespace; everything in it is denied but named peers at named ports."""
    policies = manifests.of_kind("NetworkPolicy")
    everything = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if not any(policy["spec"] == everything for policy in policies):
        yield "no policy denies everything by default"
    for policy in policies:
        yield from (f"{_called(policy)}: {wrong}" for wrong in _too_open(manifests, policy))
    (namespace,) = manifests.names("Namespace")
    for one in manifests.objects:
        if one["kind"] != "Namespace" and one["metadata"].get("namespace") != namespace:
            yield f"{_called(one)} is not in the namespace {namespace}"
    for service in manifests.of_kind("Service"):
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"{_called(service)} is open to the outside"


def _too_open(manifests: Manifests, policy: Manifest) -> Iterator[str]:
    spec = policy["spec"]
    callers = manifests.selected(spec["podSelector"].get("matchLabels", {}))
    allowed = ALLOWED_EGRESS | (
        {REDIS_BUS} if all("bus" in load.port_names for load in callers) else set()
    )
    for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
        if not rule.get("ports"):
            yield "allows every port"
        if not rule.get("from", rule.get("to")):
            yield "allows every peer"
    anybody: tuple[Manifest, ...] = ({"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}, {})
    for peer in _peers(policy):
        if any(selector in anybody for selector in peer.values()):
            yield f"allows everybody by {peer}"
    for rule in spec.get("egress", ()):
        calls = {port["port"] for port in rule.get("ports", ())}
        if not calls <= allowed:
            yield f"allows calls to {sorted(calls - allowed)}"
