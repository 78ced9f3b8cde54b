"""Errors of the HTTP layer itself: one shape, an id on every answer, nothing shown."""

from collections.abc import AsyncIterator

import anyio
import pytest

from service import errors, problems
from tests.service.conftest import AppClient, Client
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("text", ["", "{", "{'k': 1}", '{"k": 1,}', "\x00", "[" * 100_000])
async def test_text_that_is_not_json_is_malformed(client: Client, text: str) -> None:
    response = await client.post("/v1/recommend", content=text, headers=JSON)
    if text == "":
        check_problem(response, 422, "invalid_request")  # there is no body at all
    else:
        check_problem(response, 400, "malformed_request")


async def test_bytes_that_are_not_utf8_are_malformed(client: Client) -> None:
    response = await client.post("/v1/recommend", content=b'{"user_id": "\xff"}', headers=JSON)
    check_problem(response, 400, "malformed_request")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_is_not_declared_as_json_is_refused(
    client: Client, media_type: str
) -> None:
    response = await client.post(
        "/v1/recommend", content=b'{"k": 3}', headers={"content-type": media_type}
    )
    check_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "application/foo+json"])
async def test_json_has_several_names(client: Client, media_type: str) -> None:
    response = await client.post(
        "/v1/recommend", content=b'{"k": 3}', headers={"content-type": media_type}
    )
    assert response.status_code == 200


async def test_an_unknown_address_is_not_found(client: Client) -> None:
    for address in ("/v1", "/v1/recommend/", "/v2/recommend"):
        check_problem(await client.get(address), 404, "route_not_found")


async def test_a_wrong_method_is_told_the_right_one(client: Client) -> None:
    response = await client.get("/v1/recommend")
    check_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("/v1/recommend", "POST"),
        ("/v1/users/u", "DELETE, GET, HEAD"),
        ("/v1/items/a%2Fb", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
async def test_all_methods_of_an_address_are_named(
    client: Client, address: str, allowed: str
) -> None:
    for method in ("PUT", "OPTIONS", "BREW"):
        response = await client.request(method, address)
        check_problem(response, 405, "method_not_allowed")
        assert response.headers.get_list("allow") == [allowed]


@pytest.mark.parametrize(
    "address", ["/livez", "/readyz", "/v1/info", "/v1/items/gone", "/openapi.json"]
)
async def test_head_is_answered_like_get(client: Client, address: str) -> None:
    head, get = await client.head(address), await client.get(address)
    assert head.status_code == get.status_code
    assert head.headers["content-type"] == get.headers["content-type"]


async def test_head_is_no_way_around_a_method(client: Client) -> None:
    response = await client.head("/v1/recommend")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert client.queries == []


async def test_a_misspelt_field_is_told_where_the_right_ones_are(client: Client) -> None:
    response = await client.post("/v1/recommend", json={"userid": "u"})
    [error] = check_problem(response, 422, "invalid_request")["errors"]
    assert error["pointer"] == "#/userid"
    assert "/openapi.json" in error["detail"]


async def test_a_large_body_is_refused(start_app: AppClient) -> None:
    async with start_app(body_max_bytes=2_000) as client:
        body = b'{"history": [' + b'"x",' * 1_000 + b'"x"]}'
        response = await client.post("/v1/recommend", content=body, headers=JSON)
        found = check_problem(response, 413, "body_too_large")
        assert "2000 bytes" in found["detail"]
        assert client.queries == []


async def test_a_large_body_of_unknown_length_is_refused(start_app: AppClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 500

    async with start_app(body_max_bytes=2_000) as client:
        response = await client.post("/v1/recommend", content=endless(), headers=JSON)
        check_problem(response, 413, "body_too_large")


async def test_a_body_that_does_not_come_is_refused(start_app: AppClient) -> None:
    async def halting() -> AsyncIterator[bytes]:
        yield b'{"k": '
        await anyio.sleep_forever()

    async with start_app(body_deadline_ms=50) as client:
        response = await client.post("/v1/recommend", content=halting(), headers=JSON)
        found = check_problem(response, 408, "body_too_slow")
        assert "0.05 s" in found["detail"]
        assert response.headers["Connection"] == "close"
        assert client.queries == []


async def test_a_body_of_the_greatest_size_is_taken(start_app: AppClient) -> None:
    async with start_app(body_max_bytes=2_000) as client:
        body = b'{"k": 3}'.ljust(2_000)
        response = await client.post("/v1/recommend", content=body, headers=JSON)
        assert response.status_code == 200
        response = await client.post("/v1/recommend", content=body + b" ", headers=JSON)
        check_problem(response, 413, "body_too_large")


@pytest.mark.parametrize("given", ["abc-1.2:3_X", "x" * 128])
async def test_a_harmless_request_id_comes_back(client: Client, given: str) -> None:
    headers = {"x-request-id": given}
    for response in (
        await client.get("/livez", headers=headers),
        await client.get("/gone", headers=headers),
        await client.post("/v1/recommend", json={"k": 0}, headers=headers),
    ):
        assert response.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\tb", b'"', b"\xc3\xa9", b"a/b"])
async def test_any_other_request_id_is_replaced(client: Client, given: bytes) -> None:
    response = await client.get("/gone", headers={b"x-request-id": given})
    found = check_problem(response, 404, "route_not_found")
    assert len(found["request_id"]) == 32


async def test_requests_without_an_id_get_different_ones(client: Client) -> None:
    found = {(await client.get("/livez")).headers["x-request-id"] for _ in range(3)}
    assert len(found) == 3


def test_every_error_of_the_service_has_a_status() -> None:
    kinds = set(all_subclasses(errors.ServiceError)) - {errors.AccessError}  # only a base
    assert kinds == set(problems.KINDS)
    codes = [(kind.status, kind.code) for kind in problems.KINDS.values()]
    assert len(set(codes)) == len(codes)


def all_subclasses(kind: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
    children = kind.__subclasses__()
    return children + [each for child in children for each in all_subclasses(child)]
