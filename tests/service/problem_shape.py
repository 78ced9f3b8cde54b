"""The one shape of every error answer."""

from typing import Any

import httpx2

MEMBERS = {
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "errors",
    "request_id",
    "retryable",
}


def check_problem(
    response: httpx2.Response, status: int, code: str, *, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Assert that the answer is a whole problem document, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert set(found) == MEMBERS | set(more)
    assert found["status"] == status
    assert found["code"] == code
    assert found["type"] == f"urn:cofine:problem:{code}"
    assert found["request_id"] == response.headers["x-request-id"]
    assert found["instance"] == f"urn:cofine:request:{found['request_id']}"
    assert found["title"]
    assert found["detail"]
    assert found["retryable"] is (status in {429, 503, 504})
    assert ("retry-after" in response.headers) is found["retryable"]
    for error in found["errors"]:
        assert set(error) in ({"detail", "code", "pointer"}, {"detail", "code", "parameter"})
    return found
