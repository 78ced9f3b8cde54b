"""The service as its users meet it: a process of its own, spoken to over HTTP."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 300.0
"""How long a start may take on a machine that has other work."""
PATIENCE_SECONDS = 120.0
"""How long anything else may take there; what is as it should be takes a fraction."""
DEADLINE_MS = 20_000
"""Of the service for a recommendation, where a test is not about deadlines, for the same reason."""


def environment(**settings: object) -> dict[str, str]:
    """The process's environment: none of the caller's COFINE_* variables, but `settings`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COFINE_")}
    chosen = {f"COFINE_{name.upper()}": str(value) for name, value in settings.items()}
    return {**clean, "PYTHONPATH": str(REPOSITORY), **chosen}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(
    condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE_SECONDS
) -> None:
    """Ask again and again until `condition` holds; fail after `seconds`."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"in vain for {seconds} s: {what}"
        time.sleep(0.01)


class ServiceProcess:
    """One `python -m service` on a free port; its lines go to files in `folder`."""

    def __init__(self, bundle: Path, folder: Path, **settings: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.stdout = folder / f"{self.port}.stdout"
        self.stderr = folder / f"{self.port}.stderr"
        self._folder = folder
        always = {"bundle": bundle.resolve(), "port": self.port, "deadline_ms": DEADLINE_MS}
        chosen = {**always, **settings}
        self._environment = environment(**chosen)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    def spawn(self) -> None:
        """Start the process on the same port as ever, without waiting for it."""
        with self.stdout.open("ab") as stdout, self.stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                env=self._environment,
                cwd=self._folder,
                stdout=stdout,
                stderr=stderr,
            )

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self._running().poll() is None, f"it ended: {self.stderr.read_text()}"
            return self.status("/readyz") == 200

        wait_until(is_ready, "the service gets ready", seconds=START_SECONDS)

    def start(self) -> None:
        self.spawn()
        self.wait_until_ready()

    def status(self, path: str) -> int | None:
        """The status of a fresh connection's answer, None when nobody listens."""
        try:
            return self._get(path)[0]
        except (ConnectionError, http.client.HTTPException):
            return None

    def client(self) -> httpx2.Client:
        return httpx2.Client(
            base_url=self.url, timeout=PATIENCE_SECONDS, verify=False, trust_env=False
        )

    def metric(self, name: str) -> float:
        """The value of one sample, named with its labels."""
        text = self._get("/metrics")[1].decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert found is not None, f"no metric {name}"
        return float(found[1])

    def _get(self, path: str) -> tuple[int, bytes]:
        # Much cheaper than a new httpx2 client, which reads all certificates first.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    @property
    def has_ended(self) -> bool:
        return self._running().poll() is not None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """The process does nothing inside; what is sent to it waits in its sockets."""
        self.signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def wait(self) -> int:
        """The exit status, negative for a signal."""
        return self._running().wait(START_SECONDS)

    def kill(self) -> None:
        """End it without any chance to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "not started"
        return self._process


@contextmanager
def running_service(bundle: Path, folder: Path, **settings: object) -> Iterator[ServiceProcess]:
    """A service that is ready; `settings` are its COFINE_* variables, in small letters."""
    service = ServiceProcess(bundle, folder, **settings)
    try:
        service.start()
        yield service
    finally:
        service.kill()


def recommend(client: httpx2.Client, **body: object) -> dict[str, Any]:
    """The answer to a request that must succeed."""
    response = client.post("/v1/recommend", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def all_at_once(
    service: ServiceProcess,
    bodies: Sequence[dict[str, Any]],
    *,
    before_it_goes_on: Callable[[], None] = lambda: None,
) -> list[httpx2.Response]:
    """The answers to recommendation requests that the service finds all waiting at one moment."""
    connections = [
        http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_SECONDS)
        for _ in bodies
    ]
    with service.suspended():
        for connection, body in zip(connections, bodies, strict=True):
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/recommend", json.dumps(body), headers)
        before_it_goes_on()
    answers = []
    for connection in connections:
        response = connection.getresponse()
        answers.append(
            httpx2.Response(response.status, headers=response.getheaders(), content=response.read())
        )
        connection.close()
    return answers


def post_event(client: httpx2.Client, event_id: str, user_id: str, item_id: str) -> httpx2.Response:
    body = {"event_id": event_id, "user_id": user_id, "item_id": item_id}
    return client.post("/v1/events", json=body)


def ids(answer: dict[str, Any]) -> list[str]:
    """The item ids of an answer, best first."""
    return [item["item_id"] for item in answer["items"]]


def stored(client: httpx2.Client, user_id: str) -> list[str]:
    """The item ids of a stored history, oldest first."""
    response = client.get(f"/v1/users/{user_id}")
    assert response.status_code == 200, response.text
    return [entry["item_id"] for entry in response.json()["history"]]
