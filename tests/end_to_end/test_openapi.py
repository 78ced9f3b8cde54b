"""The running service keeps what its OpenAPI document promises, by generated requests.

All of Schemathesis' checks of an answer run: documented statuses, media types and schemas, no
server errors, valid requests accepted, invalid ones refused, and so on. Exclusions: a schema cannot
say which category paths, places and attributes the catalogue has, which scenarios there are, nor
that two orders exclude one another, so a valid recommendation request may be refused, but for
nothing else than those, or for the choices and explanations that a diffusion bundle does not have;
and one that asks for its answer within milliseconds may be told that there was no time (504). An
item that is put may be refused for its attributes or embeddings, or for a time that ends before it
begins.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from service.api_keys import entry_text
from tests.end_to_end.service_process import ServiceProcess, running_service
from tests.keys import write_keys

PREVIEW = "/v1/bundles/{name}:preview"
WITH_INPUT = (
    ("POST", "/v1/recommend"),
    ("POST", "/v1/recommend:batch"),
    ("POST", "/v1/explore"),
    ("GET", "/v1/taxonomy"),
    ("POST", "/v1/events"),
    ("GET", "/v1/users/{user_id}"),
    ("DELETE", "/v1/users/{user_id}"),
    ("GET", "/v1/event-log"),
    ("GET", "/v1/items/{item_id}"),
    ("POST", "/v1/bundles/{name}:load"),
    ("POST", "/v1/bundles/{name}:activate"),
    ("POST", "/v1/bundles/{name}:rollback"),
    ("POST", PREVIEW),
    ("PUT", "/v1/items"),
    ("POST", "/v1/items/{item_id}:hide"),
    ("POST", "/v1/items/{item_id}:show"),
    ("POST", "/v1/items/{item_id}:availability"),
    ("POST", "/v1/items/{item_id}:reset"),
)
WITHOUT_INPUT = (
    *(("GET", "/v1/info"), ("GET", "/v1/access"), ("GET", "/v1/bundles")),
    *(("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics")),
)
TRIED = (
    *((*operation, mode) for operation in WITH_INPUT for mode in GenerationMode),
    *((*operation, GenerationMode.POSITIVE) for operation in WITHOUT_INPUT),
)
EXAMPLES = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


COMPUTED = ("/v1/recommend", "/v1/recommend:batch", "/v1/explore")
EDITS = ("/v1/items", "/v1/items/{item_id}:availability")
NO_LEVELS = "or serve an autoregressive bundle"
SHORT_DEADLINE_MS = 200
"""On a machine that has other work; the service's own deadline is longer."""
KEY = {"Authorization": "Bearer the key of this test"}


@pytest.fixture(scope="module")
def service(any_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service with all its routes, that asks for a key, so that it can be tried without one."""
    folder = tmp_path_factory.mktemp("openapi")
    shutil.copytree(any_bundle, folder / "bundles" / "shop")
    (folder / "log").mkdir()
    places = {"bundles": folder / "bundles", "event_log": folder / "log"}
    scopes = ("read", "write", "admin")
    keys = write_keys(folder, [entry_text("test", "the key of this test", scopes)])
    with running_service(folder / "bundles" / "shop", folder, keys=keys, **places) as service:
        yield service


@pytest.fixture(scope="module")
def schema(service: ServiceProcess) -> OpenApiSchema:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def test_every_operation_is_tried(schema: OpenApiSchema) -> None:
    documented = {(method.upper(), path) for path in schema for method in schema[path]}
    assert documented == {*WITH_INPUT, *WITHOUT_INPUT}


def shortest_deadline(body: Any) -> int:
    """The least of a body's deadlines, its requests' included."""
    requests = [body, *body.get("requests", [])]
    given_ms = (each.get("deadline_ms") for each in requests)
    return min(int(each) for each in given_ms if each is not None)


def is_refusable(error: dict[str, Any]) -> bool:
    """Whether a schema could not have said what this error says of a request."""
    pointer = re.sub(r"^#/requests/\d+", "#", error["pointer"])
    names = pointer.startswith(("#/categories/", "#/filters/", "#/path/", "#/scenario"))
    # Of a whole request: orders that exclude one another, and choices of a diffusion bundle.
    whole = ("exclude one another", NO_LEVELS)
    lacking = pointer == "#/explain" and NO_LEVELS in error["detail"]
    return names or lacking or (pointer == "#" and any(each in error["detail"] for each in whole))


def is_refusable_edit(error: dict[str, Any]) -> bool:
    """Whether the bundle lacks what is named, a time ends before it begins, or an id repeats."""
    named = r"#(/items/\d+)?(/(attributes|embeddings)/.*)?"
    return re.fullmatch(named, error["pointer"]) is not None


@pytest.mark.parametrize(("method", "path", "mode"), TRIED)
def test_the_service_keeps_its_promises(
    schema: OpenApiSchema, method: str, path: str, mode: GenerationMode
) -> None:
    @EXAMPLES
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def keeps(case: schemathesis.Case[Any]) -> None:
        response = case.call(headers=KEY)
        body: Any = case.body
        excluded: list[Any] = []
        if path in COMPUTED and response.status_code == 504:
            assert shortest_deadline(body) <= SHORT_DEADLINE_MS
            excluded.append(not_a_server_error)
        if path in COMPUTED and mode is GenerationMode.POSITIVE and response.status_code != 200:
            assert response.status_code == 504 or is_refusable(response.json()["errors"][0])
            excluded.append(positive_data_acceptance)
        if path == PREVIEW and mode is GenerationMode.POSITIVE and response.status_code == 422:
            assert is_refusable(response.json()["errors"][0])
            excluded.append(positive_data_acceptance)
        if path in EDITS and mode is GenerationMode.POSITIVE and response.status_code == 422:
            assert is_refusable_edit(response.json()["errors"][0])
            excluded.append(positive_data_acceptance)
        case.validate_response(response, headers=KEY, excluded_checks=excluded)

    keeps()
