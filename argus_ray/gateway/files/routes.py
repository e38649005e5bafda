"""The files of a task's job roots: a folder's content, and downloads."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from argus_ray.core.actions import GetTask
from argus_ray.core.errors import FieldError, FileNotFoundInJobRoot, InvalidRequest
from argus_ray.core.model import Attempt
from argus_ray.disk import job_files
from argus_ray.disk.job_files import IsFolder, Listing, NoSuchFile, Opening
from argus_ray.gateway.caller import TheCaller, TheGateway, holder_of
from argus_ray.gateway.context import GatewayParts
from argus_ray.gateway.files import answer, task_files
from argus_ray.gateway.files.schemas import EntryOut, FilesOut
from argus_ray.gateway.http.document import PROBLEM
from argus_ray.gateway.http.params import AttemptParams, FilesParams, TaskId, header_parameters
from argus_ray.gateway.http.schemas import Problem

router = APIRouter(prefix="/api/v2/tasks", tags=["files"])

_TEXT = {"schema": {"type": "string"}}
_HEADERS: dict[str, Any] = {
    name: {"required": True, **_TEXT}
    for name in ("Accept-Ranges", "Content-Disposition", "ETag", "Last-Modified", "X-Argus-Attempt")
}
_BYTES: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": _BYTES, "description": "The whole file", "headers": _HEADERS},
    206: {
        "content": _BYTES,
        "description": "The part that Range asks for",
        "headers": _HEADERS | {"Content-Range": {"required": True, **_TEXT}},
    },
    416: {
        "model": Problem,
        "description": PROBLEM,
        "headers": {
            "Content-Range": {"required": True, **_TEXT, "description": "`bytes */SIZE`"},
            "Accept-Ranges": _TEXT,
            "ETag": _TEXT,
        },
    },
}
RANGE = header_parameters({"Range": "One range: `bytes=100-`", "If-Range": "An ETag: else all of it"})


@router.get("/{task_id}/files")
async def list_files(
    request: Request, caller: TheCaller, gateway: TheGateway, task_id: TaskId, query: FilesParams
) -> FilesOut:
    """A folder of an attempt's job root; links are shown and not followed."""
    # Both go in one batch.
    view, principal = await caller.do_as(GetTask(task_id))
    path = task_files.path_in_query(request.scope)
    names = task_files.names(path)
    after = _decode_cursor(query.cursor)
    task_files.require_files(view.task)
    attempt = task_files.attempt_of(view.task, query.number)
    found = await gateway.downloads.lists.run(
        holder_of(principal), lambda: _listing(gateway, attempt, names, after, query.limit)
    )
    above = b"".join(part + b"/" for part in path.split(b"/") if part)
    last = found.entries[-1].name if found.entries else after
    return FilesOut(
        task_id=view.task.task_id,
        attempt=attempt and attempt.number,
        entries=[EntryOut.of(above, entry) for entry in found.entries],
        next_cursor=_encode_cursor(last) if found.has_more else None,
        complete=found.complete,
    )


async def _listing(
    gateway: GatewayParts, attempt: Attempt | None, names: Sequence[str], after: bytes, limit: int
) -> Listing:
    nothing = Listing((), False, True)
    if attempt is None:
        if names:
            raise FileNotFoundInJobRoot("The task has no attempt yet.")
        return nothing
    root = attempt.job_root
    try:
        return await gateway.downloads.run(lambda: job_files.list_folder(root, names, after, limit))
    except NoSuchFile as error:
        if not names:
            return nothing  # the run has not begun
        raise FileNotFoundInJobRoot(f"Nothing to list here: {error}.") from None


@router.get("/{task_id}/files/{path:path}", response_class=Response, responses=ANSWERS, openapi_extra=RANGE)
async def download_file(
    request: Request, caller: TheCaller, task_id: TaskId, path: str, query: AttemptParams
) -> Response:
    """A file of an attempt's job root, or with `Range` a part of it. Never shown by a browser: always to be saved."""
    # Both go in one batch.
    view, principal = await caller.do_as(GetTask(task_id))
    names = task_files.names(task_files.path_in_url(request.scope, path))
    task_files.require_files(view.task)
    attempt = task_files.attempt_of(view.task, query.number)
    if attempt is None or not names:
        raise FileNotFoundInJobRoot()
    try:
        opening = Opening(attempt.job_root, names)
        return await answer.download(request, caller, principal, task_id, attempt, opening, os.fsencode(names[-1]))
    except IsFolder:
        raise FileNotFoundInJobRoot("This is a folder: list it by `files?path=`.") from None
    except NoSuchFile as error:
        raise FileNotFoundInJobRoot(f"Nothing to download here: {error}.") from None


def _encode_cursor(name: bytes) -> str:
    return base64.urlsafe_b64encode(b"f" + name).decode().rstrip("=")


def _decode_cursor(cursor: str | None) -> bytes:
    """The name behind which the page begins."""
    if cursor is None:
        return b""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError:
        text = b""
    if not text.startswith(b"f") or _encode_cursor(text[1:]) != cursor:
        rule = "must come from a page before"
        raise InvalidRequest("The cursor is not one of this list.", [FieldError("cursor", rule)])
    return text[1:]
