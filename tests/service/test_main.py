"""The process: how it refuses to start, and how it stops."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

REPOSITORY = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COFINE_")}
    return {**clean, "PYTHONPATH": str(REPOSITORY), **more}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"COFINE_BUNDLE": "no/such/folder"}, "BundleError: no/such/folder"),
        ({"COFINE_BUNDEL": "x"}, "SettingsError: unknown variable COFINE_BUNDEL"),
    ],
    ids=["missing bundle", "unknown variable"],
)
def test_what_cannot_be_used_ends_with_code_3_and_one_line(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "service"],
        env=environment(**variables),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3
    assert ended.stderr.startswith(f"cofine-service: {said}")
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""


SERVE_THE_TABLE = """
from service.__main__ import DrainingServer
from service.app import create_app
from service.settings import load_settings
from tests.service.fakes import TableBundle, TableRecommender

settings = load_settings(workers=1)
DrainingServer(create_app(settings, TableBundle(), TableRecommender), settings).run()
"""


@pytest.fixture
def address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def process(address: str) -> Iterator["subprocess.Popen[bytes]"]:
    port = address.rpartition(":")[2]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE_THE_TABLE],
        env=environment(COFINE_PORT=port, COFINE_DRAIN_SECONDS="1.5"),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def status(address: str, path: str) -> int | None:
    """Return the status of the answer, None when nobody listens."""
    try:
        return httpx2.get(f"http://{address}{path}").status_code
    except httpx2.ConnectError:
        return None


def wait_for(address: str, path: str, expected: int | None) -> None:
    give_up_at = time.monotonic() + 30
    while status(address, path) != expected:
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def test_a_websocket_is_not_spoken(address: str, process: "subprocess.Popen[bytes]") -> None:
    wait_for(address, "/readyz", 200)
    asked = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    # Answered like any other request, and so logged without the id that its address holds.
    answer = httpx2.get(f"http://{address}/v1/items/gone", headers=asked)
    assert answer.json()["code"] == "item_not_found"


def test_after_sigterm_it_says_not_ready_serves_on_and_ends(
    address: str, process: "subprocess.Popen[bytes]"
) -> None:
    wait_for(address, "/readyz", 200)
    process.send_signal(signal.SIGTERM)
    wait_for(address, "/readyz", 503)
    assert status(address, "/livez") == 200
    assert httpx2.post(f"http://{address}/v1/recommend", json={}).status_code == 200
    assert process.wait(20) == 0
    assert status(address, "/livez") is None
