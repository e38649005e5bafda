"""GET /metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from argus_ray.core.actions import RequireAdmin
from argus_ray.gateway.caller import SECURITY, caller_of
from argus_ray.gateway.context import GatewayParts
from argus_ray.gateway.http.access import facts_of
from argus_ray.gateway.http.params import refuse_query
from argus_ray.gateway.monitoring.scrape import OPENMETRICS, TEXT

router = APIRouter(tags=["health"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {kind: {"schema": {"type": "string"}} for kind in (TEXT, OPENMETRICS)},
        "description": "The metrics, as Prometheus reads them; at most five seconds old",
    }
}


@router.get("/metrics", response_class=Response, responses=_ANSWERS, openapi_extra=SECURITY)
async def read_metrics(request: Request) -> Response:
    """For Prometheus, with the metrics token or an admin's. Whatever is away, it answers, and tells what is known."""
    gateway: GatewayParts = request.app.state.gateway
    if gateway.authenticator.may_scrape(request.headers.getlist("authorization")):
        facts_of(request.scope).role = "metrics"
    else:
        caller = caller_of(request)
        if caller.credential.digest is not None:
            await caller.do(RequireAdmin())  # a user's token: it is good or not, and it is no admin's
    refuse_query(request)
    content, kind = await gateway.scraper.answer(request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": kind})
