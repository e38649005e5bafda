"""`GET /api/v2/stream`: what changes of the caller's tasks, as server-sent events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

import argus_ray
from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.core.watching import Watch, WatchTasks
from argus_ray.gateway.caller import Caller, TheCaller, TheGateway, holder_of
from argus_ray.gateway.changes.listener import ChangeListener
from argus_ray.gateway.changes.log_part import KnownAttempts, LogPart
from argus_ray.gateway.changes.streams import ChangeStream, ChangeStreams
from argus_ray.gateway.changes.wire import LastId
from argus_ray.gateway.http.params import StrictQuery, possible_id
from argus_ray.gateway.http.schemas import rfc3339
from argus_ray.gateway.logs import following
from argus_ray.gateway.logs.routes import LAST_EVENT_ID
from argus_ray.gateway.logs.sockets import flow_to
from argus_ray.gateway.logs.stream import Place

router = APIRouter(tags=["tasks"])

#: Tasks whose progress one stream tells.
MAX_PROGRESS = 50

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        # No schema: some tools take one for that of an event.
        "content": {"text/event-stream": {"example": "event: task\ndata: {}\nid: 0123456789abcdef\n\n"}},
        "description": "Events `hello`, `task`, `counts`, `progress`, `log`, `log_attempt`, `log_gap`, `log_end`, "
        "`log_error`, `resync`, `status`, `error`",
    }
}


class ChangesQuery(StrictQuery):
    progress: list[str] = Field(
        default=[], max_length=MAX_PROGRESS, description="Tasks whose progress is told; repeated, or by commas"
    )
    log: str | None = Field(default=None, max_length=128, description="A task whose log is told as well")
    log_tail: int = Field(
        default=2000, ge=0, le=1_000_000, description="Lines from the end of the log to begin with; 0: only new ones"
    )
    user_id: str | None = Field(default=None, max_length=64, description="Another user's tasks: admin only")
    everyone: bool = Field(default=False, description="Everybody's tasks: admin only")

    def progress_ids(self) -> list[str]:
        ids = dict.fromkeys(name.strip() for value in self.progress for name in value.split(",") if name.strip())
        if len(ids) > MAX_PROGRESS:
            raise InvalidRequest("These are too many.", [FieldError("progress", f"at most {MAX_PROGRESS} tasks")])
        return list(dict.fromkeys(map(possible_id, ids)))


@router.get("/api/v2/stream", response_class=Response, responses=_EVENTS, openapi_extra=LAST_EVENT_ID)
async def stream_changes(
    request: Request, caller: TheCaller, gateway: TheGateway, query: Annotated[ChangesQuery, Query()]
) -> Response:
    """Follow all changes of own tasks, the progress of some, and one log. `Last-Event-ID` goes on after a broken
    line.
    """
    streams: ChangeStreams = request.app.state.changes
    last = LastId.parse(request.headers.get("last-event-id", ""))
    wanted = query.progress_ids()
    log_of = None if query.log is None else possible_id(query.log)
    asked = WatchTasks(
        user_id=query.user_id,
        everyone=query.everyone,
        after=None if last is None else last.place,
        task_ids=tuple(dict.fromkeys([*wanted, *([] if log_of is None else [log_of])])),
    )
    watch: Watch = await caller.do(asked)
    log_place = None if last is None or log_of is None else last.in_log_of(log_of)
    # First the places: where a log begins is looked for on the disk.
    release = _take_places(caller, streams, watch, has_log=log_of is not None)
    try:
        log = None if log_of is None else await _begin_log(caller, streams, log_of, log_place, query.log_tail)
        listener = ChangeListener(
            streams.hub,
            streams.rounds,
            streams.render,
            caller.do,
            asked,
            watch,
            digest=caller.credential.digest,
            progress_of=frozenset(wanted),
            hello={"version": argus_ray.__version__, "head_id": gateway.head_id, "now": rfc3339(gateway.clock())},
            log=log,
            log_place=log_place,
        )
    except BaseException:
        release()
        raise
    return ChangeStream(listener.parts(), release, flow_to(request.scope, gateway.flow, gateway.send_queues))


async def _begin_log(caller: Caller, streams: ChangeStreams, task_id: str, place: Place | None, tail: int) -> LogPart:
    attempts = KnownAttempts(following.finder(caller, task_id))
    found = await attempts(None)
    follower = await following.begin(
        caller.gateway, attempts, found, place, number=None, tail=tail, timing=streams.log_timing
    )
    return LogPart(task_id, follower, attempts)


def _take_places(caller: Caller, streams: ChangeStreams, watch: Watch, *, has_log: bool) -> Any:
    """A log that is followed takes a place of those of logs as well. Raises Unavailable."""
    holder = holder_of(watch.principal)
    releases = [streams.limit.acquire(holder)]
    if has_log:
        try:
            releases.append(caller.gateway.streams.acquire(holder))
        except Exception:
            releases[0]()
            raise

    def release() -> None:
        for each in releases:
            each()

    return release
