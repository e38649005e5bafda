"""Folders and logs of ours on a machine's local disk, where others may have been first: below /tmp anybody may make a
folder of our name, and put links into it. Imports nothing of ours."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from pathlib import Path
from typing import BinaryIO


class NotOurs(OSError):
    """It is there, and somebody else could change what is in it. Its words say what to do."""


def make_folder(path: Path, mode: int = 0o755) -> None:
    """A folder that only we can write, also if it was there before. Raises NotOurs, and OSError for all else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=mode)
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raises NotOurs, and OSError if it is not there."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        what = "a link" if path.is_symlink() else "no folder"
        raise NotOurs(f"{path} is {what}: delete it, or name another folder") from None
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    if found.st_uid != os.geteuid():
        raise NotOurs(f"{path} belongs to {user(found.st_uid)}: have it deleted, or name another folder")
    if found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        raise NotOurs(f"{path} can be written by others (mode {mode:04o}): chmod go-w {path}, or name another folder")


def user(uid: int) -> str:
    """In words."""
    with contextlib.suppress(KeyError):
        return f"the user {pwd.getpwuid(uid).pw_name}"
    return f"the user {uid}"


def open_log(path: Path, *, append: bool = False) -> BinaryIO:
    """To write, from the beginning unless told otherwise. Raises OSError, also for a link or what is no plain file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_APPEND if append else 0)
    fd = os.open(path, flags, 0o644)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotOurs(f"{path} is no plain file: delete it")
        if not append:
            os.ftruncate(fd, 0)
        return os.fdopen(fd, "ab" if append else "wb")
    except BaseException:
        os.close(fd)
        raise
