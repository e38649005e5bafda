"""What attempts that are over have left on this node: their processes that nobody owns any more, which are ended, and
their shared memory (`shared_memory.py`), which is removed.

An attempt is over for certain when its job root has the runner's exit record, or its word that it was killed, or a
cancel marker for longer than a run has to stop. "No runner here" says nothing: on the other nodes of a gang there is
none, and the owner is Ray's worker. So what is below the raylet is left to Ray, and what names an attempt of which
nothing is known stays.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from argus_ray.disk.bounded import BoundedCall
from argus_ray.node import processes
from argus_ray.node.shared_memory import GRACE_S, SharedMemory, job_root_of

#: Between two looks; seconds. GRACE_S is from the first one that finds an attempt to be over.
LOOK_EVERY_S = 10.0
#: Beyond a program's own time to end.
_STOP_MARGIN_S = 30.0
_TIMEOUT_S = 5.0
#: Of the environment of all that an attempt starts (core/verl/command.py).
_JOB_ROOT, _STOP_GRACE = "ARGUS_JOB_ROOT", "ARGUS_STOP_GRACE_S"


class Leftovers:
    """Of one node. Times are seconds of a monotonic clock."""

    def __init__(self, users: Path, ours: Callable[[], Iterable[int]]) -> None:
        """`users`: the folder of all users' files. `ours`: ids of all that belongs to this node."""
        self._users, self._ours = users, ours
        self._patience: BoundedCall[set[tuple[str, str]]] = BoundedCall(_TIMEOUT_S)
        self._memory = SharedMemory(users, ours)
        self._again_at = float("-inf")
        #: When a marker was first seen, by job root and name. Not the file's time: clocks differ.
        self._since: dict[tuple[str, str], float] = {}

    def end(self, now: float) -> list[str]:
        """Looks anew every LOOK_EVERY_S. What was ended and removed, a line for each attempt."""
        if now < self._again_at:
            return []
        self._again_at = now + LOOK_EVERY_S
        return [*self._memory.look(now), *self._end_processes(now)]

    @contextlib.contextmanager
    def end_of_all(self, say: Callable[[str], object]) -> Iterator[None]:
        """Around what ends all processes of this node: removes their shared memory."""
        self._memory.note()
        yield
        for line in self._memory.remove():
            say(line)

    def _end_processes(self, now: float) -> list[str]:
        left = self._left()
        try:
            markers = self._patience.call(lambda: _markers(left)) if left else set()
        except TimeoutError:
            return []  # a disk that does not answer says nothing
        self._since = {each: self._since.get(each, now) for each in markers}
        said = []
        for root, pids in sorted(left.items()):
            over = any(
                (root, name) in self._since and now - self._since[root, name] >= wait_s
                for name, wait_s in _waits(pids[0]).items()
            )
            if over and (ended := [pid for pid in pids if processes.kill_if(pid, _names(pid, root))]):
                said.append(f"what {Path(root).name} had left: process {', '.join(map(str, ended))}")
        return said

    def _left(self) -> dict[str, list[int]]:
        """Job roots, with the processes that name them and that neither Ray nor a runner owns."""
        found: dict[str, list[int]] = {}
        for pid in processes.not_below(self._ours(), "raylet"):
            if root := job_root_of(pid, self._users):
                found.setdefault(root, []).append(pid)
        return found


def _names(pid: int, root: str) -> Callable[[], bool]:
    return lambda: processes.environment(pid).get(_JOB_ROOT) == root


def _waits(pid: int) -> dict[str, float]:
    """For how long each marker must have been seen before the attempt counts as over."""
    try:
        stop_grace_s = float(processes.environment(pid).get(_STOP_GRACE, ""))
    except ValueError:
        stop_grace_s = 3600.0
    return {"exit.json": GRACE_S, "killed.json": GRACE_S, "canceled": GRACE_S + stop_grace_s + _STOP_MARGIN_S}


def _markers(job_roots: Iterable[str]) -> set[tuple[str, str]]:
    found = set()
    for root in job_roots:
        for name in ("exit.json", "killed.json", "canceled"):
            with contextlib.suppress(OSError):
                if stat.S_ISREG(Path(root, name).lstat().st_mode):
                    found.add((root, name))
    return found
