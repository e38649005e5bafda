"""The API's own description: /openapi.json, and the page that shows it. FastAPI's know no prefix but a root path, and
take a path that begins like the prefix for one that has it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
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


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Open, likewise."""
    return get_swagger_ui_html(
        openapi_url=f"{_prefix(request)}/openapi.json", title=f"{request.app.title} - Swagger UI"
    )


def _prefix(request: Request) -> str:
    return outer_prefix(request.scope, request.app.state.gateway.trusted)
