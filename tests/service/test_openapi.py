"""The committed document is the interface; its examples are requests that the service takes."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.openapi import openapi_text
from service.settings import load_settings
from tests.keys import headers_of, write_keys
from tests.research_data import PROJECT
from tests.service.conftest import AppClient

COMMITTED = PROJECT / "openapi.json"


def test_the_interface_changes_with_the_committed_document_only() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == openapi_text(), (
        "the HTTP interface is not the one in openapi.json: if the change is meant, run "
        "`make openapi`, commit the file and tell it in CHANGELOG.md"
    )


def examples() -> list[tuple[str, str, dict[str, Any]]]:
    document = json.loads(COMMITTED.read_text(encoding="utf-8"))
    found = []
    operations = [
        (method, route, operation)
        for route, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    for method, route, operation in operations:
        content = operation.get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        names = [schema, *schema.get("oneOf", []), *schema.get("anyOf", [])]
        for name in [each["$ref"].rpartition("/")[2] for each in names if "$ref" in each]:
            given = document["components"]["schemas"][name].get("examples", [])
            found += [(method, route, example) for example in given]
    return found


def test_every_route_with_a_body_has_examples() -> None:
    routes = {
        (method, route)
        for route, methods in create_app(load_settings()).openapi()["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    }
    assert {(method, route) for method, route, _ in examples()} == routes


def is_bounded(schema: dict[str, Any]) -> bool:
    """Whether a value of this schema, apart from its parts, has an end."""
    if schema.get("type") == "array":
        return "maxItems" in schema
    if schema.get("type") == "string":
        return not {"maxLength", "enum", "const", "pattern"}.isdisjoint(schema)
    return not schema.get("additionalProperties") or "maxProperties" in schema


def parts_of(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas inside a schema, but not those that it refers to."""
    parts = [*schema.get("properties", {}).values()]
    for name in ("anyOf", "oneOf", "allOf"):
        parts += schema.get(name, [])
    for name in ("items", "additionalProperties"):
        parts += [schema[name]] if isinstance(schema.get(name), dict) else []
    return parts


def requested(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas of all bodies and parameters, with all that they hold or refer to."""
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    waiting = [each["schema"] for one in operations for each in one.get("parameters", [])]
    bodies = [one["requestBody"]["content"] for one in operations if "requestBody" in one]
    waiting += [body["application/json"]["schema"] for body in bodies]
    found: list[dict[str, Any]] = []
    while waiting:
        schema = waiting.pop()
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if schema not in found:
            found.append(schema)
            waiting += parts_of(schema)
    return found


def test_every_list_text_and_mapping_of_a_request_is_bounded() -> None:
    schemas = requested(create_app(load_settings()).openapi())
    assert {"RecommendRequest", "EventBody"} <= {each.get("title") for each in schemas}
    assert [schema for schema in schemas if not is_bounded(schema)] == []


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "route", "example"), examples())
async def test_examples_are_refused_for_nothing_but_what_they_name(
    start_app: AppClient, tmp_path: Path, method: str, route: str, example: dict[str, Any]
) -> None:
    is_write = "events" in route or "items" in route
    scope = "admin" if route.startswith("/v1/bundles") else "write" if is_write else "read"
    address = route.format(name="nowhere", item_id="nowhere")
    async with start_app(keys=write_keys(tmp_path)) as client:
        response = await client.request(method, address, json=example, headers=headers_of(scope))

    if response.status_code == 422:
        pointer = response.json()["errors"][0]["pointer"]
        assert pointer.startswith(("#/categories/", "#/filters/", "#/path/"))
    elif address != route:
        assert response.json()["code"] in {"bundle_not_found", "item_not_found"}
    elif "deadline_ms" in example and response.status_code == 504:
        # Understood, and late, as a busy machine may make it.
        assert response.json()["code"] == "deadline_exceeded"
    else:
        assert response.status_code == 200, response.text
