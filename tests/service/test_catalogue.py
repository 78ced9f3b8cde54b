"""Edits of the catalogue over HTTP: what is refused, and what is kept."""

import asyncio
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from model.bundle import Bundle
from model.quantizer_files import quantizer_files, read_quantizers
from model.quantizers import Layer, VectorQuantizer
from model.recommender import Recommender
from service import catalogue, item_edits
from service.app import create_app
from service.catalogue import Catalogue, LiveBundle
from service.catalogue_schemas import ItemBody
from service.engine import Engine
from service.item_edits import START, Change, MemoryEdits, Parts, edit_of
from service.metrics import Metrics
from service.settings import load_settings
from tests.contract.redis_server import RedisServer
from tests.keys import headers_of, write_keys
from tests.model.bundle_copy import copy_bundle, reseal
from tests.service.conftest import AppClient, Client
from tests.service.problem_shape import check_problem
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

ITEM = {"item_id": "new", "title": "A new thing", "categories": [["Makeup", "Nails"]]}


async def kept(client: Client) -> dict[str, Parts]:
    store = client.app.state.serving.catalogue._store
    update = await store.read(item_edits.START)
    return {} if update is None else dict(update.parts)


async def test_what_is_sent_is_kept_as_it_was_sent(client: Client) -> None:
    body = {**ITEM, "attributes": {"price": 3}, "stock": 2, "available_from": 5, "brand": "é\n"}
    answer = await client.put("/v1/items", json=body)

    assert answer.json() == {"catalogue_version": 1, "items": ["new"]}
    edit = edit_of("new", (await kept(client))["new"])
    assert edit.item is not None
    assert (edit.item.title, edit.item.brand) == ("A new thing", "é\n")
    assert edit.item.paths == (("Makeup", "Nails"),)
    assert edit.item.attributes == {"price": 3}
    assert (edit.offer.stock, edit.offer.available_from) == (2, 5)


async def test_several_are_kept_at_once(client: Client) -> None:
    items = [{**ITEM, "item_id": f"new {number}"} for number in range(3)]
    answer = await client.put("/v1/items", json={"items": items})

    assert answer.json() == {"catalogue_version": 1, "items": ["new 0", "new 1", "new 2"]}
    assert sorted(await kept(client)) == ["new 0", "new 1", "new 2"]


async def test_each_edit_changes_its_part_alone(client: Client) -> None:
    for address, body, expected in [
        ("hide", None, {"hidden"}),
        ("availability", {"stock": 0}, {"hidden", "offer"}),
        ("show", None, {"offer"}),
        ("availability", {}, set()),
    ]:
        answer = await client.post(f"/v1/items/a/b é:{address}", json=body)
        assert answer.status_code == 200, answer.text
        assert set((await kept(client)).get("a/b é", {})) == expected


async def test_a_reset_takes_everything_back(client: Client) -> None:
    await client.put("/v1/items", json={**ITEM, "stock": 3})
    await client.post("/v1/items/new:hide")
    assert (await client.post("/v1/items/new:reset")).status_code == 200
    assert await kept(client) == {}
    check_problem(await client.post("/v1/items/new:show"), 404, "item_not_found")


