"""A disk that hangs or is full stops no run: with real filesystems, and without root with a stand-in."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from argus_ray.core import paths
from tests.support.running import DEADLINE_S, PYTHON, RUNNER, content, is_alive, kill, log_of, record, until

#: Prints lines, and tells on another disk how far it is.
CHATTY = """
import os, sys, time
pace = lambda s: s and time.sleep(s)
for i in range(10 ** 9):
    print('x' * 200)
    if i % 100 == 0:
        sys.stdout.flush()
        open({told!r} + '.new', 'w').write(str(i)); os.replace({told!r} + '.new', {told!r})
        pace({pause})
"""


def run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=DEADLINE_S)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small ext4, which can be frozen."""
    if os.geteuid() != 0:
        pytest.skip("needs root: to mount and freeze a filesystem")
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    try:
        run("mkfs.ext4", "-q", "-O", "^has_journal", image)
        run("mount", "-o", "loop", image, folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine cannot mount an ext4 by loop: {getattr(error, 'stderr', error)}")
    try:
        yield folder
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(folder)], capture_output=True, timeout=DEADLINE_S)
        until(lambda: subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0, "unmounted")


@pytest.fixture
def frozen(disk: Path) -> Iterator[Callable[[bool], None]]:
    def freeze(yes: bool) -> None:
        run("fsfreeze", "--freeze" if yes else "--unfreeze", disk)

    yield freeze


@pytest.fixture
def start(disk: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started = []

    def start(program: str, *, grace_s: float = 5.0) -> subprocess.Popen[bytes]:
        command = [*PYTHON, RUNNER, "--job-root", str(disk / "job"), "--", *PYTHON, "-c", program]
        environ = {**os.environ, "ARGUS_STOP_GRACE_S": str(grace_s)}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environ))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def steps(told: Path) -> int:
    return int(content(told) or 0)


def freeze_while_it_prints(told: Path, frozen: Callable[[bool], None], count: int, words: str) -> None:
    """Once the program runs; until it has printed so many lines more."""
    until(lambda: steps(told) >= 300, "it runs")
    frozen(True)
    at = steps(told)
    until(lambda: steps(told) >= at + count, words)


class TestFrozen:
    def test_a_program_goes_on_and_nothing_is_lost(
        self, disk: Path, frozen: Callable[[bool], None], start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
    ) -> None:
        told = tmp_path / "told"
        process = start(CHATTY.format(told=str(told), pause=0.005).replace("10 ** 9", "20000"))
        freeze_while_it_prints(told, frozen, 5_000, "it goes on for more than a pipe and a page hold")
        frozen(False)
        assert process.wait(DEADLINE_S) == 0
        assert len(log_of(disk / "job").splitlines()) == 20_000
        assert record(disk / "job")["exit_code"] == 0

    def test_what_is_too_much_is_counted_and_said(
        self, disk: Path, frozen: Callable[[bool], None], start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
    ) -> None:
        told = tmp_path / "told"
        process = start(CHATTY.format(told=str(told), pause=0.0))
        freeze_while_it_prints(told, frozen, 120_000, "it prints 24 MB while the disk hangs")
        process.terminate()  # heard all the same
        frozen(False)
        assert process.wait(DEADLINE_S) == 128 + signal.SIGTERM
        log = log_of(disk / "job")
        assert "argus-runner: the log's disk did not answer; " in log
        dropped = int(log.partition("did not answer; ")[2].partition(" ")[0])
        assert dropped > 5_000_000
        whole = {line for line in log.splitlines() if not line.startswith("argus-runner")}
        assert all(set(line) <= {"x"} for line in whole)

    def test_a_stop_is_heard_and_the_end_does_not_wait_for_the_disk(
        self, disk: Path, frozen: Callable[[bool], None], start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
    ) -> None:
        told = tmp_path / "told"
        process = start(CHATTY.format(told=str(told), pause=0.0))
        freeze_while_it_prints(told, frozen, 5_000, "it prints while the disk hangs")
        process.terminate()
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 128 + signal.SIGTERM
        assert b"argus-runner: received SIGTERM" in output
        assert b"argus-runner: cannot write exit.json: the disk did not answer for 8 s" in output
        frozen(False)
        until(lambda: (disk / "job" / "exit.json").exists(), "written once the disk answers")
        assert record(disk / "job")["signal"] == signal.SIGTERM

    def test_a_stop_is_heard_before_the_program_starts(
        self, disk: Path, frozen: Callable[[bool], None], start: Callable[..., subprocess.Popen[bytes]]
    ) -> None:
        frozen(True)
        process = start("print('never')")
        scribe = until(lambda: [pid for pid in _children(process.pid) if is_alive(pid)], "the scribe")
        assert scribe
        process.terminate()
        output, _ = process.communicate(timeout=DEADLINE_S)
        frozen(False)
        assert (process.returncode, output) == (
            128 + signal.SIGTERM,
            b"argus-runner: received SIGTERM before the program started\n",
        )


