"""A program at a terminal, and what it shows."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import pexpect
import pyte

#: Seconds for what takes one of CPU, on a busy machine.
BOUND_S = 60


def as_at_login() -> None:
    """Whoever has started the tests in the background has had Ctrl-C ignored, which is inherited."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """Of this size, in characters."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        columns: int = 80,
        rows: int = 24,
        cwd: str | None = None,
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.Stream(self.screen)
        #: All that was written, with its control sequences.
        self.seen = ""
        program, *words = command
        self._child: Any = pexpect.spawn(
            program,
            words,
            env=dict(environ),
            dimensions=(rows, columns),
            encoding="utf-8",
            timeout=BOUND_S,
            cwd=cwd,
            preexec_fn=as_at_login,
        )
        self._child.delaybeforesend = None

    def until(self, pattern: str, within_s: float = BOUND_S) -> str:
        """Until the terminal shows this; no silence longer than `within_s`. AssertionError with what it shows."""
        try:
            while not re.search(pattern, self.text):
                self._take(self._child.read_nonblocking(4096, within_s))
        except (pexpect.EOF, pexpect.TIMEOUT):
            raise AssertionError(f"{pattern!r} is not in\n{self.text}") from None
        return self.text

    def end(self) -> int:
        """Until it has ended; its exit code, or minus the signal that ended it."""
        with contextlib.suppress(pexpect.EOF):
            while True:
                self._take(self._child.read_nonblocking(4096, BOUND_S))
        self._child.close()
        exit_code, by_signal = self._child.exitstatus, self._child.signalstatus
        return int(-by_signal if exit_code is None else exit_code)

    def close(self) -> None:
        """At once, whatever it does."""
        self._child.close(force=True)

    def send(self, text: str) -> None:
        self._child.send(text)

    def interrupt(self) -> None:
        self._child.sendintr()

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        self._child.setwinsize(rows, columns)

    @property
    def text(self) -> str:
        """What is on the screen, and what has left it."""
        above = ["".join(row[place].data for place in sorted(row)).rstrip() for row in self.screen.history.top]
        return "\n".join([*above, *(line.rstrip() for line in self.screen.display)])

    def _take(self, text: str) -> None:
        self.seen += text
        self._stream.feed(text)
