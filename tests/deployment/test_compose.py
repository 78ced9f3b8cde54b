"""The compose file: what it says, and the whole of it run by a Docker engine."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import yaml

from service.settings import Settings
from tests.deployment.docker_engine import require_image
from tests.end_to_end.service_process import REPOSITORY, wait_until
from tests.required import skip_for_want_of

SERVICE = "http://127.0.0.1:8000"
PROMETHEUS = "http://127.0.0.1:9090"
GRAFANA = "http://127.0.0.1:3000"


@dataclass(frozen=True)
class Compose:
    """The compose file as one project of the engine; `variables` are what it may name."""

    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str) -> str:
        """What compose prints; it has to succeed."""
        if found := shutil.which("docker-compose"):
            command = [found]
        elif found := shutil.which("docker"):
            command = [found, "compose"]
        else:
            skip_for_want_of("docker-compose", "install it")
        result = subprocess.run(
            [*command, "--project-name", "cofine-test", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert result.returncode == 0, f"{arguments}: {result.stdout}{result.stderr}"
        return result.stdout

    def config(self) -> dict[str, Any]:
        """The file as compose understands it, every profile included."""
        found: dict[str, Any] = yaml.safe_load(self("--profile", "load", "config"))
        return found


def written() -> dict[str, dict[str, Any]]:
    """The services as the file says them, for which no engine is needed."""
    content = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text("utf-8"))
    found: dict[str, dict[str, Any]] = content["services"]
    return found


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = Compose().config()["services"]
    return found


def test_every_image_is_pinned_by_its_patch_version() -> None:
    for name, service in written().items():
        if "build" not in service:
            pinned = re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", service["image"])
            assert pinned, f"{name}: {service['image']}"


def test_redis_is_healthy_when_it_answers_and_not_when_it_refuses() -> None:
    assert written()["redis"]["healthcheck"]["test"] == ["CMD", "redis-cli", "-e", "ping"]


def test_a_variable_of_the_file_that_stays_in_the_shell_does_not_stop_the_service() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text("utf-8")
    named = set(re.findall(r"\$\{COFINE_(\w+)", text))
    assert named == {"BUNDLE"}
    assert {name.lower() for name in named} <= Settings.model_fields.keys()


def test_every_container_is_confined(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service.get("read_only") is True, name
        assert service.get("cap_drop") == ["ALL"], name
        assert service.get("security_opt") == ["no-new-privileges:true"], name


def test_only_this_machine_reaches_the_ports() -> None:
    # As written: the versions of compose print ports in forms of their own.
    ports = [port for one in written().values() for port in one.get("ports", [])]
    assert len(ports) == 4
    for port in ports:
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), port


def test_what_is_mounted_exists() -> None:
    for name, service in written().items():
        for volume in service.get("volumes", []):
            if isinstance(volume, str) and volume.startswith("./"):
                source, _, mode = volume.split(":")
                assert (REPOSITORY / source).is_dir(), f"{name}: {source} is no folder"
                assert mode == "ro", f"{name}: {volume}"


def test_grafana_looks_for_dashboards_where_they_are_mounted(
    services: dict[str, dict[str, Any]],
) -> None:
    provisioning = REPOSITORY / "docker" / "grafana" / "provisioning" / "dashboards"
    for file in provisioning.glob("*.yml"):
        for provider in yaml.safe_load(file.read_text("utf-8"))["providers"]:
            mounted = [str(volume) for volume in services["grafana"]["volumes"]]
            assert any(provider["options"]["path"] in volume for volume in mounted), file


def ask(url: str, body: object = None) -> Any:
    """The JSON answer of a request that must succeed."""
    content = None if body is None else json.dumps(body).encode()
    request = Request(url, content, {"Content-Type": "application/json"})  # noqa: S310 (constants)
    with urlopen(request, timeout=10) as response:  # noqa: S310
        return json.loads(response.read())


def answers(url: str) -> bool:
    """Whether a request succeeds."""
    try:
        ask(url)
    except (URLError, ConnectionError):
        return False
    return True


def wait_for_service() -> None:
    """Wait until the service is ready and has found Redis."""
    wait_until(lambda: answers(f"{SERVICE}/readyz"), "the service gets ready", seconds=60)
    wait_until(lambda: ask(f"{SERVICE}/readyz")["state"]["available"], "Redis is found")


@pytest.fixture(scope="module")
def stack(service_image: str, shop_bundle: Path) -> Iterator[Compose]:
    """The service and Redis, ready; what else a test needs it starts itself."""
    compose = Compose({"COFINE_BUNDLE": str(shop_bundle), "LOAD_DURATION": "10s"})
    services = compose.config()["services"]
    assert services["service"]["image"] == service_image
    require_image(services["redis"]["image"])
    try:
        compose("up", "--detach", "--no-build", "service", "redis")
        wait_for_service()
        yield compose
    finally:
        compose("--profile", "load", "down", "--volumes")


def start(stack: Compose, *names: str) -> None:
    """Start more of the file's services."""
    services = stack.config()["services"]
    for name in names:
        require_image(services[name]["image"])
    stack("up", "--detach", "--no-build", *names)


