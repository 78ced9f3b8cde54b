"""Who gets in, over every route there is."""

import hmac
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from service import watched_file
from service.api_keys import entry_text, key_digest, parse_keys
from service.app import create_app
from service.errors import SettingsError, UnauthenticatedError
from service.routes import info
from service.scopes import SCOPES
from service.settings import load_settings
from service.user_tokens import issue_user_token
from tests.keys import KEYS, SECRET, SECRET_NAME, headers_of, write_keys
from tests.service.conftest import AppClient, Client
from tests.service.fakes import TableBundle, TableRecommender
from tests.service.problem_shape import check_problem
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

OPEN = {("get", "/livez"), ("get", "/readyz"), ("get", "/metrics")}
SENT: dict[str, dict[str, Any]] = {
    "/v1/recommend": {"user_id": "u-17"},
    "/v1/events": {"event_id": "1", "user_id": "u-17", "item_id": "polish"},
}
"""A good body of routes that want one; others get an empty object."""


def operations() -> list[tuple[str, str, frozenset[str]]]:
    """(method, path, scopes) of every route of the OpenAPI document."""
    app = create_app(load_settings(), TableBundle(), TableRecommender)
    found = []
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            assert "security" in operation, f"{method} {path} declares no scope"
            scopes = {each["ApiKey"][0] for each in operation["security"]}
            found.append((method, path, frozenset(scopes)))
    return found


OPERATIONS = operations()
GUARDED = [each for each in OPERATIONS if each[2]]


@pytest.fixture
async def guarded(start_app: AppClient, tmp_path: Path) -> AsyncIterator[Client]:
    async with start_app(keys=write_keys(tmp_path)) as client:
        yield client


async def send(
    client: Client, method: str, path: str, headers: dict[str, str] | None = None
) -> Any:
    address = re.sub(r"\{\w+\}", "u-17", path)
    body = {} if method == "get" else {"json": SENT.get(path, {})}
    return await client.request(method.upper(), address, headers=headers, **body)  # type: ignore[arg-type]


def test_only_probes_and_metrics_are_open() -> None:
    assert {each[:2] for each in OPERATIONS if not each[2]} == OPEN


def test_every_scope_is_one_that_keys_can_have() -> None:
    assert {scope for each in OPERATIONS for scope in each[2]} <= set(SCOPES)


async def test_callers_learn_what_they_may_do(guarded: Client, client: Client) -> None:
    for scope in SCOPES:
        found = (await guarded.get("/v1/access", headers=headers_of(scope, "ann"))).json()
        user = "ann" if scope == "publishable" else None
        assert found == {"access": "keys", "scopes": [scope], "user_id": user}
    everybody = (await client.get("/v1/access")).json()
    assert everybody == {"access": "open", "scopes": ["read", "write"], "user_id": None}


def test_web_pages_reach_what_they_need_and_nothing_else() -> None:
    allowed = {each[1] for each in OPERATIONS if "publishable" in each[2]}
    asked = {"/v1/recommend", "/v1/recommend:batch", "/v1/explore"}
    assert allowed <= {*asked, "/v1/events", "/v1/access"}
    assert {"/v1/recommend", "/v1/events"} <= allowed


def test_a_route_without_scopes_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    route = info.router.routes[-1]
    monkeypatch.setattr(route, "openapi_extra", None)
    app = create_app(load_settings(), TableBundle(), TableRecommender)
    with pytest.raises(TypeError, match="declares no scopes"):
        app.build_middleware_stack()


@pytest.mark.parametrize(("method", "path", "scopes"), GUARDED)
async def test_a_key_opens_what_its_scope_says_and_nothing_else(
    guarded: Client, method: str, path: str, scopes: frozenset[str]
) -> None:
    for scope in SCOPES:
        response = await send(guarded, method, path, headers_of(scope))
        if scope in scopes:
            assert response.status_code not in {401, 403}, (scope, response.text)
        else:
            check_problem(response, 403, "forbidden")


