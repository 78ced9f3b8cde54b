"""Files that are read again when they change, also when a change fails at first."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service import watched_file
from service.api_keys import parse_keys
from service.errors import SettingsError
from service.metrics import Metrics
from service.watched_file import FileKind, WatchedFile
from tests.service.conftest import AppClient
from tests.service.fakes import GatedRecommender, always
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

DEEP = "a=" + "[" * 3_000 + "]" * 3_000


def write(path: Path, text: str) -> Path:
    """Whole at once: a service may be reading."""
    new = path.with_name("new")
    new.write_text(text, encoding="utf-8")
    return new.replace(path)


def words(text: str, source: str) -> Sequence[str]:
    if "?" in text:
        raise SettingsError(f"{source}: no question, please")
    return text.split()


@asynccontextmanager
async def watched(
    path: Path,
    refusals: list[Exception],
    taken: list[Sequence[str]],
    tried_on: Callable[[], object] = lambda: None,
) -> AsyncIterator[tuple[WatchedFile[Sequence[str]], Metrics]]:
    """A file of words; taking one fails with `refusals` first, and `taken` tells of every try."""
    metrics = Metrics()
    file = WatchedFile(path, FileKind("COFINE_WORDS", "words", words, metrics.keys_reloads))

    async def take(content: Sequence[str]) -> None:
        taken.append(content)
        if refusals:
            raise refusals.pop()

    file.start(take, tried_on)
    yield file, metrics
    await file.stop()


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_file, "POLL_SECONDS", 0.01)


def test_a_file_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    kind = FileKind("COFINE_KEYS", "keys", parse_keys, Metrics().keys_reloads)
    with pytest.raises(SettingsError, match=r"COFINE_KEYS: .*keys.toml is nested too deeply"):
        WatchedFile(write(tmp_path / "keys.toml", DEEP), kind)


async def test_an_unforeseen_error_is_told_once_and_the_change_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[Sequence[str]] = []
    refusals: list[Exception] = [MemoryError(), MemoryError()]
    path = write(tmp_path / "words", "one")
    async with watched(path, refusals, taken) as (file, metrics):
        write(path, "two")

        async def is_in_force() -> bool:
            return file.content == ["two"]

        await eventually(is_in_force, "the change is in force")
        assert taken == [["two"]] * 3
    told = [record for record in caplog.records if record.message == "words_refused"]
    assert len(told) == 1
    assert "a defect of the service" in vars(told[0])["reason"]
    assert told[0].exc_info is not None
    assert told[0].exc_info[0] is MemoryError
    text = metrics.render().decode()
    for outcome in ("ok", "refused"):
        assert f'cofine_keys_reloads_total{{outcome="{outcome}"}} 1.0' in text


async def test_what_was_refused_is_tried_again_on_something_else_only(tmp_path: Path) -> None:
    taken: list[Sequence[str]] = []
    refusals: list[Exception] = [SettingsError("not here")]
    path = write(tmp_path / "words", "one")
    looks, place = 0, "here"

    def tried_on() -> str:
        nonlocal looks
        looks += 1
        return place

    async with watched(path, refusals, taken, tried_on) as (file, _):

        async def are_looked_for(number: int) -> bool:
            return looks >= number

        write(path, "two")
        await eventually(lambda: are_looked_for(30), "many looks")
        assert taken == [["two"]]
        assert file.content == ["one"]
        place = "elsewhere"

        async def is_in_force() -> bool:
            return file.content == ["two"]

        await eventually(is_in_force, "the change is in force")
        assert taken == [["two"]] * 2


async def test_scenarios_that_change_while_the_queue_is_full_are_taken_later(
    tmp_path: Path, start_app: AppClient
) -> None:
    recommender = GatedRecommender()
    recommender.gate.set()
    path = write(tmp_path / "scenarios.toml", "[home]\nk = 1")
    async with start_app(always(recommender), scenarios=path, queue_max_requests=1) as client:
        recommender.gate.clear()
        waiting = [asyncio.create_task(client.post("/v1/recommend", json={})) for _ in range(2)]
        engine = client.app.state.serving.engine

        async def is_full() -> bool:
            return bool(engine.queue_length == 1)

        await eventually(is_full, "one request is computed and one waits")
        write(path, "[attic]\nk = 1")

        async def is_told() -> bool:
            return 'scenarios_reloads_total{outcome="refused"} 1.0' in await client.scrape()

        await eventually(is_told, "the full queue is told")
        recommender.gate.set()

        async def is_in_force() -> bool:
            return bool((await client.get("/v1/info")).json()["scenarios"] == ["attic"])

        await eventually(is_in_force, "the scenarios are in force")
        assert {(await each).status_code for each in waiting} == {200}
