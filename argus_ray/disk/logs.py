"""Reading files below a job root, which the code of a training run can write as it likes.

Nothing outside the job root can be reached, and only plain files count (`beneath`).

A driver log that has reached its bound is several files (payload/argus_log.py): `driver.log`, its first half, and
pieces of what follows, `driver.log.<offset>`, of which the oldest have gone. Here it is one sequence of bytes with a
gap. A place in it is an offset in all that was ever logged, and stays what it is.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

from argus_ray.disk import beneath
from argus_ray.disk.beneath import Meaning

_T = TypeVar("_T")
_BLOCK = 64 * 1024
#: Bytes; a shorter log has no pieces (half of the least `limits.log_bytes`, less room for the runner's lines), so for
#: most the folder is not listed.
_LEAST_HEAD = 256 * 1024
#: More than the runner makes.
_MOST_PIECES = 64
_TRIES = 5


class NotReadable(Exception):
    """Something is there that is not a plain file of this job root, and of it alone."""


@contextlib.contextmanager
def opened(root: str, path: str) -> Iterator[int]:
    """A descriptor of the plain file `path` below `root`. Raises FileNotFoundError; NotReadable for what is none of
    this job root's, or closed to us; another OSError if the disk does not answer, which says nothing of the file."""
    names = PurePosixPath(path).relative_to(root).parts
    with contextlib.ExitStack() as open_files:
        with _told(path):
            fd = open_files.enter_context(beneath.plain_file(root, *names, own=True))
        yield fd


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Errors as `opened` raises them."""
    try:
        yield
    except OSError as error:
        match beneath.meaning(error):
            case Meaning.ABSENT:
                raise FileNotFoundError(error.errno, error.strerror, path) from None
            case Meaning.FOREIGN | Meaning.CLOSED:
                raise NotReadable(error.strerror or str(error)) from None
            case Meaning.UNANSWERED:
                raise


@dataclass(frozen=True)
class Span:
    """A part of a log and where it lies, in bytes. Across the gap of a log the data has a line that tells its size."""

    data: bytes
    start: int
    end: int


def read_tail(root: str, path: str, lines: int, max_bytes: int) -> Span:
    """The last `lines` lines, but at most `max_bytes` bytes."""

    def read(log: _Log) -> Span:
        start = _tail_start(log, lines, max_bytes)
        return Span(log.read_all(start), start, log.size)

    return _on_log(root, path, read)


def tail_offset(root: str, path: str, lines: int, max_bytes: int) -> int:
    """Where the last `lines` lines begin."""
    return _on_log(root, path, lambda log: _tail_start(log, lines, max_bytes))


def read_end(root: str, path: str, max_bytes: int) -> Span:
    """The last `max_bytes` bytes, wherever that is in a line."""

    def read(log: _Log) -> Span:
        start = log.readable(max(0, log.size - max_bytes))
        return Span(log.read_all(start), start, log.size)

    return _on_log(root, path, read)


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

    def read(log: _Log) -> Span:
        at = log.readable(min(offset, log.size))
        if backlog is not None and log.size - at > backlog.limit:
            at = _line_start_after(log, log.readable(log.size - backlog.kept))
        data = log.read(at, max_bytes)
        is_final = final or at + len(data) < log.size  # what comes before a gap is not completed
        return _whole_lines(data, at, max_bytes, final=is_final)

    return _on_log(root, path, read)


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


def _tail_start(log: _Log, lines: int, max_bytes: int) -> int:
    if lines == 0:
        return log.size
    floor = log.readable(max(0, log.size - max_bytes))
    position, missing = log.size, lines
    while position > floor:
        start = max(floor, position - _BLOCK, log.run_start(position))
        block = log.read(start, position - start)
        # The last byte of all, if it ends a line, begins no other one.
        index = len(block) - (position == log.size and block.endswith(b"\n"))
        found = block.count(b"\n", 0, index)
        if found < missing:
            missing -= found
            position = log.end_before(start)
            continue
        while missing:
            index = block.rfind(b"\n", 0, index)
            missing -= 1
        return start + index + 1
    if floor == 0:
        return 0
    # The byte limit cut into a line.
    return _line_start_after(log, floor)


def _line_start_after(log: _Log, offset: int) -> int:
    """Where the first line begins after `offset`, which may cut one; `offset` itself if there is none near."""
    newline = log.read(offset, _BLOCK).find(b"\n")
    return offset + newline + 1 if 0 <= newline < log.size - offset - 1 else offset


@dataclass
class _Part:
    """A file of a log, of which it holds `start` to `end`."""

    name: str
    start: int
    end: int
    fd: int | None = None


class _Log:
    """A log, in one file or in several, as one sequence of bytes. `run`: bytes without a gap between them."""

    def __init__(self, folder: int, parts: list[_Part], opened_files: contextlib.ExitStack) -> None:
        self._folder, self._parts, self._opened = folder, parts, opened_files
        self.size = parts[-1].end

    def readable(self, offset: int) -> int:
        """The offset, or where the log goes on if that is in a gap."""
        for part in self._parts:
            if offset < part.end:
                return max(offset, part.start)
        return self.size

    def run_start(self, position: int) -> int:
        """Of the run that holds the byte before `position`."""
        start = position
        for part in reversed(self._parts):
            if part.start < position <= part.end:
                start = position = part.start
        return start

    def end_before(self, position: int) -> int:
        """The end of what comes before `position`: itself, or that of the run before it."""
        return min(position, max((part.end for part in self._parts if part.start < position), default=0))

    def read(self, offset: int, length: int) -> bytes:
        """What there is of this before the next gap."""
        found = []
        for part in self._parts:
            if length > 0 and part.start <= offset < part.end:
                data = read_at(self._file(part), offset - part.start, min(length, part.end - offset))
                found.append(data)
                offset += len(data)
                length -= len(data)
        return b"".join(found)

    def read_all(self, offset: int) -> bytes:
        """All from there on, with a line in place of each gap."""
        found: list[bytes] = []
        while offset < self.size:
            at = self.readable(offset)
            if at > offset and found:
                found.append(f"argus: {at - offset} bytes of the log are left out here\n".encode())
            if not (data := self.read(at, self.size - at)):
                break  # it is shorter by now
            found.append(data)
            offset = at + len(data)
        return b"".join(found)

    def _file(self, part: _Part) -> int:
        if part.fd is None:
            try:
                part.fd = self._opened.enter_context(beneath.plain_file(self._folder, part.name, own=True))
            except OSError as error:
                if beneath.meaning(error) is Meaning.UNANSWERED:
                    raise
                raise _Gone from None
        return part.fd


class _Gone(Exception):
    """A piece of the log has been removed since the pieces were listed."""


def _on_log(root: str, path: str, read: Callable[[_Log], _T]) -> _T:
    """Raises as `opened`."""
    for _ in range(_TRIES):
        with _opened_log(root, path) as log, contextlib.suppress(_Gone):
            return read(log)
    with _opened_log(root, path, with_pieces=False) as log:
        return read(log)


@contextlib.contextmanager
def _opened_log(root: str, path: str, *, with_pieces: bool = True) -> Iterator[_Log]:
    *folders, name = PurePosixPath(path).relative_to(root).parts
    with contextlib.ExitStack() as opened_files:
        with _told(path):
            folder = opened_files.enter_context(beneath.folder(root, *folders))
            head = opened_files.enter_context(beneath.plain_file(folder, name, own=True))
            size = os.fstat(head).st_size
            parts = [_Part(name, 0, size, head)]
            if with_pieces and size >= _LEAST_HEAD:
                parts += _pieces(folder, name, size)
        yield _Log(folder, parts, opened_files)


def _pieces(folder: int, name: str, head_end: int) -> list[_Part]:
    """Those behind the first file, in order; what is none of the runner's is passed over."""
    named = re.compile(rf"{re.escape(name)}\.(\d{{15}})")
    starts = sorted(int(match[1]) for each in os.listdir(folder) if (match := named.fullmatch(each)))
    parts: list[_Part] = []
    end = head_end
    for start in starts[-_MOST_PIECES:]:
        piece = f"{name}.{start:015d}"
        try:
            status = os.stat(piece, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size and start >= end:
            end = start + status.st_size
            parts.append(_Part(piece, start, end))
    return parts


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
