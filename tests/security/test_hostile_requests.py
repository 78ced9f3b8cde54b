"""What a hostile client can send in a body or an address; its bytes as such: test_hostile_bytes.

Missing, mistyped and oversized fields are in tests/service, generated requests in
tests/end_to_end/test_openapi.py.
"""

import json
import unicodedata
from urllib.parse import quote

import httpx2
import pytest

from tests.end_to_end.service_process import ServiceProcess, stored, wait_until
from tests.service.problem_shape import check_problem

JSON = {"Content-Type": "application/json"}

HARMLESS_IDS = [
    "\u202egnp.exe",  # written backwards from here on
    "a\u200bb",
    "\ufeffbom",
    "line\u2028paragraph\u2029",
    "\uffff\U0010ffff",
    "🧣" * 256,
    "Z\u0351\u036b\u0343\u036a\u0302",
    "\\r\\nX-Evil: 1",
    "%0d%0a%00",
    "{u:x}:history:1",
    "*",
    "']]; redis.call('FLUSHALL') --",
    "$8\\r\\nFLUSHALL",
    "0000000000000001view|soap",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "' OR 1=1; --",
    "${jndi:ldap://x}",
    "{{7*7}} %(x)s {0.__class__}",
    "__proto__",
]


@pytest.mark.parametrize("text", HARMLESS_IDS)
def test_an_odd_id_is_kept_as_it_is(client: httpx2.Client, text: str) -> None:
    event = {"event_id": text, "user_id": text, "item_id": text}

    assert client.post("/v1/events", json=event).json()["results"][0]["event_id"] == text

    address = f"/v1/users/{quote(text, safe='')}"
    assert client.get(address).json()["user_id"] == text
    assert stored(client, quote(text, safe="")) == [text]
    answer = client.post("/v1/recommend", json={"user_id": text, "k": 1, "exclude": [text]})
    assert answer.json()["unknown_history_items"] == 1
    assert client.delete(address).status_code == 204


def test_ids_that_look_alike_are_different_users(client: httpx2.Client) -> None:
    composed = "zoé"
    alike = [composed, unicodedata.normalize("NFD", composed), "ZOÉ", " zoé", "z\u043eé"]
    for user in alike:
        event = {"event_id": "1", "user_id": user, "item_id": f"of {user}"}
        assert client.post("/v1/events", json=event).status_code == 200

    for user in alike:
        assert stored(client, quote(user, safe="")) == [f"of {user}"]


@pytest.mark.parametrize("control", ["\x1b[31m", "\r\nX-Evil: 1", "\x00", "\x7f", "\x9b31m"])
def test_control_characters_are_refused_wherever_an_id_stands(
    client: httpx2.Client, control: str
) -> None:
    good = {"event_id": "e", "user_id": "u", "item_id": "i"}
    for name in good:
        response = client.post("/v1/events", json=good | {name: f"a{control}b"})
        found = check_problem(response, 422, "invalid_request")
        assert [error["pointer"] for error in found["errors"]] == [f"#/{name}"]
        assert control not in response.text
    for name in ("history", "exclude"):
        response = client.post("/v1/recommend", json={name: ["fine", f"a{control}b"]})
        found = check_problem(response, 422, "invalid_request")
        assert [error["pointer"] for error in found["errors"]] == [f"#/{name}/1"]
    for kind in ("users", "items"):
        response = client.get(f"/v1/{kind}/a{quote(control)}b")
        [error] = check_problem(response, 422, "invalid_request")["errors"]
        assert error["parameter"] == f"{kind[:-1]}_id"


@pytest.mark.parametrize("name", ["\x1b[31mred", "new\r\nline", "\x00", "__proto__", "x" * 10_000])
def test_an_odd_field_is_named_in_ascii(client: httpx2.Client, name: str) -> None:
    response = client.post("/v1/recommend", json={name: 1})

    [error] = check_problem(response, 422, "invalid_request")["errors"]
    assert f"#/{name}".startswith(error["pointer"].removesuffix("..."))
    assert len(error["pointer"]) < 400
    assert response.text.isascii()
    assert response.text.isprintable()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e308", "-1", "-0"])
