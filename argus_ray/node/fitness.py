"""Whether programs can start on this machine: the shared root is the one that it had joined with, and Python starts.

A machine that fails here would take tasks and lose each of them. "It does not answer" is no trouble: nothing follows
from a filesystem that hangs.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from argus_ray.discovery import sentinel
from argus_ray.disk.bounded import BoundedCall

#: Between two looks, and the bound of one; seconds.
LOOK_EVERY_S = 15.0
_TIMEOUT_S = 10.0
#: What Ray runs on a node on which nothing runs.
_IDLE = re.compile(r"ray::(IDLE|DashboardAgent|RuntimeEnvAgent)")


@dataclass(frozen=True)
class Trouble:
    reason: str
    #: Seconds.
    lasts_s: float


class Fitness:
    """Of one machine. Times are seconds of a monotonic clock."""

    def __init__(self, folder: Path, python: str, read: Callable[[Path], sentinel.Sentinel] = sentinel.read) -> None:
        """`folder`: of the cluster's discovery files. `python`: as a job's command names it."""
        self._folder, self._python, self._read = folder, python, read
        self._patience: BoundedCall[str | None] = BoundedCall(_TIMEOUT_S)
        self._root: str | None = None
        self._reason: str | None = None
        self._since = 0.0
        self._again_at = float("-inf")

    def look(self, now: float) -> Trouble | None:
        """What is wrong, since when. Looks anew every LOOK_EVERY_S."""
        if now >= self._again_at:
            self._again_at = now + LOOK_EVERY_S
            try:
                reason = self._patience.call(self._ask)
            except TimeoutError:
                reason = self._reason  # nothing is known; what was, stays
            if reason is not None and self._reason is None:
                self._since = now
            self._reason = reason
        return None if self._reason is None else Trouble(self._reason, now - self._since)

    def _ask(self) -> str | None:
        try:
            found = self._read(self._folder).id
        except sentinel.RootUnknown as error:
            # Without one before it: an older root, or none yet, which head.json tells.
            if self._root is not None:
                return f"the shared root has gone: {error}"
        else:
            if self._root not in (None, found):
                return f"another shared root is mounted: its id is {found}, and {self._root} was joined with"
            self._root = found
        return self._python_trouble()

    def _python_trouble(self) -> str | None:
        try:
            done = subprocess.run(
                [self._python, "-c", ""], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S * 0.8
            )
        except subprocess.TimeoutExpired:
            return None
        except OSError as error:
            return f"{self._python} does not start: {error.strerror or error}"
        words = done.stderr.decode(errors="replace").strip().splitlines()
        return None if done.returncode == 0 else f"{self._python} does not start: {(words or ['no word'])[-1][:200]}"


def is_busy(commands: Iterable[str]) -> bool:
    """Whether something of a job runs, by the command lines of a node's processes."""
    return any(
        "argus_runner.py" in command or (command.startswith("ray::") and not _IDLE.match(command))
        for command in commands
    )
