"""scripts/beside.py: what runs beside the other tests is told apart, steps back, and leaves nothing."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.running import DEADLINE_S, content, is_alive, until

SCRIPT = str(Path(__file__).resolve().parents[2] / "scripts" / "beside.py")
NICE: int = runpy.run_path(SCRIPT)["NICE"]
PYTHON = (sys.executable, "-S", "-c")

#: Says where it is, and tidies up when it is interrupted. A grandchild, deaf and in a session of its own, is left.
WITH_REST = """
import os, signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); signal.signal(2, signal.SIG_IGN); time.sleep(600)"
start = "subprocess.Popen([sys.executable, '-S', '-c', sys.argv[1]], start_new_session=True, stdout=subprocess.DEVNULL)"
middle = [sys.executable, "-S", "-c", f"import subprocess, sys; print({start}.pid)", deaf]
rest = subprocess.run(middle, stdout=subprocess.PIPE, text=True).stdout.strip()
try:
    print("up", rest, flush=True)
    time.sleep(600 if sys.argv[1] == "stays" else 0)
except KeyboardInterrupt:
    print("tidied", flush=True)
    sys.exit(2)
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def start(output: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> subprocess.Popen[bytes]:
        # As a shell starts what is to run in the background.
        ignore = f"import os, signal, sys; signal.signal(2, signal.SIG_IGN); os.execv({sys.executable!r}, sys.argv)"
        started.append(subprocess.Popen([*PYTHON, ignore, SCRIPT, str(output), *command]))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(DEADLINE_S)


def rest_of(output: Path) -> int:
    """The process that it would leave, once it says so."""
    return int(until(lambda: content(output).endswith("\n") and content(output).split()[1], "it is up"))


def test_its_output_and_its_status_are_the_commands(start: Start, output: Path) -> None:
    process = start(*PYTHON, "import sys; print('said'); print('shouted', file=sys.stderr); sys.exit(3)")
    assert process.wait(DEADLINE_S) == 3
    assert sorted(content(output).split()) == ["said", "shouted"]


def test_one_that_is_killed_has_failed(start: Start) -> None:
    assert start(*PYTHON, "import os; os.kill(os.getpid(), 9)").wait(DEADLINE_S) == 137


def test_an_orphan_that_ends_is_no_zombie(start: Start) -> None:
    look = f"""
import os, subprocess, sys, time
middle = "import subprocess; print(subprocess.Popen(['true'], stdout=subprocess.DEVNULL).pid)"
orphan = subprocess.run([sys.executable, "-S", "-c", middle], stdout=subprocess.PIPE, text=True).stdout.strip()
deadline = time.monotonic() + {DEADLINE_S}
while os.path.exists(f"/proc/{{orphan}}"):
    assert time.monotonic() < deadline
    time.sleep(0.01)
"""
    assert start(*PYTHON, look).wait(2 * DEADLINE_S) == 0


def test_it_steps_back_in_a_session_of_its_own(start: Start, output: Path) -> None:
    look = "import os; print(os.getpriority(0, 0), os.getsid(0) == os.getpid(), open('/proc/self/autogroup').read())"
    if not Path("/proc/self/autogroup").exists():
        look = look.replace("open('/proc/self/autogroup').read()", f"'nice {NICE}'")
    assert start(*PYTHON, look).wait(DEADLINE_S) == 0
    nice, is_leader, *group = content(output).split()
    # These tests may run beside others themselves.
    expected = min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, 19)
    assert (nice, is_leader, group[-2:]) == (str(expected), "True", ["nice", str(NICE)])


def test_what_it_leaves_is_ended(start: Start, output: Path) -> None:
    assert start(*PYTHON, WITH_REST, "goes").wait(DEADLINE_S) == 0
    assert not is_alive(rest_of(output))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_when_it_is_interrupted_it_tidies_up_and_leaves_nothing(
    start: Start, output: Path, signum: signal.Signals
) -> None:
    process = start(*PYTHON, WITH_REST, "stays")
    rest = rest_of(output)
    assert is_alive(rest)
    process.send_signal(signum)
    assert process.wait(DEADLINE_S) == 130
    assert content(output).endswith("tidied\n")
    assert not is_alive(rest)


def test_ctrl_c_in_a_terminal_is_left_to_whoever_started_it(start: Start, output: Path) -> None:
    """It hears of it from there. Twice would be once too often: the second interrupt kills."""
    process = start(*PYTHON, WITH_REST, "stays")
    rest_of(output)
    assert os.getpgid(process.pid) != os.getpgid(0)


def test_it_ends_with_whoever_started_it(output: Path) -> None:
    command = [sys.executable, SCRIPT, str(output), *PYTHON, WITH_REST, "stays"]
    starter = subprocess.Popen([*PYTHON, f"import subprocess; subprocess.run({command!r})"])
    rest = rest_of(output)
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait(DEADLINE_S)
    until(lambda: content(output).endswith("tidied\n") and not is_alive(rest), "nothing is left")
