"""The files of a job root for their user: a folder's content by pages, and a file to be read piece by piece.

What runs there can put anything there, so all is opened by `beneath`: no link is followed, and only plain files with
one name are read. What `core/job_files.py` hides is not there. Blocking; what is opened must be closed.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from argus_ray.core import job_files
from argus_ray.disk import beneath
from argus_ray.disk.beneath import Meaning
from argus_ray.disk.logs import read_at

#: Of a folder; what comes after so many is not listed.
MAX_ENTRIES = 200_000


class NoSuchFile(Exception):
    """Nothing that may be given has this name; the only argument says what is wrong, for people."""


class IsFolder(NoSuchFile):
    """A folder has this name."""


class FileChanged(Exception):
    """It is not what it was when it was opened."""


class EntryKind(str, Enum):
    FILE = "file"
    FOLDER = "folder"
    #: Shown, never followed.
    LINK = "link"
    #: A pipe, a socket, a device, or a file with a second hard link, which may be somebody else's.
    OTHER = "other"


@dataclass(frozen=True)
class Entry:
    #: As the filesystem has it, in bytes.
    name: bytes
    kind: EntryKind
    #: Bytes, of a file.
    size: int | None
    #: Unix time.
    modified_at: float


@dataclass(frozen=True)
class Listing:
    """A page, in the order of names."""

    entries: tuple[Entry, ...]
    #: There are more behind the last one.
    has_more: bool
    #: False: there are more than MAX_ENTRIES, and some are left out.
    complete: bool


def list_folder(root: str, names: Sequence[str], after: bytes, limit: int) -> Listing:
    """Those behind `after`. Raises NoSuchFile, and OSError if the disk does not answer."""
    with _told(root, names, "no such folder"), _guarded(root, names) as at, beneath.folder(at, *names) as folder:
        seen = 0
        hidden = set() if names else _hidden_inodes(at)
        with os.scandir(folder) as entries:

            def behind() -> Iterator[bytes]:
                nonlocal seen
                for entry in entries:
                    seen += 1
                    if seen > MAX_ENTRIES:
                        return
                    name = os.fsencode(entry.name)
                    is_hidden = not names and (entry.inode() in hidden or job_files.is_hidden((entry.name,)))
                    if name > after and not is_hidden:
                        yield name

            found = heapq.nsmallest(limit + 1, behind())
        page = [entry for name in found[:limit] if (entry := _entry(folder, name)) is not None]
        return Listing(tuple(page), len(found) > limit, seen <= MAX_ENTRIES)


def _entry(folder: int, name: bytes) -> Entry | None:
    """None if it has gone meanwhile."""
    with beneath.suppress(Meaning.ABSENT):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = _kind(status)
        return Entry(name, kind, status.st_size if kind is EntryKind.FILE else None, status.st_mtime)
    return None


def _kind(status: os.stat_result) -> EntryKind:
    if stat.S_ISLNK(status.st_mode):
        return EntryKind.LINK
    if stat.S_ISDIR(status.st_mode):
        return EntryKind.FOLDER
    return EntryKind.FILE if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else EntryKind.OTHER


class JobFile:
    """A plain file, open. `read` may be called from any thread, one at a time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        status = os.fstat(fd)
        self.size = status.st_size
        self.modified_at = status.st_mtime
        #: Another one for each content: it is told in an ETag. Not of the device, whose number each mount makes up; the
        #: time of the change of the inode, too, since a program can set the other one.
        self.version: tuple[int, ...] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        self._mtime_ns = status.st_mtime_ns

    def read(self, offset: int, length: int) -> bytes:
        """Exactly so much, of what was there when it was opened. Raises FileChanged, and OSError."""
        data = read_at(self._fd, offset, length)
        status = os.fstat(self._fd)
        # One that has grown is a log, most often, and is what it was up to here.
        is_same = status.st_size > self.size or (status.st_size, status.st_mtime_ns) == (self.size, self._mtime_ns)
        if len(data) < length or not is_same:
            raise FileChanged
        return data

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Readable(Protocol):
    """What is open, and is given in pieces."""

    #: Bytes.
    size: int
    #: Unix time.
    modified_at: float
    #: Another one for each content: it is told in an ETag.
    version: tuple[int, ...]

    def read(self, offset: int, length: int) -> bytes:
        """Exactly so much. Raises FileChanged, and OSError."""

    def close(self) -> None: ...


_File = TypeVar("_File", bound=Readable, covariant=True)


class Openable(ABC, Generic[_File]):
    """One call of `open` in a thread that may be given up: whatever it opens later is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: _File | None = None
        self._is_left = False

    def open(self) -> _File:
        """Raises NoSuchFile, and OSError if the disk does not answer."""
        file = self._open()
        with self._lock:
            self._file = file
            if self._is_left:
                file.close()
        return file

    @abstractmethod
    def _open(self) -> _File:
        """Likewise."""

    def leave(self) -> None:
        with self._lock:
            self._is_left = True
            if self._file is not None:
                self._file.close()


class Opening(Openable[JobFile]):
    """Of the file with these names below the job root."""

    def __init__(self, root: str, names: Sequence[str]) -> None:
        super().__init__()
        self._root, self._names = root, names

    def _open(self) -> JobFile:
        if not self._names:
            raise IsFolder("it is a folder")
        with (
            _told(self._root, self._names, "no such file"),
            _guarded(self._root, self._names) as at,
            beneath.plain_file(at, *self._names, own=True) as fd,
        ):
            return JobFile(os.dup(fd))


@contextlib.contextmanager
def _guarded(root: str, names: Sequence[str]) -> Iterator[int]:
    """The job root, open, unless this path leads to what is hidden."""
    with beneath.folder(root) as at:
        if names and _is_hidden(at, names[0]):
            raise NoSuchFile("no such file")
        yield at


def _is_hidden(at: int, name: str) -> bool:
    """An entry of the job root. By its name, and by what it is: a filesystem may take other spellings for one name."""
    if job_files.is_hidden((name,)):
        return True
    with beneath.suppress(Meaning.ABSENT):
        return os.stat(name, dir_fd=at, follow_symlinks=False).st_ino in _hidden_inodes(at)
    return False


def _hidden_inodes(at: int) -> set[int]:
    found = set()
    for hidden in job_files.HIDDEN:
        with beneath.suppress(Meaning.ABSENT):
            found.add(os.stat(hidden, dir_fd=at, follow_symlinks=False).st_ino)
    return found


@contextlib.contextmanager
def _told(root: str, names: Sequence[str], absent: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        match beneath.meaning(error):
            case Meaning.ABSENT:
                raise NoSuchFile(absent) from None
            case Meaning.FOREIGN | Meaning.CLOSED:
                raise _foreign(root, names) from None
            case Meaning.UNANSWERED:
                raise


def _foreign(root: str, names: Sequence[str]) -> NoSuchFile:
    with beneath.suppress(*beneath.NOT_THERE, Meaning.CLOSED):
        status = beneath.status(root, *names) if names else None
        if status is not None and _kind(status) is EntryKind.FOLDER:
            return IsFolder("it is a folder")
    return NoSuchFile("it is no plain file or folder of this job root; links are not followed")
