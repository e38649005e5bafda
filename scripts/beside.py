"""Run a command beside others, at a low priority, and leave nothing of it: `beside.py OUTPUT COMMAND...`.

Its output, errors included, goes to the file OUTPUT; the exit status is the command's. The command gets a session of
its own, which is what Linux's autogroups weigh against each other; where there are none, its niceness counts. SIGINT,
SIGTERM, or the end of whoever started this interrupt the command, so that it can tear down what it has made. A second
one kills it, so Ctrl-C in a terminal is left to whoever started this. What is left of its processes when it has ended
is killed, those included that went into a session of their own: an orphan below becomes a child of this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
#: A tenth of the weight of what it runs beside. At 19, a seventieth, tests waited in vain for what they had started.
NICE = 10
#: Seconds for the command to end after it was interrupted.
GRACE_S = 60.0
#: Seconds until what was killed must be gone: it may hang in a disk.
KILL_S = 10.0


class Interrupted(Exception):
    """We were told to end."""


def main(output: str, command: list[str]) -> int:
    with contextlib.suppress(PermissionError):  # as the leader of a session, which has its own group
        os.setpgid(0, 0)
    prctl = ctypes.CDLL(None).prctl
    starter = os.getppid()
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for signum in (signal.SIGINT, signal.SIGTERM):  # a shell ignores SIGINT in what it starts in the background
        signal.signal(signum, _interrupt)
    if os.getppid() != starter:
        return 128 + signal.SIGTERM
    child: subprocess.Popen[bytes] | None = None
    try:
        with Path(output).open("wb") as out:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, preexec_fn=_step_back
            )
        code = _wait(child)
        return code if code >= 0 else 128 - code
    except Interrupted:
        if child is not None:
            _end(child)
        return 128 + signal.SIGINT
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        _kill_the_rest()


def _interrupt(signum: int, frame: object) -> None:
    raise Interrupted


def _step_back() -> None:
    """In the child, which is in its new session."""
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Until it ends. Orphans that end meanwhile are buried: who looks for them must not find a zombie."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C in a terminal does it: the whole group hears of it."""
    for signum in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired, Interrupted):  # a second Ctrl-C does not wait
            child.wait(GRACE_S)
            return


def _kill_the_rest() -> None:
    """Each child of ours, until there is none: the children of one that was killed become ours."""
    deadline = time.monotonic() + KILL_S
    while time.monotonic() < deadline:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
