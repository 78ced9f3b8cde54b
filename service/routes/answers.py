"""What the routes have in common: how errors are documented, and waiting for a live client."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path
from pydantic import BaseModel
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from service.errors import ClientGoneError
from service.problems import MEDIA_TYPE
from service.schemas import Identifier, Problem
from service.serving import Serving, serving_of

Result = TypeVar("Result")

InServing = Annotated[Serving, Depends(serving_of)]
UserId = Annotated[Identifier, Path(description="The user's id.")]
ItemId = Annotated[Identifier, Path(description="The catalogue's id of the item.")]

_MEANINGS = {
    400: "The body is not valid JSON.",
    401: "No key, no user token, or a wrong one.",
    403: "The key may not do this, or not for this user.",
    404: "There is no such item, place or bundle.",
    409: "The rollout cannot be changed like this, or was changed at the same time; or no more "
    "edits can be kept.",
    408: "The body took too long to come.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "Fields are missing, unknown or out of range; `errors` points at them.",
    429: "Too many requests are waiting, or too many came with this key; see Retry-After.",
    503: "Not available now; see Retry-After.",
    504: "The answer was not ready in time; see Retry-After.",
}
_RETRYABLE = (429, 503, 504)
_RETRY_AFTER = {
    "Retry-After": {"description": "When to try again, in seconds.", "schema": {"type": "integer"}}
}


class _IdConvertor(Convertor[str]):
    """The rest of an address as an id: any text, so that validation can say what is wrong."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the id as it stands."""
        return value

    def to_string(self, value: str) -> str:
        """Return the id as it stands."""
        return value


# Routes write `{user_id:id}`. The framework's `path` knows no line break and would answer 404.
register_url_convertor("id", _IdConvertor())


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the errors that a route may answer with."""
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    shape = {"content": {MEDIA_TYPE: {"schema": schema}}}
    return {
        status: {
            "description": _MEANINGS[status],
            **shape,
            **({"headers": _RETRY_AFTER} if status in _RETRYABLE else {}),
        }
        for status in statuses
    }


def json_answer(body: BaseModel) -> Response:
    """Return the body as JSON; unlike a returned model it is built only once."""
    return Response(body.model_dump_json(), media_type="application/json")


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what `work` returns; cancel it when the client goes away.

    The framework does not cancel a handler whose client is gone, and work for nobody would keep
    others waiting.

    Raises:
        ClientGoneError: the client closed the connection.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_client_leaves(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError("the client closed the connection")
        return working.result()
    finally:
        tasks = [task for task in (working, leaving) if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
