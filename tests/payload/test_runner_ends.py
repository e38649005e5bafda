"""Nothing that an attempt has started outlives it, however it ends; and nobody else's process is touched."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from argus_ray.core import paths
from argus_ray.disk.secrets import hand_over
from tests.support.running import (
    DEADLINE_S,
    PYTHON,
    RUNNER,
    Start,
    content,
    descendants_by_variable,
    finish,
    is_alive,
    kill,
    log_of,
    record,
    until,
)

#: Each writes its id to a file of its name, and then stays.
STAY = "import os, signal, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); signal.pause()"
DEAF = f"import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; {STAY}"
#: Starts the next of itself, in a session of its own, and ends, for ever: no list of processes is ever up to date.
HOPPER = """
import os, sys, time
open(sys.argv[1], 'w').write('up')
end = time.monotonic() + 60
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
    open(sys.argv[1] + '.hops', 'a').write('.')
"""
#: Makes many, as fast as it can, each of which does the same; 200 at most at a time.
FORKER = """
import os, sys, time
open(sys.argv[1], 'w').write('up')
for _ in range(6):
    os.fork()
    os.setsid() if os.getpid() != os.getsid(0) and os.getpid() != os.getpgid(0) else None
time.sleep(60)
"""
#: How a child leaves: its program, and whether it keeps its environment.
LEAVERS = {
    "session": ("subprocess.Popen([*py, stay, name], start_new_session=True)", STAY),
    "deaf": ("subprocess.Popen([*py, stay, name], start_new_session=True)", DEAF),
    "without_environment": ("subprocess.Popen([*py, stay, name], start_new_session=True, env={})", STAY),
    "double_fork": (
        "os.fork() or (os.setsid(), os.fork() and os._exit(0), os.execve(py[0], [*py, stay, name], {}))",
        STAY,
    ),
    "hopper": ("subprocess.Popen([*py, stay, name], start_new_session=True, env={})", HOPPER),
    "forker": ("subprocess.Popen([*py, stay, name], start_new_session=True, env={})", FORKER),
}
#: Starts all, waits until each is up, says so, and goes on as told.
PROGRAM = """
import os, subprocess, sys, time
py = [sys.executable, '-S', '-c']
for name, (start, stay) in LEAVERS.items():
    eval(start)
while not all(os.path.exists(name) and os.path.getsize(name) for name in LEAVERS):
    time.sleep(0.005)
os.fork() or os._exit(0)  # a zombie, which nobody collects
print('up', flush=True)
THEN
"""


def program(then: str, *names: str) -> str:
    leavers = {name: LEAVERS[name] for name in names or LEAVERS}
    return PROGRAM.replace("LEAVERS", repr(leavers)).replace("THEN", then)


@pytest.fixture
def bystander(job_root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Of somebody else: started beside the runner, with an environment that names another attempt."""
    environ = {**os.environ, "ARGUS_SUBMISSION_ID": "another", "ARGUS_JOB_ROOT": f"{job_root}-other"}
    with subprocess.Popen([*PYTHON, "-c", "import signal; signal.pause()"], env=environ) as process:
        yield process
        assert process.poll() is None
        process.kill()


class Table:
    """What runs in a job root's working directory: whatever was started there, with or without an environment."""

    def __init__(self, job_root: Path) -> None:
        self._job_root = str(job_root)

    def pids(self) -> set[int]:
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if str((entry / "cwd").readlink()) == self._job_root and is_alive(int(entry.name)):
                        found.add(int(entry.name))
                except OSError:
                    continue
        return found

    def is_empty(self) -> bool:
        """Seen twice: one list alone may miss a process that just starts another one."""
        return not self.pids() and not self.pids()


@pytest.fixture
def running(job_root: Path) -> Iterator[Table]:
    table = Table(job_root)
    yield table

    def is_over() -> bool:
        kill(table.pids())
        return table.is_empty()

    until(is_over, "nothing runs there")


def up(process: subprocess.Popen[bytes], job_root: Path) -> None:
    until(lambda: "up\n" in log_of(job_root) or process.poll() is not None, "the program is up")
    assert process.poll() is None


