"""The samples in a job root: which steps there are, and a page of one step's lines. Blocking.

A folder may hold a hundred thousand steps, a file gigabytes and a line all of them, and all of it may grow: each look
is bounded, and says how far it came. All is opened by `beneath`.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from argus_ray.core.verl import rollouts
from argus_ray.core.verl.rollouts import Kind, Sample, Steps
from argus_ray.disk import beneath
from argus_ray.disk.beneath import NOT_THERE, Meaning
from argus_ray.disk.logs import read_at

_BLOCK = 256 * 1024
#: Lines of a file of which the scores are taken.
_MAX_COUNTED = 65_536


@dataclass
class Budget:
    """Of one request: entries of folders, bytes, and time."""

    entries: int = 500_000
    read_bytes: int = 32 * 1024 * 1024
    seconds: float = 2.0
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._deadline = self.monotonic() + self.seconds

    @property
    def is_late(self) -> bool:
        return self.monotonic() >= self._deadline

    @property
    def is_spent(self) -> bool:
        return self.entries <= 0 or self.read_bytes <= 0 or self.is_late


def _or_nothing() -> beneath.suppress:
    """What is missing, or is something else than it should be, is as if there were nothing."""
    return beneath.suppress(*NOT_THERE, Meaning.CLOSED)


def steps_of(root: str, attempt: int, budget: Budget) -> tuple[Steps, bool]:
    """By the names in the folders; and whether that is all. Raises OSError if the disk does not answer."""
    found = {kind: array("q") for kind in Kind}
    complete = True
    for kind in Kind:
        with _or_nothing(), beneath.folder(root, kind.folder) as folder, os.scandir(folder) as entries:
            for entry in entries:
                if budget.is_spent:
                    complete = False
                    break
                budget.entries -= 1
                step = rollouts.step_of(entry.name)
                if step is not None and entry.is_file(follow_symlinks=False):
                    found[kind].append(step)
    train, validation = (array("q", sorted(found[kind])) for kind in Kind)
    return Steps(attempt, train, validation), complete


@dataclass(frozen=True)
class StepFile:
    #: Bytes.
    size: int
    #: Unix time.
    modified_at: float
    #: Samples, and the mean of their scores; None: not counted, or none has one.
    samples: int | None = None
    mean_score: float | None = None


class StepReader:
    """What is in the files of steps; of the last ones that were counted it is remembered."""

    def __init__(self, *, file_bytes: int = 8 * 1024 * 1024, remembered: int = 8192) -> None:
        """`file_bytes`: a larger file is not counted."""
        self._file_bytes = file_bytes
        self._remembered = remembered
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[int, int, int, int], tuple[int, float | None]] = OrderedDict()

    def look(self, root: str, kind: Kind, step: int, budget: Budget) -> StepFile | None:
        """None if there is no plain file of it. Raises OSError if the disk does not answer."""
        with _or_nothing(), beneath.plain_file(root, kind.folder, rollouts.file_of(step), own=True) as fd:
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            counted = self._remember(key)
            if counted is None and status.st_size <= self._file_bytes and not budget.is_spent:
                budget.read_bytes -= status.st_size
                counted = _count(read_at(fd, 0, status.st_size), budget)
                self._remember(key, counted)
            samples, mean = counted or (None, None)
            return StepFile(status.st_size, status.st_mtime, samples, mean)
        return None

    def _remember(
        self, key: tuple[int, int, int, int], counted: tuple[int, float | None] | None = None
    ) -> tuple[int, float | None] | None:
        with self._lock:
            if counted is not None:
                self._known[key] = counted
            elif key in self._known:
                self._known.move_to_end(key)
            while len(self._known) > self._remembered:
                self._known.popitem(last=False)
            return self._known.get(key)


def _count(data: bytes, budget: Budget) -> tuple[int, float | None] | None:
    """Of whole lines; None for more of them than verl writes, or if time is up."""
    count, total, scored, start = 0, 0.0, 0, 0
    while (end := data.find(b"\n", start)) >= 0:
        if count >= _MAX_COUNTED or budget.is_late:
            return None
        count += 1
        with contextlib.suppress(ValueError):
            score = rollouts.score_of(data[start:end]) if end - start <= rollouts.MAX_LINE_BYTES else None
            if score is not None:
                total, scored = total + score, scored + 1
        start = end + 1
    mean = total / scored if scored else None
    return count, mean if mean is not None and math.isfinite(mean) else None


@dataclass(frozen=True)
class Place:
    """In a file: the byte, the number of the line there, and whether the byte is within a line that is too long."""

    offset: int = 0
    index: int = 0
    within: bool = False


class NoSuchPlace(Exception):
    """The file is not one that has this place."""


@dataclass(frozen=True)
class Page:
    samples: tuple[Sample, ...]
    size: int
    #: None: nothing follows (yet).
    next: Place | None


def read_page(
    root: str, kind: Kind, step: int, place: Place, *, limit: int, chars: int, field_chars: int, budget: Budget
) -> Page | None:
    """At most `limit` samples of about `chars` characters, but one. A last line without its end is being written, and
    not shown. None if there is no plain file. Raises NoSuchPlace, and OSError if the disk does not answer."""
    with _or_nothing(), beneath.plain_file(root, kind.folder, rollouts.file_of(step), own=True) as fd:
        size = os.fstat(fd).st_size
        if place.offset > size or (place.offset and not place.within and read_at(fd, place.offset - 1, 1) != b"\n"):
            raise NoSuchPlace
        samples: list[Sample] = []
        taken = 0
        for found in _lines(fd, place, budget):
            if isinstance(found, Place):
                return Page(tuple(samples), size, found)
            line, place = found
            sample = rollouts.read_line(place.index - 1, line, field_chars)
            samples.append(sample)
            taken += sample.size
            if len(samples) >= limit or taken >= chars or budget.is_spent:
                return Page(tuple(samples), size, place if place.offset < size else None)
        return Page(tuple(samples), size, None)
    return None


def _lines(fd: int, place: Place, budget: Budget) -> Iterator[tuple[bytes | None, Place] | Place]:
    """Each whole line, None for one that is too long, with the place behind it; and if the budget ends within such a
    line, the place up to which it was read."""
    at, index, within = place.offset, place.index, place.within
    rest = b""
    while True:
        data = read_at(fd, at + len(rest), _BLOCK)
        budget.read_bytes -= len(data)
        if not data:
            return
        first, newline, behind = data.partition(b"\n")
        if not newline:
            if within or len(rest) + len(data) > rollouts.MAX_LINE_BYTES:
                at, rest, within = at + len(rest) + len(data), b"", True
                if budget.is_spent:
                    yield Place(at, index, within=True)
                    return
            else:
                rest += data
            continue
        at += len(rest) + len(first) + 1
        index += 1
        yield (None if within else rest + first), Place(at, index)
        rest, within = b"", False
        *lines, rest = behind.split(b"\n")
        for each in lines:
            at += len(each) + 1
            index += 1
            yield each, Place(at, index)
