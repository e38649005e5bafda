"""An attempt's log: its tail as text, a part or all of it as it is, and its growth as server-sent events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from argus_ray.core import paths
from argus_ray.core.actions import FindAttempt
from argus_ray.core.errors import LogNotFound
from argus_ray.core.model import Attempt
from argus_ray.disk import logs
from argus_ray.gateway.caller import TheCaller, TheGateway, holder_of
from argus_ray.gateway.context import GatewayParts
from argus_ray.gateway.files.routes import ANSWERS, RANGE
from argus_ray.gateway.http.document import PROBLEM
from argus_ray.gateway.http.params import AttemptParams, LogParams, StreamParams, TaskId, header_parameters
from argus_ray.gateway.http.schemas import Problem
from argus_ray.gateway.logs import following, parts
from argus_ray.gateway.logs.event_stream import EventStream
from argus_ray.gateway.logs.sockets import flow_to
from argus_ray.gateway.logs.stream import Place

router = APIRouter(prefix="/api/v2/tasks", tags=["logs"])

_STRING: dict[str, Any] = {"schema": {"type": "string"}}
_HEADERS: dict[str, Any] = {
    "X-Argus-Task-State": {"required": True, **_STRING},
    "X-Argus-Attempt": {"schema": {"type": "integer"}, "description": "None before there is one"},
}
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/plain": _STRING},
        "description": "The last lines",
        "headers": _HEADERS | {"X-Argus-Log-Position": {**_STRING, "description": "For Last-Event-ID of a stream"}},
    },
    206: {
        "content": {"text/plain": _STRING},
        "description": "The bytes that Range asks for, or the first of them",
        "headers": _HEADERS
        | {
            "Accept-Ranges": {"required": True, **_STRING},
            "Content-Range": {"required": True, **_STRING},
            "X-Argus-Log-Gap": {**_STRING, "description": "`from-to`: bytes of the log that are gone"},
        },
    },
    416: {
        "model": Problem,
        "description": PROBLEM,
        "headers": _HEADERS | {"Accept-Ranges": _STRING, "Content-Range": {"required": True, **_STRING}},
    },
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        # No schema: some tools take one for that of an event.
        "content": {"text/event-stream": {"example": "id: 1:7\ndata: a line\n\n"}},
        "description": "The log as it grows: events `attempt`, `gap`, `end`, `error`, and its lines without a name",
    }
}
LAST_EVENT_ID = header_parameters({"Last-Event-ID": "Go on after this event"})


@router.get("/{task_id}/logs", response_class=Response, responses=_TEXT, openapi_extra=RANGE)
async def get_log(
    request: Request, caller: TheCaller, gateway: TheGateway, task_id: TaskId, query: LogParams
) -> Response:
    """The last lines of an attempt's log as text, empty while there is none yet; with `Range` a part of it as it is."""
    asked = parts.asked(request)
    if asked is not None:
        return await parts.part(request, caller, task_id, query.number, asked)
    (state, attempt), principal = await caller.do_as(FindAttempt(task_id, query.number))
    headers = {"X-Argus-Task-State": state.value}
    text = b""
    if attempt is not None:
        text, end = await _tail(gateway, holder_of(principal), attempt, query.tail)
        headers["X-Argus-Attempt"] = str(attempt.number)
        #: A stream with this Last-Event-ID goes on exactly here.
        headers["X-Argus-Log-Position"] = f"{attempt.number}:{end}"
    return Response(text, headers=headers, media_type=parts.TEXT)


_TASK_STATE = {"X-Argus-Task-State": _STRING}
#: As of a file, and the state of its task.
_DOWNLOADS: dict[int | str, dict[str, Any]] = ANSWERS | {
    status: {**ANSWERS[status], "headers": ANSWERS[status]["headers"] | _TASK_STATE} for status in (200, 206, 416)
}


@router.get("/{task_id}/logs/download", response_class=Response, responses=_DOWNLOADS, openapi_extra=RANGE)
async def download_log(request: Request, caller: TheCaller, task_id: TaskId, query: AttemptParams) -> Response:
    """An attempt's whole log as a file to be saved, or with `Range` a part of that file."""
    return await parts.whole(request, caller, task_id, query.number)


async def _tail(gateway: GatewayParts, holder: str, attempt: Attempt, lines: int) -> tuple[bytes, int]:
    """As UTF-8, and where it ends in the log."""
    root = attempt.job_root
    limit = gateway.settings.limits.log_tail_bytes

    def read() -> tuple[bytes, int]:
        # Megabytes take a while, so not on the loop.
        span = logs.read_tail(root, paths.driver_log(root), lines, limit)
        return logs.as_utf8(span.data), span.end

    try:
        return await gateway.in_file_turn(holder, read)
    except FileNotFoundError:
        return b"", 0
    except (logs.NotReadable, ValueError):
        raise LogNotFound() from None


@router.get("/{task_id}/logs/stream", response_class=Response, responses=_EVENTS, openapi_extra=LAST_EVENT_ID)
async def stream_log(
    request: Request, caller: TheCaller, gateway: TheGateway, task_id: TaskId, query: StreamParams
) -> Response:
    """Follow the log as server-sent events until the event `end`. `Last-Event-ID` resumes after a broken
    line.
    """
    place = Place.parse(request.headers.get("last-event-id", ""))
    find = following.finder(caller, task_id)
    found, principal = await caller.do_as(FindAttempt(task_id, query.number))
    # First the place: where a stream begins is looked for on the disk.
    release = gateway.streams.acquire(holder_of(principal))
    try:
        follower = await following.begin(gateway, find, found, place, number=query.number, tail=query.tail)
    except BaseException:
        release()
        raise
    return EventStream(follower.events(), release, flow_to(request.scope, gateway.flow, gateway.send_queues))