async def test_an_item_put_elsewhere_just_now_can_be_edited(client: Client) -> None:
    """Whoever puts an item and hides it may reach another replica with the second call."""
    store = client.app.state.serving.catalogue._store
    await store.write([Change("new", "item", json.dumps({"title": "A new thing"}))], START)
    assert (await client.post("/v1/items/new:hide")).status_code == 200
    assert set((await kept(client))["new"]) == {"item", "hidden"}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"item_id": ""}, "#/item_id"),
        ({"item_id": "a\x00b"}, "#/item_id"),
        ({"item_id": "a" * 257}, "#/item_id"),
        ({"title": "a" * 1_001}, "#/title"),
        ({"title": "\x00"}, "#/title"),
        ({"title": "\ud800"}, "#/title"),
        ({"description": "a" * 10_001}, "#/description"),
        ({"categories": [[]]}, "#/categories/0"),
        ({"categories": [["\ud800"]]}, "#/categories/0/0"),
        ({"categories": [["a"]] * 17}, "#/categories"),
        ({"attributes": {"price": "cheap"}}, "#/attributes/price"),
        ({"attributes": {"pr/ice": 3}}, "#/attributes/pr~1ice"),
        ({"attributes": {"price": None}}, "#/attributes/price"),
        ({"embeddings": {"image": []}}, "#/embeddings/image"),
        ({"embeddings": {"image": [1e10]}}, "#/embeddings/image/0"),
        ({"embeddings": {"image": ["1"]}}, "#/embeddings/image/0"),
        ({"embeddings": {"image": [0.5] * 4_097}}, "#/embeddings/image"),
        ({"embeddings": {str(n): [0.5] for n in range(9)}}, "#/embeddings"),
        ({"embeddings": {"im/age": [0.5]}}, "#/embeddings/im~1age"),
        ({"stock": -1}, "#/stock"),
        ({"stock": 1.5}, "#/stock"),
        ({"available_from": "soon"}, "#/available_from"),
        ({"available_until": 1e13}, "#/available_until"),
        ({"available_from": 7, "available_until": 7}, "#"),
        ({"hidden": True}, "#/hidden"),
    ],
)
async def test_what_cannot_be_used_is_refused_and_not_kept(
    client: Client, change: dict[str, Any], pointer: str
) -> None:
    escaped = json.dumps({**ITEM, **change})  # spells half surrogate pairs, too
    headers = {"content-type": "application/json"}
    answer = await client.put("/v1/items", content=escaped, headers=headers)

    check_problem(answer, 422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert await kept(client) == {}


def test_an_attribute_of_half_a_surrogate_pair_is_refused_as_it_could_not_be_kept() -> None:
    with pytest.raises(ValidationError) as refused:
        ItemBody.model_validate({**ITEM, "attributes": {"brand": "\ud800"}})
    [found] = refused.value.errors()
    assert (found["loc"], found["type"]) == (("attributes", "brand"), "string_unicode")


async def test_one_that_cannot_be_used_refuses_all(client: Client) -> None:
    bad = {**ITEM, "item_id": "bad", "attributes": {"price": True}}
    answer = await client.put("/v1/items", json={"items": [ITEM, bad]})
    check_problem(answer, 422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == "#/items/1/attributes/price"
    check_problem(
        await client.put("/v1/items", json={"items": [ITEM, ITEM]}), 422, "invalid_request"
    )
    assert await kept(client) == {}


async def test_no_more_than_fits_is_kept(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_edits, "EDITED_ITEMS_MAX", 1)
    await client.put("/v1/items", json=ITEM)
    refused = await client.put("/v1/items", json={**ITEM, "item_id": "another"})
    check_problem(refused, 409, "catalogue_full")
    assert list(await kept(client)) == ["new"]


async def test_only_keys_that_may_write_may_edit(
    start_app: AppClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keys = write_keys(tmp_path_factory.mktemp("keys"))
    async with start_app(keys=keys) as client:
        for scope in ("read", "publishable"):
            for call in ("hide", "show", "reset"):
                answer = await client.post(f"/v1/items/polish:{call}", headers=headers_of(scope))
                check_problem(answer, 403, "forbidden")
            answer = await client.put("/v1/items", json=ITEM, headers=headers_of(scope))
            check_problem(answer, 403, "forbidden")
        answer = await client.put("/v1/items", json=ITEM, headers=headers_of("write"))
        assert answer.status_code == 200


async def test_an_edit_that_cannot_be_read_says_nothing_but_that_it_is_hidden() -> None:
    store = MemoryEdits()
    await store.write([Change("a", "item", "{"), Change("a", "hidden", "true")], START)
    update = await store.read(item_edits.START)
    assert update is not None
    edit = edit_of("a", update.parts["a"])
    assert (edit.item, edit.is_hidden) == (None, True)


@pytest.mark.parametrize("at_once", [False, True])
async def test_the_first_write_to_an_emptied_redis_brings_nothing_back(
    start_app: AppClient,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    at_once: bool,
) -> None:
    """Whoever writes before anybody has looked gives back what is known first."""
    monkeypatch.setattr(catalogue, "POLL_SECONDS", 600.0)
    redis_server.flush()
    on_redis = {"state_url": redis_server.url, "state_write_deadline_ms": 20_000}
    async with start_app(**on_redis) as here, start_app(**on_redis) as there:

        async def know(*item_ids: str) -> bool:
            return all([set(item_ids) == await edited(each) for each in (here, there)])

        for item_id in ("polish", "file"):
            assert (await here.post(f"/v1/items/{item_id}:hide")).status_code == 200
        await eventually(lambda: know("polish", "file"), "both replicas know what is hidden")
        redis_server.flush()

        writers = [(here, "soap"), (there, "lipstick")][: 1 + at_once]
        calls = [client.post(f"/v1/items/{item_id}:hide") for client, item_id in writers]
        for answer in await asyncio.gather(*calls):
            assert answer.status_code == 200, answer.text

        everything = ("polish", "file", *(item_id for _, item_id in writers))
        await eventually(lambda: know(*everything), "both replicas know all that was hidden")
        assert set(await kept(here)) == set(everything)


PUT = Change("new", "item", json.dumps({"title": "A new thing"}))


class Edited:
    """A bundle that edits are applied to, and of which items cannot be encoded while `damaged`."""

    def __init__(self, bundle: Path, folder: Path, edits: Catalogue) -> None:
        self._file = copy_bundle(bundle, folder) / "collaborative_from_text.npy"
        self._content = self._file.read_bytes()
        opened = Bundle.open(folder)
        engine = Engine(
            lambda: Recommender(opened), workers=1, queue_max_requests=1, metrics=Metrics()
        )
        self.live = LiveBundle(opened, engine, edits)

    def damage(self) -> None:
        self._file.write_bytes(b"nothing that was meant")

    def repair(self) -> None:
        self._file.write_bytes(self._content)

    def withheld(self) -> set[str]:
        state = self.live.bundle
        assert isinstance(state, Bundle)
        return {state.catalog.item_id(leaf) for leaf in state.withheld}

    def failure(self) -> str | None:
        return self.live.failure

    def has_new(self) -> bool:
        return self.live.bundle.catalog.leaf("new") is not None


async def test_what_is_hidden_goes_whatever_else_fails(shop_bundle: Path, tmp_path: Path) -> None:
    metrics = Metrics()
    edits = Catalogue(MemoryEdits(), metrics)
    some = Edited(shop_bundle, tmp_path / "some", edits)
    hidden = some.live.bundle.catalog.item_id(3)
    await edits.join(some.live)
    some.damage()

    await edits.write([PUT, Change(hidden, "hidden", "true")])

    assert some.withheld() == {hidden}
    assert not some.has_new()
    assert some.failure() is not None
    assert metrics.registry.get_sample_value("cofine_catalogue_version") == 0
    some.repair()
    await edits.write([Change(hidden, "hidden", None)])
    assert (some.withheld(), some.has_new(), some.failure()) == (set(), True, None)
    assert metrics.registry.get_sample_value("cofine_catalogue_version") == 2


async def test_edits_are_parsed_beside_the_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    """There may be many megabytes of them, and requests go on meanwhile."""
    edits = Catalogue(MemoryEdits(), Metrics())
    await edits.write([Change("a", "item", "{")])
    (parsed,) = [each for each in caplog.records if each.message == "edit_unreadable"]
    assert parsed.thread != threading.get_ident()


async def test_an_operator_reads_why_edits_are_lacking(shop_bundle: Path, tmp_path: Path) -> None:
    folder = copy_bundle(shop_bundle, tmp_path / "bundles" / "damaged")
    keys = write_keys(tmp_path)
    settings = load_settings(bundle=folder, bundles=folder.parent, keys=keys, workers=1)
    app = create_app(settings)
    async with app.router.lifespan_context(app), Client(app, []) as client:

        async def failure() -> str | None:
            (found,) = (await client.get("/v1/bundles", headers=headers_of("admin"))).json()[
                "bundles"
            ]
            assert found["open"]
            told: str | None = found["catalogue_failure"]
            return told

        assert await failure() is None
        (folder / "collaborative_from_text.npy").unlink()
        await app.state.serving.catalogue.write([PUT])
        told = await failure()
        assert told is not None
        assert "has no collaborative_from_text.npy" in told


def read_pictures(folder: Path) -> None:
    """Have a bundle's last codes tell upright pictures from lying ones, whatever was learned."""
    *others, last = read_quantizers(folder)
    assert isinstance(last, VectorQuantizer)
    book = np.full((last.levels[0].codes, 2), 9, np.float32)
    book[:2] = np.eye(2)
    as_it_is = (Layer(np.eye(2, dtype=np.float32), np.zeros(2, np.float32)),)
    seeing = replace(last, views=("picture",), codebooks=(book,), encoders=(as_it_is,))
    text, arrays = quantizer_files([*others, seeing])
    (folder / "codebooks" / "quantizers.json").write_text(text, encoding="utf-8")
    for name, array in arrays.items():
        path = folder / "codebooks" / f"{name}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, array)
    reseal(folder)


async def test_an_item_that_is_put_gets_its_codes_from_its_picture_too(
    shop_bundle: Path, tmp_path: Path
) -> None:
    folder = copy_bundle(shop_bundle, tmp_path / "bundle")
    read_pictures(folder)
    app = create_app(load_settings(bundle=folder, workers=1, deadline_ms=20_000))
    async with app.router.lifespan_context(app), Client(app, []) as client:

        async def code(embeddings: dict[str, list[float]]) -> int:
            title = f"A new thing {embeddings}"
            body = {"item_id": "new", "title": title, "embeddings": embeddings}
            answer = await client.put("/v1/items", json=body)
            assert answer.status_code == 200, answer.text
            codes: list[int] = (await client.get("/v1/items/new")).json()["semantic_id"]
            return codes[len(app.state.serving.bundle.manifest.levels) - 1]

        assert await code({"picture": [3, 0.1]}) == 0
        assert await code({"picture": [0.1, 3]}) == 1
        edit = edit_of("new", (await kept(client))["new"])
        assert edit.item is not None
        assert edit.item.embeddings == {"picture": [0.1, 3]}
        for wrong, pointer in (
            ({"picture": [1.0, 2, 3]}, "#/items/1/embeddings/picture"),
            ({"voice": [1.0, 2]}, "#/items/1/embeddings/voice"),
        ):
            items = [ITEM, {**ITEM, "item_id": "other", "embeddings": wrong}]
            refused = await client.put("/v1/items", json={"items": items})
            check_problem(refused, 422, "invalid_request")
            (found,) = refused.json()["errors"]
            assert found["pointer"] == pointer
            assert "there is picture (2 numbers)" in found["detail"]


async def test_what_failed_is_tried_again_though_another_bundle_joins(
    shop_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "RETRY_SECONDS", 0.0)
    edits = Catalogue(MemoryEdits(), Metrics())
    some, other = (Edited(shop_bundle, tmp_path / name, edits) for name in ("some", "other"))
    await edits.join(some.live)
    some.damage()
    await edits.write([PUT])

    await edits.join(other.live)
    assert (some.has_new(), other.has_new()) == (False, True)
    assert some.failure() is not None
    assert other.failure() is None

    some.repair()
    await edits._look()
    assert (some.has_new(), some.failure()) == (True, None)


async def test_what_ends_while_another_bundle_joins_ends_for_all(
    shop_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = Catalogue(MemoryEdits(), Metrics())
    some, other = (Edited(shop_bundle, tmp_path / name, edits) for name in ("some", "other"))
    item_id = some.live.bundle.catalog.item_id(3)
    end = time.time() + 1_000
    await edits.join(some.live)
    await edits.write([Change(item_id, "offer", json.dumps({"available_until": end}))])
    assert some.withheld() == set()

    monkeypatch.setattr(time, "time", lambda: end)
    await edits.join(other.live)
    assert other.withheld() == {item_id}
    await edits._look()
    assert some.withheld() == {item_id}


async def edited(client: Client) -> set[str]:
    return set(client.app.state.serving.catalogue._edits)
