"""What earlier attempts have left on this node, looked for when a run starts: processes, which are ended with their
shared memory, and memory of GPUs, which is told.

Never a process of anybody else: it must name the job root of an attempt that is over in the environment that it was
started with, and nobody who owns it may be above it. On the other nodes of a gang no runner runs, and the owner is
Ray's worker, below the raylet."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from collections.abc import Callable

import argus_memory  # type: ignore[import-not-found]
import argus_processes  # type: ignore[import-not-found]

#: From the end of an attempt, by the file server's clock. Ray ends what it has started itself within that time.
GRACE_S = 15.0
#: Beyond the program's own time to end, for one that was told to stop and has not recorded its end.
_STOP_MARGIN_S = 30.0
_KILL_S = 5.0
_GPU_TIMEOUT_S = 10.0
#: Variables of an attempt's environment, and the one that a node's watchdog marks all that is below it with.
_JOB_ROOT, _SUBMISSION, _STOP_GRACE, _NODE = "ARGUS_JOB_ROOT", "ARGUS_SUBMISSION_ID", "ARGUS_STOP_GRACE_S", "ARGUS_NODE"

Say = Callable[[str], object]


def look(job_root: str, say: Say) -> None:
    """`job_root`: of the attempt that starts, with its start marker."""
    with contextlib.suppress(OSError):
        os.nice(10)
    end_processes(job_root, say)
    look_at_gpus(say)


def end_processes(job_root: str, say: Say) -> None:
    """Those of attempts that are over, of the same pool and node."""
    now = os.stat(f"{job_root}/started.json").st_mtime
    over = {}
    for submission, root, stop_grace_s in {mark[:3] for mark in _orphans(job_root).values()}:
        ended_at = _ended_at(root, stop_grace_s)
        if ended_at is not None and now - ended_at > GRACE_S:
            over[root] = submission
    ended: dict[str, set[int]] = {}
    memory: dict[str, set[argus_memory.File]] = {}
    deadline = time.monotonic() + _KILL_S
    while over and (left := {pid: root for pid, (_, root, _) in _orphans(job_root).items() if root in over}):
        for pid, root in left.items():
            used = argus_memory.used_by([pid])
            if _kill(pid, root):
                ended.setdefault(over[root], set()).add(pid)
                memory.setdefault(over[root], set()).update(used)
        if time.monotonic() > deadline:
            say(f"processes of attempts that are over do not die: {_list(left)}")
            break
        time.sleep(0.01)
    for submission, pids in sorted(ended.items()):
        say(f"ended what {submission} had left on this node: process {_list(pids)}")
        if names := argus_memory.remove(memory[submission]):
            say(f"removed shared memory that {submission} had left on this node: {', '.join(names)}")


def look_at_gpus(say: Say) -> None:
    """Say which memory of GPUs is held by a process that no live attempt owns."""
    held = _gpu_memory()
    if not held:
        return
    entries = argus_processes.table()
    for pid, memory in held:
        if pid not in entries:
            who = f"process {pid}, which cannot be seen from here,"
        elif not _has_owner(pid, entries):
            who = f"process {pid} ({entries[pid].name}), which belongs to no live attempt,"
        else:
            continue
        say(f"GPU memory: {who} holds {memory}; the run may lack it")


def _orphans(job_root: str) -> dict[int, tuple[str, str, float]]:
    """Processes of other attempts whose owner is gone: their submission id, job root, and time to end in seconds."""
    users = _users(job_root)
    node = os.environ.get(_NODE)
    entries = argus_processes.table()
    found = {}
    for pid in entries:
        environ = argus_processes.environment(pid)
        root, submission = environ.get(_JOB_ROOT, ""), environ.get(_SUBMISSION, "")
        if not root or root == job_root or environ.get(_NODE) != node:
            continue
        if _users(root) != users or os.path.basename(root) != submission or _has_owner(pid, entries):
            continue
        try:
            grace_s = float(environ.get(_STOP_GRACE, ""))
        except ValueError:
            grace_s = 3600.0
        found[pid] = (submission, root, grace_s)
    return found


def _users(job_root: str) -> str:
    """`<shared_root>/users` of `<shared_root>/users/<user>/jobs/<submission_id>`."""
    jobs, user = os.path.split(os.path.dirname(os.path.dirname(job_root)))
    return jobs if user and os.path.basename(jobs) == "users" else ""


def _has_owner(pid: int, entries: dict[int, argus_processes.Entry]) -> bool:
    """Whether a raylet, or the runner that asks, is above it."""
    runner = os.getppid()
    for _ in range(len(entries)):
        if pid not in entries:
            return False
        if pid == runner or entries[pid].name == "raylet":
            return True
        pid = entries[pid].parent
    return False


def _ended_at(job_root: str, stop_grace_s: float) -> float | None:
    """Since when the attempt is over for certain; None: it is not."""
    found = []
    for name, wait_s in (("exit.json", 0.0), ("killed.json", 0.0), ("canceled", stop_grace_s + _STOP_MARGIN_S)):
        with contextlib.suppress(OSError):
            status = os.stat(f"{job_root}/{name}", follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                found.append(status.st_mtime + wait_s)
    return min(found, default=None)


def _kill(pid: int, job_root: str) -> bool:
    """If the process of this id still is one of that attempt."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Only now: the handle is of one process, whatever becomes of its id.
        if argus_processes.environment(pid).get(_JOB_ROOT) != job_root:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _gpu_memory() -> list[tuple[int, str]]:
    """Process ids with what they hold. Empty where that cannot be told."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if not any(os.access(os.path.join(folder, "nvidia-smi"), os.X_OK) for folder in folders):
        return []
    import subprocess

    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GPU_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in done.stdout.decode(errors="replace").splitlines():
        pid, _, memory = line.partition(",")
        if pid.strip().isdigit():
            found.append((int(pid), memory.strip()))
    return found


def _list(pids: set[int] | dict[int, str]) -> str:
    return ", ".join(map(str, sorted(pids)))
