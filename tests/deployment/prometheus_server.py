"""Prometheus and Alertmanager of the tests' own, and where the project's configuration lies."""

import json
import math
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.end_to_end.service_process import PATIENCE_SECONDS, free_port, wait_until
from tests.required import skip_for_want_of
from tests.research_data import PROJECT

PROMETHEUS = PROJECT / "docker" / "prometheus"
ALERTMANAGER = PROJECT / "docker" / "alertmanager" / "alertmanager.yml"
RUNBOOK = PROJECT / "docs" / "runbook"


def executable(name: str) -> str:
    """Where the program is; skips (fails when COFINE_REQUIRE names prometheus) without it."""
    found = shutil.which(name)
    if found is None:
        remedy = f"{name} is missing; apt-get install prometheus prometheus-alertmanager"
        skip_for_want_of("prometheus", remedy)
    return found


def run(name: str, *arguments: str | Path, text: str | None = None) -> str:
    """The output of a program that must succeed."""
    ended = subprocess.run(
        [executable(name), *arguments], input=text, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def alert_rules() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    groups = read_yaml(PROMETHEUS / "rules.yml")["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


class Server:
    """A program that serves HTTP on 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        with httpx2.Client(verify=False, trust_env=False, timeout=PATIENCE_SECONDS) as client:
            response = client.get(f"http://{self.address}{path}")
        if response.headers["content-type"].startswith("application/json"):
            return response.json()
        return response.text if response.status_code == 200 else None

    def is_ready(self) -> bool:
        try:
            return self.get("/-/ready") is not None
        except httpx2.TransportError:
            return False

    def query(self, expr: str) -> list[float]:
        """The finite values of a PromQL expression now."""
        answer = self.get(f"/api/v1/query?{urllib.parse.urlencode({'query': expr})}")
        assert answer["status"] == "success", f"{expr}: {json.dumps(answer)}"
        found = [float(series["value"][1]) for series in answer["data"]["result"]]
        return [value for value in found if math.isfinite(value)]


@contextmanager
def _running(folder: Path, name: str, port: int, *arguments: str) -> Iterator[Server]:
    server = Server(port)
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [executable(name), f"--web.listen-address={server.address}", *arguments],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(server.is_ready, f"{name} gets ready")
        yield server
    finally:
        process.kill()
        process.wait()


@contextmanager
def running_prometheus(
    folder: Path, targets: list[str], alertmanagers: list[str], rules: Path
) -> Iterator[Server]:
    """Prometheus with the project's configuration, but other addresses, and in a hurry."""
    config = read_yaml(PROMETHEUS / "prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(rules)]
    config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": alertmanagers}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    data = f"--storage.tsdb.path={folder / 'prometheus'}"
    with _running(folder, "prometheus", free_port(), f"--config.file={file}", data) as server:
        yield server


@contextmanager
def running_alertmanager(folder: Path, webhook: str) -> Iterator[Server]:
    """Alertmanager with the project's configuration, whose receivers all call `webhook`."""
    config = read_yaml(ALERTMANAGER)
    config["route"]["group_wait"] = "0s"
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": f"{webhook}/{receiver['name']}"}]
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = (
        f"--config.file={file}",
        f"--storage.path={folder / 'alertmanager'}",
        "--cluster.listen-address=",
    )
    with _running(folder, "prometheus-alertmanager", free_port(), *arguments) as server:
        yield server