def test_k_is_a_small_positive_number(client: httpx2.Client, number: str) -> None:
    body = f'{{"k": {number}}}'.encode()

    found = check_problem(
        client.post("/v1/recommend", content=body, headers=JSON), 422, "invalid_request"
    )

    assert [error["pointer"] for error in found["errors"]] == ["#/k"]


def test_a_number_of_a_million_digits_is_no_number(client: httpx2.Client) -> None:
    body = b'{"k": ' + b"9" * 1_000_000 + b"}"

    check_problem(
        client.post("/v1/recommend", content=body, headers=JSON), 400, "malformed_request"
    )


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [100, 900, 100_000])
def test_depth_is_refused(client: httpx2.Client, opening: str, closing: str, depth: int) -> None:
    for field in ("history", "user_id", "categories", "unknown"):
        body = f'{{"{field}": {opening * depth}1{closing * depth}}}'.encode()

        response = client.post("/v1/recommend", content=body, headers=JSON)

        assert response.status_code in {400, 422}
        check_problem(response, response.status_code, response.json()["code"])
        if response.status_code == 422:
            assert response.json()["errors"][0]["pointer"].startswith(f"#/{field}")


def test_a_flood_of_fields_is_one_error(client: httpx2.Client) -> None:
    """One error per field took seconds, in which nobody else was answered."""
    flood = {f"a{number}": 1 for number in range(80_000)}

    [error] = check_problem(client.post("/v1/recommend", json=flood), 422, "invalid_request")[
        "errors"
    ]

    assert error == {
        "detail": "an object may have 32 fields at most",
        "code": "too_many_fields",
        "pointer": "#",
    }


def test_a_flood_of_fields_is_one_error_per_event(client: httpx2.Client) -> None:
    flood = {f"a{number}": 1 for number in range(800)}

    response = client.post("/v1/events", json={"events": [flood] * 100})

    found = check_problem(response, 422, "invalid_request")
    assert {error["code"] for error in found["errors"]} == {"too_many_fields"}
    assert "(and 99 more)" in found["detail"]


@pytest.mark.parametrize("path", ["%ff", "%c0%af", "%ed%a0%80", "%f4%90%80%80"])
def test_an_address_that_is_not_utf8_is_a_user_of_its_own(client: httpx2.Client, path: str) -> None:
    """The server reads such bytes as U+FFFD, which is a character like any other."""
    found = client.get(f"/v1/users/{path}")

    assert found.status_code == 200
    assert set(found.json()["user_id"]) == {"\ufffd"}
    assert found.json()["history"] == []


def test_an_address_cannot_be_left_upwards(client: httpx2.Client) -> None:
    for path in ("..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "file:///etc/passwd"):
        check_problem(client.get(f"/v1/items/{path}"), 404, "item_not_found")


def test_the_log_shows_none_of_it(client: httpx2.Client, shop_service: ServiceProcess) -> None:
    evil = "\x1b[31m\r\n\u202eEVIL"
    for path in ("users", "items", "EVIL"):
        client.get(f"/v1/{path}/{quote(evil)}?{quote(evil)}={quote(evil)}")
    client.post("/v1/events", content=json.dumps({evil: evil}), headers=JSON)
    client.request("POST", "/v1/recommend", json={"user_id": evil})
    client.get("/livez", headers={"User-Agent": "EVIL", "Referer": "EVIL", "X-Request-ID": "E VIL"})
    client.get("/v1/info", headers={"X-Request-ID": "the-last"})
    wait_until(lambda: "the-last" in shop_service.stdout.read_text(), "the log is written")

    log = shop_service.stdout.read_text()
    assert "EVIL" not in log
    assert all(line.isascii() and line.isprintable() for line in log.split("\n"))
    assert all(isinstance(json.loads(line), dict) for line in log.splitlines())
    assert shop_service.stderr.read_text() == ""
    metrics = client.get("/metrics").text
    assert "EVIL" not in metrics
    assert metrics.isascii()
