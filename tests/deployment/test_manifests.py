"""Every overlay with every combination of components: valid, and held to the policies."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes_validate import (  # type: ignore[import-untyped]
    SchemaNotFoundError,
    ValidationError,
    latest_version,
    validate,
)

from model.training.config import read_run_config
from tests.deployment.manifests import (
    EXTRAS,
    KUBERNETES,
    OWN_REDIS,
    Choice,
    Manifest,
    Manifests,
    choices,
    render,
)
from tests.deployment.monitoring_component import DASHBOARDS, REMEDY, RULES
from tests.deployment.policies import POLICIES, Policy
from tests.deployment.policies.network import isolated, selected
from tests.deployment.policies.pods import (
    mounted,
    pinned,
    probed,
    roomy,
    secured,
    sized,
    stopped_in_time,
)
from tests.deployment.policies.scaling import measured, scaled, spread
from tests.deployment.policies.settings import commanded, configured, discreet
from tests.research_data import PROJECT

OLDEST = "1.30"
"""The oldest Kubernetes that the manifests are for: preStop sleeps are on by default from here."""
FLOORS = {"bundle-image-volume": "1.35"}
"""Components that want a newer one."""
SCHEMAS = Path(__file__).parent / "schemas"
EVERYTHING = Choice("production", ("bundle-pvc", "retrain", "keda", "monitoring"))
DEVELOPMENT = Choice("dev")

every_choice = pytest.mark.parametrize("choice", choices(), ids=str)


@every_choice
def test_every_object_fits_the_oldest_and_the_newest_schemas(choice: Choice) -> None:
    floor = max((FLOORS.get(name, OLDEST) for name in choice.components), default=OLDEST)

    wrong = [
        f"{one['kind']} {one['metadata']['name']} on {version}: {complaint}"
        for one in render(choice).objects
        for version in (floor, latest_version())
        if (complaint := _complaint(json.dumps(one, sort_keys=True), version))
    ]

    assert wrong == []


@cache
def _complaint(content: str, version: str) -> str | None:
    """What a schema has against an object; kinds that are ours to check have ours."""
    one: Manifest = json.loads(content)
    own = SCHEMAS / f"{one['kind']}.json"
    try:
        if own.is_file():
            jsonschema.validate(one, json.loads(own.read_text("utf-8")))
        else:
            validate(one, version, strict=True)
    except SchemaNotFoundError as error:
        return str(error.message)
    except (ValidationError, jsonschema.ValidationError) as error:
        return f"{error.json_path}: {error.message}"
    return None


def _object(api_version: str, kind: str, **spec: object) -> str:
    metadata = {"name": "x", "namespace": "x"}
    return json.dumps(
        {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec},
        sort_keys=True,
    )


@pytest.mark.parametrize(
    ("content", "version", "complaint"),
    [
        (_object("example.com/v1", "Unheard"), OLDEST, "Couldn't find schema"),
        (_object("autoscaling/v2beta2", "HorizontalPodAutoscaler"), OLDEST, "Couldn't find schema"),
        (_object("v1", "Service", selektor={}), OLDEST, "selektor"),
        (_object("keda.sh/v1alpha1", "ScaledObject", triggers=[]), OLDEST, "scaleTargetRef"),
        (_object("monitoring.coreos.com/v1", "ServiceMonitor", endpoints=[]), OLDEST, "selector"),
        (_object("monitoring.coreos.com/v1", "PrometheusRule", groups=[]), OLDEST, "groups"),
        (_object("monitoring.coreos.com/v2", "PrometheusRule", groups=[]), OLDEST, "apiVersion"),
    ],
)
def test_an_unknown_kind_or_field_is_refused(content: str, version: str, complaint: str) -> None:
    found = _complaint(content, version)

    assert found is not None
    assert complaint in found


@pytest.mark.parametrize(
    ("choice", "version", "field"),
    [(DEVELOPMENT, "1.28", "sleep"), (Choice("dev", ("bundle-image-volume",)), "1.30", "image")],
    ids=str,
)
def test_the_schemas_know_what_is_too_new(choice: Choice, version: str, field: str) -> None:
    deployment = render(choice).one("Deployment", "cofine")

    complaint = _complaint(json.dumps(deployment, sort_keys=True), version)

    assert complaint is not None
    assert field in complaint


@pytest.mark.parametrize(
    ("policy", "choice"),
    [
        pytest.param(
            policy,
            choice,
            id=f"{policy.__name__}-{choice}",
        )
        for policy in POLICIES
        for choice in choices()
    ],
)
def test_every_policy_is_kept(policy: Policy, choice: Choice) -> None:
    assert list(policy(render(choice))) == []


POD = "Deployment/cofine/spec.template.spec"
SERVICE = f"{POD}.containers.0"
TRAINING = "CronJob/cofine-retrain/spec.jobTemplate.spec.template.spec"
REMOVED = object()

BREAKAGES: list[tuple[Policy, str, object]] = [
    (secured, f"{POD}.securityContext.runAsNonRoot", False),
    (secured, f"{POD}.securityContext.runAsUser", 0),
    (secured, f"{POD}.securityContext.seccompProfile", REMOVED),
    (secured, f"{POD}.automountServiceAccountToken", True),
    (secured, f"{POD}.enableServiceLinks", REMOVED),
    (secured, f"{POD}.hostNetwork", True),
    (secured, f"{POD}.volumes.0", {"name": "bundle", "hostPath": {"path": "/"}}),
    (secured, f"{SERVICE}.securityContext.readOnlyRootFilesystem", False),
    (secured, f"{SERVICE}.securityContext.allowPrivilegeEscalation", REMOVED),
    (secured, f"{SERVICE}.securityContext.capabilities.add", ["NET_ADMIN"]),
    (secured, f"{TRAINING}.initContainers.0.securityContext", REMOVED),
    (secured, "ServiceAccount/cofine/automountServiceAccountToken", REMOVED),
    (secured, "Namespace/cofine/metadata.labels", {}),
    (sized, f"{SERVICE}.resources.limits.cpu", "3"),
    (sized, f"{SERVICE}.resources.limits", {"cpu": "2"}),
    (
        sized,
        f"{SERVICE}.resources",
        {"limits": {"cpu": "1500m", "memory": "1Gi"}}
        | {"requests": {"cpu": "1500m", "memory": "1Gi"}},
    ),
    (sized, f"{TRAINING}.initContainers.0.resources", REMOVED),
    (pinned, f"{SERVICE}.image", "cofine-service"),
    (pinned, f"{SERVICE}.image", "registry.example.com:5000/cofine-service"),
    (pinned, f"{SERVICE}.image", "cofine-service:latest"),
    (pinned, f"{SERVICE}.image", "cofine-service:1.0"),
    (pinned, f"{POD}.volumes.0.image", {"reference": "cofine-bundle"}),
    (probed, f"{SERVICE}.livenessProbe.httpGet.path", "/readyz"),
    (probed, f"{SERVICE}.readinessProbe.httpGet.path", "/livez"),
    (probed, f"{SERVICE}.startupProbe", REMOVED),
    (probed, f"{SERVICE}.startupProbe.failureThreshold", 5),
    (stopped_in_time, f"{POD}.terminationGracePeriodSeconds", 9),
    (stopped_in_time, f"{SERVICE}.lifecycle", REMOVED),
    (stopped_in_time, "ConfigMap/cofine-settings/data.COFINE_DRAIN_SECONDS", "25"),
    (mounted, f"{SERVICE}.volumeMounts.0.name", "other"),
    (mounted, f"{POD}.volumes.0.emptyDir", {}),
    (mounted, f"{POD}.volumes.0.persistentVolumeClaim.claimName", "other"),
    (mounted, f"{POD}.serviceAccountName", "other"),
    (mounted, f"{SERVICE}.envFrom.0.configMapRef.name", "other"),
    (mounted, f"{SERVICE}.env.0.valueFrom.secretKeyRef.name", "other"),
    (selected, "Service/cofine/spec.selector", {"app.kubernetes.io/name": "cofine"}),
    (selected, "Service/cofine/spec.ports.0.targetPort", "web"),
    (selected, "Service/cofine/metadata.labels", {}),
    (selected, "PodDisruptionBudget/cofine/spec.selector.matchLabels", {"app": "cofine"}),
    (selected, f"{POD}.topologySpreadConstraints.0.labelSelector.matchLabels", {"app": "x"}),
    (selected, "Deployment/cofine/spec.selector.matchLabels", {"app": "cofine"}),
    (selected, "ScaledObject/cofine/spec.scaleTargetRef.name", "other"),
    (selected, "ServiceMonitor/cofine/spec.endpoints.0.port", "metrics"),
    (selected, "NetworkPolicy/cofine-to-dns/spec.podSelector.matchLabels", {"app": "cofine"}),
    (selected, "NetworkPolicy/cofine-from-gateway/spec.ingress.0.ports.0.port", "web"),
    (isolated, "NetworkPolicy/default-deny/spec.policyTypes", ["Ingress"]),
    (isolated, "NetworkPolicy/cofine-from-gateway/spec.ingress.0.from", []),
    (isolated, "NetworkPolicy/cofine-from-gateway/spec.ingress.0.ports", REMOVED),
    (isolated, "NetworkPolicy/cofine-from-gateway/spec.ingress.0.from.0.namespaceSelector", {}),
    (isolated, "NetworkPolicy/cofine-to-redis/spec.egress.0.to.0", {"ipBlock": {"cidr": "::/0"}}),
    (isolated, "NetworkPolicy/cofine-to-redis/spec.egress.0.ports.0.port", 443),
    (isolated, "Service/cofine/metadata.namespace", "default"),
    (isolated, "Service/cofine/spec.type", "LoadBalancer"),
    (configured, "ConfigMap/cofine-settings/data.COFINE_BEAM_WIDTH", "10"),
    (configured, "ConfigMap/cofine-settings/data.COFINE_DEADLINE_MS", "soon"),
    (configured, "ConfigMap/cofine-settings/data.COFINE_PORT", "9000"),
    (configured, "ConfigMap/cofine-settings/data.COFINE_HOST", "127.0.0.1"),
    (configured, "ConfigMap/cofine-settings/data.COFINE_BUNDLE", "/elsewhere"),
    (configured, f"{SERVICE}.volumeMounts.0.readOnly", False),
    (configured, "ConfigMap/cofine-settings/data.COFINE_KEYS", REMOVED),
    (configured, "ConfigMap/cofine-settings/data.COFINE_KEYS", "/elsewhere/keys.toml"),
    (configured, "ConfigMap/cofine-settings/data.COFINE_EVENT_LOG", "/bundle"),
    (configured, f"{SERVICE}.env.0", {"name": "COFINE_STATE_URL", "value": "memory://"}),
    (configured, f"{TRAINING}.containers.0.env.0", {"name": "COFINE_PORT", "value": "1"}),
    (discreet, "ConfigMap/cofine-settings/data.COFINE_STATE_URL", "redis://redis:6379/0"),
    (discreet, "ConfigMap/cofine-settings/data.OTHER", "https://ann:secret@example.com"),
    (discreet, f"{SERVICE}.env.0", {"name": "COFINE_STATE_URL", "value": "redis://redis/0"}),
    (discreet, f"{SERVICE}.env.1", {"name": "OTHER", "value": "redis://:secret@redis/0"}),
    (commanded, f"{TRAINING}.initContainers.0.command", ["cofine", "trane", "run.toml"]),
    (commanded, f"{TRAINING}.initContainers.0.command", ["cofine", "run"]),
    (commanded, f"{TRAINING}.initContainers.0.command", ["cofine", "run", "--fast", "1", "x.toml"]),
    (scaled, "Deployment/cofine/spec.replicas", 3),
    (scaled, "PodDisruptionBudget/cofine/spec.maxUnavailable", "50%"),
    (scaled, "ScaledObject/cofine/spec.minReplicaCount", 1),
    (scaled, "ScaledObject/cofine/spec.maxReplicaCount", 3),
    (measured, "ScaledObject/cofine/spec.triggers.0.metadata.query", "sum(cofine_other{})"),
    (measured, "ScaledObject/cofine/spec.triggers.0.metadata.query", "vector(1)"),
    (measured, "ScaledObject/cofine/metadata.namespace", "other"),
    (spread, f"{POD}.topologySpreadConstraints", []),
    (spread, f"{POD}.topologySpreadConstraints.0.whenUnsatisfiable", "DoNotSchedule"),
    (spread, "Deployment/cofine/spec.strategy", REMOVED),
]


SMALL_REDIS = "StatefulSet/redis/spec.template.spec.containers.0"
REDIS_CLUSTER = "StatefulSet/redis-cluster/spec.template.spec.containers.0"

BREAKAGES_OF_OTHERS: list[tuple[Choice, Policy, str, object]] = [
    (DEVELOPMENT, pinned, f"{SMALL_REDIS}.image", "redis:7-alpine"),
    (DEVELOPMENT, pinned, f"{SMALL_REDIS}.image", "redis:7.4-alpine"),
    (DEVELOPMENT, probed, f"{SMALL_REDIS}.readinessProbe.exec.command", ["redis-cli", "ping"]),
    (DEVELOPMENT, roomy, f"{SMALL_REDIS}.args.4", "342mb"),
    (DEVELOPMENT, roomy, f"{SMALL_REDIS}.args.3", "--other"),
    (OWN_REDIS[0], roomy, f"{REDIS_CLUSTER}.resources.limits.memory", "959Mi"),
    (OWN_REDIS[0], probed, f"{REDIS_CLUSTER}.readinessProbe.exec.command", ["redis-cli", "ping"]),
]


@pytest.mark.parametrize(
    ("choice", "policy", "where", "value"),
    [
        pytest.param(choice, policy, where, value, id=f"{policy.__name__}-{where}")
        for choice, policy, where, value in (
            *((EVERYTHING, *breakage) for breakage in BREAKAGES),
            *BREAKAGES_OF_OTHERS,
        )
    ],
)
def test_a_policy_notices(choice: Choice, policy: Policy, where: str, value: object) -> None:
    broken = render(choice).copy()

    _set(broken, where, value)

    assert set(policy(broken)) > set(policy(render(choice)))


def test_every_policy_has_shown_that_it_can_fail() -> None:
    shown = {policy for policy, _, _ in BREAKAGES}
    assert shown | {policy for _, policy, _, _ in BREAKAGES_OF_OTHERS} == set(POLICIES)


def _set(manifests: Manifests, where: str, value: object) -> None:
    """Put `value` at "Kind/name/path.to.0.field"; generated names go without their hash."""
    kind, name, path = where.split("/", 2)
    (found,) = (
        one
        for one in manifests.of_kind(kind)
        if re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", one["metadata"]["name"])
    )
    *parents, last = (int(step) if step.isdigit() else step for step in path.split("."))
    place: Any = found
    for step in parents:
        place = place[step]
    if value is REMOVED:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: secret["data"].update(url="cmVkaXM6Ly86c2VjcmV0QHJlZGlzLzA="),
        lambda secret: secret["data"].update(key="LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t"),
    ],
    ids=["password", "private key"],
)
def test_a_password_in_the_repository_is_noticed(change: Callable[[Manifest], None]) -> None:
    broken = render(DEVELOPMENT).copy()
    (secret,) = broken.of_kind("Secret")

    change(secret)

    assert list(discreet(broken)) != []


def test_nobody_but_redis_calls_the_bus_of_its_cluster() -> None:
    broken = render(OWN_REDIS[0]).copy()

    _set(broken, "NetworkPolicy/cofine-to-redis-cluster/spec.egress.0.ports.0.port", 16_379)

    assert list(isolated(broken)) == [
        "NetworkPolicy cofine-to-redis-cluster: allows calls to [16379]"
    ]


def test_development_has_one_replica() -> None:
    broken = render(DEVELOPMENT).copy()
    broken.one("Deployment", "cofine")["spec"]["replicas"] = 2

    assert list(scaled(broken)) != []


def test_every_overlay_and_component_is_rendered() -> None:
    overlays = {path.name for path in (KUBERNETES / "overlays").iterdir()}
    components = {path.name for path in (KUBERNETES / "components").iterdir()}

    assert set(EXTRAS) == overlays
    assert {name for choice in choices() for name in choice.components} == components


def test_the_alert_rules_and_dashboards_are_those_of_docker() -> None:
    manifests = render(Choice("production", ("monitoring",)))
    dashboards = {path.name: path.read_text("utf-8") for path in DASHBOARDS.glob("*.json")}

    assert dashboards
    rules = yaml.safe_load(RULES.read_text("utf-8"))
    assert manifests.one("PrometheusRule", "cofine")["spec"] == rules, REMEDY
    assert manifests.one("ConfigMap", "cofine-dashboards")["data"] == dashboards, REMEDY


def test_the_alert_rules_name_the_job_that_the_service_monitor_makes() -> None:
    (service,) = (
        one["metadata"]["name"]
        for one in render(Choice("production", ("monitoring",))).of_kind("Service")
    )

    jobs = set(re.findall(r'job=~?"([^"]*)"', RULES.read_text("utf-8")))

    assert jobs <= {service}


def test_the_retraining_reads_its_settings(tmp_path: Path) -> None:
    manifests = render(EVERYTHING)
    (settings,) = (
        one["data"]["run.toml"]
        for one in manifests.of_kind("ConfigMap")
        if "run.toml" in one["data"]
    )
    file = tmp_path / "run.toml"
    file.write_text(settings, "utf-8")

    config = read_run_config(file)

    (train, publish) = manifests.workloads[-1].containers
    folders = [mount["mountPath"] for mount in train["volumeMounts"]]
    assert config.prepare is not None
    for path in (*config.prepare.items, *config.prepare.events, config.workspace, config.bundle):
        assert str(path).startswith(tuple(f"{folder}/" for folder in folders)), path
    assert config.evaluate.split == "validation"
    assert str(config.bundle) in publish["command"]
    assert str(config.workspace) in publish["command"]


def _patches_of_the_guide(heading: str) -> str:
    guide = (PROJECT / "docs" / "kubernetes.md").read_text("utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.*?)^## ", guide, flags=re.S | re.M)
    (patches,) = re.findall(r"```yaml\n(patches:\n.*?)```", section, flags=re.S)
    return str(patches)


def test_the_guides_way_back_to_a_former_bundle() -> None:
    patches = _patches_of_the_guide("Upgrade and roll back")

    manifests = render(Choice("production", ("bundle-pvc",), patches))

    (settings,) = manifests.of_kind("ConfigMap")
    assert settings["data"]["COFINE_BUNDLE"] == "/bundles/0123456789abcdef"
    assert all(list(policy(manifests)) == [] for policy in POLICIES)


def test_the_guides_label_makes_prometheus_select_the_monitoring() -> None:
    manifests = render(Choice("production", ("monitoring",), _patches_of_the_guide("Watch")))

    for one in manifests.of_kind("ServiceMonitor", "PrometheusRule"):
        assert one["metadata"]["labels"]["release"] == "kube-prometheus-stack", one["kind"]
    assert all(list(policy(manifests)) == [] for policy in POLICIES)


def test_the_guides_event_log_lacks_nothing_but_the_claim() -> None:
    manifests = render(Choice("production", (), _patches_of_the_guide("Log events")))

    (service,) = manifests.one("Deployment", "cofine")["spec"]["template"]["spec"]["containers"]
    assert "COFINE_EVENT_LOG" in {each["name"] for each in service["env"]}
    complaints = [complaint for policy in POLICIES for complaint in policy(manifests)]
    assert complaints == ["Deployment cofine: there is no PersistentVolumeClaim cofine-events"]


def test_the_pods_run_as_the_user_of_the_image() -> None:
    dockerfile = (PROJECT / "docker" / "service.Dockerfile").read_text("utf-8")
    (user,) = re.findall(r"^USER (\d+):", dockerfile, flags=re.M)

    for load in render(EVERYTHING).workloads:
        assert load.pod["securityContext"]["runAsUser"] == int(user), load.name
