"""From where a stream follows a log: its end, or where its client was."""

from __future__ import annotations

from argus_ray.core import paths
from argus_ray.core.actions import FindAttempt
from argus_ray.core.errors import LogNotFound
from argus_ray.core.model import Attempt
from argus_ray.core.states import TaskState
from argus_ray.disk import logs
from argus_ray.gateway.caller import Caller
from argus_ray.gateway.context import GatewayParts
from argus_ray.gateway.logs.stream import Find, Follower, Place, StreamTiming


def finder(caller: Caller, task_id: str) -> Find:
    """In the caller's name."""

    async def find(number: int | None) -> tuple[TaskState, Attempt | None]:
        found: tuple[TaskState, Attempt | None] = await caller.do(FindAttempt(task_id, number))
        return found

    return find


async def begin(
    gateway: GatewayParts,
    find: Find,
    found: tuple[TaskState, Attempt | None],
    place: Place | None,
    *,
    number: int | None,
    tail: int,
    timing: StreamTiming | None = None,
) -> Follower:
    """`found`: what `find(number)` has just said; `number`: of one attempt alone; `tail`: lines from the end, for a
    client without a place. Raises LogNotFound."""
    state, attempt = found
    if attempt is None:
        offset = 0
    elif place is None:
        offset = await _offset(gateway, attempt, tail)
    else:
        offset = place.offset
        if number is None and place.number is not None and place.number != attempt.number:
            attempt = await _earlier(find, place.number, attempt)
            offset = place.offset if attempt.number == place.number else 0

    # A stream begins at most `log_tail_bytes` before the end. What is written until its first look makes no gap.
    most = gateway.settings.limits.log_tail_bytes
    backlog = logs.Backlog(2 * most, most // 4)

    async def read(root: str, after: int, final: bool) -> logs.Span:
        return await gateway.in_file_thread(_read_lines, root, after, final, backlog)

    return Follower(
        find, read, timing or gateway.timing, state=state, attempt=attempt, offset=offset, pinned=number is not None
    )


async def _earlier(find: Find, number: int, newest: Attempt) -> Attempt:
    """The attempt that the client was reading, so that it misses nothing of it; the newest if there is none
    such.
    """
    try:
        _, attempt = await find(number)
    except LogNotFound:
        return newest
    return attempt or newest


async def _offset(gateway: GatewayParts, attempt: Attempt, lines: int) -> int:
    root = attempt.job_root
    limit = gateway.settings.limits.log_tail_bytes
    try:
        return await gateway.in_file_thread(logs.tail_offset, root, paths.driver_log(root), lines, limit)
    except FileNotFoundError:
        return 0
    except (logs.NotReadable, ValueError):
        raise LogNotFound() from None


def _read_lines(root: str, after: int, final: bool, backlog: logs.Backlog) -> logs.Span:
    return logs.read_lines_from(root, paths.driver_log(root), after, final=final, backlog=backlog)