class TestNothingIsLeft:
    def test_after_a_good_end(self, start: Start, job_root: Path, running: Table, bystander: object) -> None:
        code, output = finish(start(program("pass")))
        assert running.is_empty()
        assert (code, output) == (0, b"up\n")

    def test_after_a_failure(self, start: Start, job_root: Path, running: Table, bystander: object) -> None:
        assert finish(start(program("sys.exit(3)")))[0] == 3
        assert running.is_empty()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_after_a_stop(
        self, start: Start, job_root: Path, running: Table, bystander: object, number: signal.Signals
    ) -> None:
        process = start(program("time.sleep(600)"))
        up(process, job_root)
        process.send_signal(number)
        code, _ = finish(process)
        assert running.is_empty()
        assert code == 128 + number
        assert record(job_root)["exit_code"] == code
        assert f"received {number.name}" in log_of(job_root)

    def test_after_a_cancel(self, start: Start, job_root: Path, running: Table, bystander: object) -> None:
        process = start(program("time.sleep(600)"))
        up(process, job_root)
        Path(paths.cancel_marker(str(job_root))).touch()
        assert finish(process)[0] == 128 + signal.SIGTERM
        assert running.is_empty()

    def test_after_a_program_that_had_to_be_killed(self, start: Start, job_root: Path, running: Table) -> None:
        process = start(program("import signal; signal.signal(15, signal.SIG_IGN); time.sleep(600)"), grace_s=0.1)
        up(process, job_root)
        process.terminate()
        assert finish(process)[0] == 128 + signal.SIGKILL
        assert running.is_empty()

    def test_after_the_runner_was_killed(self, start: Start, job_root: Path, running: Table, bystander: object) -> None:
        process = start(program("import signal; signal.signal(15, signal.SIG_IGN); time.sleep(600)"))
        up(process, job_root)
        process.kill()
        until(running.is_empty, "all is gone")
        until(lambda: not descendants_by_variable(job_root), "guard and scribe have ended, too")
        assert not Path(paths.exit_record(str(job_root))).exists()
        until(lambda: content(job_root / "killed.json"), "that nobody owns it any more is told")

    @pytest.mark.parametrize("is_killed", [False, True])
    def test_a_key_that_nobody_took(self, start: Start, job_root: Path, running: Table, is_killed: bool) -> None:
        """Of a run that died before it began to log, say."""
        hand_over(str(job_root), "wandb", "k" * 40)
        process = start(program("time.sleep(600)"))
        up(process, job_root)
        assert (job_root / "secrets" / "wandb").exists(), "until then it may still be taken"
        process.kill() if is_killed else process.terminate()
        until(lambda: not (job_root / "secrets").exists(), "the key is gone")
        finish(process)

    def test_after_the_runners_process_group_was_killed(self, start: Start, job_root: Path, running: Table) -> None:
        """As Ray does it when its supervisor has died."""
        process = start(program("time.sleep(600)"), own_group=True)
        up(process, job_root)
        os.killpg(process.pid, signal.SIGKILL)
        until(running.is_empty, "all is gone")
        until(lambda: not descendants_by_variable(job_root), "guard and scribe have ended, too")

    def test_after_the_guard_was_killed(self, start: Start, job_root: Path, running: Table, bystander: object) -> None:
        process = start(program("open('guard', 'w').write(str(os.getppid())); time.sleep(600)"))
        up(process, job_root)
        guard = int(until(lambda: content(job_root / "guard"), "the guard's id"))
        os.kill(guard, signal.SIGKILL)
        code, output = finish(process)
        assert running.is_empty()
        assert code == 128 + signal.SIGKILL
        assert b"argus-runner: its guard was killed" in output
        assert record(job_root)["signal"] == signal.SIGKILL

    def test_signals_to_everything_are_not_the_end_of_the_guard(
        self, start: Start, job_root: Path, running: Table
    ) -> None:
        """As Ray does it to stop a job: SIGTERM to all that it finds below the supervisor."""
        bye = "import signal; signal.signal(15, lambda *_: (os.write(1, b'bye\\n'), os._exit(5)))"
        process = start(program(f"{bye}; print('deaf'); time.sleep(600)", "session", "double_fork"))
        until(lambda: "deaf\n" in log_of(job_root), "the program is up")
        for pid in {*descendants_by_variable(job_root), process.pid}:
            with contextlib.suppress(ProcessLookupError):  # one that came and went
                os.kill(pid, signal.SIGTERM)
        code, output = finish(process)
        assert (code, b"bye" in output.splitlines()) == (5, True)
        assert running.is_empty()

    def test_an_exit_leaves_neither_guard_nor_scribe(self, start: Start, job_root: Path) -> None:
        assert finish(start("print('hello')"))[0] == 0
        assert descendants_by_variable(job_root) == set()

    def test_a_program_that_cannot_start_leaves_nothing(self, start: Start, job_root: Path) -> None:
        assert finish(start("", argv=("/no/such/program",)))[0] == 127
        assert descendants_by_variable(job_root) == set()


