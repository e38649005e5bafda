"""Shared memory of processes that are about to be ended: files in /dev/shm, which stay when who made them is killed.

Only files with a name that a library makes up for shared memory, which belong to our user, and which nobody uses any
more. The watchdog (node/shared_memory.py) removes what is left by those that nobody ends here."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable

_FOLDER = "/dev/shm"  # noqa: S108
#: The same as in node/shared_memory.py, which says whose each is.
_NAMES = re.compile(r"psm_[0-9a-f]{8}|sem\.mp-\w{8}|verl_weights_[0-9a-f]{32}|torch_\d+_\d+(?:_\d+)?|nccl-\w{6}")

#: Device, inode and name.
File = tuple[int, int, str]


def used_by(pids: Iterable[int]) -> set[File]:
    """What these have in their memory."""
    listed = {file[2]: file for file in _listed()}
    found = set()
    for pid in pids if listed else ():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as maps:
            for line in maps:
                words = line.decode(errors="replace").split(maxsplit=5)
                path = words[5].rstrip("\n") if len(words) == 6 else ""
                file = listed.get(os.path.basename(path))
                if file and path == f"{_FOLDER}/{file[2]}" and int(words[4]) == file[1]:
                    found.add(file)
    return found


def remove(files: set[File]) -> list[str]:
    """Those that no process uses any more. Their names."""
    if files:
        files = (files & _listed()) - used_by(int(name) for name in os.listdir("/proc") if name.isdigit())
    removed = []
    for _, _, name in sorted(files):
        with contextlib.suppress(OSError):
            os.unlink(f"{_FOLDER}/{name}")
            removed.append(name)
    return sorted(removed)


def _listed() -> set[File]:
    found = set()
    with contextlib.suppress(OSError), os.scandir(_FOLDER) as entries:
        for entry in entries:
            if _NAMES.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
                        found.add((status.st_dev, status.st_ino, entry.name))
    return found
