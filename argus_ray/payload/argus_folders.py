"""Making an attempt's folders: each is opened in the one above it, and none may be a link. So what was put there
beforehand leads no write elsewhere. Their modes follow a setting (ARGUS_UMASK), the same on all machines, and not the
umask of whoever has started the machine's watchdog.

Standard library only: the runner uses it on a worker, and the scheduler on the head."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

VARIABLE = "ARGUS_UMASK"
DEFAULT_UMASK = 0o022
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def umask_of(environ: Mapping[str, str] = os.environ) -> int:
    """What the environment says; the default for what is no umask that leaves its owner everything."""
    value = environ.get(VARIABLE, "")
    good = len(value) == 3 and value[0] == "0" and all("0" <= digit <= "7" for digit in value)
    return int(value, 8) if good else DEFAULT_UMASK


def job_root(path: str, umask: int = DEFAULT_UMASK) -> int:
    """The job root, made if it is not there, as a descriptor. `.../users` and what is above it are the operator's, and
    may be links; the user's folder and all below it may not. Raises OSError."""
    parts = path.rstrip("/").rsplit("/", 4)
    depth = 3 if len(parts) == 5 and parts[1] == "users" and parts[3] == "jobs" else 1
    above, *names = path.rstrip("/").rsplit("/", depth)
    os.makedirs(above, 0o777 & ~umask, exist_ok=True)  # noqa: PTH103 - pathlib is slow to import
    fd = os.open(above, _FOLDER)
    for name in names:
        above_fd = fd
        try:
            fd = folder(name, above_fd, umask)
        finally:
            os.close(above_fd)
    return fd


def folder(name: str, parent: int, umask: int = DEFAULT_UMASK) -> int:
    """The folder in `parent`, new or there already, as a descriptor. Raises OSError for a link in its place."""
    mode = 0o777 & ~umask
    try:
        os.mkdir(name, mode, dir_fd=parent)
        is_new = True
    except FileExistsError:
        is_new = False
    fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    if is_new and stat.S_IMODE(os.fstat(fd).st_mode) != mode:  # the umask of the process took something
        os.fchmod(fd, mode)
    return fd


def file_mode(umask: int) -> int:
    return 0o666 & ~umask
