"""Scenarios over HTTP, and what is refused of their file."""

import threading
from pathlib import Path

import httpx2
import pytest

from service import watched_file
from service.app import create_app
from service.errors import SettingsError
from service.scenarios import parse_scenarios
from service.settings import load_settings
from tests.service.conftest import AppClient
from tests.service.fakes import BrokenRecommender, always
from tests.service.problem_shape import check_problem
from tests.service.test_explore import running_shop
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

HOME = """
[home]
k = 4
diversity = 0.5
filters = { price = { max = 9 } }
pins = [{ position = 2, item_id = "h" }, { position = 1, item_id = "l" }]

[bath]
k = 3
boosts = [{ shift = 15, categories = [["Home", "Bath"]] }]
"""


def write(folder: Path, text: str = HOME) -> Path:
    """Whole at once: a service may be reading."""
    path = folder / "scenarios.toml"
    new = folder / "new.toml"
    new.write_text(text, encoding="utf-8")
    return new.replace(path)


async def answered(shop: httpx2.AsyncClient, **body: object) -> dict[str, list[str]]:
    response = await shop.post("/v1/recommend", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["certified"] is None
    items = answer["items"]
    return {name: [item[name] for item in items] for name in ("item_id", "source")}


async def test_a_scenario_stands_in_for_what_a_request_does_not_give(
    tmp_path: Path, start_app: AppClient
) -> None:
    async with start_app(scenarios=write(tmp_path)) as client:
        await client.post("/v1/recommend", json={"scenario": "home"})
        await client.post("/v1/recommend", json={"scenario": "home", "k": 7, "filters": {}})
        await client.post("/v1/recommend", json={"scenario": "home", "exploration": 0.2})
        await client.post("/v1/recommend", json={})
        asked = client.queries[-4:]
        info = (await client.get("/v1/info")).json()

    assert [query.k for query in asked] == [4, 7, 4, 10]
    assert [set(query.filters) for query in asked] == [{"price"}, set(), {"price"}, set()]
    orders = [(query.diversity, query.exploration) for query in asked]
    assert orders == [(0.5, 0), (0.5, 0), (0, 0.2), (0, 0)]
    assert [dict(query.pins) for query in asked] == [{1: "l", 2: "h"}] * 3 + [{}]
    assert info["scenarios"] == ["bath", "home"]


async def test_pins_and_boosts_are_marked_and_obey_what_is_excluded(tmp_path: Path) -> None:
    async with running_shop(scenarios=write(tmp_path)) as shop:
        home = await answered(shop, scenario="home", history=["a"])
        seen = await answered(shop, scenario="home", history=["h"])
        bath = await answered(shop, scenario="bath", history=["a"])
        batch = {"requests": [{"scenario": "bath", "history": ["a"]}, {"scenario": "attic"}]}
        both = (await shop.post("/v1/recommend:batch", json=batch)).json()["results"]
        found = (await shop.post("/v1/recommend", json={"scenario": "bath"})).json()
        next_page = {"scenario": "bath", "after": found["recommendation_id"]}
        rest = (await shop.post("/v1/recommend", json=next_page)).json()

    assert home["item_id"][1] == "h"  # l costs more than the filter lets pass
    assert home["source"][1] == "pinned"
    assert home["source"].count("pinned") == 1
    assert len(home["item_id"]) == 4
    assert "pinned" not in seen["source"]
    assert set(bath["item_id"]) <= set("efgh")
    assert bath["source"] == ["boosted"] * 3
    assert [item["item_id"] for item in both[0]["answer"]["items"]] == bath["item_id"]
    assert "there are bath, home" in both[1]["problem"]["detail"]
    shown = {item["item_id"] for item in found["items"]}
    assert not shown & {item["item_id"] for item in rest["items"]}


async def test_an_unknown_scenario_is_refused_with_the_known_names(
    tmp_path: Path, start_app: AppClient
) -> None:
    async with start_app(scenarios=write(tmp_path)) as client:
        response = await client.post("/v1/recommend", json={"scenario": "attic"})

    problem = check_problem(response, 422, "invalid_request")
    assert "there are bath, home" in problem["detail"]
    assert problem["errors"][0]["pointer"] == "#/scenario"


UNUSABLE = {
    "[home]\nk = 0": r"home\.k: .* \(got 0\)",
    "[home]\ndiversity = 3": r"home\.diversity: .* \(got 3\)",
    "[home]\ncolour = 1": r"home\.colour: no scenario has such a field",
    "[home]\nuser_id = 'ann'": r"home: user_id is for a request to say: remove it",
    "[home]\npins = [{ position = 0, item_id = 'a' }]": r"home\.pins\.0\.position",
    "[home]\npins = [{ position = 1, item_id = 'a' }, { position = 1, item_id = 'b' }]": (
        "two pins have the position 1"
    ),
    "[home]\nboosts = [{ shift = 1 }]": r"home\.boosts\.0: name what is boosted",
    "[home]\nboosts = [{ shift = 99, items = ['a'] }]": r"shift: .* \(got 99\)",
    "['a b']\nk = 1": "a b",
    "[home": "is not TOML",
    "": "at least 1 item",
}


@pytest.mark.parametrize(("text", "message"), UNUSABLE.items())
async def test_an_unusable_file_is_refused_by_place_and_value(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as refused:
        parse_scenarios(text, "scenarios.toml")
    assert str(refused.value).startswith("COFINE_SCENARIOS: scenarios.toml")


UNSUITABLE = {
    "filters = { colour = 'red' }": r"home\.filters\.colour: .*price",
    "boosts = [{ shift = 1, filters = { colour = 'red' } }]": r"home\.boosts\.0: .*'colour'.*price",
    "boosts = [{ shift = 1, categories = [['Attic']] }]": r"home\.boosts\.0: .*Attic",
    "filters = { price = 3 }\nboosts = [{ shift = 1, filters = { price = 'low' } }]": (
        r"home\.boosts\.0: .*'price' is of type int and 'low' is not"
    ),
}


@pytest.mark.parametrize(("text", "message"), UNSUITABLE.items())
async def test_a_scenario_that_does_not_suit_the_bundle_stops_the_start(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path, f"[home]\n{text}")
    with pytest.raises(SettingsError, match=f"COFINE_SCENARIOS: {message}"):
        async with running_shop(scenarios=path):
            pass  # pragma: no cover


async def test_a_start_that_fails_leaves_no_worker_behind(
    start_app: AppClient, tmp_path: Path
) -> None:
    path = write(tmp_path, '[home]\nboosts = [{ shift = 1, items = ["soap"] }]')
    before = set(threading.enumerate())
    with pytest.raises(KeyError):
        async with start_app(always(BrokenRecommender()), scenarios=path):
            pass  # pragma: no cover
    left = {each.name for each in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith("recommender")}


async def test_explanations_that_the_bundle_cannot_give_stop_the_start(
    tmp_path: Path, diffusion_bundle: Path
) -> None:
    path = write(tmp_path, "[home]\nexplain = true")
    app = create_app(load_settings(bundle=diffusion_bundle, scenarios=path, workers=1))
    with pytest.raises(SettingsError, match=r"COFINE_SCENARIOS: home\.explain: .*decoder"):
        async with app.router.lifespan_context(app):
            pass  # pragma: no cover


async def test_changes_are_taken_over_and_mistakes_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_file, "POLL_SECONDS", 0.01)
    path = write(tmp_path)
    async with running_shop(scenarios=path) as shop:

        async def tells(text: str) -> bool:
            return text in (await shop.get("/metrics")).text

        async def names() -> list[str]:
            listed: list[str] = (await shop.get("/v1/info")).json()["scenarios"]
            return listed

        write(tmp_path, "[home]\ncategories = [['Attic']]")
        refused = 'cofine_scenarios_reloads_total{outcome="refused"} 1.0'
        await eventually(lambda: tells(refused), "the bad file is refused")
        assert await names() == ["bath", "home"]
        write(tmp_path, "[attic]\nk = 2")
        taken = 'cofine_scenarios_reloads_total{outcome="ok"} 1.0'
        await eventually(lambda: tells(taken), "the good one is in force")
        assert await names() == ["attic"]
