"""The runner with real processes: what it records, what it refuses, and that it leaves nothing running."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from argus_ray.core import paths
from tests.support.running import (
    SLEEPER,
    STUBBORN,
    Start,
    content,
    finish,
    is_alive,
    record,
    until,
)


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
        grandchild = "import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid)"
        code, output = finish(start(grandchild))
        assert code == 0
        assert not is_alive(int(output))

    def test_a_pipe_that_is_held_open_elsewhere_does_not_hold_the_runner(
        self, start: Start, job_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As by a process that does not die. Here the test holds it, by a socket."""
        job_root.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as server:
            monkeypatch.chdir(job_root.parent)  # a short name
            server.bind("s")
            server.listen()
            give = (
                "s = socket.socket(socket.AF_UNIX); s.connect('../s'); socket.send_fds(s, [b'x'], [1]); print('given')"
            )
            process = start(f"import socket; {give}")
            with server.accept()[0] as connection:
                _, held, _, _ = socket.recv_fds(connection, 1, 1)
            try:
                assert finish(process) == (0, b"given\n")
            finally:
                os.close(held[0])


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
        assert finish(start(program))[0] == 0
        assert Path(paths.driver_log(str(job_root))).read_bytes() == b"x" * 3_000_000 + b"\xff\x00\r\ntorn"

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
