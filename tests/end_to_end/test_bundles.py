"""Bundles change under load, on two processes that share one Redis: nothing is lost."""

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from model.bundle import read_manifest, seal
from service.rollout import BundleReference, is_in_canary
from tests.contract.redis_server import RedisServer, running_redis
from tests.end_to_end.service_process import (
    ServiceProcess,
    ids,
    recommend,
    running_service,
    wait_until,
)
from tests.keys import headers_of, write_keys
from tests.service.problem_shape import check_problem

USERS = [f"user-{number}" for number in range(60)]


def copy_of(bundle: Path, target: Path, remark: str) -> str:
    """A bundle with the same answers and another id."""
    shutil.copytree(bundle, target)
    manifest = read_manifest(target)
    seal(target, manifest.model_copy(update={"facts": {**manifest.facts, "remark": remark}}))
    return read_manifest(target).bundle_id


@dataclass
class Shop:
    replicas: list[ServiceProcess]
    redis: RedisServer
    folder: Path
    bundles: dict[str, str]
    """Name -> id."""
    decoder: str

    def admin(self, place: int = 0) -> httpx2.Client:
        client = self.replicas[place].client()
        client.headers.update(headers_of("admin"))
        return client

    def ask(self, place: int, method: str, address: str, **body: Any) -> httpx2.Response:
        with self.admin(place) as client:
            given = body if address.endswith(":activate") else None
            return client.request(method, f"/v1/bundles{address}", json=given)

    def change(self, address: str, place: int = 0, **body: Any) -> dict[str, Any]:
        response = self.ask(place, "POST", address, **body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def rollout(self, place: int) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask(place, "GET", "").json()
        return answer

    def served(self, place: int, user_id: str) -> tuple[str, str]:
        with self.replicas[place].client() as client:
            client.headers.update(headers_of("read"))
            answer = recommend(client, user_id=user_id)
            return answer["variant"], answer["bundle"]

    def explored(self, place: int, user_id: str) -> tuple[str, str]:
        with self.replicas[place].client() as client:
            client.headers.update(headers_of("read"))
            answer = client.post("/v1/explore", json={"user_id": user_id}).json()
            return answer["variant"], answer["bundle"]

    def wait_for_all(self, version: int) -> None:
        for place in range(len(self.replicas)):
            wait_until(
                lambda place=place: (  # type: ignore[misc]
                    self.rollout(place)["rollout"]["version"] == version
                ),
                f"replica {place} follows version {version}",
            )


@pytest.fixture
def shop(any_bundle: Path, tmp_path: Path) -> Iterator[Shop]:
    folder = tmp_path / "bundles"
    folder.mkdir()
    bundles = {name: copy_of(any_bundle, folder / name, name) for name in ("one", "two", "three")}
    (folder / "current").symlink_to("one")
    (folder / "outside").symlink_to(any_bundle)
    keys = write_keys(tmp_path)
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis(tmp_path))
        chosen = {"bundles": folder, "keys": keys, "state_url": redis.url, "workers": 1}
        generous = {
            **{"deadline_ms": 20_000, "state_read_deadline_ms": 5_000},
            "state_write_deadline_ms": 5_000,
        }
        replicas = [
            stack.enter_context(running_service(folder / "current", tmp_path, **chosen, **generous))
            for _ in range(2)
        ]
        yield Shop(replicas, redis, folder, bundles, read_manifest(any_bundle).decoder)


class Load:
    """Requests of all kinds of users to both replicas, until it is stopped."""

    def __init__(self, shop: Shop) -> None:
        self._stop = threading.Event()
        self._shop = shop
        self._pool = ThreadPoolExecutor(4)
        self.statuses: list[int] = []
        self.bundles: list[str] = []

    def __enter__(self) -> "Load":
        self._work = [self._pool.submit(self._ask, place % 2) for place in range(4)]
        return self

    def _ask(self, place: int) -> None:
        with self._shop.replicas[place].client() as client:
            client.headers.update(headers_of("read"))
            while not self._stop.is_set():
                user = USERS[len(self.statuses) % len(USERS)]
                response = client.post("/v1/recommend", json={"user_id": user, "k": 10})
                self.statuses.append(response.status_code)
                self.bundles.append(response.json().get("bundle", ""))

    def wait_for_more(self, count: int = 40) -> None:
        goal = len(self.statuses) + count
        wait_until(lambda: len(self.statuses) >= goal, "requests are answered")

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._work:
            each.result()
        self._pool.shutdown()


@pytest.mark.slow
def test_bundles_change_on_every_replica_without_a_lost_request(shop: Shop) -> None:
    with Load(shop) as load:
        load.wait_for_more()
        loaded = shop.change("/two:load")
        assert loaded["rollout"]["loaded"]["bundle"] == shop.bundles["two"]
        assert loaded["rollout"]["active"] == {"name": "one", "bundle": shop.bundles["one"]}
        shop.wait_for_all(1)
        load.wait_for_more()
        for version, (name, place) in enumerate(
            [("two", 0), ("three", 1), ("one", 0), ("two", 1)], start=2
        ):
            shop.change(f"/{name}:activate", place)
            shop.wait_for_all(version)
            for replica in (0, 1):
                assert shop.served(replica, "ann") == ("active", shop.bundles[name])
            load.wait_for_more()
        shop.change("/two:rollback", 1)
        shop.wait_for_all(6)
        assert [shop.served(place, "ann")[1] for place in (0, 1)] == [shop.bundles["one"]] * 2
        load.wait_for_more()

    assert set(load.statuses) == {200}
    assert set(load.bundles) == set(shop.bundles.values())
    versions = [each.metric("cofine_rollout_version") for each in shop.replicas]
    assert versions == [6, 6]


