"""A filesystem without flock, as the kernel tells of it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: As `sitecustomize` of a program: files below the folder {folder} have no flock.
_SITE = """
import errno, fcntl, os
flock = fcntl.flock

def refuse(fd, operation):
    if os.readlink(f"/proc/self/fd/{{fd if isinstance(fd, int) else fd.fileno()}}").startswith({folder!r}):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    flock(fd, operation)

fcntl.flock = refuse
"""


@contextmanager
def lacking_flock(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSYS) -> Iterator[None]:
    """In this process, for all files."""

    def refuse(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        yield


def site_without_flock(where: Path, folder: Path) -> str:
    """A folder for the front of a program's PYTHONPATH: for it the files below `folder` have no flock."""
    where.mkdir()
    (where / "sitecustomize.py").write_text(_SITE.format(folder=f"{folder}/"))
    return str(where)
