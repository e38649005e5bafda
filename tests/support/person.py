"""A person at a shell: types commands and sees a screen, which is kept for whoever wants to look at it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.terminal import BOUND_S, Terminal

#: Of the shell: the exit code of the command before.
PROMPT = r"\[(\d+)\] %\s*$"


class Person:
    """With a home of their own, and a `python3` that is that of the tests."""

    def __init__(
        self, home: Path, screens: Path, *, at: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        """`screens`: the folder for what they see. `at`: where they type; by default at home."""
        bin_folder = home / "bin"
        bin_folder.mkdir(parents=True, exist_ok=True)
        if not (bin_folder / "python3").is_symlink():
            (bin_folder / "python3").symlink_to(sys.executable)
        own = {
            **(environ or {}),
            "HOME": str(home),
            "PATH": f"{bin_folder}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "PS1": "[$?] % ",
            "NO_PROXY": "*",
        }
        command = ["/bin/bash", "--noprofile", "--norc", "-i"]
        self.terminal = Terminal(command, own, columns=100, rows=40, cwd=str(at or home))
        self.terminal.until(PROMPT)
        self._screens = screens
        screens.mkdir(parents=True, exist_ok=True)

    def run(self, command: str, *, secret: str | None = None, within_s: float = BOUND_S, code: int = 0) -> str:
        """What the terminal shows of it; `secret`: what it asks for. It ends with this exit code."""
        self.begin(command)
        if secret is not None:
            self.terminal.until("Token for")
            self.terminal.send(secret + "\r")
        return self.ends(command, within_s=within_s, code=code)

    def begin(self, command: str) -> None:
        """Type it; it goes on."""
        self.terminal.screen.reset()
        self.terminal.screen.history.top.clear()
        self.terminal.send(command + "\r")

    def sees(self, pattern: str, within_s: float = BOUND_S) -> str:
        """Until what goes on shows this."""
        return self.terminal.until(pattern, within_s)

    def ends(self, command: str, *, within_s: float = BOUND_S, code: int = 0) -> str:
        shown = self.terminal.until(PROMPT, within_s)
        number = sum(1 for _ in self._screens.iterdir()) + 1
        name = re.sub(r"\W+", "-", command)[:40].strip("-")
        (self._screens / f"{number:02}-{name}.txt").write_text(shown.rstrip() + "\n")
        found = re.search(PROMPT, shown)
        assert found is not None and int(found[1]) == code, shown
        return shown

    def interrupts(self, command: str, *, within_s: float = BOUND_S, code: int = 0) -> str:
        """Ctrl-C."""
        self.terminal.interrupt()
        return self.ends(command, within_s=within_s, code=code)

    def leaves(self) -> None:
        self.terminal.close()
