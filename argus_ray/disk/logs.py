"""Reading files below a job root, which the code of a training run can write as it likes.

Nothing outside the job root can be reached, and only plain files count (`beneath`).
"""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from argus_ray.disk import beneath
from argus_ray.disk.beneath import Meaning

_BLOCK = 64 * 1024


class NotReadable(Exception):
    """Something is there that is not a plain file of this job root, and of it alone."""


@contextlib.contextmanager
def opened(root: str, path: str) -> Iterator[int]:
    """A descriptor of the plain file `path` below `root`. Raises FileNotFoundError; NotReadable for what is none of
    this job root's, or closed to us; another OSError if the disk does not answer, which says nothing of the file."""
    names = PurePosixPath(path).relative_to(root).parts
    with contextlib.ExitStack() as open_files:
        try:
            fd = open_files.enter_context(beneath.plain_file(root, *names, own=True))
        except OSError as error:
            match beneath.meaning(error):
                case Meaning.ABSENT:
                    raise FileNotFoundError(error.errno, error.strerror, path) from None
                case Meaning.FOREIGN | Meaning.CLOSED:
                    raise NotReadable(error.strerror or str(error)) from None
                case Meaning.UNANSWERED:
                    raise
        yield fd


@dataclass(frozen=True)
class Span:
    """A part of a file and where it lies, in bytes."""

    data: bytes
    start: int
    end: int


def read_tail(root: str, path: str, lines: int, max_bytes: int) -> Span:
    """The last `lines` lines, but at most `max_bytes` bytes."""
    with opened(root, path) as fd:
        size = os.fstat(fd).st_size
        start = _tail_start(fd, size, lines, max_bytes)
        return Span(read_at(fd, start, size - start), start, size)


def tail_offset(root: str, path: str, lines: int, max_bytes: int) -> int:
    """Where the last `lines` lines begin."""
    with opened(root, path) as fd:
        return _tail_start(fd, os.fstat(fd).st_size, lines, max_bytes)


def read_end(root: str, path: str, max_bytes: int) -> Span:
    """The last `max_bytes` bytes, wherever that is in a line."""
    with opened(root, path) as fd:
        size = os.fstat(fd).st_size
        start = max(0, size - max_bytes)
        return Span(read_at(fd, start, size - start), start, size)


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

    With a `backlog` it may start later, at the beginning of a line.
    """
    with opened(root, path) as fd:
        size = os.fstat(fd).st_size
        offset = min(offset, size)
        if backlog is not None and size - offset > backlog.limit:
            offset = _line_start_after(fd, size - backlog.kept, size)
        data = read_at(fd, offset, max_bytes)
    # A carriage return as the very last byte may be half of a line end.
    cut = max(data.rfind(b"\n"), data.rfind(b"\r", 0, max(0, len(data) - 1))) + 1
    if cut:
        data = data[:cut]
    elif not final and len(data) < max_bytes:
        data = b""
    elif len(data) == max_bytes:
        data = _without_half_character(data)
    return Span(data, offset, offset + len(data))


def _tail_start(fd: int, size: int, lines: int, max_bytes: int) -> int:
    if lines == 0:
        return size
    floor = max(0, size - max_bytes)
    position, missing = size, lines
    while position > floor:
        start = max(floor, position - _BLOCK)
        block = read_at(fd, start, position - start)
        # The file's last byte, if it ends a line, begins no other one.
        index = len(block) - (position == size and block.endswith(b"\n"))
        found = block.count(b"\n", 0, index)
        if found < missing:
            missing -= found
            position = start
            continue
        while missing:
            index = block.rfind(b"\n", 0, index)
            missing -= 1
        return start + index + 1
    if floor == 0:
        return 0
    # The byte limit cut into a line.
    return _line_start_after(fd, floor, size)


def _line_start_after(fd: int, offset: int, size: int) -> int:
    """Where the first line begins after `offset`, which may cut one; `offset` itself if there is none near."""
    newline = read_at(fd, offset, min(_BLOCK, size - offset)).find(b"\n")
    return offset + newline + 1 if 0 <= newline < size - offset - 1 else offset


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Exactly what is there: one pread may return less, on a network filesystem above all."""
    parts = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


def _without_half_character(data: bytes) -> bytes:
    """Without the beginning of a UTF-8 character whose rest is not here; bytes that are not UTF-8 stay."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    pending = len(decoder.getstate()[0])
    return data[: len(data) - pending]
