"""What an attempt's runner must know of processes: how to end all that is left below it, and how to run a part of
itself as a process of its own. Linux only: it reads /proc. Standard library only, and little of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

#: Seconds after which a process that does not die is left alone (stuck in the kernel).
KILL_PATIENCE_S = 10.0
#: Quick rounds of `end_children`, for processes that start others faster than all of them can be listed.
_QUICK_ROUNDS = 50
#: For so long the look at a process waits for the end of its execve: a disk may hang there. Seconds.
_EXECVE_S = 0.2
#: And so many looks: it may be us who were held up.
_LEAST_LOOKS = 20
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


class Entry(NamedTuple):
    parent: int
    name: str
    #: Only waiting to be collected by its parent.
    has_ended: bool


def become_subreaper() -> None:
    """Whatever runs below this process and loses its parent becomes its child: nothing can leave."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when the thread of `parent` that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def fork(run: Callable[[], None], keep: Collection[int], teller: int) -> int:
    """Run this in a process of its own, in a session of its own, which no signal but SIGKILL ends. Its id.

    Of the descriptors it has `teller` and those in `keep` only: it must hold no pipe of ours open. An error that ends
    it is told there as `crashed TEXT`. To be called while this process has one thread."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        for fd in map(int, os.listdir("/proc/self/fd")):
            if fd > 2 and fd not in (teller, *keep):
                with contextlib.suppress(OSError):  # the list's own
                    os.close(fd)
        run()
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(teller, f"crashed {type(error).__name__}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(0)


#: Signals by which a run is stopped.
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def table() -> dict[int, Entry]:
    """All processes that can be seen. Not by /proc/PID/task/TID/children, which leaves some out while others end."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                stat = _read(f"/proc/{name}/stat").decode(errors="replace")
                head, _, tail = stat.rpartition(")")
                state, parent = tail.split(None, 2)[:2]
                found[int(name)] = Entry(int(parent), head.partition("(")[2], state in "ZX")
    return found


def below(pid: int, entries: dict[int, Entry]) -> list[int]:
    """What runs below this process by the table, the nearest first."""
    children: dict[int, list[int]] = {}
    for each, entry in entries.items():
        children.setdefault(entry.parent, []).append(each)
    found = list(children.get(pid, ()))
    for parent in found:  # grows while it is read
        found += children.get(parent, ())
    return found


def environment(pid: int) -> dict[str, str]:
    """What it was started with; empty for one that has ended, or is another user's. Within an execve it has a program
    and no environment yet: its end, `env_end` of proc(5), is 0. So it is looked at again."""
    deadline, looks = time.monotonic() + _EXECVE_S, 0
    try:
        while not (raw := _read(f"/proc/{pid}/environ")) and (looks < _LEAST_LOOKS or time.monotonic() < deadline):
            os.readlink(f"/proc/{pid}/exe")  # fails for a thread of the kernel, and for what has ended
            begin, end = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[47:49]
            if begin == end != b"0":
                break  # it was given none
            looks += 1
            time.sleep(0.001)
    except OSError:
        return {}
    pairs = (pair.partition("=") for pair in raw.decode(errors="replace").split("\0") if pair)
    return {name: value for name, _, value in pairs}


def end_children(
    spare: Collection[int] = (), reaped: Callable[[int, int], None] = lambda pid, status: None
) -> list[int]:
    """SIGKILL everything below this process, a subreaper, but for its children in `spare`. Those that did not die
    within KILL_PATIENCE_S. `reaped` is told the id and status of each child that was collected.

    What loses its parent meanwhile becomes a child of ours, so "no child any more" is the proof that nothing is left.
    """
    own_group = os.getpgid(0)
    deadline = time.monotonic() + KILL_PATIENCE_S
    rounds = 0
    while True:
        if not _reap(reaped):
            return []
        children = [pid for pid in _children() if pid not in spare]
        for pid in children:
            # A child that nobody has collected keeps its id and its group's. A whole group dies in one moment, however
            # fast its members start others.
            with contextlib.suppress(ProcessLookupError):
                group = os.getpgid(pid)
                if group != own_group:
                    os.killpg(group, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
        rounds += 1
        if rounds % _QUICK_ROUNDS and children:
            if rounds > 10 * _QUICK_ROUNDS:  # something large, which takes its time to die
                time.sleep(0.002)
            continue
        left = [pid for pid in below(os.getpid(), table()) if pid not in spare]
        if not left and not [pid for pid in below(os.getpid(), table()) if pid not in spare]:
            return []
        for pid in left:  # below a child that does not die
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.005)


def _reap(reaped: Callable[[int, int], None]) -> bool:
    """Collect what has ended. False: there is no child any more."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        reaped(pid, status)


def _children() -> list[int]:
    """Some of the children, quickly."""
    try:
        return [int(pid) for pid in _read(f"/proc/self/task/{os.getpid()}/children").split()]
    except OSError:
        return []


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)
