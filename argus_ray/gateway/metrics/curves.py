"""Metrics files as curves, digested as they grow: a poll of a running task costs its new lines and nothing more.

Of each file that was asked for, the place up to which it was read and the digest of that part are kept, in a cache that
is bounded in entries and bytes. What drops out of it is read again when it is asked for. A request reads for a bounded
time and then answers with what it has; the next one goes on from there. Blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from argus_ray.core import paths
from argus_ray.core.errors import Unavailable
from argus_ray.core.model import Attempt
from argus_ray.core.verl import metrics
from argus_ray.core.verl.metrics import Digest, Part, Points
from argus_ray.disk import logs

#: Read at a time. More than the longest line that counts.
_CHUNK = 1024 * 1024
#: Bytes before the place that must still be the same: else the file was written anew, and has outgrown that place.
_MARK = 64
#: The newest attempts of a task that are looked at.
_MAX_ATTEMPTS = 50
_LOCK_S = 2.0
_HEADLINES = frozenset(metrics.HEADLINES)
#: Of a task whose headline alone is shown.
_SPARK_ATTEMPTS = 8


@dataclass(frozen=True)
class Limits:
    entries: int = 256
    #: Of all digests together. One takes 100 KiB to 2 MiB.
    cache_bytes: int = 32 * 1024 * 1024
    #: What one request reads.
    request_bytes: int = 64 * 1024 * 1024
    request_s: float = 1.0


@dataclass(frozen=True)
class Found:
    #: In their order.
    attempts: tuple[Part, ...]
    curves: dict[str, Points]
    #: Names that occur and were not asked for.
    available: list[str]
    #: False: there is more to read; ask again.
    complete: bool


@dataclass(frozen=True)
class Spark:
    """A task's headline, through all its attempts. `name` None: it has none yet."""

    name: str | None
    points: Points
    complete: bool


class _Budget:
    def __init__(self, limits: Limits, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._deadline = monotonic() + limits.request_s
        self._bytes = limits.request_bytes

    def spend(self, count: int) -> None:
        self._bytes -= count

    @property
    def is_spent(self) -> bool:
        return self._bytes <= 0 or self._monotonic() >= self._deadline


class _File:
    """One metrics file, as far as it was read."""

    def __init__(self, names: frozenset[str] | None) -> None:
        self.lock = threading.Lock()
        #: As it was after the last read.
        self.size = 0
        self._names = names
        self._begin(None)

    def _begin(self, inode: tuple[int, int] | None) -> None:
        self.digest = Digest(self._names)
        self._inode = inode
        self._offset = 0
        self._mark = b""
        #: The place is within a line that is too long to count.
        self._in_long_line = False

    def advance(self, job_root: str, budget: _Budget) -> bool:
        """Read on. False if the end was not reached. Without a plain file there is nothing to read."""
        try:
            with logs.opened(job_root, paths.metrics_file(job_root)) as fd:
                return self._advance(fd, budget)
        except (FileNotFoundError, logs.NotReadable, ValueError):
            self._begin(None)
            return True
        finally:
            self.size = self.digest.size

    def _advance(self, fd: int, budget: _Budget) -> bool:
        status = os.fstat(fd)
        inode = (status.st_dev, status.st_ino)
        if inode != self._inode or status.st_size < self._offset or not self._is_as_it_was(fd):
            self._begin(inode)
        while not budget.is_spent:
            data = logs.read_at(fd, self._offset, _CHUNK)
            budget.spend(len(data))
            self._take(data)
            if len(data) < _CHUNK:
                return True
        return status.st_size <= self._offset

    def _is_as_it_was(self, fd: int) -> bool:
        return logs.read_at(fd, self._offset - len(self._mark), len(self._mark)) == self._mark

    def _take(self, data: bytes) -> None:
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) < _CHUNK:
                return  # the line that is being written; it is read again when there is more
            self._in_long_line = True
            end = len(data)
        else:
            start = data.index(b"\n") + 1 if self._in_long_line else 0
            self._in_long_line = False
            self.digest.feed(data[start:end])
        self._offset += end
        self._mark = (self._mark + data[max(0, end - _MARK) : end])[-_MARK:]