BYPASSES: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "an empty header": [("Authorization", "")],
    "no key": [("Authorization", "Bearer ")],
    "a wrong key": [("Authorization", "Bearer cofine_wrong")],
    "a digest instead of its key": [("Authorization", f"Bearer {key_digest(KEYS['admin'])}")],
    "the name of a key": [("Authorization", "Bearer key-admin")],
    "half a key": [("Authorization", f"Bearer {KEYS['admin'][:-1]}")],
    "more than a key": [("Authorization", f"Bearer {KEYS['admin']}x")],
    "two keys in one header": [("Authorization", f"Bearer {KEYS['admin']}, {KEYS['admin']}")],
    "two headers": [("Authorization", f"Bearer {KEYS['admin']}")] * 2,
    "another scheme": [("Authorization", f"Basic {KEYS['admin']}")],
    "a key of other capitals": [("Authorization", f"Bearer {KEYS['admin'].upper()}")],
    "another header": [("X-API-Key", KEYS["admin"])],
    "bytes": [("Authorization", "Bearer \u00ff\u00fe")],
    "a very long key": [("Authorization", "Bearer " + "a" * 30_000)],
    "a proxy's word": [("X-Forwarded-User", "admin"), ("X-Original-URL", "/livez")],
    "a token for a key": [
        ("Authorization", f"Bearer {issue_user_token(SECRET_NAME, SECRET, 'u-17')}")
    ],
}


@pytest.mark.parametrize("headers", BYPASSES.values(), ids=BYPASSES.keys())
async def test_nobody_gets_in_without_a_key(
    guarded: Client, headers: list[tuple[str, str]]
) -> None:
    for method, path, _ in GUARDED:
        address = re.sub(r"\{\w+\}", "u-17", path)
        given = [(name, value.encode("latin-1")) for name, value in headers]
        response = await guarded.request(
            method.upper(), address, headers=[(name.encode(), value) for name, value in given]
        )
        check_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "address",
    ["/v1/users/u-17?key=1", "//v1/users/u-17", "/v1/users//u-17", "/V1/users/u-17",
     "/v1/users/u-17/", "/livez/../v1/users/u-17", "/v1/./users/u-17", "/v1/users/%75-17",
     "/v1%2Fusers/u-17", "/v1/users/u-17;/livez", "/v1/users/u-17%00", "/v1/users/\\livez"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST", "PATCH", "OPTIONS", "BREW"])
async def test_no_spelling_of_an_address_leads_past_the_door(
    guarded: Client, method: str, address: str
) -> None:
    await guarded.post("/v1/events", json=SENT["/v1/events"], headers=headers_of("write"))
    response = await guarded.request(method, address)
    assert response.status_code in {401, 404, 405}, response.text
    assert "polish" not in response.text
    state = await guarded.get("/v1/users/u-17", headers=headers_of("read"))
    assert state.json()["history_items"] == 1


async def test_a_refusal_comes_before_the_body_is_read(
    start_app: AppClient, tmp_path: Path
) -> None:
    async with start_app(keys=write_keys(tmp_path), body_max_bytes=1_024) as client:
        response = await client.post("/v1/recommend", content=b"x" * 2_000)
        check_problem(response, 401, "unauthenticated")
        assert response.headers["connection"] == "close"
        assert 'cofine_access_refused_total{reason="no_key"} 1.0' in await client.scrape()


async def test_probes_metrics_and_document_need_no_key(guarded: Client) -> None:
    for address in ("/livez", "/readyz", "/metrics", "/openapi.json"):
        assert (await guarded.get(address)).status_code == 200


async def test_every_key_is_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = parse_keys("".join(entry_text(f"k{n}", f"key {n}", ["read"]) for n in range(5)), "-")
    compared: list[tuple[str, str]] = []
    really = hmac.compare_digest

    def compare(known: str, given: str) -> bool:
        compared.append((known, given))
        return really(known, given)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for given in ("key 0", "key 4"):
        assert ring.find(given).sha256 == key_digest(given)
    with pytest.raises(UnauthenticatedError):
        ring.find("key 5")

    assert len(compared) == 15
    assert {len(known) for known, _ in compared} == {len(given) for _, given in compared} == {64}


# User tokens


def token(**changes: Any) -> str:
    now = int(time.time())
    claims = {"aud": "cofine", "sub": "u-17", "iat": now, "exp": now + 60, **changes}
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, SECRET, algorithm="HS256", headers={"kid": SECRET_NAME})


def unsigned(header: dict[str, object]) -> str:
    parts = (header, {"aud": "cofine", "sub": "u-17", "iat": 1, "exp": 9_999_999_999})
    encoded = (jwt.utils.base64url_encode(json.dumps(part).encode()).decode() for part in parts)
    return ".".join([*encoded, ""])


