"""Ending what we started, and nothing else. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from argus_ray.node import processes
from argus_ray.payload import argus_processes

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


@pytest.fixture
def mark() -> Iterator[str]:
    name = f"test-{os.urandom(6).hex()}"
    yield name
    processes.end_marked(name, grace_s=0)


def start(mark: str | None, code: str) -> subprocess.Popen[bytes]:
    environ = {**os.environ, **({processes.MARK: mark} if mark else {})}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ, start_new_session=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == b"up"
    return child


def test_a_process_that_ignores_sigterm_is_killed(mark: str) -> None:
    start(mark, DEAF)
    processes.end_marked(mark, grace_s=0.2)
    assert processes.marked(mark) == []


def test_a_grandchild_in_its_own_session_is_found(mark: str) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}], start_new_session=True)"
    start(mark, code)
    assert processes.wait_until(lambda: len(processes.marked(mark)) == 1, 30), "the parent ended, the grandchild lives"
    processes.end_marked(mark, grace_s=0.1)
    assert processes.marked(mark) == []


def seen_of_one_that_hops(environment: Callable[[int], dict[str, str]], times: int) -> Counter[str | None]:
    """What is seen of the variable A=b of a process that becomes another program all the time."""
    again = 'exec /bin/sh -c "$0" "$0"'
    with subprocess.Popen(["/bin/sh", "-c", again, again], env={"A": "b"}) as child:
        found = Counter(environment(child.pid).get("A") for _ in range(times))
        child.kill()
    return found


@pytest.mark.parametrize("environment", [processes.environment, argus_processes.environment])
def test_one_that_becomes_another_program_all_the_time_is_known_each_time(
    environment: Callable[[int], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two programs it shows no environment."""
    monkeypatch.setattr(sys.modules[environment.__module__], "_EXECVE_S", 60.0)
    assert seen_of_one_that_hops(environment, 2000) == {"b": 2000}


@pytest.mark.parametrize("environment", [processes.environment, argus_processes.environment])
def test_a_looker_that_is_held_up_looks_again_all_the_same(
    environment: Callable[[int], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[environment.__module__], "_EXECVE_S", 0.0)
    monkeypatch.setattr(sys.modules[environment.__module__], "_LEAST_LOOKS", 100_000)
    assert seen_of_one_that_hops(environment, 500) == {"b": 500}


@pytest.mark.parametrize("environment", [processes.environment, argus_processes.environment])
def test_one_without_any_environment_is_not_waited_for(
    environment: Callable[[int], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["/bin/cat"], env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout
        child.stdin.write(b"up")
        child.stdin.flush()
        assert child.stdout.read(2) == b"up"
        monkeypatch.setattr(time, "sleep", None)
        assert environment(child.pid) == {}
        child.kill()


def test_one_below_that_shows_no_environment_is_ended(mark: str) -> None:
    """As Ray's agents are: a title of their own lies where it was."""
    code = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}], env={{}}, start_new_session=True)"
    )
    parent = start(mark, f"{code}; import time; time.sleep(600)")
    (below,) = processes.descendants(parent.pid)
    assert below not in processes.marked(mark)
    processes.end_marked(mark, grace_s=0.1, first=[parent.pid])
    assert not processes.descendants(parent.pid) and not processes.identity(below)


def test_a_process_without_the_mark_is_left_alone(mark: str) -> None:
    bystander = start(None, DEAF)
    try:
        start(mark, DEAF)
        processes.end_marked(mark, grace_s=0.1)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(30)


def test_a_mark_that_is_a_prefix_of_another_is_another(mark: str) -> None:
    other = start(f"{mark}-more", DEAF)
    assert processes.marked(mark) == []
    processes.end_marked(f"{mark}-more", grace_s=0)
    assert other.wait(30) == -signal.SIGKILL


def test_kill_tree_ends_children_too(mark: str) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}]).wait()"
    parent = start(mark, code)
    assert len(processes.marked(mark)) == 2
    processes.kill_tree(parent.pid)
    parent.wait(30)
    assert processes.wait_until(lambda: processes.marked(mark) == [], 30)


def test_descendants_are_found_while_others_come_and_go(mark: str) -> None:
    """Each look finds what lives through all of it, and none fails on a process that ends meanwhile."""
    churn = "import os; print('up', flush=True)\nwhile True:\n p = os.fork() or os._exit(0)\n os.waitpid(p, 0)"
    nested = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}]).wait()"
    parent = start(mark, nested)
    (lives,) = [pid for pid in processes.marked(mark) if pid != parent.pid]
    for _ in range(2):
        start(mark, churn)
    for _ in range(300):
        assert {parent.pid, lives} <= set(processes.descendants(os.getpid()))
    assert processes.descendants(parent.pid) == [lives]


def test_a_process_is_told_from_a_later_one_of_its_id() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    who = processes.identity(child.pid)
    assert processes.lives(who) and processes.lives(processes.identity(os.getpid()))
    pid, begun, boot, space = who.split()
    assert pid == str(child.pid)
    assert not processes.lives(f"{pid} {int(begun) + 1} {boot} {space}"), "its id, started later"
    assert not processes.lives(f"{pid} {begun} {'0' * 36} {space}"), "before the machine was started anew"
    assert processes.lives(f"{pid} {begun} {boot} pid:[1]"), "of another container: not known, so not dead"
    child.kill()
    assert processes.wait_until(lambda: not processes.lives(who), 30), "not collected, and yet it has ended"
    child.wait(30)
    assert processes.identity(child.pid) == "" and not processes.lives(who)
    for odd in ("", "x", "1", "x y z w", "0 0 0"):
        assert not processes.lives(odd)


def test_a_variable_is_read_from_a_process() -> None:
    code = "print('up', flush=True); import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], env={"A": "", "AB": "1=2"}, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline()
    assert [processes.variable(child.pid, name) for name in ("A", "AB", "B")] == ["", "1=2", None]
    child.kill()
    child.communicate()
    assert processes.variable(child.pid, "A") is None
