"""What earlier attempts have left on a node is ended when a run starts, and never anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.running import PYTHON, Start, finish, is_alive, kill, log_of, until
from tests.support.segments import Segments

WAIT_FOR_LOG = """
import os, time
while not (os.path.exists("logs/driver.log") and {words!r} in open("logs/driver.log").read()):
    time.sleep(0.01)
"""
Leave = Callable[..., int]


def attempt(job_root: Path, name: str = "argus-ada-sft-20250101-000000-aaaa--a01", user: str = "bob") -> Path:
    return job_root.parents[2] / user / "jobs" / name


def over(root: Path, name: str = "exit.json", ago_s: float = 60.0) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("{}")
    at = (root / name).stat().st_mtime - ago_s
    os.utime(root / name, (at, at))


@pytest.fixture
def leave(job_root: Path) -> Iterator[Leave]:
    """Leaves a process as an earlier attempt would: its parent is gone."""
    left: list[int] = []

    def leave(root: Path, *, raylet: bool = False, **variables: str) -> int:
        environ = {
            **os.environ,
            "ARGUS_JOB_ROOT": str(root),
            "ARGUS_SUBMISSION_ID": root.name,
            "ARGUS_STOP_GRACE_S": "5",
        }
        stay = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
        if raylet:  # one that is below a process of this name has Ray as its owner
            name = "import ctypes; ctypes.CDLL(None).prctl(15, b'raylet')"
            program = (
                f"{name}; import subprocess, signal; print(subprocess.Popen({stay!r}).pid, flush=True); signal.pause()"
            )
        else:
            program = f"import subprocess; print(subprocess.Popen({stay!r}, start_new_session=True).pid)"
        parent = subprocess.Popen([*PYTHON, "-c", program], stdout=subprocess.PIPE, env={**environ, **variables})
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        left.append(pid)
        if raylet:
            left.append(parent.pid)
        else:
            parent.wait()
        return pid

    yield leave
    kill(left)


class TestProcesses:
    @pytest.mark.parametrize("name", ["exit.json", "killed.json", "canceled"])
    def test_of_an_attempt_that_is_over(self, start: Start, job_root: Path, leave: Leave, name: str) -> None:
        root = attempt(job_root)
        over(root, name)
        pid = leave(root)
        said = f"argus-runner: ended what {root.name} had left on this node: process {pid}\n"
        assert finish(start(WAIT_FOR_LOG.format(words=said)))[0] == 0
        assert not is_alive(pid)

    def test_of_nobody_else(self, start: Start, job_root: Path, leave: Leave) -> None:
        over(ended := attempt(job_root))
        over(just_now := attempt(job_root, "argus-ada-sft-20250101-000000-bbbb--a01"), ago_s=1.0)
        over(stopping := attempt(job_root, "argus-ada-sft-20250101-000000-cccc--a01"), "canceled", ago_s=20.0)
        (live := attempt(job_root, "argus-ada-sft-20250101-000000-dddd--a01")).mkdir(parents=True)
        over(elsewhere := job_root.parents[3] / "pool" / "users" / "ada" / "jobs" / ended.name)
        over(linked := attempt(job_root, "argus-ada-sft-20250101-000000-eeee--a01"), "x")
        (linked / "exit.json").symlink_to(ended / "exit.json")
        spared = {
            "it ended just now": leave(just_now),
            "it has its time to end": leave(stopping),
            "it is alive: a gang's second node": leave(live),
            "another pool": leave(elsewhere),
            "no record, but a link": leave(linked),
            "another watchdog's": leave(ended, ARGUS_NODE="another"),
            "the names do not fit": leave(ended, ARGUS_SUBMISSION_ID="x"),
            "Ray ends it": leave(ended, raylet=True),
        }
        pid = leave(ended)
        said = f"had left on this node: process {pid}\n"
        assert finish(start(WAIT_FOR_LOG.format(words=said)))[0] == 0
        assert [why for why, each in spared.items() if not is_alive(each)] == []
        assert not is_alive(pid)


class TestSharedMemory:
    def test_of_what_was_ended_and_of_nobody_else(self, start: Start, job_root: Path) -> None:
        over(root := attempt(job_root))
        segments = Segments()
        marks = {"ARGUS_JOB_ROOT": str(root), "ARGUS_SUBMISSION_ID": root.name, "ARGUS_STOP_GRACE_S": "5"}
        left, shared, of_a_stranger = segments.name("verl_weights_{0}{0}{0}{0}"), segments.name(), segments.name()
        another_name = segments.name("dataset_{}")
        try:
            process = segments.hold(left, shared, another_name, environ=marks)
            stranger = segments.hold(shared, of_a_stranger, environ={})
            said = f"argus-runner: removed shared memory that {root.name} had left on this node: {left.name}\n"
            assert finish(start(WAIT_FOR_LOG.format(words=said)))[0] == 0
            assert process.poll() is not None and stranger.poll() is None
            assert [path.exists() for path in (left, shared, of_a_stranger, another_name)] == [False, True, True, True]
        finally:
            segments.close()


class TestGpus:
    def smi(self, folder: Path, body: str) -> dict[str, str]:
        folder.mkdir(exist_ok=True)
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
        (folder / "nvidia-smi").chmod(0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}"}

    def test_memory_that_no_live_attempt_owns_is_said(
        self, start: Start, job_root: Path, leave: Leave, tmp_path: Path
    ) -> None:
        stranger, owned = leave(attempt(job_root)), leave(attempt(job_root), raylet=True)
        asked = "test \"$1 $2\" = '--query-compute-apps=pid,used_memory --format=csv,noheader' || exit 1"
        rows = f"echo '{owned}, 10 MiB'; echo '{stranger}, 20000 MiB'; echo 4000000, 7 MiB; echo junk"
        process = start(WAIT_FOR_LOG.format(words="4000000"), extra=self.smi(tmp_path / "bin", f"{asked}; {rows}"))
        assert finish(process)[0] == 0
        lines = [line for line in log_of(job_root).splitlines() if "GPU" in line]
        name = Path(f"/proc/{stranger}/comm").read_text().strip()
        told = "argus-runner: GPU memory: process"
        assert lines == [
            f"{told} {stranger} ({name}), which belongs to no live attempt, holds 20000 MiB; the run may lack it",
            f"{told} 4000000, which cannot be seen from here, holds 7 MiB; the run may lack it",
        ]

    @pytest.mark.parametrize("body", ["exit 9", "echo $$ > {pid}; exec sleep 600"])
    def test_a_tool_that_fails_or_hangs_fails_nothing(
        self, start: Start, job_root: Path, tmp_path: Path, body: str
    ) -> None:
        pid = tmp_path / "pid"
        is_there = f"os.path.exists({str(pid)!r}) and os.path.getsize({str(pid)!r})"
        wait = f"import os, time\nwhile not ({is_there}): time.sleep(0.01)" if "pid" in body else ""
        process = start(f"{wait}\nprint('ran')", extra=self.smi(tmp_path / "bin", body.format(pid=pid)))
        assert finish(process) == (0, b"ran\n")
        if wait:
            until(lambda: not is_alive(int(pid.read_text())), "the tool is not left")


def test_the_start_marker_is_what_it_was(start: Start, job_root: Path) -> None:
    process = start("pass")
    assert finish(process)[0] == 0
    assert json.loads((job_root / "started.json").read_text())["pid"] == process.pid
