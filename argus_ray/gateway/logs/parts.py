"""A part of an attempt's log, and all of it, as the bytes that they are."""

from __future__ import annotations

from fastapi import Request, Response

from argus_ray.core import paths
from argus_ray.core.actions import FindAttempt, GetTask, Principal
from argus_ray.core.errors import LogNotFound
from argus_ray.core.model import Attempt
from argus_ray.core.states import TaskState
from argus_ray.disk import logs
from argus_ray.disk.job_files import NoSuchFile
from argus_ray.disk.log_file import LogOpening
from argus_ray.gateway.caller import Caller, holder_of
from argus_ray.gateway.files import answer, ranges, task_files
from argus_ray.gateway.files.ranges import Asked
from argus_ray.gateway.http import problems
from argus_ray.gateway.http.access import is_head
from argus_ray.gateway.http.problems import RangeNotSatisfiable

TEXT = "text/plain; charset=utf-8"


def asked(request: Request) -> Asked | None:
    """Which bytes of the log the request asks for."""
    given = request.headers.getlist
    # A HEAD has no ranges. A log has no ETag here, so with If-Range it is not the same one.
    return None if is_head(request.scope) else ranges.parse(given("range"), given("if-range"), None)


async def part(request: Request, caller: Caller, task_id: str, number: int | None, wish: Asked) -> Response:
    """At most `limits.log_tail_bytes` of it, none of them beyond a gap. Raises LogNotFound and FilesGone."""
    (state, attempt), principal = await caller.do_as(FindAttempt(task_id, number))
    headers = _headers(state, attempt)
    size = 0

    def wanted(size_now: int) -> tuple[int, int]:
        nonlocal size
        size = size_now
        span = wish.of(size)
        return span.start, span.end

    try:
        if attempt is None:
            raise RangeNotSatisfiable
        found = await _read(caller, principal, task_id, attempt, wish, wanted)
        if found is not None and found.gap is not None:
            headers["X-Argus-Log-Gap"] = "{}-{}".format(*found.gap)
        if found is None or not found.data:
            raise RangeNotSatisfiable
    except RangeNotSatisfiable as error:
        return problems.response(request, error, {**headers, "Content-Range": f"bytes */{size}"})
    last = found.start + len(found.data) - 1
    headers["Content-Range"] = f"bytes {found.start}-{last}/{found.size}"
    return Response(found.data, 206, headers, TEXT)


async def _read(
    caller: Caller, principal: Principal, task_id: str, attempt: Attempt, wish: Asked, wanted: logs.Wanted
) -> logs.Range | None:
    """None: there is no log yet."""
    root = attempt.job_root
    most = caller.gateway.settings.limits.log_tail_bytes

    def read() -> logs.Range:
        return logs.read_range(root, paths.driver_log(root), wanted, most, from_end=wish.first is None)

    try:
        return await caller.gateway.in_file_turn(holder_of(principal), read)
    except FileNotFoundError:
        await require_log(caller, task_id)
        return None
    except (logs.NotReadable, ValueError):
        raise LogNotFound() from None


async def whole(request: Request, caller: Caller, task_id: str, number: int | None) -> Response:
    """To be saved. Raises LogNotFound, FilesGone, Unavailable."""
    # Both go in one batch.
    found, principal = await caller.do_as(FindAttempt(task_id, number))
    state, attempt = found
    if attempt is None:
        raise LogNotFound("The task has no attempt yet.")
    root = attempt.job_root
    opening = LogOpening(root, paths.driver_log(root))
    name = f"{attempt.submission_id}.log".encode()
    try:
        return await answer.download(
            request, caller, principal, task_id, attempt, opening, name, _headers(state, attempt)
        )
    except NoSuchFile as error:
        await require_log(caller, task_id)
        raise LogNotFound(f"Nothing to download here: {error}.") from None


async def require_log(caller: Caller, task_id: str) -> None:
    """Of an attempt whose log was not found. Raises FilesGone if it is not to come, since it was taken away."""
    task_files.require_files((await caller.do(GetTask(task_id))).task)


def _headers(state: TaskState, attempt: Attempt | None) -> dict[str, str]:
    headers = {"X-Argus-Task-State": state.value, "Accept-Ranges": "bytes"}
    if attempt is not None:
        headers["X-Argus-Attempt"] = str(attempt.number)
    return headers
