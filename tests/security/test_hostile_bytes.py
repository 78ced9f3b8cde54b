"""What a hostile client can do with the bytes of HTTP itself, which no HTTP client would send."""

import re
import socket
from collections.abc import Callable

import pytest

from tests.end_to_end.service_process import PATIENCE_SECONDS, ServiceProcess

HOST = b"Host: x\r\n"
TRIED_BYTES = 64 * 2**20
"""What is sent of a head that does not end."""


def connected(service: ServiceProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_SECONDS)


def spoken(service: ServiceProcess, request: bytes) -> bytes:
    """All that the service answers until it closes the connection."""
    with connected(service) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    return answer


def resident_bytes(service: ServiceProcess) -> int:
    with open(f"/proc/{service.pid}/status", encoding="ascii") as status:  # noqa: PTH123
        found = re.search(r"VmRSS:\s+(\d+) kB", status.read())
    assert found is not None
    return int(found[1]) * 1024


def send_until_closed(service: ServiceProcess, start: bytes, piece: bytes) -> int:
    """How many bytes the service takes before it closes the connection."""
    sent = 0
    with connected(service) as connection:
        try:
            connection.sendall(start)
            while sent < TRIED_BYTES:
                connection.sendall(piece)
                sent += len(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
    return sent


CHUNKED = (
    b"POST /v1/recommend HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
)
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "address": (b"GET /v1/items/", b"x" * 65_536),
    "header": (b"GET /livez HTTP/1.1\r\n" + HOST + b"X: ", b"x" * 65_536),
    "name": (b"GET /livez HTTP/1.1\r\n" + HOST, b"x" * 65_536),
    "headers": (b"GET /livez HTTP/1.1\r\n" + HOST, b"X: y\r\n" * 10_000),
    "trailers": (CHUNKED, b"X: y\r\n" * 10_000),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_head_without_end_is_cut_off(shop_service: ServiceProcess, kind: str) -> None:
    before = resident_bytes(shop_service)

    sent = send_until_closed(shop_service, *ENDLESS[kind])

    assert sent < TRIED_BYTES / 2  # what the sockets hold counts as sent
    assert resident_bytes(shop_service) - before < TRIED_BYTES / 2
    assert shop_service.status("/livez") == 200


def test_a_large_head_is_refused_and_a_common_one_is_not(shop_service: ServiceProcess) -> None:
    start = b"GET /livez HTTP/1.1\r\n" + HOST + b"Connection: close\r\nX: "

    assert spoken(shop_service, start + b"x" * 16_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    refused = spoken(shop_service, start + b"x" * 66_000)
    assert refused.startswith(b"HTTP/1.1 400")
    assert b"head of the request is too large" in refused


def test_a_body_and_many_requests_do_not_count_as_head(shop_service: ServiceProcess) -> None:
    body = b'{"k": 1}'.ljust(500_000)
    post = (
        b"POST /v1/recommend HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
        b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    probe = b"GET /livez HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 1_000 + b"\r\n"
    requests = post + (probe + b"\r\n") * 200 + post + probe + b"Connection: close\r\n\r\n"

    answer = spoken(shop_service, requests)

    assert answer.count(b"HTTP/1.1 200 OK") == 203


@pytest.mark.parametrize(
    "value",
    [
        b"a\x1b[31mb",
        b"a\tb",
        b"caf\xc3\xa9",
        b"a\r\n X-Evil: 1",  # a folded line
        b"one\r\nX-Request-ID: two;X-Evil",
        b"x" * 129,
        b"<script>",
        b"%0d%0aX-Evil:%201",
    ],
)
def test_no_request_id_becomes_a_header_of_its_own(
    shop_service: ServiceProcess, value: bytes
) -> None:
    answer = spoken(
        shop_service,
        b"GET /livez HTTP/1.1\r\n" + HOST + b"Connection: close\r\nX-Request-ID: " + value
        + b"\r\n\r\n",
    )  # fmt: skip

    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert head.startswith((b"http/1.1 200", b"http/1.1 400"))
    assert b"evil" not in answer.lower()
    assert b"\x1b" not in answer
    if head.startswith(b"http/1.1 200"):
        [given] = re.findall(rb"^x-request-id: (.*)$", head, re.MULTILINE)
        assert re.fullmatch(rb"one|[0-9a-f]{32}", given.strip())


INNER = b"GET /v1/users/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
AMBIGUOUS: dict[str, Callable[[], bytes]] = {
    "two lengths": lambda: b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + INNER,
    "length and chunks": lambda: (
        b"Content-Length: 49\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER
    ),
    "chunks, spelt oddly": lambda: b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
    "a negative length": lambda: b"Content-Length: -1\r\n\r\n" + INNER,
    "a length with a sign": lambda: b"Content-Length: +0\r\n\r\n" + INNER,
    "a blank before the colon": lambda: b"Content-Length : 44\r\n\r\n" + INNER,
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_no_request_hides_inside_another(shop_service: ServiceProcess, kind: str) -> None:
    answer = spoken(shop_service, b"POST /v1/events HTTP/1.1\r\n" + HOST + AMBIGUOUS[kind]())

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"smuggled" not in answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "noise",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"\x00" * 100, b"EVIL / HTTP/1.1\r\n\r\n", b"\xff\r\n"],
)
def test_what_is_no_http_is_refused_and_logged_without_its_bytes(
    shop_service: ServiceProcess, noise: bytes
) -> None:
    assert spoken(shop_service, noise + b"\r\n\r\n").startswith(b"HTTP/1.1 400")

    assert "EVIL" not in shop_service.stdout.read_text()
    assert shop_service.status("/livez") == 200
