"""What the watchdog and the head launcher say of themselves: log lines for people, and a status file for health checks.

Neither may fail: a full disk of this machine, or a reader that has gone, must not end the node.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from argus_ray.disk import atomic


class Journal:
    """Log lines on stdout, one for each decision, and the status file. A line that only repeats is not written."""

    def __init__(self, role: str, status_path: Path) -> None:
        self._role = role
        self._path = status_path
        self._said: str | None = None
        self._written: dict[str, Any] | None = None

    def say(self, verb: str, reason: str) -> None:
        line = f"{verb}: {reason}"
        # Numbers change with the time (seconds left, ages); the same sentence with other numbers is no news.
        key = re.sub(r"\d+(\.\d+)? s\b", "_ s", line)
        if key == self._said:
            return
        self._said = key
        moment = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        # Whoever reads our output may have gone.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.write(f"{moment} argus-{self._role} {line}\n")
            sys.stdout.flush()

    def status(self, **facts: Any) -> None:
        """The whole content of the status file; written only if it has changed."""
        if facts == self._written:
            return
        try:
            atomic.write_atomically(self._path, json.dumps(facts, indent=1).encode() + b"\n", mode=0o644)
        except OSError as error:
            self.say("warning", f"the status file {self._path} cannot be written: {error.strerror}")
            return
        self._written = facts
