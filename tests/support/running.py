"""The runner as a real process: how tests start it, and what they ask of it and of what it has started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from argus_ray.core import paths
from argus_ray.node import processes

#: Without site packages, whose import costs more than the tests.
PYTHON = (sys.executable, "-u", "-S")
RUNNER = str(Path(__file__).parents[2] / "argus_ray/payload/argus_runner.py")
DEADLINE_S = 60.0

Start = Callable[..., "subprocess.Popen[bytes]"]


def name_of(pid: int) -> str:
    """Empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    output, _ = process.communicate(timeout=DEADLINE_S)
    return process.returncode, output


def until(condition: Callable[[], Any], what: str, *, within_s: float = DEADLINE_S) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"not within {within_s:g} s: {what}")


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def is_alive(pid: int) -> bool:
    """Not counting a zombie, which only waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may end between the opening and the reading
        return False


def kill(pids: Iterable[int]) -> None:
    """Those that have not ended; any of them may end at any time."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def record(job_root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(paths.exit_record(str(job_root))).read_text())
    return loaded


SLEEPER = "import os, time; open('pid', 'w').write(str(os.getpid())); print('up'); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, lambda *_: print('no')); {SLEEPER}"


def log_of(job_root: Path) -> str:
    return content(Path(paths.driver_log(str(job_root))))


def descendants_by_variable(job_root: Path) -> set[int]:
    """Live processes that were started with this job root in their environment."""
    return set(processes.with_variable("ARGUS_JOB_ROOT", str(job_root)))
