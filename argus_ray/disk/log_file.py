"""A whole log as one file to be downloaded, in whatever files it lies."""

from __future__ import annotations

import os
from collections.abc import Sequence

from argus_ray.disk.job_files import JobFile, NoSuchFile, Openable
from argus_ray.disk.log_sequence import Log, NotReadable, gap_line, on_log


class LogFile:
    """A log, open; a line stands in the place of its gap. `read` may be called from any thread, one at a time."""

    def __init__(self, files: Sequence[tuple[int, int, int]]) -> None:
        """`files`: where each begins and ends in the log, and its descriptor, which is closed with this."""
        self._files: list[JobFile] = []
        #: Where each part ends here, and what it is.
        self._parts: list[tuple[int, JobFile | bytes]] = []
        self.size = 0
        gap, behind = (0, 0), 0
        for start, end, fd in files:
            if start > behind:
                gap = behind, start
                self._add(gap_line(start - behind), len(gap_line(start - behind)))
            file = JobFile(fd)
            self._files.append(file)
            self._add(file, end - start)
            behind = end
        self.modified_at = self._files[-1].modified_at
        #: Another one for other bytes at the same place. One that only grows keeps it, so that its download can go on.
        self.version: tuple[int, ...] = (self._files[0].version[0], *gap)

    def _add(self, part: JobFile | bytes, length: int) -> None:
        self.size += length
        self._parts.append((self.size, part))

    def read(self, offset: int, length: int) -> bytes:
        """Exactly so much. Raises FileChanged, and OSError."""
        found, start = [], 0
        for end, part in self._parts:
            if length > 0 and start <= offset < end:
                size = min(length, end - offset)
                at = offset - start
                found.append(part[at : at + size] if isinstance(part, bytes) else part.read(at, size))
                offset, length = offset + size, length - size
            start = end
        return b"".join(found)

    def close(self) -> None:
        for file in self._files:
            file.close()


class LogOpening(Openable[LogFile]):
    """Of the log at `path` below `root`."""

    def __init__(self, root: str, path: str) -> None:
        super().__init__()
        self._root, self._path = root, path

    def _open(self) -> LogFile:
        try:
            return on_log(self._root, self._path, _open)
        except FileNotFoundError:
            raise NoSuchFile("there is no log") from None
        except (NotReadable, ValueError):
            raise NoSuchFile("the log is no plain file") from None


def _open(log: Log) -> LogFile:
    duplicates: list[tuple[int, int, int]] = []
    try:
        for start, end, fd in log.files():
            duplicates.append((start, end, os.dup(fd)))
        return LogFile(duplicates)
    except BaseException:
        for _, _, fd in duplicates:
            os.close(fd)
        raise
