"""Real sockets that say too little, too slowly, or never listen."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import httpx2
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.connections import BoundedConnection
from tests.end_to_end.service_process import wait_until

PATIENCE_SECONDS = 0.5
GIVE_UP_SECONDS = 30.0
WHOLE = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("." * 100_000)(scope, receive, send)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    http = partial(BoundedConnection, patience_seconds=PATIENCE_SECONDS)
    config = uvicorn.Config(answer, port=0, http=http, lifespan="off", log_config=None)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the server listens")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_SECONDS) as client:
        yield client


def nothing(_: socket.socket) -> None:
    """Connect, and that is all."""


def half_a_head(client: socket.socket) -> None:
    client.sendall(WHOLE[:20])


def half_a_second_head(client: socket.socket) -> None:
    answered(client)
    client.sendall(WHOLE[:20])


def answered(client: socket.socket) -> None:
    """Ask and read the whole answer."""
    client.sendall(WHOLE)
    read = b""
    while not read.endswith(100_000 * b"."):
        read += client.recv(65_536)


def two_heads_and_a_half(client: socket.socket) -> None:
    client.sendall(2 * WHOLE + WHOLE[:20])


@pytest.mark.parametrize("say", [nothing, half_a_head, half_a_second_head, two_heads_and_a_half])
def test_a_head_that_does_not_come_ends_the_connection(
    client: socket.socket, say: Callable[[socket.socket], None]
) -> None:
    say(client)

    while client.recv(4_096):
        pass


def is_cut_off(client: socket.socket, said: bytes) -> bool:
    """Say the same again and again; return whether the service ends it."""
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    try:
        while time.monotonic() < give_up_at:
            client.sendall(said)
            time.sleep(PATIENCE_SECONDS / 10)
    except ConnectionError:
        return True
    return False


def test_a_head_in_drips_ends_the_connection(client: socket.socket) -> None:
    half_a_head(client)
    assert is_cut_off(client, b".")


def test_blank_lines_in_place_of_a_second_head_end_the_connection(client: socket.socket) -> None:
    answered(client)
    assert is_cut_off(client, b"\r\n")


def test_answers_that_nobody_reads_end_the_connection(client: socket.socket) -> None:
    client.sendall(300 * WHOLE)
    assert is_cut_off(client, b"\r\n")


def test_a_kept_connection_may_rest_longer(port: int) -> None:
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
        first = client.get("/").extensions["network_stream"]
        time.sleep(1.5 * PATIENCE_SECONDS)
        assert client.get("/").extensions["network_stream"] is first
