"""Find and end processes that we started, and no others. Linux only: it reads /proc.

Every process that belongs to one start carries a mark in its environment, which children inherit whatever else they
do (new session, new parent). So nothing is ever ended by its name, and nothing that we started is missed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

#: The variable that carries the mark.
MARK = "ARGUS_INSTANCE"


def marked(mark: str) -> list[int]:
    """Ids of the live processes that carry this mark, without the caller."""
    return with_variable(MARK, mark)


def with_variable(name: str, value: str) -> list[int]:
    """Ids of the live processes that were started with this environment variable, without the caller.

    A process that has ended and was not collected by its parent has no environment any more, so it does not count.
    """
    wanted = f"{name}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue  # it ended, or is another user's
        if wanted in environ.split(b"\0"):
            found.append(int(entry.name))
    return found


def commands(pids: Iterable[int]) -> list[str]:
    """The command lines of those that live, words divided by spaces."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found.append(b" ".join(words).decode(errors="replace").strip())
    return found


def descendants(pid: int) -> list[int]:
    """Ids of the live processes below this one, the nearest first."""
    found = _children(pid)
    for parent in found:  # grows while it is read
        found += _children(parent)
    return [each for each in found if not _has_ended(each)]


def end_marked(mark: str, *, grace_s: float, first: Iterable[int] = ()) -> None:
    """End every process with this mark; see `end`."""
    end(lambda: marked(mark), grace_s=grace_s, first=first)


def end(find: Callable[[], list[int]], *, grace_s: float, first: Iterable[int] = ()) -> None:
    """End every process that `find` finds: SIGTERM to `first` (or to all), SIGKILL after the grace, in seconds. Without
    a grace there is no SIGTERM.

    Raises TimeoutError if some are left 10 s after SIGKILL (a process stuck in the kernel).
    """
    if grace_s > 0:
        for pid in list(first) or find():
            _signal(pid, signal.SIGTERM)
        if wait_until(lambda: not find(), grace_s):
            return
    deadline = time.monotonic() + 10
    while left := find():
        # A process may have started another one since the list was made: list again until there is none.
        for pid in left:
            _signal(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes that do not end: {left}")
        time.sleep(0.05)


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything below it, top first, so that no parent sees a child die and reacts."""
    doomed = [pid]
    for parent in doomed:
        doomed += _children(parent)
    for each in doomed:
        _signal(each, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], timeout_s: float, poll_s: float = 0.1) -> bool:
    """Poll until the condition holds; False if it did not within the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    """Of all its threads."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in children.read_text().split()]
    return found


def _has_ended(pid: int) -> bool:
    """Gone, or only waiting to be collected by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
