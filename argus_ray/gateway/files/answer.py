"""A download as an answer: opened, with its headers, and on its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import Request, Response

from argus_ray.core.actions import FindAttempt, Principal
from argus_ray.core.model import Attempt
from argus_ray.disk.job_files import Openable, Readable
from argus_ray.gateway.caller import Caller, holder_of
from argus_ray.gateway.files import ranges
from argus_ray.gateway.files.download import Download, parts
from argus_ray.gateway.files.ranges import Span
from argus_ray.gateway.http import problems
from argus_ray.gateway.http.access import is_head
from argus_ray.gateway.http.problems import RangeNotSatisfiable
from argus_ray.gateway.logs.sockets import flow_to


async def download(
    request: Request,
    caller: Caller,
    principal: Principal,
    task_id: str,
    attempt: Attempt,
    opening: Openable[Readable],
    name: bytes,
    more_headers: Mapping[str, str] | None = None,
) -> Response:
    """What is to be opened, or the part of it that Range asks for, to be saved under this name. Raises NoSuchFile, and
    Unavailable if the disk does not answer or too many are under way."""
    downloads = caller.gateway.downloads
    release = downloads.limit.acquire(holder_of(principal))
    try:
        file = await downloads.open(opening)
    except BaseException:
        release()
        raise

    def end() -> None:
        opening.leave()
        release()

    headers = {"X-Argus-Attempt": str(attempt.number), **(more_headers or {})}
    try:
        return _answer(request, caller, task_id, attempt, file, name, headers, end)
    except BaseException:
        end()
        raise


def _answer(
    request: Request,
    caller: Caller,
    task_id: str,
    attempt: Attempt,
    file: Readable,
    name: bytes,
    more_headers: Mapping[str, str],
    end: Callable[[], None],
) -> Response:
    tag = ranges.etag(file.version)
    span: Span | None = None
    # The headers of a HEAD are those of the whole file: only a GET has ranges.
    if not is_head(request.scope):
        given = request.headers.getlist
        try:
            span = ranges.asked_for(given("range"), given("if-range"), tag, file.size)
        except RangeNotSatisfiable as error:
            end()
            told = {"Content-Range": f"bytes */{file.size}", "Accept-Ranges": "bytes", "ETag": tag}
            return problems.response(request, error, told)
    headers = ranges.headers(name=name, tag=tag, modified_at=file.modified_at, size=file.size, span=span)
    downloads = caller.gateway.downloads

    async def check() -> None:
        await caller.do(FindAttempt(task_id, attempt.number))

    body = parts(downloads, file, span or Span(0, file.size), check)
    status = 200 if span is None else 206
    flow = flow_to(request.scope, downloads.flow, downloads.send_queues)
    return Download(body, end, flow, status=status, headers={**headers, **more_headers})
