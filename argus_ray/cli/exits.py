"""The exit codes of `argus`, and the errors that carry them. Scripts rely on the numbers: none changes its meaning."""

from __future__ import annotations

from collections.abc import Sequence

OK = 0
BUG = 1
USAGE = 2
#: What was sent breaks a rule.
REFUSED = 3
#: No token, a bad one, or one that may not do this.
TOKEN = 4
#: Not there, not the caller's, or more than one.
NOT_FOUND = 5
#: It does not go with what is there now.
CONFLICT = 6
#: Not reachable after the retries.
UNREACHABLE = 7
#: `--timeout` is over.
TIMEOUT = 8
FAILED = 10
CANCELED = 11
INTERRUPTED = 130

#: Beside the codes, what docs/cli.md says of each.
MEANINGS: tuple[tuple[int, str], ...] = (
    (OK, "done; of a task that was waited for: SUCCEEDED"),
    (BUG, "a bug, of the command or of the service"),
    (USAGE, "the command line is wrong, or a file (the configuration, the output) cannot be used"),
    (REFUSED, "what was sent breaks a rule: the error names the fields"),
    (TOKEN, "no token, an invalid one, or one that may not do this"),
    (NOT_FOUND, "not found, or an id that more than one task answers to"),
    (CONFLICT, "in conflict with what is there: the task has ended, the name is taken, the queue is full"),
    (UNREACHABLE, "the service cannot be reached, after retries for a minute"),
    (TIMEOUT, "`--timeout` is over"),
    (FAILED, "the task FAILED; of `logs -f --attempt N`: this attempt did not succeed"),
    (CANCELED, "the task was CANCELED"),
    (INTERRUPTED, "Ctrl-C; the task goes on"),
)

_BY_CODE = {"ambiguous_node": NOT_FOUND, "queue_full": CONFLICT, "stale_writer": UNREACHABLE}
_BY_STATUS = {401: TOKEN, 403: TOKEN, 404: NOT_FOUND, 409: CONFLICT, 410: NOT_FOUND, 429: CONFLICT}


def of_problem(code: str, status: int) -> int:
    """The exit code for a problem that the service has answered."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status in (502, 503, 504):
        return UNREACHABLE
    return BUG if status >= 500 else REFUSED


def of_state(state: str) -> int:
    """The exit code for a task that has ended."""
    return {"FAILED": FAILED, "CANCELED": CANCELED}.get(state, OK)


def of_states(states: Sequence[str]) -> int:
    """Of several: a failure counts before a cancel, and both before success."""
    codes = {of_state(state) for state in states}
    return FAILED if FAILED in codes else CANCELED if CANCELED in codes else OK


class CliError(Exception):
    """What went wrong, in words for a person. Shown on stderr without a traceback."""

    def __init__(
        self,
        message: str,
        exit_code: int,
        *,
        code: str = "",
        fields: Sequence[tuple[str, str]] = (),
        hint: str = "",
        request_id: str = "",
        candidates: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.code = code
        self.fields = tuple(fields)
        self.hint = hint
        self.request_id = request_id
        #: Lines that are shown below the message, each as it is.
        self.candidates = tuple(candidates)


class Ended(Exception):
    """No error: the command has said all that it has to say, and exits with this code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Detached(KeyboardInterrupt):
    """Ctrl-C while a task was followed. `words` say what goes on."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words
