"""How far a run is, from the end of its metrics file. A convenience; whatever is wrong there, the answer is None.

The end is enough, and costs the same for a file of any length, so lists and the queue can show it. What was found is
kept until the file changes.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from argus_ray.core import flat_yaml, paths
from argus_ray.core.errors import InvalidSpec
from argus_ray.core.model import Task
from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import files, metrics
from argus_ray.core.verl.command import given_steps
from argus_ray.core.verl.metrics import Digest, Headline
from argus_ray.disk import logs

#: Some ten to three hundred lines of verl.
_WINDOW = 64 * 1024
_MAX_ENTRIES = 1024
#: How many are asked, from the newest one: one that waits, starts, or had nothing left to train has made no step.
_MAX_ATTEMPTS = 8
#: Where verl does not tell how long its steps take (sft), the pace is taken from when the file was seen to grow, over
#: the looks of this many seconds.
_LOOKS_S = 600.0
_MAX_LOOKS = 64


@dataclass(frozen=True)
class Progress:
    step: int
    #: Steps of the whole run, if the TaskSpec or verl's log gives them.
    total_steps: int | None
    steps_per_s: float | None = None
    #: None unless the task runs.
    seconds_left: float | None = None
    headline: Headline | None = None


@dataclass
class _Seen:
    """What was found in one file, and when it was seen to grow."""

    inode: tuple[int, int]
    stamp: tuple[int, int] | None = None
    step: int | None = None
    steps_per_s: float | None = None
    headline: Headline | None = None
    total_from_log: int | None = None
    #: (time of the file, step)
    looks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_MAX_LOOKS))


class ProgressReader:
    """Of a task's newest attempt that has made a step, among its last few. Blocks on the disk; reads 128 KiB at most of
    each; never raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def __call__(self, task: Task) -> Progress | None:
        total = total_steps(task)
        for attempt in task.attempts[: -_MAX_ATTEMPTS - 1 : -1]:
            try:
                seen = self._look(attempt.job_root, wants_total=total is None)
            except (OSError, ValueError, logs.NotReadable):
                continue
            if seen.step is None:
                continue
            total = seen.total_from_log if total is None else total
            runs = task.state.is_active and attempt is task.attempts[-1]
            left = metrics.seconds_left(seen.step, total, seen.steps_per_s) if runs else None
            return Progress(seen.step, total, seen.steps_per_s, left, seen.headline)
        return None

    def _look(self, root: str, *, wants_total: bool) -> _Seen:
        with logs.opened(root, paths.metrics_file(root)) as fd:
            status = os.fstat(fd)
            inode, stamp = (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns)
            seen = self._known(root, inode)
            if seen.stamp == stamp:
                return seen
            start = max(0, status.st_size - _WINDOW)
            data = logs.read_at(fd, start, status.st_size - start)
        digest = digest_end(data, begins_with_line=start == 0)
        total = _total_in_log(root) if wants_total and seen.total_from_log is None else seen.total_from_log
        with self._lock:
            seen.total_from_log = total
            seen.step, seen.headline = digest.last_step, digest.headline()
            if seen.step is not None:
                seen.steps_per_s = digest.steps_per_s() or _pace(seen.looks, status.st_mtime, seen.step)
            seen.stamp = stamp
        return seen

    def _known(self, root: str, inode: tuple[int, int]) -> _Seen:
        with self._lock:
            seen = self._seen.get(root)
            if seen is None or seen.inode != inode:
                seen = self._seen[root] = _Seen(inode)
            self._seen.move_to_end(root)
            if len(self._seen) > _MAX_ENTRIES:
                self._seen.popitem(last=False)
            return seen


def digest_end(data: bytes, *, begins_with_line: bool) -> Digest:
    """Of the complete lines in the end of a file; the line that is being written does not count."""
    start = 0 if begins_with_line else data.find(b"\n") + 1
    digest = Digest(metrics.HEADLINES)
    digest.feed(data[start : data.rfind(b"\n") + 1])
    return digest


def _pace(looks: deque[tuple[float, int]], at: float, step: int) -> float | None:
    if looks and step < looks[-1][1]:
        looks.clear()
    if not looks or step > looks[-1][1]:
        looks.append((at, step))
    while len(looks) > 2 and looks[0][0] < looks[-1][0] - _LOOKS_S:
        looks.popleft()
    (begin, first), (end, last) = looks[0], looks[-1]
    return metrics.usable_rate(last - first, end - begin)


def total_steps(task: Task) -> int | None:
    """The steps that verl was given for the newest attempt, or will be given for the first one; None if none."""
    if task.attempts:
        return given_steps(task.attempts[-1].command)
    try:
        steps = flat_yaml.read(task.spec_yaml.encode(), TaskSpec.model_fields)[0].get("total_training_steps")
    except InvalidSpec:
        return None  # of an earlier version, with other rules
    return steps if isinstance(steps, int) else None


def _total_in_log(root: str) -> int | None:
    try:
        return files.total_in_log(logs.read_end(root, paths.driver_log(root), _WINDOW).data)
    except (OSError, ValueError, logs.NotReadable):
        return None
