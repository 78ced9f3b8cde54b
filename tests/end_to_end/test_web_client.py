"""The TypeScript client: typed as the service documents itself, and used against a live one."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from service.app import create_app
from service.settings import load_settings
from tests.end_to_end.service_process import ServiceProcess
from tests.keys import KEYS, headers_of
from tests.required import skip_for_want_of
from tests.research_data import PROJECT

CLIENT = PROJECT / "service" / "web" / "client"
TOOLS = CLIENT / "node_modules" / ".bin"
SCHEMA = CLIENT / "src" / "schema.d.ts"
REMEDY = "run make web-client"


def run(*command: str | Path, given: str = "", **environment: str) -> str:
    """What the command prints, or a failure with all that it said."""
    done = subprocess.run(
        command,
        cwd=CLIENT,
        env={**os.environ, **environment},
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def routes() -> list[str]:
    """Method and path of every documented operation but the probes."""
    paths = create_app(load_settings()).openapi()["paths"]
    return [
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if operation["security"]
    ]


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    package = json.loads((CLIENT / "package.json").read_text("utf-8"))
    wanted = int(package["engines"]["node"].removeprefix(">="))
    if found is None or not (TOOLS / "tsc").is_file() or major_version(found) < wanted:
        skip_for_want_of("node", f"install Node {wanted} or later with npm, then {REMEDY}")
    return found


def major_version(node: str) -> int:
    return int(run(node, "--version").removeprefix("v").split(".")[0])


def test_the_types_are_those_of_the_openapi_document(node: str) -> None:
    document = json.dumps(create_app(load_settings()).openapi())
    assert run(TOOLS / "openapi-typescript", given=document) == SCHEMA.read_text("utf-8"), REMEDY


def test_client_and_example_are_well_typed(node: str) -> None:
    run(TOOLS / "tsc", "--noEmit")


def test_there_are_no_runtime_dependencies() -> None:
    package = json.loads((CLIENT / "package.json").read_text("utf-8"))
    assert "dependencies" not in package
    lock = json.loads((CLIENT / "package-lock.json").read_text("utf-8"))
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []


def test_it_works_with_a_live_service(
    node: str, shop_service: ServiceProcess, keyed_service: ServiceProcess, tmp_path: Path
) -> None:
    run(TOOLS / "tsc", "--project", "tsconfig.build.json", "--outDir", str(tmp_path))
    (tmp_path / "package.json").write_text('{"type": "module"}', "utf-8")
    module = (tmp_path / "client.js").as_uri()
    tests = CLIENT / "tests" / "client.test.mjs"
    page = headers_of("publishable", "visitor")
    run(
        *(node, "--test", tests),
        **{"CLIENT": module, "SERVICE": shop_service.url, "KEYED_SERVICE": keyed_service.url},
        **{"KEY": KEYS["publishable"], "TOKEN": page["X-User-Token"]},
        **{"ADMIN_KEY": KEYS["admin"], "READ_KEY": KEYS["read"], "ROUTES": json.dumps(routes())},
    )
