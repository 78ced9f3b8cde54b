"""From a served answer over the event log to the next bundle; nothing told is lost on the way."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from model import event_log
from model.bundle import Bundle
from model.training.config import RunConfig, read_run_config
from model.training.pipeline import run_pipeline
from tests.contract.redis_server import running_redis
from tests.end_to_end.service_process import (
    ServiceProcess,
    environment,
    ids,
    post_event,
    recommend,
    running_service,
)

PATIENT = {"state_write_deadline_ms": 20_000}
NEWCOMERS = 12
"""Users that the first training has never seen."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@dataclass(frozen=True)
class Shop:
    """A service, and how its log comes into the folder that training reads."""

    service: ServiceProcess
    collect: Callable[[], None]


@pytest.fixture(params=["folder", "redis"])
def shop(
    request: pytest.FixtureRequest, any_bundle: Path, tmp_path: Path, log: Path
) -> Iterator[Shop]:
    if request.param == "folder":
        with running_service(any_bundle, tmp_path, event_log=log, **PATIENT) as service:
            yield Shop(service, lambda: None)
        return
    with running_redis(tmp_path, appendonly=True) as redis:
        settings = {"event_log": "redis", "state_url": redis.url}

        def drain() -> None:
            command = [sys.executable, "-m", "service.drain_log", str(log)]
            subprocess.run(command, env=environment(**settings), check=True)

        with running_service(any_bundle, tmp_path, **settings, **PATIENT) as service:
            yield Shop(service, drain)


@pytest.fixture
def service(any_bundle: Path, tmp_path: Path, log: Path) -> Iterator[ServiceProcess]:
    """One that logs to a folder."""
    with running_service(any_bundle, tmp_path, event_log=log, **PATIENT) as service:
        yield service


def grep(folder: Path, text: str) -> list[str]:
    """The names of the files below `folder` that hold `text`."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in found if text.encode() in path.read_bytes()]


def logged(log: Path) -> list[dict[str, Any]]:
    return list(event_log.events(log))


def retrain(bundle: Path, log: Path, folder: Path) -> RunConfig:
    """Train again from what the shop was made of and from the log, as a run's TOML file says it.

    The next bundle is autoregressive, whichever decoder wrote the log: exporting one is quicker.
    """
    first = bundle.parent / "run" / "synthetic"
    toml = folder / "again.toml"
    toml.write_text(
        f"""
preset = "tiny"
workspace = "again"
bundle = "again-bundle"

[prepare]
items = "{first}/items.parquet"
events = ["{first}/events.parquet", "{log}"]

[train]
epochs = 1

[evaluate]
exhaustive_users = 5
""",
        encoding="utf-8",
    )
    config = read_run_config(toml)
    run_pipeline(config, Console(quiet=True))
    return config


@pytest.mark.slow
def test_what_was_posted_is_in_the_next_bundle(
    shop: Shop, any_bundle: Path, log: Path, tmp_path: Path
) -> None:
    with shop.service.client() as client:
        shown = recommend(client, k=6)
        for number in range(NEWCOMERS):
            for place, item_id in enumerate(ids(shown)[:5]):
                body = {
                    "event_id": str(place),
                    "user_id": f"newcomer-{number}",
                    "item_id": item_id,
                    "timestamp": 1_900_000_000 + place,
                    "recommendation_id": shown["recommendation_id"],
                }
                for _ in range(2):  # as a client repeats what it got no answer to
                    assert client.post("/v1/events", json=body).status_code == 200
            disliked = {"event_id": "no", "user_id": f"newcomer-{number}", "type": "dislike"}
            answer = client.post("/v1/events", json={**disliked, "item_id": ids(shown)[5]})
            assert answer.status_code == 200
        post_event(client, "1", "gone-user", ids(shown)[0])
        assert client.delete("/v1/users/gone-user").status_code == 204

    shop.collect()
    config = retrain(any_bundle, log, tmp_path)

    prepared = config.workspace / "prepared"
    new = pl.read_parquet(prepared / "events.parquet").filter(
        pl.col("user_id").str.starts_with("newcomer-")
    )
    assert new.group_by("user_id").len()["len"].to_list() == [5] * NEWCOMERS
    first_user = new.filter(pl.col("user_id") == "newcomer-0").sort("timestamp")
    assert first_user["item_id"].to_list() == ids(shown)[:5]
    assert json.loads((prepared / "report.json").read_text())["dislikes"] == NEWCOMERS
    before, after = (Bundle.open(path, threads=1) for path in (any_bundle, config.bundle))
    grown = {}
    for item_id in ids(shown):
        counts = [
            int(bundle.popularity[bundle.catalog.leaf(item_id) or 0]) for bundle in (before, after)
        ]
        grown[item_id] = counts[1] - counts[0]
    # Leave one out: of five events each, the first three are trained on. The disliked one is not.
    assert list(grown.values()) == [NEWCOMERS] * 3 + [0] * 3
    assert grep(log, "gone-user") == grep(config.workspace, "gone-user") == []
    assert grep(config.bundle, "gone-user") == []


def test_a_killed_service_has_logged_all_that_it_confirmed(shop: Shop, log: Path) -> None:
    with shop.service.client() as client:
        for number in range(30):
            assert post_event(client, f"e{number}", "ann", f"i{number}").status_code == 200
    shop.service.kill()
    shop.collect()
    assert [each["item_id"] for each in logged(log)] == [f"i{n}" for n in range(30)]


def test_a_full_disk_refuses_events_and_loses_none(service: ServiceProcess, log: Path) -> None:
    failed = 'cofine_event_log_records_total{kind="event",outcome="failed"}'
    with service.client() as client:
        assert post_event(client, "before", "ann", "x" * 250).status_code == 200
        unlimited = resource.prlimit(service.pid, resource.RLIMIT_FSIZE)
        # Less than a record: a part of it can be written, to this segment or another, then no more.
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (100, unlimited[1]))
        answers = [post_event(client, f"full-{n}", "ann", "x" * 250) for n in range(3)]
        assert [answer.status_code for answer in answers] == [503] * 3
        assert recommend(client, user_id="bob")["items"]
        assert [each["event_id"] for each in logged(log)] == ["before"]
        assert service.metric(failed) == 3
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, unlimited)
        for number in range(3):
            answer = post_event(client, f"full-{number}", "ann", "x" * 250)
            assert answer.json()["duplicates"] == 1
    assert [each["event_id"] for each in logged(log)] == ["before", "full-0", "full-1", "full-2"]
