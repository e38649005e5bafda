"""The runner with real processes: what it records, what it refuses, and that it leaves nothing running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import paths

#: Without site packages, whose import costs more than the tests.
PYTHON = (sys.executable, "-u", "-S")
RUNNER = (*PYTHON, str(Path(__file__).parents[2] / "argus_ray/payload/argus_runner.py"), "--job-root")
DEADLINE_S = 15.0

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def job_root(tmp_path: Path) -> Path:
    return tmp_path / "users" / "ada" / "jobs" / "argus-ada-sft-20260101-000000-abcd--a01"


@pytest.fixture
def start(job_root: Path) -> Iterator[Start]:
    """Starts the runner with a program in Python; ends what a failed test leaves."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str, *, grace_s: float = 5.0, argv: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*RUNNER, str(job_root), "--", *(argv or (*PYTHON, "-c", program))],
            stdout=subprocess.PIPE,
            env={**os.environ, "ARGUS_STOP_GRACE_S": str(grace_s), "ARGUS_SUBMISSION_ID": job_root.name},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    output, _ = process.communicate(timeout=DEADLINE_S)
    return process.returncode, output


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"not within {DEADLINE_S} s: {what}")


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def is_alive(pid: int) -> bool:
    """Not counting a zombie, which only waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def record(job_root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(paths.exit_record(str(job_root))).read_text())
    return loaded


SLEEPER = "import os, time; open('pid', 'w').write(str(os.getpid())); print('up'); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, lambda *_: print('no')); {SLEEPER}"


class TestEnd:
    @pytest.mark.parametrize("code", [0, 1, 42])
    def test_exit_code_is_kept(self, start: Start, job_root: Path, code: int) -> None:
        before = time.time()
        assert finish(start(f"raise SystemExit({code})"))[0] == code
        kept = record(job_root)
        assert (kept["exit_code"], kept["signal"]) == (code, None)
        assert before <= kept["started_at"] <= kept["ended_at"] <= time.time()

    def test_death_by_signal(self, start: Start, job_root: Path) -> None:
        assert finish(start("import os; os.kill(os.getpid(), 11)"))[0] == 128 + 11
        assert (record(job_root)["exit_code"], record(job_root)["signal"]) == (139, 11)

    def test_program_that_does_not_exist(self, start: Start, job_root: Path) -> None:
        code, output = finish(start("", argv=("/no/such/program",)))
        assert code == 127
        assert b"argus-runner: cannot start /no/such/program" in output
        assert record(job_root)["exit_code"] == 127

    def test_nothing_of_the_group_is_left(self, start: Start, job_root: Path) -> None:
        grandchild = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid)"
        code, output = finish(start(grandchild))
        assert code == 0
        assert not is_alive(int(output))

    def test_a_pipe_that_is_held_open_elsewhere_does_not_hold_the_runner(self, start: Start, job_root: Path) -> None:
        daemon = "import subprocess; p = subprocess.Popen(['sleep', '60'], start_new_session=True); print(p.pid)"
        process = start(daemon)
        assert process.wait(timeout=DEADLINE_S) == 0
        log = until(lambda: content(job_root / "logs" / "driver.log"), "the log")
        os.kill(int(log), signal.SIGKILL)


class TestStart:
    def test_files_and_working_directory(self, start: Start, job_root: Path) -> None:
        previous = os.umask(0o077)
        try:
            process = start("import os; print(os.getcwd())")
        finally:
            os.umask(previous)
        code, output = finish(process)
        assert (code, output.decode().strip()) == (0, str(job_root))
        assert job_root.stat().st_mode & 0o777 == 0o755
        assert (job_root / "logs").stat().st_mode & 0o777 == 0o755
        marker = json.loads(Path(paths.start_marker(str(job_root))).read_text())
        assert marker["submission_id"] == job_root.name
        assert {"pid", "host", "started_at"} < marker.keys()

    def test_at_most_once(self, start: Start, job_root: Path) -> None:
        assert finish(start("print('first')"))[0] == 0
        code, output = finish(start("print('second')"))
        assert code == 76
        assert output == b"argus-runner: this submission id ran already: started.json exists\n"
        assert content(Path(paths.driver_log(str(job_root)))) == "first\n"

    def test_many_at_the_same_time_run_once(self, start: Start, job_root: Path) -> None:
        codes = sorted(finish(process)[0] for process in [start("print('ran')") for _ in range(4)])
        assert codes == [0, 76, 76, 76]

    def test_canceled_before(self, start: Start, job_root: Path) -> None:
        job_root.mkdir(parents=True)
        Path(paths.cancel_marker(str(job_root))).touch()
        code, output = finish(start("print('never')"))
        assert code == 75
        assert output == b"argus-runner: the attempt was canceled before it started\n"
        assert not Path(paths.start_marker(str(job_root))).exists()


class TestOutput:
    def test_both_streams_reach_stdout_and_the_log(self, start: Start, job_root: Path) -> None:
        code, output = finish(start("import os; os.write(1, b'out\\n'); os.write(2, b'err\\n')"))
        assert (code, output) == (0, b"out\nerr\n")
        assert Path(paths.driver_log(str(job_root))).read_bytes() == output

    def test_huge_line_torn_line_and_bytes_that_are_no_text(self, start: Start, job_root: Path) -> None:
        program = "import sys; sys.stdout.buffer.write(b'x' * 3_000_000 + b'\\xff\\x00\\r\\ntorn')"
        _, output = finish(start(program))
        assert output == b"x" * 3_000_000 + b"\xff\x00\r\ntorn"
        assert Path(paths.driver_log(str(job_root))).read_bytes() == output

    def test_output_is_not_held_back(self, start: Start, job_root: Path) -> None:
        process = start(SLEEPER)
        log = job_root / "logs" / "driver.log"
        until(lambda: content(log) == "up\n", "the line, while the program runs")
        process.terminate()
        assert finish(process)[0] == 143

    def test_log_that_cannot_be_written(self, start: Start, job_root: Path) -> None:
        (job_root / "logs" / "driver.log").mkdir(parents=True)
        code, output = finish(start("print(1); print(2)"))
        assert code == 0
        assert output.count(b"argus-runner: cannot write logs/driver.log") == 1
        assert output.endswith(b"1\n2\n")

    def test_full_disk_is_said_once_and_the_run_goes_on(
        self, job_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        from argus_ray.payload.argus_runner import Tee

        full = os.open("/dev/full", os.O_WRONLY)
        tee = Tee(lambda: full)
        tee.write(b"torn")
        tee.write(b"more\n")
        os.close(full)
        output = capfd.readouterr().out
        assert output.startswith("torn\nargus-runner: cannot write logs/driver.log")
        assert output.endswith("the run goes on\nmore\n")
        assert output.count("argus-runner") == 1


class TestLinks:
    """Files that someone put into the job root before must not lead a write out of it."""

    @pytest.mark.parametrize("name", ["logs/driver.log", "exit.json", "started.json"])
    def test_of_a_file(self, start: Start, job_root: Path, tmp_path: Path, name: str) -> None:
        victim = tmp_path / "victim"
        victim.write_text("untouched")
        (job_root / "logs").mkdir(parents=True)
        (job_root / name).symlink_to(victim)
        code, _ = finish(start("print('hello')"))
        assert code == (76 if name == "started.json" else 0)
        assert victim.read_text() == "untouched"
        if name == "exit.json":
            assert not (job_root / name).is_symlink()
            assert record(job_root)["exit_code"] == 0

    def test_of_the_logs_folder(self, start: Start, job_root: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        job_root.mkdir(parents=True)
        (job_root / "logs").symlink_to(elsewhere)
        code, output = finish(start("print('hello')"))
        assert code == 0
        assert b"cannot write logs/driver.log" in output
        assert list(elsewhere.iterdir()) == []

    def test_of_the_job_root(self, start: Start, job_root: Path, tmp_path: Path) -> None:
        job_root.parent.mkdir(parents=True)
        job_root.symlink_to(tmp_path)
        code, output = finish(start("print('never')"))
        assert code == 74
        assert b"argus-runner: cannot use the job root" in output
        assert not (tmp_path / "started.json").exists()


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal_is_forwarded(self, start: Start, job_root: Path, number: signal.Signals) -> None:
        bye = f"signal.signal({number:d}, lambda *_: (print('bye'), sys.exit(7)))"
        program = f"import signal, sys; {bye}; {SLEEPER}"
        process = start(program)
        until(lambda: "up" in content(job_root / "logs" / "driver.log"), "the program is up")
        process.send_signal(number)
        code, output = finish(process)
        assert code == 7
        assert output.endswith(b"bye\n")
        assert record(job_root)["exit_code"] == 7

    def test_a_program_that_does_not_listen_is_killed(self, start: Start, job_root: Path) -> None:
        process = start(STUBBORN, grace_s=0.2)
        until(lambda: "up" in content(job_root / "logs" / "driver.log"), "the program is up")
        process.terminate()
        code, output = finish(process)
        assert code == 128 + signal.SIGKILL
        assert b"did not end in time; killed" in output
        assert not is_alive(int(content(job_root / "pid")))

    def test_cancel_marker_ends_a_running_program(self, start: Start, job_root: Path) -> None:
        process = start(SLEEPER)
        until(lambda: "up" in content(job_root / "logs" / "driver.log"), "the program is up")
        Path(paths.cancel_marker(str(job_root))).touch()
        code, output = finish(process)
        assert code == 128 + signal.SIGTERM
        assert b"the attempt was canceled" in output
        assert record(job_root)["signal"] == signal.SIGTERM

    def test_kill_of_the_runner_leaves_no_orphan(self, start: Start, job_root: Path) -> None:
        process = start(STUBBORN)
        pid = int(until(lambda: content(job_root / "pid"), "the program is up"))
        process.kill()
        until(lambda: not is_alive(pid), "the program is gone")
