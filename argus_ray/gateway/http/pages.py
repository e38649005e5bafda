"""The API's own description, /openapi.json. FastAPI's knows no prefix but a root path, and takes a path that begins
like the prefix for one that has it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from argus_ray.gateway.context import GatewayParts
from argus_ray.gateway.files.open_bytes import OpenBytes
from argus_ray.gateway.http.prefix import outer_prefix

#: Of which the document is kept as it goes out; a proxy has one.
_MOST_PREFIXES = 8

router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """Open: it holds nothing of anybody."""
    gateway: GatewayParts = request.app.state.gateway
    prefix = _prefix(request)
    written: dict[str, OpenBytes] = request.app.state.openapi
    if prefix not in written:
        if len(written) >= _MOST_PREFIXES:
            written.clear()
        servers = {"servers": [{"url": prefix}]} if prefix else {}
        written[prefix] = OpenBytes.of(bytes(JSONResponse(request.app.openapi() | servers).body))
    headers = {"Cache-Control": "no-cache"}
    address = gateway.address_of(request.scope)
    return gateway.open_answers.answer(request, address, written[prefix], headers, "application/json")


def _prefix(request: Request) -> str:
    return outer_prefix(request.scope, request.app.state.gateway.trusted)
