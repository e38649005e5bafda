"""Small files on the shared filesystem: written whole or not at all, read with a bound. Imports nothing of ours."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

#: Nothing that we read here is larger; a bound keeps a foreign file from filling our memory.
MAX_BYTES = 64 * 1024


class NotAFile(OSError):
    """There is a folder, a device or the like where a plain file should be."""


def open_plain(name: str | Path, flags: int = 0, *, dir_fd: int | None = None) -> int:
    """A descriptor of a plain file, open for reading. Never waits (on a FIFO, say). Raises OSError, and NotAFile for
    what is something else."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise NotAFile(f"{name} is not a plain file") from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotAFile(f"{name} is not a plain file")
    return fd


def read_small(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a plain file, at most `limit` + 1 bytes of it. Never waits. Raises OSError."""
    fd = open_plain(path)
    try:
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
