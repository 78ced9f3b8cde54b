"""The console's files: what a browser is told of them, and that nothing else is let out."""

import re
from pathlib import Path

import pytest

from service.metrics import ITEM_SOURCES, OTHER
from tests.keys import write_keys
from tests.research_data import PROJECT
from tests.service.conftest import AppClient, Client
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio

FOLDER = PROJECT / "service" / "web" / "console"
NAMES = sorted(each.name for each in FOLDER.iterdir())
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg"}


async def test_the_page_is_at_the_root(client: Client) -> None:
    response = await client.get("/")
    assert response.status_code == 200
    assert response.content == (FOLDER / "index.html").read_bytes()


@pytest.mark.parametrize("name", NAMES)
async def test_every_file_is_served_under_a_strict_policy(client: Client, name: str) -> None:
    response = await client.get(f"/console/{name}")
    assert response.content == (FOLDER / name).read_bytes()
    assert response.headers["content-type"].startswith(TYPES[Path(name).suffix])
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    policy = dict(
        each.split(" ", 1) for each in response.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"


async def test_what_is_known_is_not_sent_again(client: Client) -> None:
    first = await client.get("/console/main.js")
    known = {"If-None-Match": f'"other", {first.headers["etag"]}'}
    again = await client.get("/console/main.js", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    changed = await client.get("/console/main.js", headers={"If-None-Match": '"other"'})
    assert changed.status_code == 200


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2f..%2fapp.py", "%2e%2e", "client%2fpackage.json", ""]
)
async def test_nothing_else_is_served(client: Client, name: str) -> None:
    check_problem(await client.get(f"/console/{name}"), 404, "route_not_found")


async def test_keys_leave_it_open_and_the_setting_closes_it(
    start_app: AppClient, tmp_path: Path
) -> None:
    async with start_app(keys=write_keys(tmp_path)) as client:
        assert (await client.get("/")).status_code == 200
    async with start_app(console=False) as client:
        check_problem(await client.get("/"), 404, "route_not_found")
        check_problem(await client.get("/console/main.js"), 404, "route_not_found")


def test_nothing_comes_from_other_hosts_and_nothing_is_inline() -> None:
    for name in NAMES:
        text = (FOLDER / name).read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), name
    page = (FOLDER / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


def test_modules_import_only_what_is_there() -> None:
    for name in [each for each in NAMES if each.endswith(".js")]:
        for imported in re.findall(r'from "\./([^"]+)"', (FOLDER / name).read_text("utf-8")):
            assert imported in NAMES, (name, imported)


def test_every_source_of_an_item_has_a_name_for_people() -> None:
    text = (FOLDER / "cards.js").read_text("utf-8")
    (table,) = re.findall(r"const SOURCES = \{(.*?)\};", text, re.DOTALL)
    assert set(re.findall(r"(\w+): \"", table)) == set(ITEM_SOURCES) - {OTHER}
