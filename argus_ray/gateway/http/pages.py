"""The API's own description, /openapi.json. FastAPI's knows no prefix but a root path, and takes a path that begins
like the prefix for one that has it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from argus_ray.gateway.http.prefix import outer_prefix

router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """Open: it holds nothing of anybody."""
    document = request.app.openapi()
    if prefix := _prefix(request):
        document = {**document, "servers": [{"url": prefix}]}
    return JSONResponse(document)


def _prefix(request: Request) -> str:
    return outer_prefix(request.scope, request.app.state.gateway.trusted)