class CurveReader:
    """The cache. One for a gateway; its methods may be called from several threads."""

    def __init__(self, limits: Limits | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or Limits()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._files: OrderedDict[tuple[str, frozenset[str] | None], _File] = OrderedDict()

    @property
    def size(self) -> int:
        with self._lock:
            return sum(file.size for file in self._files.values())

    def read(self, attempts: Sequence[Attempt], names: Sequence[str], *, since_step: int, max_points: int) -> Found:
        """The curves of these names, or without any the main ones. Raises Unavailable if the disk does not answer."""
        budget = _Budget(self._limits, self._monotonic)
        attempts = attempts[-_MAX_ATTEMPTS:]
        main, other_names, complete = self._parts(attempts, None, budget)
        main_names = dict.fromkeys([*metrics.MAIN, *sorted(_curve_names(main))])
        parts = dict.fromkeys(names or main_names, main)
        others = frozenset(names).difference(main_names)
        if others:
            rest, _, others_complete = self._parts(attempts, others, budget)
            parts |= dict.fromkeys(others, rest)
            complete = complete and others_complete
        curves = {
            name: metrics.thin(points, since_step=since_step, max_points=max_points)
            for name, of in parts.items()
            if (points := metrics.merge(of, name)).steps
        }
        available = sorted((other_names | _curve_names(main)) - parts.keys())
        return Found(tuple(main), curves, available, complete)

    def headlines(self, tasks: Sequence[Sequence[Attempt]], *, max_points: int) -> list[Spark]:
        """Of each of these tasks, by its attempts; all within the time and the bytes of one request. Never raises: what
        cannot be read now is incomplete."""
        budget = _Budget(self._limits, self._monotonic)
        return [self._headline(attempts[-_SPARK_ATTEMPTS:], budget, max_points) for attempts in tasks]

    def _headline(self, attempts: Sequence[Attempt], budget: _Budget, max_points: int) -> Spark:
        if not attempts:
            return Spark(None, Points(), complete=True)
        if budget.is_spent:
            return Spark(None, Points(), complete=False)
        try:
            parts, _, complete = self._parts(attempts, _HEADLINES, budget)
        except Unavailable:
            return Spark(None, Points(), complete=False)
        merged = ((name, metrics.merge(parts, name)) for name in metrics.HEADLINES)
        name, points = next(((name, points) for name, points in merged if points.steps), (None, Points()))
        return Spark(name, metrics.thin(points, since_step=0, max_points=max_points), complete)

    def _parts(
        self, attempts: Sequence[Attempt], names: frozenset[str] | None, budget: _Budget
    ) -> tuple[list[Part], set[str], bool]:
        """In the order of attempts; the names of other metrics; whether that is all."""
        parts: list[Part] = []
        other_names: set[str] = set()
        complete = True
        # The newest first: if time is up, it is the one to show.
        for attempt in reversed(attempts):
            file = self._file(attempt.job_root, names)
            if not file.lock.acquire(timeout=_LOCK_S):
                raise Unavailable("The metrics are being read, and the shared filesystem is slow. Try again.")
            try:
                complete = file.advance(attempt.job_root, budget) and complete
                parts.insert(0, Part.of(attempt.number, file.digest))
                other_names |= file.digest.other_names
            except OSError:
                raise Unavailable("The shared filesystem does not answer. Try again.") from None
            finally:
                file.lock.release()
            self._evict()
        return parts, other_names, complete

    def _file(self, job_root: str, names: frozenset[str] | None) -> _File:
        with self._lock:
            file = self._files.setdefault((job_root, names), _File(names))
            self._files.move_to_end((job_root, names))
            return file

    def _evict(self) -> None:
        with self._lock:
            total = sum(file.size for file in self._files.values())
            while self._files and (len(self._files) > self._limits.entries or total > self._limits.cache_bytes):
                total -= self._files.popitem(last=False)[1].size


def _curve_names(parts: Sequence[Part]) -> set[str]:
    return {name for part in parts for name in part.curves}