class TestFull:
    def test_what_is_missing_is_counted_and_said_when_there_is_room_again(
        self, disk: Path, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
    ) -> None:
        go_on = tmp_path / "go_on"
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            while True:
                try:
                    os.write(file.fileno(), bytes(1 << 16))
                except OSError:
                    break
        with ballast.open("rb+") as file:
            file.truncate(ballast.stat().st_size - (1 << 20))
        wait = f"import os, time\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.01)"
        process = start(f"for i in range(20_000): print('x' * 199)\nprint('full', flush=True)\n{wait}\nprint('again')")
        assert process.stdout is not None
        said = b""
        while b"cannot write logs/driver.log" not in said:
            more = os.read(process.stdout.fileno(), 1 << 16)
            assert more, said
            said += more
        ballast.unlink()
        go_on.touch()
        output = said + process.communicate(timeout=DEADLINE_S)[0]
        assert process.returncode == 0
        assert output.count(b"argus-runner: cannot write logs/driver.log") == 1
        log = log_of(disk / "job")
        assert log.endswith("again\n")
        missing = sum(map(int, re.findall(r"argus-runner: (\d+) bytes of the log are missing here", log)))
        assert missing + len(log) >= 20_000 * 200 > len(log)
        assert record(disk / "job")["exit_code"] == 0


class TestStandIn:
    """Without root: the scribe is stopped, which holds it as a disk that hangs does."""

    def test_a_killed_scribe_costs_the_log_and_not_the_exit_record(self, tmp_path: Path) -> None:
        """Without a record nobody would know that the attempt is over, and what it has left would stay."""
        told, job_root = tmp_path / "told", tmp_path / "job"
        program = CHATTY.format(told=str(told), pause=0.001)
        command = [*PYTHON, RUNNER, "--job-root", str(job_root), "--", *PYTHON, "-c", program]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            until(lambda: steps(told) >= 100, "it runs")
            (scribe,) = (pid for pid in _children(process.pid) if _writes(pid, job_root))
            os.kill(scribe, signal.SIGKILL)
            until(lambda: not is_alive(scribe), "it is dead, which takes its time on a busy machine")
            at = steps(told)
            until(lambda: steps(told) >= at + 100, "it goes on")
            process.terminate()
            output, _ = process.communicate(timeout=DEADLINE_S)
            assert b"what writes logs/driver.log was killed; the run goes on" in output
            assert record(job_root)["signal"] == signal.SIGTERM
        finally:
            process.kill()
            process.wait(30)

    def test_a_program_goes_on_and_its_stop_is_heard(self, tmp_path: Path) -> None:
        told, job_root = tmp_path / "told", tmp_path / "job"
        program = CHATTY.format(told=str(told), pause=0.0)
        command = [*PYTHON, RUNNER, "--job-root", str(job_root), "--", *PYTHON, "-c", program]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        stopped: list[int] = []
        try:
            until(lambda: steps(told) >= 300, "it runs")
            (scribe,) = (pid for pid in _children(process.pid) if _writes(pid, job_root))
            stopped.append(scribe)
            os.kill(scribe, signal.SIGSTOP)
            at = steps(told)
            until(lambda: steps(told) >= at + 120_000, "it prints 24 MB while the disk hangs")
            process.terminate()
            output, _ = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 128 + signal.SIGTERM
            assert b"cannot write exit.json" in output
            os.kill(scribe, signal.SIGCONT)
            until(lambda: not is_alive(scribe), "the scribe ends once it has written")
            assert "argus-runner: the log's disk did not answer; " in log_of(job_root)
            assert Path(paths.exit_record(str(job_root))).exists()
        finally:
            process.kill()
            kill(stopped)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _writes(pid: int, job_root: Path) -> bool:
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it closes one now and then
            links.append(str(fd.readlink()))
    return str(job_root / "logs" / "driver.log") in links


def test_less_than_the_reserve_is_free(tmp_path: Path) -> None:
    """The log stops to grow, and says so; the run goes on."""
    job_root = tmp_path / "job"
    command = [*PYTHON, RUNNER, "--job-root", str(job_root), "--", *PYTHON, "-c", "print('hello')"]
    environ = {**os.environ, "ARGUS_RESERVE_BYTES": str(1 << 60)}
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, env=environ)
    assert done.returncode == 0
    assert b"argus-runner: cannot write logs/driver.log" in done.stdout
    assert f"less than {1 << 60} bytes are free there".encode() in done.stdout
    assert log_of(job_root) == ""
    assert record(job_root)["exit_code"] == 0
