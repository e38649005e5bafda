"""Processes of attempts that are over are ended by the watchdog, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from argus_ray.node import processes
from argus_ray.node.leftovers import LOOK_EVERY_S, Leftovers
from argus_ray.node.shared_memory import GRACE_S
from tests.support.running import is_alive, kill

NAME = "argus-ada-sft-20260101-000000-abcd--a01"
STAY = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
Leave = Callable[..., int]


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return tmp_path / "users"


@pytest.fixture
def root(users: Path) -> Path:
    made = users / "ada" / "jobs" / NAME
    made.mkdir(parents=True)
    return made


@pytest.fixture
def leave() -> Iterator[Leave]:
    """A process whose parent is gone; or one below a process named raylet."""
    left: list[int] = []

    def leave(root: Path, *, raylet: bool = False, **variables: str) -> int:
        marks = {"ARGUS_JOB_ROOT": str(root), "ARGUS_SUBMISSION_ID": root.name, "ARGUS_STOP_GRACE_S": "5"}
        name = "import ctypes; ctypes.CDLL(None).prctl(15, b'raylet'); " if raylet else ""
        child = f"subprocess.Popen({STAY!r}, start_new_session=True)"
        program = f"{name}import signal, subprocess; print({child}.pid, flush=True)"
        parent = subprocess.Popen(
            [sys.executable, "-S", "-c", f"{program}; signal.pause()" if raylet else program],
            stdout=subprocess.PIPE,
            env={**os.environ, **marks, **variables},
        )
        assert parent.stdout is not None
        left.append(int(parent.stdout.readline()))
        if raylet:
            left.append(parent.pid)
        else:
            parent.wait()
        return left[-2] if raylet else left[-1]

    yield leave
    kill(left)


def test_what_an_attempt_that_is_over_has_left(root: Path, users: Path, leave: Leave) -> None:
    pids = [leave(root), leave(root)]
    looks = Leftovers(users, lambda: pids)
    assert looks.end(0.0) == []
    (root / "exit.json").touch()
    assert looks.end(LOOK_EVERY_S - 0.1) == []  # not looked yet
    assert looks.end(LOOK_EVERY_S) == []
    assert looks.end(LOOK_EVERY_S + GRACE_S - 0.1) == []
    assert all(map(is_alive, pids))
    (line,) = looks.end(2 * LOOK_EVERY_S + GRACE_S)
    assert line.startswith(f"what {NAME} had left: process {pids[0]}, {pids[1]}")
    assert processes.wait_until(lambda: not any(map(is_alive, pids)), 30)
    assert looks.end(100.0) == []


def test_killed_with_its_runner(root: Path, users: Path, leave: Leave) -> None:
    pid = leave(root)
    (root / "killed.json").touch()
    looks = Leftovers(users, lambda: [pid])
    looks.end(0.0)
    assert len(looks.end(GRACE_S)) == 1


def test_a_canceled_one_has_its_time_to_end(root: Path, users: Path, leave: Leave) -> None:
    pid = leave(root)
    (root / "canceled").touch()
    looks = Leftovers(users, lambda: [pid])
    looks.end(0.0)
    assert looks.end(GRACE_S + 5 + 29) == []
    assert len(looks.end(GRACE_S + 5 + 30 + LOOK_EVERY_S)) == 1


def test_nobody_elses(root: Path, users: Path, tmp_path: Path, leave: Leave) -> None:
    (root / "exit.json").touch()
    (alive := root.with_name("alive--a01")).mkdir()
    (linked := root.with_name("linked--a01")).mkdir()
    (linked / "exit.json").symlink_to(root / "exit.json")
    (elsewhere := tmp_path / "pool" / "users" / "ada" / "jobs" / NAME).mkdir(parents=True)
    (elsewhere / "exit.json").touch()
    spared = {
        "of a live attempt, on the second node of its gang": leave(alive),
        "no record": leave(linked),
        "another pool's": leave(elsewhere),
        "the names do not fit": leave(root, ARGUS_SUBMISSION_ID="x"),
        "below the raylet: Ray's": leave(root, raylet=True),
    }
    other_node = leave(root)
    looks = Leftovers(users, lambda: spared.values())
    looks.end(0.0)
    assert looks.end(1000.0) == []
    assert [why for why, pid in spared.items() if not is_alive(pid)] == []
    assert is_alive(other_node)


def test_an_id_that_belongs_to_somebody_else_by_now(root: Path, leave: Leave) -> None:
    pid = leave(root)
    assert not processes.kill_if(pid, lambda: False)
    assert is_alive(pid)
    assert processes.kill_if(pid, lambda: True)
    assert processes.wait_until(lambda: not is_alive(pid), 30)
    assert not processes.kill_if(1 << 22, lambda: True)
