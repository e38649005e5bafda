"""What is written, where: data to stdout, words about it to stderr. No colour and no redrawing off a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from argus_ray.cli import safe, when
from argus_ray.cli import table as tables
from argus_ray.cli.exits import CliError

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36, "dim": 2, "bold": 1}
_STATE_COLOURS = {
    "RUNNING": "green",
    "SUCCEEDED": "blue",
    "FAILED": "red",
    "CANCELED": "dim",
    "WAITING": "yellow",
    "STARTING": "cyan",
}


@dataclass
class Flags:
    """The options that every command has."""

    context: str | None = None
    json: bool = False
    quiet: bool = False
    color: str = "auto"
    utc: bool = False
    debug: bool = False


class Out:
    def __init__(self, flags: Flags, environ: Mapping[str, str], stdout: TextIO | None = None) -> None:
        self.flags = flags
        self._environ = environ
        self._stdout = stdout or sys.stdout
        self.is_tty = self._stdout.isatty()
        #: What time it is: by the server's clock, once it has answered.
        self.now: Callable[[], float] = time.time
        self._ascii_only = not (getattr(self._stdout, "encoding", None) or "utf-8").lower().startswith("utf")
        self.tells = not (flags.quiet or flags.json)
        self._colour = self._has_colour(self._stdout)
        self._colour_stderr = self._has_colour(sys.stderr)

    def _has_colour(self, stream: TextIO) -> bool:
        if self.flags.color != "auto":
            return self.flags.color == "always"
        is_dumb = self._environ.get("TERM") == "dumb" or bool(self._environ.get("NO_COLOR"))
        return stream.isatty() and not is_dumb

    @property
    def has_colour(self) -> bool:
        return self._colour

    @property
    def redraws(self) -> bool:
        """Whether a view may be drawn over."""
        return self.is_tty and not self.flags.json and self._environ.get("TERM") != "dumb"

    # Data.

    def line(self, text: str = "") -> None:
        """One line of data, as it is: the caller has made it fit (safe.py)."""
        self._stdout.write(text + "\n")
        self._stdout.flush()

    def write(self, text: str) -> None:
        self._stdout.write(text)
        self._stdout.flush()

    def document(self, value: Any) -> None:
        """The API's own document."""
        self.line(safe.document(value, ascii_only=self._ascii_only))

    def event(self, value: Any) -> None:
        """One of many documents: one a line."""
        self.line(safe.document(value, indent=None, ascii_only=self._ascii_only))

    def table(self, columns: Sequence[tables.Column], rows: Sequence[Sequence[str]], *, headers: bool = True) -> None:
        for each in self.table_lines(columns, rows, headers=headers):
            self.line(each)

    def table_lines(
        self, columns: Sequence[tables.Column], rows: Sequence[Sequence[str]], *, headers: bool = True
    ) -> list[str]:
        limit = terminal_columns() if self.is_tty else None
        return tables.lines(columns, rows, headers=headers, limit=limit, paint=self._paint_cell)

    def room(self, columns: Sequence[tables.Column], rows: Sequence[Sequence[str]], most: int) -> int:
        """Columns of the terminal that are left beside these for a small picture, at most so many."""
        return max(0, min(most, tables.room(columns, rows, terminal_columns()))) if self.is_tty else most

    def pairs(self, pairs: Sequence[tuple[str, str | None]]) -> None:
        """Names and values, one pair a line; a value of several lines is indented. None is left out."""
        for each in self.pair_lines(pairs):
            self.line(each)

    def pair_lines(self, pairs: Sequence[tuple[str, str | None]]) -> list[str]:
        shown = [(name, value) for name, value in pairs if value is not None]
        wide = max((len(name) for name, _ in shown), default=0)
        found = []
        for name, value in shown:
            first, *more = value.split("\n")
            found.append(f"{self.paint(name.ljust(wide), 'dim')}  {first}".rstrip())
            found += [" " * (wide + 2) + line for line in more]
        return found

    # Words.

    def note(self, text: str) -> None:
        """For people; left out where a program reads."""
        if self.tells:
            self._err(text)

    def warn(self, text: str) -> None:
        self._err(f"{self._painted('warning:', 'yellow', self._colour_stderr)} {text}")

    def error(self, error: CliError) -> None:
        if self.flags.json:
            self._err(safe.document(problem_of(error), indent=None))
            return
        code = f" ({error.code})" if error.code else ""
        first, *more = safe.lines(error.message)
        self._err(f"{self._painted('error:', 'red', self._colour_stderr)} {first}{code}")
        for each in more:
            self._err(f"  {each}")
        for name, rule in error.fields:
            self._err(f"  {safe.cell(name)}: {safe.cell(rule)}")
        for each in error.candidates:
            self._err(f"  {each}")
        hint = f"next: {safe.cell(error.hint)}" if error.hint else ""
        request = f"request {safe.cell(error.request_id)}" if error.request_id else ""
        if hint or request:
            self._err("  " + (" " * 8).join(part for part in (hint, request) if part))

    def _err(self, text: str) -> None:
        try:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        except BrokenPipeError:
            raise
        except OSError:
            pass  # of a full disk, nobody can be told

    # Forms.

    def paint(self, text: str, colour: str | None) -> str:
        return self._painted(text, colour, self._colour)

    def state(self, state: str) -> str:
        return self.paint(state, _STATE_COLOURS.get(state))

    def _paint_cell(self, column: str, text: str, padded: str) -> str:
        if column == "STATE":
            return self.paint(padded, _STATE_COLOURS.get(text))
        return padded

    @staticmethod
    def _painted(text: str, colour: str | None, on: bool) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if on and colour else text

    def age(self, stamp: str | None) -> str:
        """How long ago on a terminal; the time itself in a pipe."""
        if stamp is None:
            return "-"
        if not self.is_tty:
            return stamp
        if self.flags.utc:
            return when.local(stamp, utc=True)
        return when.short_span(self.now() - when.unix(stamp))

    def time(self, stamp: str | None) -> str:
        """To the second on a terminal; as the API has it in a pipe."""
        if stamp is None:
            return "-"
        return when.local(stamp, utc=self.flags.utc) if self.is_tty else stamp

    def moment(self, stamp: str | None) -> str | None:
        """A time, and on a terminal how long ago; None for none."""
        if stamp is None:
            return None
        if not self.is_tty or self.flags.utc:
            return self.time(stamp)
        away = self.now() - when.unix(stamp)
        return (
            f"{self.time(stamp)} ({when.span(away)} ago)"
            if away >= 0
            else f"{self.time(stamp)} (in {when.span(-away)})"
        )


def terminal_size() -> tuple[int, int]:
    """Columns and rows, as shutil tells them, whose import takes longer than all of this module."""
    told = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    found = [int(each) if each.isdecimal() else 0 for each in told]
    if 0 in found:
        try:
            size = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1)
        except (OSError, ValueError, AttributeError):
            size = os.terminal_size((0, 0))
        found = [known or seen or usual for known, seen, usual in zip(found, size, (80, 24), strict=True)]
    return found[0], found[1]


def terminal_columns() -> int:
    return terminal_size()[0]


def problem_of(error: CliError) -> dict[str, Any]:
    """An error for programs, in the members of the service's own problems."""
    found: dict[str, Any] = {"code": error.code or "client", "detail": error.message, "exit_code": error.exit_code}
    if error.fields:
        found["errors"] = [{"field": name, "rule": rule} for name, rule in error.fields]
    if error.candidates:
        found["candidates"] = list(error.candidates)
    if error.request_id:
        found["request_id"] = error.request_id
    if error.hint:
        found["next"] = error.hint
    return found