def popular_items() -> list[str]:
    answer = ask(f"{SERVICE}/v1/recommend", {"k": 5})
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize("restarted", ["service", "redis"])
def test_an_event_outlives_a_restart(stack: Compose, restarted: str) -> None:
    user, item = f"user-{restarted}", popular_items()[0]
    event = {"event_id": "1", "user_id": user, "item_id": item}
    assert ask(f"{SERVICE}/v1/events", event)["accepted"] == 1
    # Redis writes every second; told to stop it writes at once.
    stack("restart", restarted)
    wait_for_service()
    assert [entry["item_id"] for entry in ask(f"{SERVICE}/v1/users/{user}")["history"]] == [item]
    answer = ask(f"{SERVICE}/v1/recommend", {"user_id": user, "k": 5})
    assert {one["source"] for one in answer["items"]} == {"generated"}


def test_a_load_run_succeeds_and_is_counted_by_prometheus(stack: Compose) -> None:
    start(stack, "prometheus")
    require_image(stack.config()["services"]["load"]["image"])
    # Its thresholds decide: every answer as it should be, none left out, none slow.
    stack("run", "--rm", "load")
    query = "query=sum(cofine_recommendations_total{source=%22generated%22})"

    def generated() -> float:
        found = ask(f"{PROMETHEUS}/api/v1/query?{query}")["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0

    # 8 of 10 requests are recommendations, at 20 a second for 10 seconds.
    wait_until(lambda: generated() >= 150, "Prometheus has counted the load", seconds=60)


def test_prometheus_watches_the_service_and_tells_alertmanager(stack: Compose) -> None:
    start(stack, "prometheus", "alertmanager")

    def targets() -> dict[str, str]:
        active = ask(f"{PROMETHEUS}/api/v1/targets")["data"]["activeTargets"]
        return {target["scrapeUrl"]: target["health"] for target in active}

    wait_until(lambda: answers(f"{PROMETHEUS}/api/v1/targets"), "Prometheus answers")
    wait_until(
        lambda: targets().get("http://service:8000/metrics") == "up",
        "Prometheus reads the service's metrics",
        seconds=60,
    )
    wait_until(
        lambda: bool(ask(f"{PROMETHEUS}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]),
        "Prometheus finds Alertmanager",
    )
    groups = ask(f"{PROMETHEUS}/api/v1/rules?type=alert")["data"]["groups"]
    assert sum(len(group["rules"]) for group in groups) > 0
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    wait_until(lambda: answers("http://127.0.0.1:9093/api/v2/status"), "Alertmanager answers")


def test_grafana_shows_every_dashboard(stack: Compose) -> None:
    start(stack, "prometheus", "grafana")
    files = (REPOSITORY / "docker" / "grafana" / "dashboards").glob("*.json")
    wanted = {json.loads(file.read_text("utf-8"))["uid"] for file in files}

    def shown() -> set[str]:
        return {one["uid"] for one in ask(f"{GRAFANA}/api/search?type=dash-db")}

    wait_until(lambda: answers(f"{GRAFANA}/api/health"), "Grafana answers", seconds=120)
    wait_until(lambda: shown() == wanted != set(), "Grafana has read its dashboards", seconds=60)
