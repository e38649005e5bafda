"""GET /argus.pyz. Open: it holds nothing of anybody."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from argus_ray.gateway.http.params import header_parameters
from argus_ray.gateway.http.problems import RouteNotFound

router = APIRouter(tags=["command"])
#: Made by scripts/make-pyz.
FILE = Path(__file__).with_name("argus.pyz")

_TEXT = {"required": True, "schema": {"type": "string"}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        "description": "To be run: `python3 argus.pyz`",
        "headers": {"ETag": _TEXT, "Cache-Control": _TEXT, "Content-Disposition": _TEXT},
    },
    304: {"description": "If-None-Match has the ETag", "headers": {"ETag": _TEXT, "Cache-Control": _TEXT}},
}
_IF_NONE_MATCH = header_parameters({"If-None-Match": "The ETag of what is there already"})


class BuildQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    build: str | None = Field(
        default=None,
        max_length=64,
        description="An ETag without its quotes: this content or a 404, so it may be kept for ever",
    )


class Built(NamedTuple):
    content: bytes
    tag: str


@router.get("/argus.pyz", response_class=Response, responses=_ANSWERS, openapi_extra=_IF_NONE_MATCH)
async def get_command(request: Request, query: Annotated[BuildQuery, Query()]) -> Response:
    """The command `argus` of this server's version as one file, for Python 3.11 or newer."""
    build = query.build or None
    found = await run_in_threadpool(built, FILE)
    if build is not None and build != found.tag:
        raise RouteNotFound("This server has another build of argus.pyz: get it without `build`.")
    headers = {
        "ETag": f'"{found.tag}"',
        "Cache-Control": "public, max-age=31536000, immutable" if build else "no-cache",
    }
    if _has(request, found.tag):
        return Response(None, 304, headers)
    headers["Content-Disposition"] = 'attachment; filename="argus.pyz"'
    return Response(found.content, 200, headers, "application/zip")


def built(file: Path) -> Built:
    """Read once in the life of this process. Raises RouteNotFound if it was not made."""
    try:
        return _read(file)
    except OSError:
        raise RouteNotFound(
            "argus.pyz was not made on this head: run scripts/setup there, or scripts/make-pyz."
        ) from None


@functools.lru_cache(maxsize=1)
def _read(file: Path) -> Built:
    content = file.read_bytes()
    return Built(content, hashlib.sha256(content).hexdigest()[:32])


def _has(request: Request, tag: str) -> bool:
    """Whether If-None-Match has it; compared weakly, as RFC 9110 wants it."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return any(each.strip().removeprefix("W/") in (f'"{tag}"', "*") for each in given.split(","))
