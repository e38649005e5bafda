"""The folder of a one-machine cluster: it is ours alone, it holds nothing else, and one program at a time uses it.

A marker file says that the folder is ours, and which processes belong to it. So a folder that holds anything else is
never emptied, and what a crash has left can be ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

from argus_ray.node import processes

#: Says that the folder is ours, and which processes belong to it.
MARKER = ".argus-quickstart"
_MARK = "quickstart-"
#: Seconds that a program has to stop what it has started.
_END_S = 60


class Refused(Exception):
    """What was asked for could do harm, or cannot be done here. Nothing has been done."""


def usable_root(folder: str) -> Path:
    """The folder, which need not be there yet. Raises Refused if it is not there for us alone."""
    path = Path(folder)
    if path.is_symlink():
        raise Refused(f"{path} is a link; name the folder itself")
    _check(path.resolve())
    return path.resolve()


def claim(root: Path) -> str:
    """Make the folder, or end what runs in ours and empty it; the new mark of our processes. Raises Refused."""
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    _check(root)  # again: someone may have been faster
    old, _, owner = _marker_in(root).partition("\n")
    if owner and owner != processes.identity(os.getpid()) and processes.lives(owner):
        raise Refused(f"process {owner.split()[0]} uses {root} and lives; end it with --stop, or take another --dir")
    if old:
        processes.end_marked(old, grace_s=5)
    root.chmod(0o700)
    for entry in root.iterdir():
        # The marker stays: should this be broken off, the folder is still ours.
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    mark = _MARK + secrets.token_hex(8)
    # Who has started them, too: the lock alone is no proof that nobody lives, since it can be deleted.
    (root / MARKER).write_text(f"{mark}\n{processes.identity(os.getpid())}")
    return mark


def mark_in(root: Path) -> str:
    """The mark of the processes that were started in our folder; empty if there is none."""
    return _marker_in(root).partition("\n")[0]


def _marker_in(root: Path) -> str:
    text = (root / MARKER).read_text() if _is_file(root / MARKER) else ""
    return text if text.startswith(_MARK) else ""


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold the folder for as long as this process runs. Raises Refused if another one does."""
    root.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_lock(root, os.O_CREAT)
    try:
        if not _try_lock(descriptor):
            raise Refused(f"another one is running in {root}; end it with --stop, or take another --dir")
        os.ftruncate(descriptor, 0)
        try:
            os.write(descriptor, str(os.getpid()).encode())  # whom `end` has to tell
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def end(root: Path) -> bool:
    """End the program that holds the folder, and what it or a crash has left; False if there is nothing.

    Raises TimeoutError if the program does not end.
    """
    running = _end_holder(root)
    mark = mark_in(root)
    left = bool(mark) and bool(processes.marked(mark))
    if left:
        processes.end_marked(mark, grace_s=5)
    return running or left


def _end_holder(root: Path) -> bool:
    """Have the program that holds the folder stop what it has started; False if there is none."""
    try:
        descriptor = _open_lock(root)
    except FileNotFoundError:
        return False

    def has_ended() -> bool:
        if _try_lock(descriptor):
            return True
        if holder := os.pread(descriptor, 20, 0):  # else it has just begun, or is about to end
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(holder), signal.SIGTERM)
        return False

    try:
        if _try_lock(descriptor):
            return False
        if not processes.wait_until(has_ended, _END_S, poll_s=0.5):
            raise TimeoutError("the one that is running does not end")
        return True
    finally:
        os.close(descriptor)


def _check(root: Path) -> None:
    """Refuse a folder that is not there for us alone."""
    try:
        found = root.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"{root} is {'a link' if stat.S_ISLNK(found.st_mode) else 'not a folder'}")
    if found.st_uid != os.getuid():
        raise Refused(f"{root} belongs to another user; take another --dir")
    if found.st_mode & 0o022:
        raise Refused(f"{root} can be written by others: chmod go-w {root}, or take another --dir")
    if any(root.iterdir()) and not _is_file(root / MARKER):
        raise Refused(f"{root} holds something else than a quickstart; delete it yourself, or take another --dir")


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _lock_file(root: Path) -> Path:
    """Beside the folder, since the folder is emptied. It stays; what counts is who has locked it."""
    return root.parent / f"{root.name}.lock"


def _open_lock(root: Path, flags: int = 0) -> int:
    """Raises Refused for one that is not a plain file of ours with this name alone: it is truncated, and whom it names
    is told to end. Raises FileNotFoundError."""
    path = _lock_file(root)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Refused(f"{path} cannot be used ({error.strerror}): delete it, or take another --dir") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_nlink != 1:
        os.close(descriptor)
        raise Refused(f"{path} is not a file of ours alone: delete it, or take another --dir")
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
