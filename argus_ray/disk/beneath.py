"""The one way to open what lies below a folder that a run can write to, and the one table of what an error says of it.

Each name is opened relative to the descriptor of the folder above it, and no symbolic link is followed: whatever is
renamed or linked meanwhile, nothing outside can be reached. Only plain files and folders are opened for long: a pipe
would never answer. The callers differ in what they make of a `Meaning`, and in nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from enum import Enum
from types import TracebackType

from argus_ray.core import paths
from argus_ray.disk.atomic import NotAFile, open_plain

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Meaning(Enum):
    """What an error of the system says about a path."""

    #: Nothing has this name.
    ABSENT = "absent"
    #: Something of another kind has this name, or one above it: a link, a pipe, a file in place of a folder.
    FOREIGN = "foreign"
    #: Something is there, and we may not look at it.
    CLOSED = "closed"
    #: The disk did not say what is there; nothing follows from that, and the next answer may be another one.
    UNANSWERED = "unanswered"


#: All others are UNANSWERED: EIO, ESTALE, ETIMEDOUT, ENOTCONN, EMFILE, ...
_MEANINGS = {
    errno.ENOENT: Meaning.ABSENT,
    errno.ENAMETOOLONG: Meaning.ABSENT,
    errno.ENOTDIR: Meaning.FOREIGN,
    errno.EISDIR: Meaning.FOREIGN,
    errno.ELOOP: Meaning.FOREIGN,
    errno.ENXIO: Meaning.FOREIGN,
    errno.EACCES: Meaning.CLOSED,
    errno.EPERM: Meaning.CLOSED,
}
#: There is nothing of the kind that was looked for.
NOT_THERE = (Meaning.ABSENT, Meaning.FOREIGN)


def meaning(error: OSError) -> Meaning:
    if isinstance(error, NotAFile):
        return Meaning.FOREIGN
    return _MEANINGS.get(error.errno or 0, Meaning.UNANSWERED)


class suppress:
    """`contextlib.suppress` for errors that mean one of these."""

    def __init__(self, *meanings: Meaning) -> None:
        self._meanings = meanings

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        return isinstance(error, OSError) and meaning(error) in self._meanings


@contextlib.contextmanager
def folder(root: str | int, *names: str, root_may_be_link: bool = False) -> Iterator[int]:
    """The folder `names[-1]` in ... in `names[0]` in `root`, open; without names the root itself.

    `root` is a path, or the descriptor of a folder that stays open. A path's last component must be no link, unless it
    may be one; what stands above it is the operator's. Of a job root's path all below `users` must be none: its user's
    programs can write there. Raises OSError.
    """
    with contextlib.ExitStack() as opened:
        yield _walk(opened, root, names, follow=root_may_be_link)


@contextlib.contextmanager
def plain_file(root: str | int, *names: str, follow_links: bool = False, own: bool = False) -> Iterator[int]:
    """The plain file at the end of this way, open for reading; without names the root itself.

    `follow_links`: for a path that the operator vouches for. `own`: only if this is its one name, as it is of what the
    runner and the program make; with another one it may be anybody's. Raises OSError, and NotAFile for what is
    something else than such a file.
    """
    with contextlib.ExitStack() as opened:
        *above, name = names or (str(root),)
        at = _walk(opened, root, above, follow=follow_links) if names else None
        fd = open_plain(name, _unless(follow_links), dir_fd=at)
        opened.callback(os.close, fd)
        if own and os.fstat(fd).st_nlink > 1:
            raise NotAFile(f"{name} has more than one name")
        yield fd


def status(root: str | int, *names: str) -> os.stat_result:
    """Of whatever has the name at the end of this way, a link too; nothing is opened for it. Raises OSError."""
    *above, name = names
    with folder(root, *above) as at:
        return os.stat(name, dir_fd=at, follow_symlinks=False)


def _walk(opened: contextlib.ExitStack, root: str | int, names: tuple[str, ...] | list[str], *, follow: bool) -> int:
    if isinstance(root, int):
        fd = root
    else:
        above, below = paths.below_users(root)
        names = (*below, *names)
        fd = _open_folder(opened, above, None, follow=follow or bool(below))
    for name in names:
        fd = _open_folder(opened, name, fd, follow=False)
    return fd


def _open_folder(opened: contextlib.ExitStack, name: str, at: int | None, *, follow: bool) -> int:
    fd = os.open(name, _FOLDER | _unless(follow), dir_fd=at)
    opened.callback(os.close, fd)
    return fd


def _unless(follow: bool) -> int:
    return 0 if follow else os.O_NOFOLLOW