@pytest.mark.slow
def test_a_canary_serves_the_same_users_everywhere(shop: Shop) -> None:
    shop.change("/two:activate", role="canary", percent=30)
    shop.wait_for_all(1)
    canary = BundleReference(name="two", bundle=shop.bundles["two"])
    expected = {
        user: ("canary", shop.bundles["two"])
        if is_in_canary(user, canary, 30)
        else ("active", shop.bundles["one"])
        for user in USERS
    }
    assert len(set(expected.values())) == 2
    for place in (0, 1):
        assert {user: shop.served(place, user) for user in USERS} == expected
        if shop.decoder == "autoregressive":  # the other has no probability per level
            assert {user: shop.explored(place, user) for user in USERS} == expected
    served = shop.replicas[0].metric('cofine_variant_duration_seconds_count{variant="canary"}')
    assert served == sum(variant == "canary" for variant, _ in expected.values())

    shop.change("/two:rollback")
    shop.wait_for_all(2)
    assert {shop.served(1, user)[0] for user in USERS} == {"active"}


@pytest.mark.slow
def test_a_shadow_is_compared_and_never_served(shop: Shop) -> None:
    shop.change("/two:activate", role="shadow")
    replica = shop.replicas[0]
    for user in USERS[:10]:
        assert shop.served(0, user) == ("active", shop.bundles["one"])
    wait_until(
        lambda: (
            sum(
                replica.metric(f'cofine_shadow_total{{outcome="{outcome}"}}')
                for outcome in ("same", "different", "failed", "skipped")
            )
            == 10
        ),
        "all answers are compared",
    )
    # The same network: whatever was computed is the same.
    assert replica.metric('cofine_shadow_total{outcome="same"}') > 0
    assert replica.metric('cofine_shadow_total{outcome="different"}') == 0
    assert replica.metric('cofine_shadow_total{outcome="failed"}') == 0


@pytest.mark.slow
def test_a_restarted_replica_serves_what_the_others_do(shop: Shop) -> None:
    shop.change("/two:activate")
    shop.replicas[1].kill()
    shop.replicas[1].start()
    assert shop.served(1, "ann") == ("active", shop.bundles["two"])


@pytest.mark.slow
def test_without_redis_nothing_changes_and_everybody_is_served(shop: Shop) -> None:
    shop.change("/two:activate")
    shop.wait_for_all(1)
    shop.redis.kill()
    check_problem(shop.ask(0, "POST", "/three:activate"), 503, "state_unavailable")
    for place in (0, 1):
        assert shop.served(place, "ann") == ("active", shop.bundles["two"])
    # It comes back empty: what is in service stays, and can be changed.
    shop.redis.start()
    wait_until(
        lambda: shop.ask(0, "POST", "/three:activate").status_code == 200, "Redis is found again"
    )
    wait_until(
        lambda: shop.served(1, "ann")[1] == shop.bundles["three"], "the other replica follows"
    )


@pytest.mark.slow
def test_a_bundle_that_cannot_be_used_changes_nothing(shop: Shop) -> None:
    path = shop.folder / "two" / "node_vectors.npy"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    (shop.folder / "three" / "manifest.json").write_text("{}")
    for name in ("two", "three"):
        for verb in ("load", "activate"):
            response = shop.ask(0, "POST", f"/{name}:{verb}")
            check_problem(response, 422, "bundle_refused")
            assert str(shop.folder) not in response.text
    assert shop.rollout(0)["rollout"]["version"] == 0
    assert shop.served(0, "ann") == ("active", shop.bundles["one"])


@pytest.mark.slow
def test_a_replica_whose_folder_differs_says_so_and_serves_on(shop: Shop) -> None:
    # Both replicas read one folder here, so the rollout names an id that the folder does not have.
    foreign = {"name": "two", "bundle": "0" * 64}
    rollout = {"version": 1, "active": foreign}
    with shop.redis.client() as client:
        client.set("cofine:rollout:1", json.dumps(rollout))
    wait_until(lambda: shop.rollout(1)["failure"] is not None, "the failure is told")
    assert "another bundle" in shop.rollout(1)["failure"]
    assert shop.served(1, "ann") == ("active", shop.bundles["one"])
    assert shop.replicas[1].metric("cofine_rollout_failures_total") == 1


NAMES = ("gone", "outside", "..", ".", "%2e%2e", "..%2fone", "one%2f..%2ftwo", "%2fetc", "two%00")


@pytest.mark.slow
def test_names_lead_nowhere_else(shop: Shop, any_bundle: Path) -> None:
    for name in NAMES:
        for verb in ("load", "activate", "rollback"):
            response = shop.ask(0, "POST", f"/{name}:{verb}")
            assert response.status_code in {404, 405, 409, 422}, (name, verb, response.text)
    listed = {each["name"]: each["bundle"] for each in shop.rollout(0)["bundles"]}
    assert listed == shop.bundles
    # A link inside the folder means what it leads to.
    assert shop.change("/current:load")["rollout"]["loaded"] is None
    assert shop.rollout(0)["rollout"]["active"]["name"] == "one"


@pytest.mark.slow
def test_only_an_admin_key_changes_anything(shop: Shop) -> None:
    with shop.replicas[0].client() as client:
        for scope in ("read", "write", "publishable"):
            client.headers.update(headers_of(scope))
            check_problem(client.post("/v1/bundles/two:activate", json={}), 403, "forbidden")
            check_problem(client.get("/v1/bundles"), 403, "forbidden")
        assert ids(recommend_as_reader(client))
    assert shop.rollout(0)["rollout"]["version"] == 0


def recommend_as_reader(client: httpx2.Client) -> dict[str, Any]:
    client.headers.update(headers_of("read"))
    return recommend(client, k=3)
