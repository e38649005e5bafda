"""What the client raises, as errors of the command: the exit code, and what to do next."""

from __future__ import annotations

from argus_ray.cli.exits import BUG, TIMEOUT, UNREACHABLE, USAGE, CliError, of_problem
from argus_ray.client import errors

#: What to type next, where the service's own hint does not say it better.
_NEXT = {
    "unauthenticated": "argus login URL, with a valid token",
    "user_disabled": "ask an operator to enable your user",
    "forbidden": "log in with an admin's token",
    "task_not_found": "argus tasks",
    "user_not_found": "argus user ls",
    "token_not_found": "argus token ls USER",
    "node_not_found": "argus nodes",
    "ambiguous_node": "name it by its address or by Ray's node id",
    "queue_full": "cancel a task that waits, or submit again later",
    "idempotency_conflict": "use another --key, or leave it out",
    "task_not_ended": "argus cancel ID, or argus wait ID",
    "files_gone": "ask an operator: the files are in the trash, or deleted",
    "log_not_found": "argus show ID lists the attempts",
    "file_not_found": "argus files ID lists them",
    "internal": "report it to the operator, with the request id",
    "illegal_transition": "report it to the operator, with the request id",
}


def told(error: Exception) -> CliError | None:
    """None for what is no error of the client."""
    if isinstance(error, errors.ApiError):
        hint = _NEXT.get(error.code) or error.hint or ""
        return CliError(
            error.detail or error.title,
            of_problem(error.code, error.status),
            code=error.code,
            fields=[(each.field, each.rule) for each in error.errors],
            hint=hint,
            request_id=error.request_id or "",
        )
    if isinstance(error, errors.ServerUnreachable):
        return CliError(error.detail, UNREACHABLE, code="unreachable", hint="is the URL right? argus context ls")
    if isinstance(error, errors.BadAnswer):
        is_fault = error.status is not None and error.status < 300
        return CliError(error.detail, BUG if is_fault else UNREACHABLE, code="bad_answer", hint="argus context ls")
    if isinstance(error, errors.WaitTimeout):
        return CliError(error.detail, TIMEOUT, code="timeout")
    if isinstance(error, errors.BadArgument):
        return CliError(str(error), USAGE)
    if isinstance(error, OSError) and error.filename is not None:
        return CliError(f"{error.filename}: {error.strerror}", USAGE)
    return None
