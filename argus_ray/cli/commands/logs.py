"""logs."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from argus_ray.cli import draw, following, ids, safe, task_words
from argus_ray.cli.app import Command
from argus_ray.cli.exits import BUG, FAILED, OK, USAGE, CliError, Ended, of_state
from argus_ray.cli.session import Session, pass_session
from argus_ray.client import paths

if TYPE_CHECKING:
    from argus_ray.client.models.results import LogEnd

#: Bytes of one call of a download; the most that the server gives.
_PIECE = 4 * 1024 * 1024
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_ATTEMPT = re.compile(r"all|latest|[1-9][0-9]{0,5}")


@click.command(cls=Command)
@click.argument("typed", metavar="ID")
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with what comes, until the task, and what runs for it, has ended."
)
@click.option("-n", "number", type=click.IntRange(0, 1_000_000), metavar="N", help="The last N lines.  [default: 2000]")
@click.option("--attempt", metavar="N|all", default="latest", help="Of this attempt, or of all one after the other.")
@click.option("--grep", metavar="RE", help="Only lines that this regular expression matches somewhere.")
@click.option(
    "--download",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write the whole log, byte for byte, to this new file.",
)
@click.option("--raw", is_flag=True, help="With the escape sequences that the program has written.")
@pass_session
def logs(
    session: Session,
    typed: str,
    follow: bool,
    number: int | None,
    attempt: str,
    grep: str | None,
    download: str | None,
    raw: bool,
) -> None:
    """Print the log of a task, or follow it.

    -f waits before the start, goes on with the next attempt after a loss, and survives restarts of the service. It
    exits with 10 if the task FAILED, 11 if it was CANCELED. Ctrl-C leaves the task alone.

    Without -f and -n, --grep searches the whole log, on the server.
    """
    if not _ATTEMPT.fullmatch(attempt):
        raise click.BadParameter("must be a number, latest or all", param_hint="--attempt")
    if follow and attempt == "all":
        raise click.UsageError("--attempt all and -f exclude each other: -f goes on with each attempt that comes.")
    if download is not None and (follow or grep or number is not None):
        raise click.UsageError("--download takes the whole log: without -f, -n and --grep.")
    if grep is not None:
        _pattern(grep)
    task_id = ids.one(session, typed)
    if follow:
        raise Ended(_follow(session, task_id, number, attempt, grep, raw=raw))
    attempts = _all_attempts(session, task_id) if attempt == "all" else [attempt]
    if download is not None:
        _download(session, task_id, attempts, download)
        return
    for each in attempts:
        if attempt == "all":
            session.out.note(f"attempt {each}:")
        if grep is not None and number is None:
            _search(session, task_id, each, grep, raw=raw)
        else:
            _print(session, task_id, each, number, grep, raw=raw)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise click.BadParameter(f"no regular expression: {error}", param_hint="--grep") from None


def _all_attempts(session: Session, task_id: str) -> list[str]:
    task = session.server.get(paths.TASK, {"task_id": task_id})
    return [str(each["number"]) for each in task["attempts"]]


def _print(session: Session, task_id: str, attempt: str, number: int | None, grep: str | None, *, raw: bool) -> None:
    text, headers = session.server.text(paths.LOGS, {"task_id": task_id}, tail=number, attempt=attempt)
    out = session.out
    if not text:
        state = headers.get("x-argus-task-state", "")
        if state in task_words.WAITING:
            out.note(f"no log yet: the task waits; argus explain {ids.short(task_id)}")
        elif not headers.get("x-argus-attempt"):
            out.note("no log yet")
        return
    if raw and grep is None and not out.flags.json:
        out.write(text if text.endswith("\n") else text + "\n")
        return
    lines = re.split(r"\r\n|\n|\r", text)
    if lines[-1] == "":
        lines.pop()
    pattern = _pattern(grep) if grep is not None else None
    shown = headers.get("x-argus-attempt", "")
    for line in lines:
        if pattern is None or pattern.search(line):
            _show(session, task_id, int(shown) if shown.isdecimal() else None, None, line, raw=raw)


def _show(session: Session, task_id: str, attempt: int | None, offset: int | None, text: str, *, raw: bool) -> None:
    if session.out.flags.json:
        session.out.event({"task_id": task_id, "attempt": attempt, "offset": offset, "text": text})
    else:
        session.out.line(text if raw else safe.line(text))


def _search(session: Session, task_id: str, attempt: str, grep: str, *, raw: bool) -> None:
    place: int | None = None
    line: int | None = None
    while True:
        query: dict[str, Any] = {"q": grep, "regex": True, "from": place, "attempt": attempt, "limit": 500}
        found = session.server.get(paths.LOG_SEARCH, {"task_id": task_id}, **query)
        if session.out.flags.json:
            session.out.event(found)
        for each in [] if session.out.flags.json else found["matches"]:
            # A line with two matches is shown once.
            if each["line_start"] is None or each["line_start"] != line:
                text = each["text"] + (" [...]" if each["truncated"] else "")
                session.out.line(text if raw else safe.line(text))
            line = each["line_start"]
        if found["complete"] or found["next"] is None:
            return
        # A place is one of this log; "the newest" may be another one by then.
        place, attempt = found["next"], str(found["attempt"] or attempt)


def _download(session: Session, task_id: str, attempts: list[str], to: str) -> None:
    if to == "-":
        for each in attempts:
            for piece in _pieces(session, task_id, each):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    path = Path(to)
    if path.exists():
        raise CliError(f"{to} is there already", USAGE, hint="name another file")
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        # "x": neither a link that somebody has laid there nor the part of another download is written.
        with part.open("xb") as file:
            size = sum(_written(file, piece) for each in attempts for piece in _pieces(session, task_id, each))
        part.replace(path)
    except OSError as error:
        raise CliError(f"{to}: {error.strerror}", USAGE) from None
    finally:
        part.unlink(missing_ok=True)
    session.out.note(f"{to}: {draw.size(size)}")


def _written(file: IO[bytes], piece: bytes) -> int:
    file.write(piece)
    return len(piece)


def _pieces(session: Session, task_id: str, attempt: str) -> Iterator[bytes]:
    """The log as it is at the last piece, from its first byte."""
    from argus_ray.client.errors import RangeNotSatisfiable

    start = 0
    while True:
        headers = {"Range": f"bytes={start}-{start + _PIECE - 1}", "Accept-Encoding": "identity"}
        try:
            answer = session.server.answer(paths.LOGS, {"task_id": task_id}, {"attempt": attempt}, headers)
        except RangeNotSatisfiable:
            return  # it ends here, or is empty
        match = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        if match is None:
            if not answer.content:
                return  # there is none yet
            words = "the answer is not the part of the log that was asked for: a proxy may drop the header Range"
            raise CliError(words, BUG)
        # The next attempt must not go on where this one ends.
        attempt = answer.headers.get("x-argus-attempt", attempt)
        gap = answer.headers.get("x-argus-log-gap")
        if gap:
            session.out.warn(f"the bytes {safe.cell(gap)} of the log are gone: it was longer than the server keeps")
        yield answer.content
        start = int(match[2]) + 1
        if start >= int(match[3]):
            return


def _follow(session: Session, task_id: str, number: int | None, attempt: str, grep: str | None, *, raw: bool) -> int:
    from argus_ray.client.models.results import Line, LogAttempt, LogEnd, LogGap

    out = session.out
    pattern = _pattern(grep) if grep is not None else None
    with following.detachable([task_id], "logs -f"):
        if out.tells:
            _tell_waiting(session, task_id)
        wanted = None if attempt == "latest" else attempt
        first = True
        # Whether the end of a line that comes in parts is still to come.
        is_open = False
        for item in session.server.client.log_events(task_id, tail=number, attempt=wanted):
            if is_open and not isinstance(item, Line):
                out.line()
                is_open = False
            if isinstance(item, Line):
                if pattern is None and not out.flags.json and (is_open or not item.ends):
                    text = item.text if raw else safe.line(item.text)
                    out.write(text + ("\n" if item.ends else ""))
                    is_open = not item.ends
                elif pattern is None or pattern.search(item.text):
                    _show(session, task_id, item.attempt, item.offset, item.text, raw=raw)
            elif isinstance(item, LogAttempt):
                if item.number > 1 or not first:
                    out.note(f"attempt {item.number}:")
                first = False
            elif isinstance(item, LogGap):
                out.warn(f"{draw.size(item.end - item.start)} of the log are left out (bytes {item.start}-{item.end})")
            elif isinstance(item, LogEnd):
                return _ended(session, task_id, item)
    raise AssertionError("the client's stream ends with its end")  # it raises where the server cannot be reached


def _tell_waiting(session: Session, task_id: str) -> None:
    task: Mapping[str, Any] = session.server.get(paths.TASK, {"task_id": task_id})
    if task["state"] in task_words.WAITING:
        start = task_words.starts(task.get("start"), session.out.now())
        session.out.note(f"it waits to start: {task_words.reason(task)}" + (f"; {start}" if start else ""))


def _ended(session: Session, task_id: str, end: LogEnd) -> int:
    from argus_ray.client.errors import ArgusError

    state = end.task_state
    if state not in task_words.FINAL:
        # Of the one attempt that was asked for; its task goes on.
        session.out.note(f"attempt {end.attempt} has ended: {end.outcome}")
        return OK if end.outcome == "SUCCEEDED" else FAILED
    if session.out.tells and state in task_words.FINAL:
        # Words alone: how it ended is known, and is the exit code whether or not they can be had.
        with contextlib.suppress(ArgusError):
            task = session.server.get(paths.TASK, {"task_id": task_id})
            session.out.note(task_words.ended_line(task))
            if state == "FAILED":
                for line in task_words.failure_lines(task):
                    session.out.note(f"  {line}")
    return of_state(state)
