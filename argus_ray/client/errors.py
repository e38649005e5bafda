"""What a call can raise. One class for each `code` of the API, under one for each kind of answer.

No message has a token, a header or a body in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One broken rule: the name of the field, and the rule in words."""

    field: str
    rule: str


class ArgusError(Exception):
    """Anything that this client raises on purpose."""


class BadArgument(ArgusError, ValueError):
    """A value that no call can be made of."""


class BadAnswer(ArgusError):
    """An answer that is none of Argus: a proxy's page, say, or a document that lacks what it must have."""

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status


class ServerUnreachable(ArgusError):
    """No answer, or none but 502 to 504, for as long as was tried.

    `waited_s`: for how long, in seconds. `may_be_done`: a call that writes may have had its effect all the same.
    """

    def __init__(self, detail: str, *, waited_s: float = 0.0, may_be_done: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.waited_s = waited_s
        self.may_be_done = may_be_done


class WaitTimeout(ArgusError, TimeoutError):
    """The tasks had not ended in time. `tasks` are all that were waited for, as last seen."""

    def __init__(self, detail: str, tasks: Sequence[Any] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.tasks = tuple(tasks)


class ApiError(ArgusError):
    """The API answered with a problem document. `hint`: what to do next, in one sentence, if that is known."""

    code: ClassVar[str] = ""
    HINT: ClassVar[str] = ""

    def __init__(
        self,
        code: str,
        status: int,
        detail: str,
        *,
        title: str = "",
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
        size: int | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        """`retry_after`: seconds. `size`: of a file whose end is before a range. `document`: the problem document."""
        super().__init__(detail)
        self.code = code  # type: ignore[misc]  # of a newer server's it is not the class's
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.request_id = request_id
        self.hint = hint or self.HINT or None
        self.retry_after = retry_after
        self.size = size
        self.document = dict(document or {})

    def __str__(self) -> str:
        rules = "".join(f"; {error.field}: {error.rule}" for error in self.errors)
        return f"{self.detail} ({self.code}){rules}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_again, (type(self), self.code, self.status, self.detail, self.__dict__))


def _again(kind: type[ApiError], code: str, status: int, detail: str, rest: dict[str, Any]) -> ApiError:
    made = kind(code, status, detail)
    made.__dict__.update(rest)
    return made


# By the kind of answer.


class Refused(ApiError):
    """What was sent breaks a rule; sending it again changes nothing."""


class NotAllowed(ApiError):
    """The token is none, or not enough."""


class NotFound(ApiError):
    """What was asked for is not there, or not yours."""


class Conflict(ApiError):
    """The state of things does not allow it."""


class TryLater(ApiError):
    """It may well succeed later; `retry_after` tells when."""


class ServerFault(ApiError):
    """A bug of the server: quote the request id."""

    HINT = "Report it to the operator, with the request id."


# By code.


class InvalidSpec(Refused):
    """The TaskSpec breaks rules, or names inputs that the run could not use."""

    code = "invalid_spec"


class InvalidRequest(Refused):
    """The query, a header or the body breaks rules."""

    code = "invalid_request"


class MethodNotAllowed(Refused):
    """The path does not take this method."""

    code = "method_not_allowed"


class RequestTimeout(Refused):
    """The body did not arrive in time."""

    code = "request_timeout"


class BodyTooLarge(Refused):
    """The body is larger than the limit."""

    code = "body_too_large"


class UnsupportedMediaType(Refused):
    """The body's content type is not taken."""

    code = "unsupported_media_type"


class RangeNotSatisfiable(Refused):
    """The file ends before this range begins."""

    code = "range_not_satisfiable"


class Unauthenticated(NotAllowed):
    """The token is unknown, revoked or expired."""

    code = "unauthenticated"
    HINT = "Ask an admin for a new token, and sign in with it."


class UserDisabled(NotAllowed):
    """The user of this token is disabled."""

    code = "user_disabled"
    HINT = "Ask an admin to enable the user."


class Forbidden(NotAllowed):
    """The call needs an admin token."""

    code = "forbidden"
    HINT = "It needs an admin's token."


class RouteNotFound(NotFound):
    """The server has no such path, as one of an older version."""

    code = "not_found"
    HINT = "The server may be older than this client, or the URL may not be that of Argus."


class TaskNotFound(NotFound):
    """No such task, or not yours."""

    code = "task_not_found"


class UserNotFound(NotFound):
    """No such user."""

    code = "user_not_found"


class TokenNotFound(NotFound):
    """The user has no such token."""

    code = "token_not_found"


class NodeNotFound(NotFound):
    """No node of the pool has this name, and no cordon."""

    code = "node_not_found"


class LogNotFound(NotFound):
    """No such attempt, or its log is no plain file."""

    code = "log_not_found"


class FileNotFound(NotFound):
    """No such attempt, folder or step, or no plain file of this job root."""

    code = "file_not_found"


class FilesGone(NotFound):
    """The job roots of the task are in the trash, or deleted."""

    code = "files_gone"


class UserExists(Conflict):
    """The user id is taken."""

    code = "user_exists"


class AmbiguousNode(Conflict):
    """More than one machine goes by this name; `errors` lists their nodes."""

    code = "ambiguous_node"


class IdempotencyConflict(Conflict):
    """The key was used with another body."""

    code = "idempotency_conflict"


class TaskNotEnded(Conflict):
    """Only a task that has ended can be resubmitted."""

    code = "task_not_ended"


class NothingToResume(Conflict):
    """The task has SUCCEEDED: nothing is left to train."""

    code = "nothing_to_resume"


class NothingToExport(Conflict):
    """No complete checkpoint, or none of this step: `errors` names those that are there."""

    code = "nothing_to_export"


class QueueFull(TryLater):
    """A limit of waiting tasks is reached."""

    code = "queue_full"
    HINT = "Wait until some of your tasks have ended."


class StaleWriter(TryLater):
    """Another head has taken over; nothing was done."""

    code = "stale_writer"


class Unavailable(TryLater):
    """The server is starting or overloaded, or the shared filesystem is away."""

    code = "unavailable"


class Internal(ServerFault):
    """A bug."""

    code = "internal"


class IllegalTransition(ServerFault):
    """A bug."""

    code = "illegal_transition"


def _below(kind: type[ApiError]) -> list[type[ApiError]]:
    return [each for child in kind.__subclasses__() for each in (child, *_below(child))]


#: code -> class
BY_CODE: dict[str, type[ApiError]] = {kind.code: kind for kind in _below(ApiError) if kind.code}
_BY_STATUS = {401: NotAllowed, 403: NotAllowed, 404: NotFound, 409: Conflict, 410: NotFound, 429: TryLater}


def kind_of(code: str, status: int) -> type[ApiError]:
    """The class for a code, also for one that this client does not know."""
    if code in BY_CODE:
        return BY_CODE[code]
    if status >= 500:
        return TryLater if status == 503 else ServerFault
    return _BY_STATUS.get(status, Refused)
