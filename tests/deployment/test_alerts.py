import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from service.metrics import HTTP_BUCKETS_SECONDS, Metrics
from tests.contract.redis_server import running_redis
from tests.deployment.prometheus_server import (
    ALERTMANAGER,
    PROMETHEUS,
    RUNBOOK,
    alert_rules,
    read_yaml,
    run,
    running_alertmanager,
    running_prometheus,
)
from tests.end_to_end.service_process import free_port, running_service, wait_until
from tests.research_data import PROJECT

ALERTS = alert_rules()
TEST_FILES = sorted(PROMETHEUS.glob("rules*_test.yml"))
HEADINGS = ("What it means", "What users see", "Look at first", "Mend", "Prevent")


def test_the_configuration_is_accepted() -> None:
    assert "SUCCESS" in run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    assert "SUCCESS" in run("amtool", "check-config", ALERTMANAGER)


@pytest.mark.slow
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    run("promtool", "test", "rules", *TEST_FILES)


def test_every_alert_is_tested_firing_and_not_firing() -> None:
    firing: set[str] = set()
    silent: set[str] = set()
    for file in TEST_FILES:
        for test in read_yaml(file)["tests"]:
            for case in test["alert_rule_test"]:
                (firing if case.get("exp_alerts") else silent).add(case["alertname"])
    assert firing == silent == set(ALERTS)


