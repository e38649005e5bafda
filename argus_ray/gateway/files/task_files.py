"""Which attempt's files a request means, and the names in it."""

from __future__ import annotations

from urllib.parse import unquote, unquote_to_bytes

from starlette.types import Scope

from argus_ray.core import job_files
from argus_ray.core.errors import FieldError, FileNotFoundInJobRoot, FilesGone, InvalidRequest
from argus_ray.core.job_files import BrokenPath
from argus_ray.core.model import Attempt, FilesAt, Task

_BEFORE_PATH = b"/files/"
_WHERE = {
    FilesAt.LEAVING: "They are on their way to the trash of the task's user.",
    FilesAt.TRASH: "They are in the trash of the task's user, where an operator still finds them.",
    FilesAt.DELETED: "They have been deleted.",
}


def require_files(task: Task) -> None:
    """Raises FilesGone if the job roots of this task are not where they were."""
    if task.files_at is not FilesAt.JOB_ROOT:
        raise FilesGone(f"The files of this task have left its job roots. {_WHERE[task.files_at]}")


def attempt_of(task: Task, number: int | None) -> Attempt | None:
    """The attempt of this number; None for the newest: the newest, if there is one. Raises FileNotFoundInJobRoot."""
    if number is None:
        return task.attempts[-1] if task.attempts else None
    for attempt in task.attempts:
        if attempt.number == number:
            return attempt
    raise FileNotFoundInJobRoot(f"The task has no attempt {number}.")


def names(path: bytes) -> tuple[str, ...]:
    """Raises InvalidRequest with the rule that the path breaks."""
    try:
        return job_files.names_of(path)
    except BrokenPath as broken:
        raise InvalidRequest("The path breaks a rule.", [FieldError("path", str(broken))]) from None


def path_in_url(scope: Scope, decoded: str) -> bytes:
    """What stands behind `/files/`, in the bytes that were sent. `decoded`: the same, as the route has it.

    A server decodes the path before it finds the route: an encoded slash is one to it, and what is not UTF-8 is lost.
    Raises InvalidRequest for an encoded slash.
    """
    raw: bytes = (scope.get("raw_path") or b"").partition(b"?")[0]
    at = raw.find(_BEFORE_PATH)
    while at >= 0:
        tail = raw[at + len(_BEFORE_PATH) :]
        if unquote(tail.decode("latin-1")).rstrip("\n") == decoded.rstrip("\n"):
            if b"%2f" in tail.lower():
                rule = "may hold no encoded slash"
                raise InvalidRequest("The path breaks a rule.", [FieldError("path", rule)])
            return unquote_to_bytes(tail)
        at = raw.find(_BEFORE_PATH, at + 1)
    return decoded.encode("utf-8", "replace")


def path_in_query(scope: Scope) -> bytes:
    """The bytes of the parameter `path`; empty without one. The last one, as the framework takes it."""
    query: bytes = scope.get("query_string", b"")
    for pair in reversed(query.split(b"&")):
        name, _, value = pair.partition(b"=")
        if unquote_to_bytes(name.replace(b"+", b" ")) == b"path":
            return unquote_to_bytes(value.replace(b"+", b" "))
    return b""
