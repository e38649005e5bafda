"""Small files on the shared filesystem: written whole or not at all, read with a bound. Imports nothing of ours."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

#: Nothing that we read here is larger; a bound keeps a foreign file from filling our memory.
MAX_BYTES = 64 * 1024


class NotAFile(OSError):
    """There is a folder, a device or the like where a plain file should be."""


def read_small(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a plain file, at most `limit` + 1 bytes of it. Never waits (on a FIFO, say). Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotAFile(f"{path} is not a plain file")
        content = b""
        while len(content) <= limit and (part := os.read(fd, limit + 1 - len(content))):
            content += part
        return content
    finally:
        os.close(fd)


def write_atomically(path: Path, content: bytes, *, mode: int) -> None:
    """Replace the file: a reader sees the old or the new one, whole, and after the return the new one is on disk.

    Raises OSError, and then the old one still stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            os.fchmod(fd, mode)  # whatever the umask says
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or a creation in this folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
