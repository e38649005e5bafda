"""Shared memory that attempts leave on this node: files in /dev/shm, which stay when the process that made them is
killed, and hold main memory until the machine starts anew.

Such a file is an attempt's if three things hold. It has a name that a library makes up for shared memory. It belongs to
our user. And a live process with the attempt's marks was seen to use it. It is removed once no process of the attempt
has been seen on this node for GRACE_S, and none at all uses it. What nobody was seen to use stays: whose it is cannot
be told.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from argus_ray.node import processes

#: Seconds from the first look that finds no process of the attempt.
GRACE_S = 15.0
#: As they stand in the environment of all that an attempt starts (core/verl/command.py).
_JOB_ROOT, _SUBMISSION = "ARGUS_JOB_ROOT", "ARGUS_SUBMISSION_ID"
_NAMES = re.compile(
    r"psm_[0-9a-f]{8}"  # Python's multiprocessing.shared_memory: vLLM's queues between its processes
    r"|sem\.mp-\w{8}"  # its semaphores
    r"|verl_weights_[0-9a-f]{32}"  # verl 0.9, bucketed_weight_transfer.py: one bucket of weights
    r"|torch_\d+_\d+(?:_\d+)?"  # torch's tensors between processes
    r"|nccl-\w{6}"  # NCCL's transport within a machine
)


class File(NamedTuple):
    name: str
    device: int
    inode: int


def job_root_of(pid: int, users: Path) -> str:
    """Of the attempt that a process belongs to; empty if it is none's of the pool with this folder of users' files."""
    environ = processes.environment(pid)
    root = Path(environ.get(_JOB_ROOT, ""))
    is_job_root = len(root.parts) > 3 and root.parents[2] == users and root.parent.name == "jobs"
    return str(root) if is_job_root and root.name == environ.get(_SUBMISSION) else ""


class SharedMemory:
    """Of one node. Times are seconds of a monotonic clock."""

    def __init__(
        self,
        users: Path,
        ours: Callable[[], Iterable[int]],
        folder: Path = Path("/dev/shm"),  # noqa: S108
    ) -> None:
        """`users`: the folder of all users' files. `ours`: ids of all that belongs to this node."""
        self._users, self._ours, self._folder = users, ours, folder
        #: Job roots, by the file that a process of theirs was seen to use.
        self._owners: dict[File, str] = {}
        #: Since when no process of this job root is here.
        self._gone_since: dict[str, float] = {}

    def look(self, now: float) -> list[str]:
        """What was removed, a line for each attempt."""
        alive = self.note()
        owners = set(self._owners.values())
        self._gone_since = {root: self._gone_since.get(root, now) for root in owners - alive}
        return self._remove({root for root, since in self._gone_since.items() if now - since >= GRACE_S})

    def note(self) -> set[str]:
        """Whose each file is, by who uses it now. Job roots of which a process lives here."""
        found = self._listed()
        self._owners = {file: root for file, root in self._owners.items() if file in found}
        if not found:
            return set()
        attempts = {pid: root for pid in self._ours() if (root := job_root_of(pid, self._users))}
        if unknown := found - self._owners.keys():
            for pid, root in attempts.items():
                for file in self._used_by(pid) & unknown:
                    self._owners.setdefault(file, root)
        return set(attempts.values())

    def remove(self) -> list[str]:
        """At once, of the attempts of which no process is left here."""
        return self._remove(set(self._owners.values()) - self.note())

    def _remove(self, roots: set[str]) -> list[str]:
        files = {file for file, root in self._owners.items() if root in roots}
        if not files:
            return []
        for pid in processes.listed():
            files -= self._used_by(pid)
        removed: dict[str, list[str]] = {}
        for file in sorted(files):
            path = self._folder / file.name
            with contextlib.suppress(OSError):
                status = path.lstat()
                if (status.st_dev, status.st_ino) == file[1:]:
                    path.unlink()
                    removed.setdefault(self._owners[file], []).append(f"{file.name} ({status.st_size} bytes)")
        return [f"what {Path(root).name} had left: shared memory {', '.join(names)}" for root, names in removed.items()]

    def _listed(self) -> set[File]:
        """Those that may be an attempt's."""
        found = set()
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if not _NAMES.fullmatch(entry.name):
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
                        found.add(File(entry.name, status.st_dev, status.st_ino))
        return found

    def _used_by(self, pid: int) -> set[File]:
        """What it has in its memory, or open."""
        found = set()
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
                words = line.split(maxsplit=5)  # addresses, permissions, offset, device, inode, path
                if len(words) == 6 and (name := self._name(os.fsdecode(words[5]))):
                    major, minor = words[3].split(b":")
                    found.add(File(name, os.makedev(int(major, 16), int(minor, 16)), int(words[4])))
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if name := self._name(str(Path(entry.path).readlink())):
                        status = entry.stat()
                        found.add(File(name, status.st_dev, status.st_ino))
        return found

    def _name(self, path: str) -> str:
        """Of a file of the folder itself, if it may be an attempt's; else empty."""
        folder, _, name = path.rpartition("/")
        return name if folder == str(self._folder) and _NAMES.fullmatch(name) else ""
