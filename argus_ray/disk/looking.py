"""How an input is looked at: what is an error and what a doubt, plain files and folders only, and links followed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from argus_ray.core.text import clean
from argus_ray.disk import beneath
from argus_ray.disk.atomic import NotAFile
from argus_ray.disk.beneath import Meaning

#: Of one folder that are looked at.
MAX_NAMES = 10_000
#: Symbolic links that Linux follows on the way to one file.
_MAX_LINKS = 40

#: Notes what is in doubt, in words.
Doubt = Callable[[str], None]


class Wrong(Exception):
    """No verl can run with this."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        # It may quote what a user's file says, or the name of a file.
        self.rule = clean(rule)


def names_in(path: str) -> dict[str, bool]:
    """The names in a folder, and of each whether it is a link."""
    try:
        with os.scandir(path) as entries:
            return {entry.name: entry.is_symlink() for entry in islice(entries, MAX_NAMES)}
    except NotADirectoryError:
        # The path itself, or one above it, which is as if it did not exist.
        Path(path).stat()
        raise Wrong("is no folder") from None


@contextlib.contextmanager
def plain_file(path: str) -> Iterator[tuple[int, int]]:
    """An open file and its size. Inputs may be links."""
    with contextlib.ExitStack() as opened:
        try:
            fd = opened.enter_context(beneath.plain_file(path, follow_links=True))
        except NotAFile:
            raise Wrong("is no plain file") from None
        yield fd, os.fstat(fd).st_size


def is_folder(path: str) -> bool:
    """False also where a link leads nowhere. Raises OSError where the disk does not say."""
    return stat.S_ISDIR(_mode(path))


def is_there(path: str) -> bool:
    """The same of anything."""
    return _mode(path) != 0


def _mode(path: str) -> int:
    """0 where there is nothing."""
    try:
        return Path(path).stat().st_mode
    except OSError as error:
        if why_never(error, path):
            return 0
        raise


class Resolver:
    """`os.path.realpath` for many names in few folders: each folder is resolved once. Raises OSError where the disk
    does not say: that is no link that leads out."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        at = path
        for _ in range(_MAX_LINKS):
            folder, name = os.path.split(at)
            if name in ("", ".", ".."):
                break
            here = f"{self._folder(folder).rstrip('/')}/{name}"
            try:
                target = Path(here).readlink()
            except OSError as error:
                if error.errno == errno.EINVAL or beneath.meaning(error) in beneath.NOT_THERE:
                    return here
                raise
            at = str(Path(here).parent / target)
        return resolve(at)

    def _folder(self, path: str) -> str:
        if path not in self._folders:
            self._folders[path] = resolve(path)
        return self._folders[path]


def resolve(path: str) -> str:
    """Without links, as far as it exists. Raises OSError where the disk does not say."""
    try:
        return os.path.realpath(path, strict=True)
    except FileNotFoundError:
        return os.path.realpath(path)


def why_never(error: OSError, path: str) -> str:
    """The rule that the path breaks for certain, on whatever machine; empty: nothing follows from this error. What is
    closed to us may be open to the run."""
    if error.errno == errno.ENAMETOOLONG:
        return "is too long for the shared filesystem"
    if isinstance(error, NotADirectoryError):
        return "leads through something that is no folder"
    if error.errno == errno.ELOOP:
        at = error.filename if isinstance(error.filename, str) and error.filename.startswith("/") else path
        return "leads in a circle of symbolic links" if _is_circle(at) else ""
    return "does not exist" if beneath.meaning(error) is Meaning.ABSENT else ""


def words_of(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__


def _is_circle(path: str) -> bool:
    """Whether its links come to no end, by following them one by one: "too many links" alone may be an automounter's
    failure."""
    at, links, left = "/", 0, deque(path.split("/"))
    while left:
        part = left.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            at = str(Path(at).parent)
            continue
        here = f"{at.rstrip('/')}/{part}"
        try:
            target = str(Path(here).readlink())
        except OSError:
            at = here  # it is no link, or not known
            continue
        links += 1
        if links > _MAX_LINKS:
            return True
        if target.startswith("/"):
            at = "/"
        left.extendleft(reversed(target.split("/")))
    return False
