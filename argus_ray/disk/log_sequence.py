"""A log as one sequence of bytes, in whatever files it lies below a job root.

A driver log that has reached its bound is several files (payload/argus_log.py): `driver.log`, its first half, and
pieces of what follows, `driver.log.<offset>`, of which the oldest have gone. Here it is one sequence with a gap. A
place in it is an offset in all that was ever logged, and stays what it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import TypeVar

from argus_ray.disk import beneath
from argus_ray.disk.beneath import Meaning

_T = TypeVar("_T")
#: Bytes; a shorter log has no pieces (half of the least `limits.log_bytes`, less room for the runner's lines), so for
#: most the folder is not listed.
_LEAST_HEAD = 256 * 1024
#: More than the runner makes.
_MOST_PIECES = 64
_TRIES = 5


class NotReadable(Exception):
    """Something is there that is not a plain file of this job root, and of it alone."""


@contextlib.contextmanager
def told(path: str) -> Iterator[None]:
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


@dataclass
class _Part:
    """A file of a log, of which it holds `start` to `end`."""

    name: str
    start: int
    end: int
    fd: int | None = None


class Log:
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

    def run_end(self, position: int) -> int:
        """Of the run that holds the byte at `position`."""
        end = position
        for part in self._parts:
            if part.start <= end < part.end:
                end = part.end
        return end

    def gap_at(self, offset: int) -> tuple[int, int] | None:
        """Where the gap that holds `offset` begins, and where the log goes on."""
        to = self.readable(offset)
        return (self.end_before(offset), to) if offset < to else None

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
                found.append(gap_line(at - offset))
            if not (data := self.read(at, self.size - at)):
                break  # it is shorter by now
            found.append(data)
            offset = at + len(data)
        return b"".join(found)

    def files(self) -> list[tuple[int, int, int]]:
        """Each file: where it begins and ends in the log, and its descriptor, which the log closes."""
        return [(part.start, part.end, self._file(part)) for part in self._parts]

    def _file(self, part: _Part) -> int:
        if part.fd is None:
            try:
                part.fd = self._opened.enter_context(beneath.plain_file(self._folder, part.name, own=True))
            except OSError as error:
                if beneath.meaning(error) is Meaning.UNANSWERED:
                    raise
                raise Gone from None
        return part.fd


class Gone(Exception):
    """A piece of the log has been removed since the pieces were listed."""


def on_log(root: str, path: str, read: Callable[[Log], _T]) -> _T:
    """Raises as `opened`."""
    for _ in range(_TRIES):
        with opened_log(root, path) as log, contextlib.suppress(Gone):
            return read(log)
    with opened_log(root, path, with_pieces=False) as log:
        return read(log)


@contextlib.contextmanager
def opened_log(root: str, path: str, *, with_pieces: bool = True) -> Iterator[Log]:
    *folders, name = PurePosixPath(path).relative_to(root).parts
    with contextlib.ExitStack() as opened_files:
        with told(path):
            folder = opened_files.enter_context(beneath.folder(root, *folders))
            head = opened_files.enter_context(beneath.plain_file(folder, name, own=True))
            size = os.fstat(head).st_size
            parts = [_Part(name, 0, size, head)]
            if with_pieces and size >= _LEAST_HEAD:
                parts += _pieces(folder, name, size)
        yield Log(folder, parts, opened_files)


def _pieces(folder: int, name: str, head_end: int) -> list[_Part]:
    """Those behind the first file, in order; what is none of the runner's is passed over."""
    named = re.compile(rf"{re.escape(name)}\.(\d{{15}})")
    starts = sorted(int(match[1]) for each in os.listdir(folder) if (match := named.fullmatch(each)))[-_MOST_PIECES:]
    parts: list[_Part] = []
    end = head_end
    for start, following in zip_longest(starts, starts[1:]):
        piece = f"{name}.{start:015d}"
        try:
            status = os.stat(piece, dir_fd=folder, follow_symlinks=False)
            # What a network filesystem tells of a name may be of half a minute ago. A piece ends where the next one
            # begins; of one that does not, or is the last one, its size is asked for anew.
            if stat.S_ISREG(status.st_mode) and start + status.st_size != following:
                status = _asked_anew(folder, piece, status)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size and start >= end:
            end = start + status.st_size
            parts.append(_Part(piece, start, end))
    return parts


def _asked_anew(folder: int, name: str, told: os.stat_result) -> os.stat_result:
    """Of the file as it is now: that is what an open promises. Raises FileNotFoundError."""
    try:
        with beneath.plain_file(folder, name, own=True) as fd:
            return os.fstat(fd)
    except OSError as error:
        if beneath.meaning(error) is Meaning.ABSENT:
            raise FileNotFoundError(error.errno, error.strerror, name) from None
        return told  # whoever reads it is told why it cannot be


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


def gap_line(size: int) -> bytes:
    """What stands in the place of so many bytes that are gone."""
    return f"argus: {size} bytes of the log are left out here\n".encode()


def line_ends(data: bytes, behind: bytes = b"") -> bytes:
    """The data with one newline for each end of a line, at its last byte: a carriage return ends one as well, since
    progress bars write nothing else. `behind`: the byte that follows."""
    if b"\r" not in data:
        return data
    if data.endswith(b"\r") and behind == b"\n":
        data = data[:-1] + b" "
    return data.replace(b"\r\n", b" \n").replace(b"\r", b"\n")
