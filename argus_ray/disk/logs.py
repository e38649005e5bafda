"""Reading files below a job root, which the code of a training run can write as it likes.

Nothing outside the job root can be reached, and only plain files count (`beneath`). A driver log is one sequence of
bytes, whatever it lies in (`log_sequence`).
"""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from argus_ray.disk import beneath
from argus_ray.disk.log_sequence import Log, NotReadable, line_ends, on_log, read_at, told

__all__ = ["NotReadable", "read_at"]
_BLOCK = 64 * 1024
#: From the size of a log to where a part of it begins and ends.
Wanted = Callable[[int], tuple[int, int]]


@contextlib.contextmanager
def opened(root: str, path: str) -> Iterator[int]:
    """A descriptor of the plain file `path` below `root`. Raises FileNotFoundError; NotReadable for what is none of
    this job root's, or closed to us; another OSError if the disk does not answer, which says nothing of the file."""
    names = PurePosixPath(path).relative_to(root).parts
    with contextlib.ExitStack() as open_files:
        with told(path):
            fd = open_files.enter_context(beneath.plain_file(root, *names, own=True))
        yield fd


@dataclass(frozen=True)
class Span:
    """A part of a log and where it lies, in bytes. Across the gap of a log the data has a line that tells its size."""

    data: bytes
    start: int
    end: int


def read_tail(root: str, path: str, lines: int, max_bytes: int) -> Span:
    """The last `lines` lines, but at most `max_bytes` bytes."""

    def read(log: Log) -> Span:
        start = _tail_start(log, lines, max_bytes)
        return Span(log.read_all(start), start, log.size)

    return on_log(root, path, read)


def tail_offset(root: str, path: str, lines: int, max_bytes: int) -> int:
    """Where the last `lines` lines begin."""
    return on_log(root, path, lambda log: _tail_start(log, lines, max_bytes))


def read_end(root: str, path: str, max_bytes: int) -> Span:
    """The last `max_bytes` bytes, wherever that is in a line."""

    def read(log: Log) -> Span:
        start = log.readable(max(0, log.size - max_bytes))
        return Span(log.read_all(start), start, log.size)

    return on_log(root, path, read)


@dataclass(frozen=True)
class Range:
    """Bytes of a log as they are, from `start` on, and the size of the whole."""

    data: bytes
    start: int
    size: int
    #: The first one that the answer skips or ends before: where it begins, and where the log goes on.
    gap: tuple[int, int] | None


def read_range(root: str, path: str, wanted: Wanted, max_bytes: int, *, from_end: bool = False) -> Range:
    """A part of what is wanted: its first bytes, or with `from_end` its last ones, at most `max_bytes` and none of two
    sides of a gap. There are none if all that is wanted has gone."""

    def read(log: Log) -> Range:
        start, end = wanted(log.size)
        at, gap = log.readable(start), log.gap_at(start)
        if from_end:
            last_run = log.run_start(log.end_before(end))
            if at < last_run:
                at, gap = last_run, log.gap_at(log.end_before(last_run))
            at = max(at, end - max_bytes)
        data = log.read(at, min(max_bytes, end - at))
        behind = at + len(data)
        return Range(data, at, log.size, gap or (log.gap_at(behind) if behind < end else None))

    return on_log(root, path, read)


@dataclass(frozen=True)
class Backlog:
    """How far behind the end of a file a reader may be, in bytes; one that is further goes on with the last `kept`."""

    limit: int
    kept: int


def read_lines_from(
    root: str, path: str, offset: int, *, final: bool, max_bytes: int = _BLOCK, backlog: Backlog | None = None
) -> Span:
    """What stands after `offset`: whole lines only, unless `final` (nobody will complete the last one) or the
    line is longer than `max_bytes`. A carriage return ends a line too: progress bars write nothing else.

    It starts later behind a gap, and with a `backlog` perhaps at the beginning of a later line.
    """

    def read(log: Log) -> Span:
        at = log.readable(min(offset, log.size))
        if backlog is not None and log.size - at > backlog.limit:
            at = _line_start_after(log, log.readable(log.size - backlog.kept))
        data = log.read(at, max_bytes)
        is_final = final or at + len(data) < log.size  # what comes before a gap is not completed
        return _whole_lines(data, at, max_bytes, final=is_final)

    return on_log(root, path, read)


def _whole_lines(data: bytes, offset: int, max_bytes: int, *, final: bool) -> Span:
    # A carriage return as the very last byte may be half of a line end.
    cut = max(data.rfind(b"\n"), data.rfind(b"\r", 0, max(0, len(data) - 1))) + 1
    if cut:
        data = data[:cut]
    elif not final and len(data) < max_bytes:
        data = b""
    elif len(data) == max_bytes:
        data = _without_half_character(data)
    return Span(data, offset, offset + len(data))


def _tail_start(log: Log, lines: int, max_bytes: int) -> int:
    if lines == 0:
        return log.size
    floor = log.readable(max(0, log.size - max_bytes))
    position, missing, behind = log.size, lines, b""
    while position > floor:
        start = max(floor, position - _BLOCK, log.run_start(position))
        raw = log.read(start, position - start)
        block = line_ends(raw, behind)
        # The last byte of all, if it ends a line, begins no other one.
        index = len(block) - (position == log.size and block.endswith(b"\n"))
        found = block.count(b"\n", 0, index)
        if found < missing:
            missing -= found
            position = log.end_before(start)
            behind = raw[:1] if position == start else b""
            continue
        while missing:
            index = block.rfind(b"\n", 0, index)
            missing -= 1
        return start + index + 1
    if floor == 0:
        return 0
    # The byte limit cut into a line.
    return _line_start_after(log, floor)


def _line_start_after(log: Log, offset: int) -> int:
    """Where the first line begins after `offset`, which may cut one; `offset` itself if there is none near."""
    end = line_ends(log.read(offset, _BLOCK)).find(b"\n")
    return offset + end + 1 if 0 <= end < log.size - offset - 1 else offset


def _without_half_character(data: bytes) -> bytes:
    """Without the beginning of a UTF-8 character whose rest is not here; bytes that are not UTF-8 stay."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    pending = len(decoder.getstate()[0])
    return data[: len(data) - pending]


def as_utf8(data: bytes) -> bytes:
    """With a replacement for what is none. Piece by piece: the text of all of it takes four times its size."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found = [decoder.decode(data[at : at + _BLOCK]).encode() for at in range(0, len(data), _BLOCK)]
    found.append(decoder.decode(b"", True).encode())
    return b"".join(found)
