import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import promql_parser
import pytest

from service.metrics import Metrics
from tests.contract.redis_server import running_redis
from tests.deployment.prometheus_server import PROMETHEUS, read_yaml, running_prometheus
from tests.end_to_end.service_process import post_event, recommend, running_service, wait_until
from tests.research_data import PROJECT

GRAFANA = PROJECT / "docker" / "grafana"
FOLDER = GRAFANA / "dashboards"
BOARDS = {file.stem: json.loads(file.read_text("utf-8")) for file in FOLDER.glob("*.json")}
VARIABLES = {
    "$__rate_interval": "30s",
    **dict.fromkeys(("$namespace", "$job", "$instance", "$route"), ".*"),
}


def panels() -> Iterator[dict[str, Any]]:
    for board in BOARDS.values():
        yield from (panel for panel in board["panels"] if panel["type"] != "row")


def filled_in(expr: str) -> str:
    """The query with the dashboard's variables as they are at first."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


QUERIES = [
    pytest.param(filled_in(target["expr"]), id=f"{panel['title']} {target['refId']}")
    for panel in panels()
    for target in panel["targets"]
]


def test_the_files_are_what_the_code_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, GRAFANA / "dashboards.py", tmp_path], check=True)
    written = {file.name: file.read_text("utf-8") for file in tmp_path.iterdir()}
    committed = {file.name: file.read_text("utf-8") for file in FOLDER.iterdir()}
    assert written == committed, "run: python docker/grafana/dashboards.py"


def test_dashboards_can_be_provisioned_again_and_again() -> None:
    assert BOARDS
    for name, board in BOARDS.items():
        assert board["uid"] == name
        assert board["schemaVersion"] >= 36
        assert [each["name"] for each in board["templating"]["list"]] == [
            "datasource",
            "namespace",
            "job",
            "instance",
            "route",
        ]
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
        places = [panel["gridPos"] for panel in board["panels"]]
        assert all(place["x"] + place["w"] <= 24 for place in places)


def test_every_panel_asks_the_chosen_source_and_says_its_unit() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
            assert re.search(r"\$(instance|job)", target["expr"]), panel["title"]
        if panel["type"] != "heatmap":
            assert panel["fieldConfig"]["defaults"]["unit"]


def test_the_source_that_dashboards_choose_first_is_provisioned() -> None:
    """They ask the variable `datasource`, which begins with the default of its type."""
    provisioned = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")
    (source,) = provisioned["datasources"]
    assert source["uid"]
    assert source["isDefault"] is True
    for board in BOARDS.values():
        variable = board["templating"]["list"][0]
        assert (variable["type"], variable["query"]) == ("datasource", source["type"])
    compose = read_yaml(PROJECT / "docker-compose.yml")["services"]
    assert source["url"] == "http://prometheus:9090"
    assert any(port.endswith(":9090") for port in compose["prometheus"]["ports"])
    scraped = read_yaml(PROMETHEUS / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped


@pytest.mark.parametrize("expr", QUERIES)
def test_every_query_is_promql_about_exported_metrics(expr: str) -> None:
    promql_parser.parse(expr)
    text = Metrics().render().decode()
    names = set(re.findall(r"\b([a-z]\w+)\{", expr))
    assert names
    for name in names - {"up"}:
        family = re.sub("_(bucket|count|sum)$", "", name).removesuffix("_info")
        assert f"# TYPE {family}" in text, name


def test_every_metric_of_the_service_is_on_a_dashboard() -> None:
    shown = " ".join(expr.values[0] for expr in QUERIES if isinstance(expr.values[0], str))
    variables = json.dumps([board["templating"] for board in BOARDS.values()])
    text = Metrics().render().decode()
    families = set(re.findall(r"^# TYPE (cofine_\w+?)(?:_info)? ", text, re.MULTILINE))
    assert families
    assert {name for name in families if name not in shown + variables} == set()


PATIENT = {
    "deadline_ms": 60_000,
    "state_read_deadline_ms": 10_000,
    "state_write_deadline_ms": 10_000,
}
"""A busy machine may be late to read a user's state, and degraded answers prove nothing here."""


def load(client: httpx2.Client, number: int) -> None:
    """One of every kind of request that moves what the panels show."""
    shown = recommend(client, k=5)
    popular = [item["item_id"] for item in shown["items"]]
    user = f"user-{number}"
    for place, item_id in enumerate((popular[0], popular[1], popular[0])):
        post_event(client, str(place % 2), user, item_id)  # the last one is a duplicate
    click = {"event_id": "click", "user_id": user, "item_id": popular[0]}
    named = {**click, "recommendation_id": shown["recommendation_id"]}
    attributed = client.post("/v1/events", json=named).json()["results"][0]["attribution"]
    assert attributed == "attributed"
    assert recommend(client, user_id=user)["items"][0]["source"] == "generated"
    recommend(client, history=[popular[2], "unknown"], k=10)
    for path in (f"/v1/users/{user}", f"/v1/items/{popular[0]}", "/v1/items/unknown", "/v1/info"):
        client.get(path)
    client.post("/v1/recommend", json={"k": 0})
    client.post(f"/v1/items/{popular[4]}:availability", json={"stock": 1})
    client.delete(f"/v1/users/{user}")


@pytest.mark.slow
def test_every_query_finds_something_in_prometheus_once_there_is_load(
    shop_bundle: Path, tmp_path: Path
) -> None:
    missing = {str(query.id): str(query.values[0]) for query in QUERIES}
    rounds = iter(range(10_000))
    with (
        running_redis(tmp_path) as redis,
        running_service(shop_bundle, tmp_path, state_url=redis.url, **PATIENT) as service,
        running_prometheus(
            tmp_path, [f"127.0.0.1:{service.port}"], [], PROMETHEUS / "rules.yml"
        ) as prometheus,
        service.client() as client,
    ):

        def is_everything_shown() -> bool:
            load(client, next(rounds))
            for name in [name for name, expr in missing.items() if prometheus.query(expr)]:
                del missing[name]
            return not missing

        wait_until(is_everything_shown, f"values for {missing}")
