"""The audit over HTTP, for admins: pages of it, and its growth as server-sent events. The wire, then the routes."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, JsonValue

from argus_ray.core.audit import AuditEntry, AuditFilter, AuditNews, AuditPage, FollowAudit, ListAudit
from argus_ray.core.errors import ArgusError
from argus_ray.core.usage import milliseconds
from argus_ray.gateway.audit_feed import AuditFeed
from argus_ray.gateway.caller import Caller, TheCaller, TheGateway, holder_of
from argus_ray.gateway.http.params import StrictQuery, decode_numbers, encode_numbers, header_parameters
from argus_ray.gateway.http.schemas import Time, rfc3339, tellable
from argus_ray.gateway.http.times import time_or_day_of
from argus_ray.gateway.logs.event_stream import EventStream
from argus_ray.gateway.logs.sockets import flow_to
from argus_ray.gateway.logs.stream import KEEP_ALIVE, encoded

router = APIRouter(prefix="/api/v2/audit", tags=["cluster (admin)"])

_ID = re.compile(r"[0-9]{1,18}")


class FollowQuery(StrictQuery):
    user: str | None = Field(default=None, max_length=64, description="Whose the target is")
    actor: str | None = Field(default=None, max_length=64, description="Who did it: a user, `admin` or `internal`")
    action: str | None = Field(default=None, max_length=64, description="Such as `task.submit`")


class AuditQuery(FollowQuery):
    since: str | None = Field(default=None, max_length=40, description="A time, a day, or how long ago, such as 2h")
    until: str | None = Field(default=None, max_length=40, description="Likewise; what was done before then")
    limit: int = Field(default=100, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=64, description="From the page before")


class AuditEntryOut(BaseModel):
    audit_id: int
    at: Time
    actor: str | None = Field(description="A user, `admin` or `internal`; null: a token that nobody knows")
    role: str
    token_id: str | None = Field(description="Of an admin's token the variable that holds it")
    address: str | None = Field(description="Of the client, as trusted proxies tell it")
    action: str
    target: str | None
    user_id: str | None = Field(description="Whose the target is")
    result: str = Field(description="`done`, or the code of the refusal")
    detail: dict[str, JsonValue] | None

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditEntryOut:
        return cls(
            audit_id=entry.audit_id,
            at=rfc3339(tellable(entry.at_ms / 1000)),
            actor=entry.actor,
            role=entry.role,
            token_id=entry.token_id,
            address=entry.address,
            action=entry.action,
            target=entry.target,
            user_id=entry.user_id,
            result=entry.result,
            detail=None if entry.detail is None else dict(entry.detail),
        )


class AuditOut(BaseModel):
    entries: list[AuditEntryOut] = Field(description="Newest first")
    next_cursor: str | None


@router.get("")
async def list_audit(caller: TheCaller, gateway: TheGateway, query: Annotated[AuditQuery, Query()]) -> AuditOut:
    """Who did what to whom, when, from where, by which token: all that has changed something, and what only admins may
    and was refused to others."""
    now = gateway.clock()
    place = decode_numbers("a", query.cursor, 2)
    before = None if place is None else (place[0], place[1])
    page: AuditPage = await caller.do(ListAudit(_filter(query, now), query.limit, before))
    more = page.next_place
    return AuditOut(
        entries=[AuditEntryOut.of(entry) for entry in page.entries],
        next_cursor=None if more is None else encode_numbers("a", *more),
    )


def _filter(query: AuditQuery, now: float) -> AuditFilter:
    times = (time_or_day_of(name, getattr(query, name), now) for name in ("since", "until"))
    since, until = (None if at is None else milliseconds(at) for at in times)
    return AuditFilter(query.user, query.actor, query.action, since, until)


_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"example": 'id: 17\nevent: entry\ndata: {"audit_id": 17}\n\n'}},
        "description": "Events `entry` with an entry as in the list, `gap` for entries that are gone, `error`",
    }
}
_LAST_EVENT_ID = header_parameters({"Last-Event-ID": "Go on after this entry; without it: what is new from now on"})


@router.get("/stream", response_class=Response, responses=_EVENTS, openapi_extra=_LAST_EVENT_ID)
async def stream_audit(
    request: Request, caller: TheCaller, gateway: TheGateway, query: Annotated[FollowQuery, Query()]
) -> Response:
    """Follow the audit as server-sent events."""
    place = _ID.fullmatch(request.headers.get("last-event-id", "").strip())
    news, principal = await caller.do_as(FollowAudit())
    after = min(int(place[0]), news.newest) if place else news.newest
    release = gateway.streams.acquire(holder_of(principal))
    wanted = AuditFilter(query.user, query.actor, query.action)
    parts = _events(gateway.audit_feed, caller, wanted, after, gateway.timing.heartbeat_s)
    return EventStream(parts, release, flow_to(request.scope, gateway.flow, gateway.send_queues))


async def _events(
    feed: AuditFeed, caller: Caller, wanted: AuditFilter, after: int, heartbeat_s: float
) -> AsyncIterator[bytes]:
    async def ask(known: int | None) -> AuditNews:
        return await caller.do(FollowAudit(known))

    yield f"retry: 2000\nid: {after}\n\n".encode()
    while True:
        try:
            entries = await feed.next(after, ask, heartbeat_s)
        except ArgusError as error:
            yield _event("error", {"code": error.code, "detail": error.detail}, after)
            return
        said = False
        for entry in entries:
            if entry.audit_id > after + 1:
                yield _event("gap", {"from": after + 1, "to": entry.audit_id - 1}, entry.audit_id - 1)
            after = entry.audit_id
            if wanted.takes(entry):
                said = True
                yield _event("entry", AuditEntryOut.of(entry).model_dump(mode="json"), after)
        if not said:
            yield KEEP_ALIVE


def _event(name: str, data: dict[str, Any], place: int) -> bytes:
    return encoded(event=name, data=json.dumps(data), id=str(place))
