"""The console at /: pages for people, as static files that the browser takes from here alone.

The files are read once, when the application is put together. They run without a build step, and
under a policy that allows nothing inline and nothing from other hosts.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.scopes import allows

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Asked for anew each time, which costs an empty 304: a new release shows at once.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    headers: Mapping[str, str]


def console_router() -> APIRouter:
    """Return the routes of the console's files; they are open, for a page cannot send a key yet."""
    held = dict(_read_files())
    router = APIRouter(include_in_schema=False)

    @router.get("/", openapi_extra=allows())
    async def page(request: Request) -> Response:
        return _answer(held["index.html"], request)

    @router.get("/console/{name}", openapi_extra=allows())
    async def file(name: str, request: Request) -> Response:
        if name not in held:
            raise HTTPException(404)
        return _answer(held[name], request)

    return router


def _read_files() -> Iterator[tuple[str, _File]]:
    for each in files("service").joinpath("web/console").iterdir():
        content = each.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        media_type = _MEDIA_TYPES[PurePath(each.name).suffix]
        yield each.name, _File(content, {**_HEADERS, "Content-Type": media_type, "ETag": etag})


def _answer(file: _File, request: Request) -> Response:
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    if file.headers["ETag"] in known:
        return Response(status_code=304, headers=file.headers)
    return Response(file.content, headers=file.headers)
