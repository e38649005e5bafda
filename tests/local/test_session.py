"""One run over a one-machine cluster without Ray: its exit codes, and that it leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.local import folder, session
from argus_ray.local.client import ApiError
from argus_ray.local.cluster import NotStarted, OneMachine
from argus_ray.local.folder import Refused
from argus_ray.node import processes

#: A program with a child that ignores SIGTERM in the place of the cluster.
PROGRAM = """
import signal, sys, time
from pathlib import Path
from argus_ray.local import folder, session

def story(machine, admin):
    sleep = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    machine._spawn("deaf", sleep, machine.environment())
    print("up", machine.mark, flush=True)
    if "--end" in sys.argv:
        return 0
    time.sleep(600)

def run():
    root = folder.usable_root(sys.argv[1])
    with folder.held(root):
        return session.on_machine("program", root, story, home=Path.cwd(), keep="--keep" in sys.argv)

# Whoever runs the tests in the background has it ignored, and so do we.
signal.signal(signal.SIGINT, signal.default_int_handler)
session.end_on_signals()
sys.exit(session.exit_code("program", run))
"""

Running = tuple[subprocess.Popen[str], str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "quick"


def start(root: Path, *options: str) -> Running:
    """The program, as far as it has started its child; and the mark."""
    command = [sys.executable, "-c", PROGRAM, str(root), *options]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    word, _, mark = child.stdout.readline().strip().partition(" ")
    assert word == "up"
    return child, mark


def clear(running: Running) -> None:
    child, mark = running
    child.kill()
    child.communicate(timeout=30)
    processes.end_marked(mark, grace_s=0)


@pytest.fixture
def running(root: Path) -> Iterator[Running]:
    found = start(root)
    yield found
    clear(found)


def test_a_second_one_in_the_folder_is_refused(root: Path, running: Running) -> None:
    with pytest.raises(Refused, match="another one is running"), folder.held(root):
        pass
    assert processes.marked(running[1])


def test_one_that_is_running_can_be_ended(root: Path, running: Running) -> None:
    child, mark = running
    assert folder.end(root)
    assert child.wait(30) == 128 + signal.SIGTERM
    assert processes.marked(mark) == []
    assert not folder.end(root)


def test_what_a_crash_has_left_can_be_ended(root: Path, running: Running) -> None:
    child, mark = running
    child.kill()
    child.wait(30)
    assert processes.marked(mark)
    assert folder.end(root)
    assert processes.marked(mark) == []


def test_ctrl_c_twice_leaves_nothing(running: Running) -> None:
    child, mark = running
    assert child.stdout is not None
    child.send_signal(signal.SIGINT)
    assert "stopping" in child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGINT
    assert errors == ""
    assert processes.marked(mark) == []


@pytest.mark.parametrize("keep", [False, True])
def test_what_has_come_to_its_end_stays_if_it_is_kept(root: Path, keep: bool) -> None:
    running = start(root, "--end", *(["--keep"] if keep else []))
    try:
        assert running[0].wait(30) == session.OK
        assert bool(processes.marked(running[1])) == keep
        assert folder.end(root) == keep, "one that was kept can be ended later"
        assert processes.marked(running[1]) == []
    finally:
        clear(running)


@pytest.fixture
def signals() -> Iterator[None]:
    """`on_machine` ignores them in its end, since its program ends with it."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize(
    "error",
    [
        NotStarted("the head ended"),
        ApiError("409"),
        subprocess.TimeoutExpired("ray", 3),
        OSError("disk"),
        TimeoutError("3 s"),
    ],
)
@pytest.mark.usefixtures("signals")
def test_a_story_that_goes_wrong_names_the_reason_and_the_logs(
    root: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def story(_: OneMachine, admin: str) -> int:
        assert len(admin) == 48
        raise error

    monkeypatch.chdir(root.parent)
    assert session.on_machine("program", root, story, home=root.parent) == session.FAILED
    told = capsys.readouterr()
    assert f"program: {error}\nThe logs are in {root}/logs." in told.err
    assert "stopping everything that was started" in told.out


@pytest.mark.parametrize(
    ("error", "code"), [(Refused("no"), session.REFUSED), (PermissionError("closed"), session.FAILED)]
)
def test_a_refusal_has_an_exit_code_of_its_own(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        raise error

    assert session.exit_code("program", run) == code
    assert capsys.readouterr().err == f"program: {error}\n"
    assert session.exit_code("program", lambda: 7) == 7


def test_a_program_under_nohup_goes_on_ignoring() -> None:
    code = (
        "import signal; from argus_ray.local import session; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "session.end_on_signals(); print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