class TestWhatTheProgramGets:
    def test_it_hears_the_signals_that_stop_it_and_inherits_nothing(self, start: Start, job_root: Path) -> None:
        ask = (
            "import os, signal; print([signal.getsignal(n) for n in (1, 2, 13, 15)], "
            "signal.pthread_sigmask(signal.SIG_BLOCK, []), sorted(os.listdir('/proc/self/fd'))[:-1], "
            "os.getsid(0) == os.getpid())"
        )

        def as_from_a_terminal() -> None:
            for number in (signal.SIGHUP, signal.SIGINT):  # ignored by what is started in the background
                signal.signal(number, signal.SIG_DFL)

        expected = subprocess.run(
            [*PYTHON, "-c", ask],
            preexec_fn=as_from_a_terminal,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            check=True,
            timeout=DEADLINE_S,
        )
        assert finish(start(ask)) == (0, expected.stdout)

    def test_blocked_signals_are_unblocked(self, start: Start, job_root: Path) -> None:
        """Ray blocks SIGINT in all that it starts."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process = start("print('up', flush=True); import time; time.sleep(600)")
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        up(process, job_root)
        process.send_signal(signal.SIGINT)
        assert finish(process)[0] == 128 + signal.SIGINT
        assert "KeyboardInterrupt" in log_of(job_root)

    def test_modules_beside_the_program_are_not_the_runners(self, start: Start, job_root: Path, tmp_path: Path) -> None:
        (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
        (tmp_path / "select.py").write_text("raise SystemExit('not this one')")
        command = [sys.executable, "-I", "-S", "-u"]
        process = start("print('ran')", python=command, extra={"PYTHONPATH": str(tmp_path)})
        assert finish(process) == (0, b"ran\n")


def _is_gone(job_root: Path) -> bool:
    return not descendants_by_variable(job_root)


class TestAtRandom:
    """Attempts that end, are canceled, and are killed anywhere: as many as ARGUS_RANDOM_ATTEMPTS says."""

    def test_nothing_is_left_of_any_and_nobody_else_is_touched(
        self, tmp_path: Path, bystander: subprocess.Popen[bytes]
    ) -> None:
        seed = int(os.environ.get("ARGUS_SEED", str(secrets.randbelow(1_000_000))))
        draw = random.Random(seed)
        runs: list[tuple[Path, subprocess.Popen[bytes]]] = []
        for number in range(int(os.environ.get("ARGUS_RANDOM_ATTEMPTS", "6"))):
            root = tmp_path / "users" / "ada" / "jobs" / f"r{number}--a01"
            environ = {**os.environ, "ARGUS_JOB_ROOT": str(root), "ARGUS_SUBMISSION_ID": root.name}
            environ["ARGUS_STOP_GRACE_S"] = "1"
            text = program(draw.choice(["pass", "sys.exit(2)", "time.sleep(600)"]), *draw.sample(sorted(LEAVERS), 3))
            command = [*PYTHON, RUNNER, "--job-root", str(root), "--", *PYTHON, "-c", text]
            runs.append((root, subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environ)))
            self._disturb(draw, *runs[-1])
        try:
            for root, process in runs:
                table = Table(root)
                if process.poll() is None and draw.random() < 0.5:
                    process.terminate()
                elif process.poll() is None:
                    process.kill()
                process.wait(DEADLINE_S)
                until(table.is_empty, f"nothing of {root.name} is left (ARGUS_SEED={seed})")
                until(partial(_is_gone, root), f"nor its runner (ARGUS_SEED={seed})")
        finally:
            for root, process in runs:
                process.kill()
                kill(Table(root).pids())

    def _disturb(self, draw: random.Random, root: Path, process: subprocess.Popen[bytes]) -> None:
        """At any place of its start or its run."""
        time.sleep(draw.random() * 0.6)
        kind = draw.choice(["nothing", "cancel", "kill the runner", "kill any one", "stop"])
        if kind == "cancel" and root.exists():
            Path(paths.cancel_marker(str(root))).touch()
        elif kind == "kill the runner":
            process.kill()
        elif kind == "kill any one" and (pids := sorted(descendants_by_variable(root))):
            kill([draw.choice(pids)])
        elif kind == "stop":
            process.terminate()
