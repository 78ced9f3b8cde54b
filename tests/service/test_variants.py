"""What a replica has open and what it follows, also where something fails that nobody foresaw."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from model.query import Query
from service import variants
from service.app import create_app
from service.bundle_folder import BundleFolder
from service.catalogue import Catalogue, LiveBundle
from service.engine import Engine, Refusal, ServedRecommender
from service.item_edits import MemoryEdits
from service.log_config import JsonFormatter
from service.metrics import Metrics
from service.rollout import BundleReference, MemoryRolloutStore, Rollout
from service.serving import Serving
from service.settings import load_settings
from service.variants import Variant, Variants
from tests.contract.redis_server import RedisServer
from tests.keys import headers_of, write_keys
from tests.service.conftest import Client
from tests.service.fakes import GatedRecommender, TableBundle, TableRecommender, always
from tests.service.problem_shape import check_problem
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

ONE, TWO = (BundleReference(name=name, bundle="table") for name in ("one", "two"))


@pytest.fixture
def folder(shop_bundle: Path, tmp_path: Path) -> Path:
    """Two bundles of real content."""
    for name in ("one", "two"):
        shutil.copytree(shop_bundle, tmp_path / "bundles" / name)
    return tmp_path / "bundles"


@asynccontextmanager
async def replica(folder: Path, **chosen: object) -> AsyncIterator[Client]:
    """The application on `one`, with nothing in it replaced; `chosen` are settings."""
    patient = {"state_read_deadline_ms": 5_000, "state_write_deadline_ms": 5_000}
    places = {"bundles": folder, "bundle": folder / "one", "keys": write_keys(folder.parent)}
    few = {"workers": 1, "deadline_ms": 20_000}
    app = create_app(load_settings(**{**places, **few, **patient, **chosen}))
    async with app.router.lifespan_context(app), Client(app, []) as client:
        client.headers.update(headers_of("admin"))
        yield client


def serving(client: Client) -> Serving:
    found: Serving = client.app.state.serving
    return found


def open_names(client: Client) -> set[str]:
    return {each.name for each in serving(client).variants.open_bundles}


def write_rollout(server: RedisServer, active: BundleReference, version: int) -> None:
    """Say to replicas, as another one would, which bundle is active; they look within a second."""
    rollout = Rollout(version=version, active=active)
    with server.client() as redis:
        redis.set("cofine:rollout:1", json.dumps(rollout.model_dump()))


async def test_a_folder_that_is_away_for_a_while_is_told_and_followed_later(
    folder: Path,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(variants, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(variants, "RETRY_SECONDS", 0.01)
    redis_server.flush()
    async with replica(folder, state_url=redis_server.url) as client:
        away = shutil.move(folder, folder.with_name("away"))
        active = serving(client).variants.rollout.active
        write_rollout(redis_server, active.model_copy(update={"name": "two"}), 1)

        async def is_told() -> bool:
            return (await client.get("/v1/bundles")).json()["failure"] is not None

        await eventually(is_told, "the failure is told")
        failure = (await client.get("/v1/bundles")).json()["failure"]
        assert "COFINE_BUNDLES cannot be read" in failure
        assert str(folder) not in failure
        check_problem(await client.post("/v1/bundles/two:load"), 422, "bundle_refused")
        assert "cofine_rollout_failures_total 0.0" not in await client.scrape()
        shutil.move(away, folder)

        async def is_followed() -> bool:
            return serving(client).variants.rollout.active.name == "two"

        await eventually(is_followed, "the rollout is followed")
        assert (await client.get("/v1/bundles")).json()["failure"] is None


async def compared(client: Client) -> dict[str, float]:
    """Outcome -> answers of the shadow."""
    text = await client.scrape()
    return {
        outcome: float(text.partition(f'cofine_shadow_total{{outcome="{outcome}"}} ')[2].split()[0])
        for outcome in ("same", "different", "failed", "skipped")
    }


async def test_a_shadow_has_time_of_its_own_and_is_compared_with_whole_answers(
    folder: Path,
) -> None:
    async with replica(folder) as client:
        address = "/v1/bundles/two:activate"
        response = await client.post(address, json={"role": "shadow"})
        assert response.status_code == 200, response.text
        history = [serving(client).bundle.catalog.item_id(leaf) for leaf in (3, 14, 15)]
        query = Query(history=history, k=5)
        served = await serving(client).engine.recommend(query, deadline_seconds=20)
        late = replace(query, deadline=time.perf_counter())  # its answer is nearly there
        partial = await serving(client).engine.recommend(late, deadline_seconds=20)
        assert partial.levels is not None
        serving(client).variants.shadow(late, partial)
        serving(client).variants.shadow(late, served)

        async def are_compared() -> bool:
            return sum((await compared(client)).values()) >= 1

        await eventually(are_compared, "the shadow has answered")
        assert await compared(client) == {"same": 1, "different": 0, "failed": 0, "skipped": 0}


async def test_answers_that_come_at_once_give_the_shadow_two_at_most(folder: Path) -> None:
    async with replica(folder) as client:
        await client.post("/v1/bundles/two:activate", json={"role": "shadow"})
        query = Query(k=5)
        served = await serving(client).engine.recommend(query, deadline_seconds=20)
        for _ in range(5):
            serving(client).variants.shadow(query, served)
        assert (await compared(client))["skipped"] == 3

        async def are_compared() -> bool:
            return (await compared(client))["same"] == 2

        await eventually(are_compared, "the shadow has answered twice")
        serving(client).variants.shadow(query, served)
        assert (await compared(client))["skipped"] == 3


async def test_who_has_changed_the_rollout_is_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(folder) as client:
        with caplog.at_level("INFO"):
            await client.post("/v1/bundles/two:load")
    told = {record.message: json.loads(JsonFormatter().format(record)) for record in caplog.records}
    line = told["rollout_changed"]
    assert (line["change"], line["key"], line["version"]) == ("load", "key-admin", 1)
    assert told["rollout_followed"]["rollout"]["loaded"]["name"] == "two"


async def test_the_time_of_loading_is_that_of_the_active_bundle(folder: Path) -> None:
    async with replica(folder) as client:

        async def loaded_at() -> float:
            text = await client.scrape()
            return float(text.partition("\ncofine_bundle_load_timestamp_seconds ")[2].split()[0])

        at_start = await loaded_at()
        await client.post("/v1/bundles/two:load")
        assert await loaded_at() == at_start
        await client.post("/v1/bundles/two:activate", json={})
        assert await loaded_at() > at_start


def table_variant(
    reference: BundleReference, make: Callable[[], ServedRecommender] = TableRecommender
) -> Variant:
    metrics = Metrics()
    engine = Engine(make, workers=1, queue_max_requests=1, metrics=metrics)
    catalogue = Catalogue(MemoryEdits(), metrics)
    return Variant(reference, LiveBundle(TableBundle(), engine, catalogue), engine)


async def test_an_unforeseen_error_while_opening_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(variants, "RETRY_SECONDS", 0.01)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    has_memory = asyncio.Event()

    def open_variant(reference: BundleReference) -> Variant:
        if not has_memory.is_set():
            raise MemoryError
        return table_variant(reference)

    store, metrics = MemoryRolloutStore(), Metrics()
    followed = Variants(
        table_variant(ONE),
        BundleFolder(tmp_path, tmp_path / "one"),
        store,
        open_variant,
        metrics=metrics,
        deadline_seconds=1,
    )
    await followed.start()
    try:
        await store.write(Rollout(version=1, active=TWO))

        async def is_told() -> bool:
            return followed.failure is not None

        await eventually(is_told, "the failure is told")
        assert "see its log" in (followed.failure or "")
        assert b"cofine_rollout_failures_total 0.0" not in metrics.render()
        assert followed.rollout.active == ONE
        has_memory.set()

        async def is_followed() -> bool:
            return followed.rollout.active == TWO

        await eventually(is_followed, "the rollout is followed")
        assert followed.failure is None
    finally:
        await followed.stop()


async def test_a_bundle_of_a_change_that_was_not_stored_is_closed(
    folder: Path, own_redis_server: RedisServer
) -> None:
    async with replica(folder, state_url=own_redis_server.url) as client:
        with own_redis_server.client() as redis:
            redis.config_set("min-replicas-to-write", 1)  # it answers reads and refuses writes
            check_problem(await client.post("/v1/bundles/two:load"), 503, "state_unavailable")
            assert open_names(client) == {"one"}
            redis.config_set("min-replicas-to-write", 0)
        assert (await client.post("/v1/bundles/two:load")).status_code == 200
        assert open_names(client) == {"one", "two"}


@pytest.mark.parametrize(("percent", "refusal"), [(100, Refusal.QUEUE_FULL), (20, None)])
async def test_admission_asks_the_engine_that_most_requests_go_to(
    tmp_path: Path, percent: float, refusal: Refusal | None
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    slow, store = GatedRecommender(), MemoryRolloutStore()
    canary = table_variant(TWO, always(slow))
    folder = BundleFolder(tmp_path, tmp_path / "one")
    served = Variants(
        table_variant(ONE), folder, store, lambda _: canary, metrics=Metrics(), deadline_seconds=1
    )
    await store.write(Rollout(version=1, active=ONE, canary=TWO, canary_percent=percent))
    await served.start()
    try:
        computed = asyncio.create_task(canary.engine.recommend(Query(), deadline_seconds=30))
        assert await asyncio.to_thread(slow.entered.acquire, timeout=10)
        queued = asyncio.create_task(canary.engine.recommend(Query(), deadline_seconds=30))
        await asyncio.sleep(0)
        assert canary.engine.load == 2

        engine, ahead = served.expected(2)

        assert engine is (canary.engine if refusal else served.active.engine)
        assert engine.refusal(ahead, 30) is refusal
        slow.gate.set()
        await asyncio.gather(computed, queued)
    finally:
        slow.gate.set()
        await served.stop()
