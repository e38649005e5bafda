"""What a run leaves free on the filesystem of its job root (ARGUS_RESERVE_BYTES; argus_ray/core/reserve.py has the
scheduler's side): the database of the pool is there, and a print loop must not keep it from being written.

Standard library only. A look may hang with its filesystem, so it belongs into a thread that may hang: the one that
writes the log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

VARIABLE = "ARGUS_RESERVE_BYTES"
#: From one look to the next, in seconds.
EVERY_S = 2.0
#: Bytes after which the next look comes sooner: a fast program fills a small filesystem between two.
EVERY_BYTES = 1 << 20


class Reserve:
    """Whether less than the reserve is free, by own looks now and then. Who writes what can be done without asks before
    each write, and counts what it leaves out."""

    def __init__(self, folder: int | str, reserve: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`folder`: on the filesystem, a path or an open descriptor. `reserve`: bytes; 0: there is none."""
        self.reserve = reserve
        self._folder = folder
        self._monotonic = monotonic
        self._looked_at = float("-inf")
        self._written = 0
        self._is_low = False

    @classmethod
    def of_job(cls, folder: int | str, environ: Mapping[str, str] = os.environ) -> Reserve:
        """What the environment says; a number that is none is no reserve."""
        value = environ.get(VARIABLE, "")
        return cls(folder, int(value) if value.isascii() and value.isdecimal() else 0)

    def is_low(self, upcoming: int = 0) -> bool:
        """`upcoming`: bytes that the caller means to write now."""
        if not self.reserve:
            return False
        self._written += upcoming
        now = self._monotonic()
        if now - self._looked_at >= EVERY_S or self._written >= EVERY_BYTES:
            self._looked_at, self._written = now, 0
            self._look()
        return self._is_low

    def _look(self) -> None:
        try:
            seen = os.statvfs(self._folder)
        except OSError:
            return  # not known: what was known stands
        if not seen.f_blocks:
            return  # it does not count what is free
        # More must be free again than the reserve, so that not each block that becomes free is written full.
        bound = self.reserve + (max(1, self.reserve // 10) if self._is_low else 0)
        self._is_low = seen.f_bavail * seen.f_frsize < bound
