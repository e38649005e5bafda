"""Real processes with real shared memory, as an attempt makes it and, killed, leaves it."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SHM = Path("/dev/shm")

_HOLD = """
import mmap, os, signal, sys
kept = []
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 8192)
    kept.append(mmap.mmap(fd, 8192))
    os.close(fd)
print("up", flush=True)
signal.pause()
"""


class Segments:
    """Of one test. `close` ends its processes and removes its files."""

    def __init__(self) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        self._made: list[Path] = []

    def name(self, pattern: str = "psm_{}") -> Path:
        """Of a file that is not there yet; nobody else's. {}: eight hexadecimal digits."""
        path = SHM / pattern.format(secrets.token_hex(4))
        self._made.append(path)
        return path

    def hold(self, *files: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """A process that has made these, if they were not there, and has them in its memory."""
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", _HOLD, *map(str, files)],
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
        )
        self._holders.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait(30)

    def close(self) -> None:
        for process in self._holders:
            self.kill(process)
            if process.stdout is not None:
                process.stdout.close()
        for path in self._made:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