NOW = int(time.time())
BAD_TOKENS = {
    "nothing": "",
    "no token": "u-17",
    "another secret": issue_user_token(SECRET_NAME, SECRET + "x", "u-17"),
    "an unknown secret": issue_user_token("2020-01", SECRET, "u-17"),
    "expired": token(iat=NOW - 4_000, exp=NOW - 400),
    "of tomorrow": token(iat=NOW + 86_400, exp=NOW + 86_500),
    "a year long": token(exp=NOW + 31_536_000),
    "for ever": token(exp=None),
    "no beginning": token(iat=None),
    "nobody": token(sub=None),
    "an empty user": token(sub=""),
    "a user that is a number": token(sub=17),
    "for something else": token(aud="other"),
    "for nothing": token(aud=None),
    "unsigned": unsigned({"alg": "none", "kid": SECRET_NAME}),
    "another algorithm": jwt.encode(
        {"aud": "cofine", "sub": "u-17", "iat": NOW, "exp": NOW + 60},
        SECRET * 3,
        algorithm="HS512",
        headers={"kid": SECRET_NAME},
    ),
    "cut": token()[:-2],
    "huge": token() + "A" * 5_000,
}


@pytest.mark.parametrize("given", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_a_bad_user_token_is_refused(guarded: Client, given: str) -> None:
    headers = {**headers_of("publishable"), "X-User-Token": given}
    response = await guarded.post("/v1/recommend", json={}, headers=headers)
    check_problem(response, 401, "unauthenticated")


async def test_a_publishable_key_needs_a_user_token(guarded: Client) -> None:
    headers = headers_of("publishable")
    del headers["X-User-Token"]
    response = await guarded.post("/v1/recommend", json={}, headers=headers)
    check_problem(response, 401, "unauthenticated")
    assert "X-User-Token" in response.json()["detail"]


async def test_a_user_token_without_a_key_is_nothing(guarded: Client) -> None:
    headers = {"X-User-Token": token()}
    check_problem(await guarded.post("/v1/recommend", json={}, headers=headers), 401,
                  "unauthenticated")  # fmt: skip


FOREIGN: list[tuple[str, bytes]] = [
    ("/v1/recommend", b'{"user_id": "ann"}'),
    ("/v1/recommend", b'{"user_id": "u-17", "user_id": "ann"}'),
    ("/v1/recommend", '{"user_id": "ann"}'.encode("utf-16")),
    ("/v1/recommend", b'{"\\u0075ser_id": "ann"}'),
    ("/v1/recommend", b'{"user_id": ["u-17"]}'),
    ("/v1/recommend", b'{"user_id": "U-17"}'),
    ("/v1/recommend", b'{"requests": [{"user_id": "u-17"}, {"user_id": "ann"}]}'),
    ("/v1/recommend?user_id=ann", b"{}"),
    ("/v1/events", b'{"event_id": "1", "user_id": "ann", "item_id": "polish"}'),
    (
        "/v1/events",
        b'{"events": [{"event_id": "1", "user_id": "u-17", "item_id": "polish"},'
        b' {"event_id": "2", "user_id": "ann", "item_id": "polish"}]}',
    ),
]


@pytest.mark.parametrize(("address", "body"), FOREIGN)
async def test_a_publishable_key_acts_for_its_user_only(
    guarded: Client, address: str, body: bytes
) -> None:
    headers = {**headers_of("publishable", "u-17"), "Content-Type": "application/json"}
    response = await guarded.post(address, content=body, headers=headers)
    check_problem(response, 403, "forbidden")
    for user in ("ann", "u-17"):
        state = await guarded.get(f"/v1/users/{user}", headers=headers_of("read"))
        assert state.json()["history_items"] == 0


@pytest.mark.parametrize(
    ("method", "path"), [each[:2] for each in GUARDED if "publishable" in each[2]]
)
async def test_no_publishable_route_forgets_the_user(
    guarded: Client, method: str, path: str
) -> None:
    headers = headers_of("publishable", "u-17")
    if method == "get":
        response = await guarded.get(path, params={"user_id": "ann"}, headers=headers)
        check_problem(response, 403, "forbidden")
        return
    for body in ({"user_id": "ann"}, {"any": [{"user_id": "ann"}]}):
        check_problem(await guarded.post(path, json=body, headers=headers), 403, "forbidden")


async def test_what_was_shown_to_another_user_is_no_page_before(guarded: Client) -> None:
    anns, bobs = (headers_of("publishable", user) for user in ("ann", "bob"))
    asked = {"user_id": "ann", "k": 1}
    shown = (await guarded.post("/v1/recommend", json=asked, headers=anns)).json()
    after = {"after": shown["recommendation_id"], "k": 1}
    for body, headers in (({**after, "user_id": "bob"}, bobs), (after, bobs)):
        answer = (await guarded.post("/v1/recommend", json=body, headers=headers)).json()
        assert answer["degraded"]["paging"] is True
    own = await guarded.post("/v1/recommend", json={**after, "user_id": "ann"}, headers=anns)
    assert own.json()["degraded"] is None


async def test_a_publishable_key_serves_its_user(guarded: Client) -> None:
    headers = headers_of("publishable", "u-17")
    stored = await guarded.post("/v1/events", json=SENT["/v1/events"], headers=headers)
    answer = await guarded.post("/v1/recommend", json={"user_id": "u-17"}, headers=headers)
    assert stored.json()["accepted"] == 1
    assert answer.json()["items"][0]["source"] == "generated"
    assert (await guarded.post("/v1/recommend", json={}, headers=headers)).status_code == 200


# Limits


async def test_a_spent_limit_is_429_until_it_is_refilled(
    start_app: AppClient, tmp_path: Path
) -> None:
    limit = "limit = { requests_per_second = 0.01, burst = 3 }\n"
    entries = [
        entry_text("slow", "slow key", ["read"]) + limit,
        entry_text("page", KEYS["publishable"], ["publishable"]).split("limit")[0] + limit,
    ]
    async with start_app(keys=write_keys(tmp_path, entries)) as client:

        async def statuses(headers: dict[str, str]) -> list[int]:
            sent = [await client.post("/v1/recommend", json={}, headers=headers) for _ in range(4)]
            assert 90 <= int(sent[-1].headers["retry-after"]) <= 100
            check_problem(sent[-1], 429, "rate_limited")
            return [each.status_code for each in sent]

        assert await statuses({"Authorization": "Bearer slow key"}) == [200, 200, 200, 429]
        # Every user of a publishable key has a limit of its own.
        assert await statuses(headers_of("publishable", "ann")) == [200, 200, 200, 429]
        assert await statuses(headers_of("publishable", "bob")) == [200, 200, 200, 429]
        text = await client.scrape()
        assert 'cofine_access_refused_total{reason="rate_limit"} 3.0' in text
        assert 'cofine_http_unavailable_total{route="/v1/recommend"} 0.0' in text


# The keys file


async def test_keys_change_without_a_restart(
    start_app: AppClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_file, "POLL_SECONDS", 0.01)
    old, new = (entry_text(name, f"{name} key", ["read"]) for name in ("old", "new"))
    path = write_keys(tmp_path, [old])

    async with start_app(keys=path) as client:

        async def opens(name: str) -> bool:
            headers = {"Authorization": f"Bearer {name} key"}
            return (await client.get("/v1/info", headers=headers)).status_code == 200

        assert (await opens("old"), await opens("new")) == (True, False)
        write_keys(tmp_path, [old, new])
        await eventually(lambda: opens("new"), "the new key is in force")
        assert await opens("old")
        path.write_text("keys = 3")
        await eventually(
            lambda: _holds(client, 'cofine_keys_reloads_total{outcome="refused"} 1.0'),
            "the bad file is refused",
        )
        assert (await opens("old"), await opens("new")) == (True, True)
        path.unlink()
        await eventually(
            lambda: _holds(client, 'cofine_keys_reloads_total{outcome="refused"} 2.0'),
            "the lost file is told",
        )
        assert (await opens("old"), await opens("new")) == (True, True)
        write_keys(tmp_path, [new])
        assert await eventually(lambda: _not(opens("old")), "the old key is out of force")
        assert await opens("new")
        assert "cofine_api_keys 1.0" in await client.scrape()


async def test_the_secret_of_user_tokens_changes_without_a_restart(
    start_app: AppClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_file, "POLL_SECONDS", 0.01)
    page = entry_text("page", KEYS["publishable"], ["publishable"]).replace("= 5,", "= 1e6,")
    secrets = {
        name: f'[[user_token_secrets]]\nname = "{name}"\nsecret = "{name * 32}"\n'
        for name in ("a", "b")
    }
    path = tmp_path / "keys.toml"
    path.write_text(page + secrets["a"])

    async with start_app(keys=path) as client:

        async def opens(name: str) -> bool:
            headers = {
                "Authorization": f"Bearer {KEYS['publishable']}",
                "X-User-Token": issue_user_token(name, name * 32, "ann"),
            }
            return (await client.post("/v1/recommend", json={}, headers=headers)).status_code == 200

        assert (await opens("a"), await opens("b")) == (True, False)
        path.write_text(page + secrets["a"] + secrets["b"])
        await eventually(lambda: opens("b"), "the new secret is in force")
        assert await opens("a")
        path.write_text(page + secrets["b"])
        await eventually(lambda: _not(opens("a")), "the old secret is out of force")
        assert await opens("b")


async def _holds(client: Client, line: str) -> bool:
    return line in await client.scrape()


async def _not(condition: Any) -> bool:
    return not await condition


async def test_an_expired_key_is_told_so(start_app: AppClient, tmp_path: Path) -> None:
    entry = entry_text("old", "old key", ["read"]) + "expires = 2020-01-01T00:00:00Z\n"
    async with start_app(keys=write_keys(tmp_path, [entry])) as client:
        response = await client.get("/v1/info", headers={"Authorization": "Bearer old key"})
        check_problem(response, 401, "unauthenticated")
        assert "expired" in response.json()["detail"]


KEY = entry_text("a", "key a", ["read"])
UNUSABLE = {
    "": "keys: Field required",
    "keys = [": "not TOML",
    "keys = []": "keys: ",
    KEY + "colour = 1": r"keys\.0\.colour",
    KEY.replace("read", "root"): r"keys\.0\.scopes",
    KEY.replace('["read"]', "[]"): r"keys\.0\.scopes",
    KEY.replace('"a"', '"a b"'): r"keys\.0\.name",
    re.sub('sha256 = ".*"', 'sha256 = "hunter2"', KEY): r"keys\.0\.sha256",
    KEY + "expires = 2027-01-01T00:00:00": r"keys\.0\.expires",
    KEY + "limit = { requests_per_second = 0, burst = 1 }": "requests_per_second",
    KEY + "limit = { requests_per_second = 0.001, burst = 10 }": "at most 3600 seconds",
    KEY + KEY: "two keys with the name 'a'",
    KEY + KEY.replace('"a"', '"b"'): "two keys with the sha256",
    entry_text("a", "key a", ["publishable"]): "needs user_token_secrets",
    KEY.replace('"read"', '"publishable"'): "needs a limit",
    KEY.replace('"read"', '"publishable", "read"'): "no other scope",
    KEY + '[[user_token_secrets]]\nname = "x"\nsecret = "hunter2"': "at least 32",
}


@pytest.mark.parametrize(("text", "message"), UNUSABLE.items())
def test_an_unusable_keys_file_stops_the_start(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as error:
        create_app(load_settings(keys=path), TableBundle(), TableRecommender)
    assert "COFINE_KEYS" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_missing_keys_file_does_not_open_the_service(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        create_app(load_settings(keys=tmp_path / "none"), TableBundle(), TableRecommender)


# Without keys


async def test_without_keys_the_service_says_that_it_is_open(client: Client) -> None:
    assert (await client.get("/v1/info")).json()["access"] == "open"
    assert "cofine_api_keys 0.0" in await client.scrape()


async def test_with_keys_the_service_says_so(guarded: Client) -> None:
    answer = await guarded.get("/v1/info", headers=headers_of("read"))
    assert answer.json()["access"] == "keys"
    assert "cofine_api_keys 4.0" in await guarded.scrape()


@pytest.mark.parametrize(("method", "path", "scopes"), GUARDED)
async def test_without_keys_only_administration_is_closed(
    client: Client, method: str, path: str, scopes: frozenset[str]
) -> None:
    response = await send(client, method, path)
    if scopes == {"admin"}:
        check_problem(response, 403, "forbidden")
        assert "COFINE_KEYS" in response.json()["detail"]
    else:
        assert response.status_code not in {401, 403}


# Other origins


async def test_pages_of_listed_origins_may_read_answers(
    start_app: AppClient, tmp_path: Path
) -> None:
    chosen = {"keys": write_keys(tmp_path), "cors_origins": "https://shop.example, http://b:1"}
    async with start_app(**chosen) as client:
        asked = {
            "Origin": "https://shop.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-user-token",
        }
        preflight = await client.options("/v1/recommend", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
        assert "access-control-allow-credentials" not in preflight.headers
        refused = await client.post("/v1/recommend", json={}, headers={"Origin": "http://b:1"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "http://b:1"
        for origin in ("https://evil.example", "https://shop.example.evil", "null"):
            preflight = await client.options("/v1/recommend", headers={**asked, "Origin": origin})
            assert preflight.status_code == 400
            assert "access-control-allow-origin" not in preflight.headers


async def test_no_page_may_read_answers_by_default(client: Client) -> None:
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    preflight = await client.options("/v1/recommend", headers=headers)
    answer = await client.post("/v1/recommend", json={}, headers=headers)
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in {*preflight.headers, *answer.headers}
