"""Every error that a user can meet. Each has a stable `code`; the gateway alone knows the HTTP status of a code.

Expected outcomes (a task that is already ended, a job that was submitted before) are return values, not errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldError:
    """One broken rule: the name of the field, and the rule in words."""

    field: str
    rule: str


class ArgusError(Exception):
    """Something in Argus failed."""

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str = "", fields: Sequence[FieldError] = ()) -> None:
        self.detail = detail or (self.__doc__ or "").strip()
        self.fields = tuple(fields)
        super().__init__(self.detail)

    def __reduce__(self) -> tuple[type[ArgusError], tuple[str, tuple[FieldError, ...]]]:
        return (type(self), (self.detail, self.fields))


class InvalidSpec(ArgusError):
    """The TaskSpec breaks a rule."""

    code = "invalid_spec"


class InvalidRequest(ArgusError):
    """The request breaks a rule."""

    code = "invalid_request"


class BodyTooLarge(ArgusError):
    """The body is larger than the limit."""

    code = "body_too_large"


class Unauthenticated(ArgusError):
    """The bearer token is missing, unknown, revoked or expired."""

    code = "unauthenticated"


class UserDisabled(ArgusError):
    """The user of this token is disabled."""

    code = "user_disabled"


class Forbidden(ArgusError):
    """This call needs the admin token."""

    code = "forbidden"


class TaskNotFound(ArgusError):
    """No such task."""

    code = "task_not_found"


class UserNotFound(ArgusError):
    """No such user."""

    code = "user_not_found"


class NodeNotFound(ArgusError):
    """No node of the pool has this hostname, address or Ray node id."""

    code = "node_not_found"


class AmbiguousNode(ArgusError):
    """More than one machine goes by this name."""

    code = "ambiguous_node"


class TokenNotFound(ArgusError):
    """No such token."""

    code = "token_not_found"


class UserExists(ArgusError):
    """A user with this id exists already."""

    code = "user_exists"


class IdempotencyConflict(ArgusError):
    """This Idempotency-Key was used before with another body."""

    code = "idempotency_conflict"


class TaskNotEnded(ArgusError):
    """The task has not ended yet."""

    code = "task_not_ended"


class NothingToResume(ArgusError):
    """The run has reached its end: with the same TaskSpec nothing is left to train."""

    code = "nothing_to_resume"


class NothingToExport(ArgusError):
    """There is no such complete checkpoint."""

    code = "nothing_to_export"


class QueueFull(ArgusError):
    """The queue has reached its limit; try again when tasks have ended."""

    code = "queue_full"


class LogNotFound(ArgusError):
    """There is no log for this attempt."""

    code = "log_not_found"


class FileNotFoundInJobRoot(ArgusError):
    """There is no such file, folder or step in this attempt's job root."""

    code = "file_not_found"


class FilesGone(ArgusError):
    """The files of this task have left its job roots."""

    code = "files_gone"


class IllegalTransition(ArgusError):
    """This move is not in the transition table."""

    code = "illegal_transition"


class StaleWriter(ArgusError):
    """Another writer has taken over the database; this one must stop."""

    code = "stale_writer"


class Unavailable(ArgusError):
    """The service is starting, or a part of it did not answer in time; try again."""

    code = "unavailable"


class DatabaseDamaged(Unavailable):
    """The database is not what was written: an operator must restore it."""
