"""What an attempt is handed as a secret: files of mode 0600 in `secrets/` of its job root.

Not in the environment nor on a command line, which Ray's records and every neighbour's `ps` show. The scheduler writes
it before it gives the attempt to Ray; who needs it takes it, from whichever node; the runner clears what nobody took.
No link is followed. Standard library only: the runner uses it on a worker, and the scheduler on the head. The names
are those of argus_ray/core/paths.py."""

from __future__ import annotations

import errno
import os
import stat

FOLDER = "secrets"
WANDB = "wandb"
#: A secret on its way to its name.
NEW = ".new"
MAX_BYTES = 4096
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def take(job_root: str, name: str) -> str | None:
    """The secret, which is gone from the disk then; None if none was handed over. Raises OSError."""
    try:
        folder = os.open(os.path.join(job_root, FOLDER), _FOLDER)
    except FileNotFoundError:
        return None
    try:
        fd = os.open(name, _FILE, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            found = os.read(fd, MAX_BYTES + 1)
        finally:
            os.close(fd)
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    finally:
        os.close(folder)
    return found.decode(errors="replace") if 0 < len(found) <= MAX_BYTES else None


def clear(root: int) -> None:
    """Nothing is left of it in the job root, which is open. Raises OSError; what a program has put there is left alone,
    and not even listed, for it may be much."""
    try:
        folder = os.open(FOLDER, _FOLDER, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link
            return
        raise
    try:
        for name in (WANDB, WANDB + NEW):
            try:
                os.unlink(name, dir_fd=folder)
            except (FileNotFoundError, IsADirectoryError):
                continue
    finally:
        os.close(folder)
    try:
        os.rmdir(FOLDER, dir_fd=root)
    except OSError:
        return  # a program has put a folder there
