"""GET /argus.pyz. Open: it holds nothing of anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from argus_ray.gateway.caller import TheGateway
from argus_ray.gateway.http.document import PROBLEM
from argus_ray.gateway.http.params import header_parameters
from argus_ray.gateway.http.problems import RouteNotFound
from argus_ray.gateway.http.schemas import Problem

router = APIRouter(tags=["command"])
#: Made by scripts/make-pyz.
FILE = Path(__file__).with_name("argus.pyz")

_TEXT = {"required": True, "schema": {"type": "string"}}
_HEADERS = dict.fromkeys(("ETag", "Cache-Control", "Content-Disposition", "Accept-Ranges"), _TEXT)
_CONTENT = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": _CONTENT, "description": "To be run: `python3 argus.pyz`", "headers": _HEADERS},
    206: {
        "content": _CONTENT,
        "description": "The part that Range asks for",
        "headers": _HEADERS | {"Content-Range": _TEXT},
    },
    304: {"description": "If-None-Match has the ETag", "headers": _HEADERS},
    416: {"model": Problem, "description": PROBLEM, "headers": {"ETag": _TEXT, "Content-Range": _TEXT}},
}
_ASKED = header_parameters(
    {
        "If-None-Match": "The ETag of what is there already",
        "Range": "One range: `bytes=100-`",
        "If-Range": "An ETag: else all of it",
    }
)


class BuildQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    build: str | None = Field(
        default=None,
        max_length=64,
        description="An ETag without its quotes: this content or a 404, so it may be kept for ever",
    )


@router.get("/argus.pyz", response_class=Response, responses=_ANSWERS, openapi_extra=_ASKED)
async def get_command(request: Request, gateway: TheGateway, query: Annotated[BuildQuery, Query()]) -> Response:
    """The command `argus` of this server's version as one file, for Python 3.11 or newer."""
    build = query.build or None
    found = await gateway.command.get(FILE)
    if build is not None and build != found.tag:
        raise RouteNotFound("This server has another build of argus.pyz: get it without `build`.")
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if build else "no-cache",
        "Content-Disposition": 'attachment; filename="argus.pyz"',
    }
    return gateway.open_answers.answer(request, gateway.address_of(request.scope), found, headers, "application/zip")