def test_a_rule_that_is_wrong_fails_its_tests(tmp_path: Path) -> None:
    rules = (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
    wrong = rules.replace("cofine_redis_circuit_state > 0", "cofine_redis_circuit_state > 1")
    assert wrong != rules
    (tmp_path / "rules.yml").write_text(wrong, encoding="utf-8")
    tests = read_yaml(PROMETHEUS / "rules_test.yml")
    tests["tests"] = [each for each in tests["tests"] if "breaker" in each["name"]]
    (tmp_path / "rules_test.yml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    with pytest.raises(AssertionError, match="CofineRedisCircuitOpen"):
        run("promtool", "test", "rules", tmp_path / "rules_test.yml")


def test_rules_ask_only_for_metrics_that_exist() -> None:
    exported = set(re.findall(r"^(cofine_\w+)", Metrics().render().decode(), re.MULTILINE))
    exported |= {f"cofine_http_request_duration_seconds_{part}" for part in ("bucket", "count")}
    exported |= {"cofine_build_info", "cofine_bundle_info", "cofine_http_unavailable_total"}
    text = (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
    names = set(re.findall(r"(?<![\w:])cofine_\w+(?=[\[{ )>])", text))
    assert len(names) > 5
    assert names <= exported


def test_the_latency_objective_is_a_boundary_of_the_buckets() -> None:
    text = (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
    thresholds = {float(found) for found in re.findall(r'le="([^"]+)"', text)}
    assert len(thresholds) == 1
    assert thresholds <= set(HTTP_BUCKETS_SECONDS)
    milliseconds = f"{thresholds.pop() * 1_000:.0f} ms"
    assert milliseconds in (RUNBOOK / "README.md").read_text(encoding="utf-8")


def test_prometheus_keeps_its_data_for_as_long_as_the_rules_look_back() -> None:
    text = (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
    looked_back = max(int(days) for days in re.findall(r"(?:offset |\[)(\d+)d", text))
    command = read_yaml(PROJECT / "docker-compose.yml")["services"]["prometheus"]["command"]
    kept = re.search(r"retention\.time=(\d+)d", " ".join(command))
    assert kept is not None
    assert int(kept[1]) > looked_back


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    assert {page.stem for page in RUNBOOK.glob("*.md")} == {"README", *ALERTS}
    index = (RUNBOOK / "README.md").read_text(encoding="utf-8")
    for name, rule in ALERTS.items():
        page = PROJECT / rule["annotations"]["runbook_url"]
        assert page == RUNBOOK / f"{name}.md"
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {name}\n")
        assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == HEADINGS, name
        assert f"[{name}]({name}.md)" in index
        assert f"| {rule['labels']['severity']} |" in index.split(f"[{name}]")[1].split("\n")[0]


@pytest.mark.parametrize("page", sorted(RUNBOOK.glob("*.md")), ids=lambda page: page.stem)
def test_what_a_page_points_at_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    board = (PROJECT / "docker/grafana/dashboards/cofine.json").read_text(encoding="utf-8")
    titles = {panel["title"] for panel in json.loads(board)["panels"]}
    assert set(re.findall(r'panel "([^"]+)"', text)) <= titles
    metrics = Metrics().render().decode()
    for name in set(re.findall(r"\bcofine_\w+", text)):
        assert re.sub("_(count|bucket|sum)$", "", name) in metrics, name
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


def commands(page: Path, program: str) -> list[str]:
    """What a page of the runbook says of a program, to the end of the command."""
    text = page.read_text(encoding="utf-8").replace("\n   ", " ")
    return re.findall(rf"\b{program} [^`;]+", text)


@pytest.mark.parametrize("page", sorted(RUNBOOK.glob("*.md")), ids=lambda page: page.stem)
def test_commands_for_kubernetes_find_the_pods(page: Path) -> None:
    labels = {"app.kubernetes.io/component=service"}
    for command in commands(page, "kubectl"):
        assert re.search(r"^kubectl -n cofine(-dev)? ", command), command
        assert set(re.findall(r" -l (\S+)", command)) <= labels, command
        assert "logs deployment/" not in command, f"{command} is the log of one pod"
    if page.stem != "README" and commands(page, "docker compose"):
        assert commands(page, "kubectl"), "says nothing of Kubernetes"


def test_an_instance_asks_redis_with_what_its_image_has(tmp_path: Path) -> None:
    text = (RUNBOOK / "CofineRedisCircuitOpen.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"-- python -c '([^']+)'", text)
    with running_redis(tmp_path) as server:
        asked = subprocess.run(
            [sys.executable, "-c", program],
            env={"COFINE_STATE_URL": server.url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert asked.stdout == "True\n", asked.stderr


@pytest.mark.parametrize(("severity", "receiver"), [("page", "page"), ("ticket", "ticket")])
def test_alerts_go_where_their_severity_says(severity: str, receiver: str) -> None:
    routes = ("config", "routes", "test", f"--config.file={ALERTMANAGER}")
    assert run("amtool", *routes, f"severity={severity}").splitlines()[0] == receiver


@contextmanager
def webhook() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """An address for notifications, and what has come there: receiver and notification."""
    heard: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append((self.path.strip("/"), json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
def test_an_alert_reaches_whoever_is_on_call(shop_bundle: Path, tmp_path: Path) -> None:
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    rules = read_yaml(PROMETHEUS / "rules.yml")
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["for"] = "1s"  # the test has no minutes
    hurried = tmp_path / "rules.yml"
    hurried.write_text(yaml.safe_dump(rules), encoding="utf-8")
    with (
        webhook() as (address, heard),
        running_service(shop_bundle, tmp_path, state_url=nobody) as service,
        running_alertmanager(tmp_path, address) as alertmanager,
        running_prometheus(
            tmp_path, [f"127.0.0.1:{service.port}"], [alertmanager.address], hurried
        ) as prometheus,
    ):
        wait_until(lambda: bool(heard), "a notification")
        assert prometheus.query('ALERTS{alertname="CofineRedisCircuitOpen"}') == [1]
    receiver, notification = heard[0]
    assert receiver == "page"
    assert notification["status"] == "firing"
    (alert,) = notification["alerts"]
    assert alert["labels"] == {
        "alertname": "CofineRedisCircuitOpen",
        "instance": f"127.0.0.1:{service.port}",
        "job": "cofine",
        "severity": "page",
    }
    assert alert["annotations"]["summary"] == f"127.0.0.1:{service.port} does without Redis"
    assert (PROJECT / alert["annotations"]["runbook_url"]).is_file()


def test_what_follows_from_a_louder_alert_is_not_told(tmp_path: Path) -> None:
    told_of = (
        ("CofineRedisCircuitOpen", "a"),
        ("CofineDegradedShare", "a"),
        ("CofineDegradedShare", "b"),
    )
    alerts = [
        {
            "labels": {
                "alertname": name,
                "instance": instance,
                "job": "cofine",
                "severity": ALERTS[name]["labels"]["severity"],
            }
        }
        for name, instance in told_of
    ]
    with webhook() as (address, heard), running_alertmanager(tmp_path, address) as alertmanager:
        url = f"http://{alertmanager.address}/api/v2/alerts"
        with httpx2.Client(verify=False, trust_env=False) as client:
            client.post(url, json=alerts[:1]).raise_for_status()
            wait_until(lambda: len(heard) == 1, "the louder alert")
            client.post(url, json=alerts[1:]).raise_for_status()
            wait_until(lambda: len(heard) == 2, "that of another instance")
        found = alertmanager.get("/api/v2/alerts")
    told = [
        (alert["labels"]["alertname"], alert["labels"]["instance"])
        for _, notification in heard
        for alert in notification["alerts"]
    ]
    assert told == [("CofineRedisCircuitOpen", "a"), ("CofineDegradedShare", "b")]
    suppressed = [alert["labels"] for alert in found if alert["status"]["state"] == "suppressed"]
    assert [(one["alertname"], one["instance"]) for one in suppressed] == [told_of[1]]
