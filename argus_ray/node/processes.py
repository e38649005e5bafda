"""Find and end processes that we started, and no others. Linux only: it reads /proc.

Every process that belongs to one start carries a mark in its environment, which children inherit whatever else they
do (new session, new parent). So nothing is ever ended by its name, and nothing that we started is missed, but for what
overwrites its environment: that is found by its parents.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: The variable that carries the mark.
MARK = "ARGUS_INSTANCE"
#: Seconds.
KILL_PATIENCE_S = 10.0
_TABLE_TRIES = 10
#: For so long the look at a process waits for the end of its execve: a disk may hang there. Seconds.
_EXECVE_S = 0.2
#: And so many looks: it may be us who were held up.
_LEAST_LOOKS = 20


def marked(mark: str) -> list[int]:
    """Ids of the live processes that carry this mark, without the caller."""
    return with_variable(MARK, mark)


def with_variable(name: str, value: str) -> list[int]:
    """Ids of the live processes that were started with this environment variable, without the caller.

    A process that has ended and was not collected by its parent has no environment any more, so it does not count.
    """
    wanted = f"{name}={value}".encode()
    return [pid for pid in listed() if pid != os.getpid() and wanted in _environ(pid)]


def variable(pid: int, name: str) -> str | None:
    """What this environment variable of a process said when it was started; None if it had none or has ended."""
    wanted = os.fsencode(name) + b"="
    found = next((entry for entry in _environ(pid) if entry.startswith(wanted)), None)
    return None if found is None else os.fsdecode(found[len(wanted) :])


def identity(pid: int) -> str:
    """What tells a process from each other one, also from a later one of its id: the id, its start in ticks since boot
    (proc(5), field 22 of stat), the boot and the PID namespace. Empty if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return "" if stat[0] in "ZX" else f"{pid} {stat[19]} {boot} {space}"


def lives(who: str) -> bool:
    """Whether the process of this `identity` lives. One of another PID namespace (a container's) cannot be looked at,
    and counts as living: with its namespace all that it has started would be gone."""
    pid, _, rest = who.partition(" ")
    if not pid.isdecimal() or len(rest.split()) != 3:
        return False
    mine = identity(os.getpid()).split()
    if mine and rest.split()[2] != mine[3]:
        return True
    return identity(int(pid)) == who


def environment(pid: int) -> dict[str, str]:
    """What it was started with; empty for one that has ended, or is another user's."""
    pairs = (entry.decode(errors="replace").partition("=") for entry in _environ(pid) if entry)
    return {name: value for name, _, value in pairs}


def _environ(pid: int) -> list[bytes]:
    """Within an execve a process has a program and no environment yet: its end, `env_end` of proc(5), is 0 (Linux,
    fs/binfmt_elf.c sets it last). So it is looked at again."""
    entry = Path(f"/proc/{pid}")
    deadline, looks = time.monotonic() + _EXECVE_S, 0
    try:
        while not (found := (entry / "environ").read_bytes()) and (looks < _LEAST_LOOKS or time.monotonic() < deadline):
            (entry / "exe").readlink()  # fails for a thread of the kernel, and for what has ended
            begin, end = (entry / "stat").read_text().rpartition(")")[2].split()[47:49]
            if begin == end != "0":
                break  # it was given none
            looks += 1
            time.sleep(0.001)
    except OSError:
        return []
    return found.split(b"\0")


def not_below(pids: Iterable[int], name: str) -> list[int]:
    """Those that live and have no ancestor of this name (as /proc/PID/comm tells it)."""
    table = _table()

    def has_ancestor(pid: int) -> bool:
        for _ in range(len(table)):
            if (entry := table.get(pid)) is None:
                return False
            if entry.name == name:
                return True
            pid = entry.parent
        return False

    return [pid for pid in pids if pid in table and not table[pid].has_ended and not has_ancestor(pid)]


def kill_if(pid: int, is_meant: Callable[[], bool]) -> bool:
    """SIGKILL, if this holds of the process that has this id now. Whether it was killed."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Only now: the handle is of one process, whatever becomes of its id.
        if not is_meant():
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


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
    table = _table()
    return [each for each in _below(pid, table) if not table[each].has_ended]


def end_marked(mark: str, *, grace_s: float, first: Iterable[int] = ()) -> None:
    """End every process with this mark and what runs below one; see `end`. A program that shows a title of its own, as
    Ray's agents do, has no environment that could be read."""
    below: dict[int, str] = {}

    def find() -> list[int]:
        found, table = marked(mark), _table()
        for each in {below_it for pid in found for below_it in _below(pid, table)} - below.keys() - {os.getpid()}:
            below[each] = identity(each)
        return sorted({*found, *(pid for pid, who in below.items() if who and identity(pid) == who)})

    find()  # while parents still tell whose they are
    end(find, grace_s=grace_s, first=first)


def end(find: Callable[[], list[int]], *, grace_s: float, first: Iterable[int] = ()) -> None:
    """End every process that `find` finds: SIGTERM to `first` (or to all), SIGKILL after the grace, in seconds. Without
    a grace there is no SIGTERM.

    Raises TimeoutError if some are left KILL_PATIENCE_S after SIGKILL (a process stuck in the kernel).
    """
    if grace_s > 0:
        for pid in list(first) or find():
            _signal(pid, signal.SIGTERM)
        if wait_until(lambda: not find(), grace_s):
            return
    deadline = time.monotonic() + KILL_PATIENCE_S
    while left := find():
        # A process may have started another one since the list was made: list again until there is none.
        for pid in left:
            _signal(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes that do not end: {left}")
        time.sleep(0.05)


def collect(child: subprocess.Popen[bytes]) -> None:
    """Wait for one that was killed. Raises TimeoutError if it does not die in KILL_PATIENCE_S (stuck in the kernel):
    subprocess's own is no OSError."""
    try:
        child.wait(KILL_PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"process {child.pid} does not end") from None


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything below it, top first, so that no parent sees a child die and reacts."""
    for each in [pid, *_below(pid, _table())]:
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


@dataclass(frozen=True)
class _Entry:
    parent: int
    name: str
    #: Only waiting to be collected by its parent.
    has_ended: bool


def _below(pid: int, table: Mapping[int, _Entry]) -> list[int]:
    children: dict[int, list[int]] = {}
    for each, entry in table.items():
        children.setdefault(entry.parent, []).append(each)
    found = list(children.get(pid, ()))
    for parent in found:  # grows while it is read
        found += children.get(parent, ())
    return found


def _table() -> dict[int, _Entry]:
    """All processes. Not by /proc/PID/task/TID/children, which leaves some out while others end (proc(5)).

    A process whose parent has ended while the table was made hangs below nobody in it, so such a table is made anew.
    On a machine where one always does, the last one has to do: callers look again.
    """
    table: dict[int, _Entry] = {}
    for _ in range(_TABLE_TRIES):
        table = {pid: entry for pid in listed() if (entry := _entry(pid)) is not None}
        # 0: outside of our PID namespace.
        if all(entry.parent == 0 or entry.parent in table for entry in table.values()):
            break
    return table


def listed() -> list[int]:
    """Ids of all processes that can be seen."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _entry(pid: int) -> _Entry | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None  # it is gone
    head, _, tail = stat.rpartition(")")
    state, parent = tail.split()[:2]
    return _Entry(int(parent), head.partition("(")[2], state in "ZX")
