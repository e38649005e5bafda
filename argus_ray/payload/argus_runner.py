"""Runs one attempt's program on its worker: `argus_runner.py --job-root ROOT -- ARGV...`.

Owns the job root's start marker, driver log and exit record, and the life of the program: it runs at most
once, never after a cancel, its end is recorded, and nothing of its process group outlives this one.
Standard library only, and one thread only: the kernel ties the program's life (PR_SET_PDEATHSIG) to the
thread that started it. The names of the files are those of argus_ray/core/paths.py, which this module
cannot import where it runs."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import secrets
import selectors
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

#: Our own exit codes; a program that ran gives its own.
EXIT_BAD_JOB_ROOT = 74
EXIT_CANCELED = 75
EXIT_RAN_ALREADY = 76
EXIT_CANNOT_START = 127

CANCEL_CHECK_S = 1.0
#: How long output may still arrive after the program has ended: something outside its group may hold the
#: pipe.
DRAIN_S = 1.0
_PR_SET_PDEATHSIG = 1
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Refused(Exception):
    """The program must not run. Carries our exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class JobRoot:
    """The job root, held by descriptor. Files are created exclusively and links are not followed, so that
    nothing that was put there before can lead a write elsewhere."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fd = _make_directory(path, None)
        except OSError as error:
            raise Refused(f"cannot use the job root {path}: {error}", EXIT_BAD_JOB_ROOT) from None

    def is_canceled(self) -> bool:
        try:
            os.stat("canceled", dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def claim(self) -> None:
        """Create the start marker; only one process ever succeeds."""
        if self.is_canceled():
            raise Refused("the attempt was canceled before it started", EXIT_CANCELED)
        marker = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": time.time(),
            "submission_id": os.environ.get("ARGUS_SUBMISSION_ID", Path(self.path).name),
        }
        try:
            self._write("started.json", marker)
        except FileExistsError:
            raise Refused("this submission id ran already: started.json exists", EXIT_RAN_ALREADY) from None
        except OSError as error:
            raise Refused(f"cannot write {self.path}/started.json: {error}", EXIT_BAD_JOB_ROOT) from None

    def open_log(self) -> int:
        logs = _make_directory("logs", self._fd)
        try:
            return os.open("driver.log", _NEW_FILE, 0o644, dir_fd=logs)
        finally:
            os.close(logs)

    def record_exit(self, code: int, signal_number: int | None, started_at: float) -> None:
        record = {
            "exit_code": code,
            "signal": signal_number,
            "started_at": started_at,
            "ended_at": time.time(),
        }
        temporary = f".exit.{secrets.token_hex(8)}"
        self._write(temporary, record)
        os.rename(temporary, "exit.json", src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)

    def _write(self, name: str, content: Mapping[str, object]) -> None:
        fd = os.open(name, _NEW_FILE, 0o644, dir_fd=self._fd)
        try:
            _write_all(fd, json.dumps(content).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        os.fsync(self._fd)


class Tee:
    """The program's output, byte for byte, to our standard output and to the log. A full disk stops
    neither."""

    def __init__(self, open_log: Callable[[], int]) -> None:
        self._at_line_start = True
        self._complained = False
        self._log: int | None = None
        try:
            self._log = open_log()
        except OSError as error:
            self._complain(error)

    def write(self, data: bytes) -> None:
        if not data:
            return
        with contextlib.suppress(OSError):
            _write_all(1, data)
        self._at_line_start = data.endswith(b"\n")
        if self._log is not None:
            try:
                _write_all(self._log, data)
            except OSError as error:
                self._complain(error)

    def say(self, message: str) -> None:
        """A line of our own; it never breaks one of the program's."""
        self.write(b"" if self._at_line_start else b"\n")
        self.write(f"argus-runner: {message}\n".encode())

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            self.say(f"cannot write logs/driver.log ({error}); the run goes on")


class Program:
    """The child, in a session of its own, whose process group is what we signal."""

    def __init__(self, argv: list[str], cwd: str) -> None:
        prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
        parent = os.getpid()

        def tie_to_parent() -> None:
            if prctl is not None:
                prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:  # it died before the line above
                    os._exit(EXIT_CANNOT_START)

        self._process = subprocess.Popen(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=tie_to_parent,
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout.fileno()

    def signal_group(self, number: int) -> None:
        """Only before `reap`: until then the group's id cannot belong to anyone else."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def has_ended(self) -> bool:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None

    def reap(self) -> int:
        return self._process.wait()


class Supervision:
    """Follows a program until it and its group have ended."""

    def __init__(self, program: Program, tee: Tee, is_canceled: Callable[[], bool], grace_s: float) -> None:
        self._program = program
        self._tee = tee
        self._is_canceled = is_canceled
        self._grace_s = grace_s
        self._stop_signal: int | None = None
        self._kill_at: float | None = None
        self._drain_until: float | None = None
        self._check_cancel_at = time.monotonic() + CANCEL_CHECK_S

    def run(self, wakeup: socket.socket) -> int:
        with selectors.DefaultSelector() as selector:
            selector.register(self._program.output, selectors.EVENT_READ)
            selector.register(wakeup, selectors.EVENT_READ)
            open_output = True
            while self._drain_until is None or (open_output and time.monotonic() < self._drain_until):
                for key, _ in selector.select(self._patience()):
                    if key.fileobj is wakeup:
                        self._note_signals(wakeup.recv(4096))
                    elif data := os.read(self._program.output, 1 << 16):
                        self._tee.write(data)
                    else:
                        selector.unregister(self._program.output)
                        open_output = False
                self._act(time.monotonic())
        return self._program.reap()

    def _patience(self) -> float:
        deadlines = [self._check_cancel_at, self._kill_at, self._drain_until]
        return max(0.0, min(d for d in deadlines if d is not None) - time.monotonic())

    def _note_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop(number, f"received {signal.Signals(number).name}")

    def _stop(self, number: int, why: str) -> None:
        if self._stop_signal is None and self._drain_until is None:
            self._stop_signal = number
            self._kill_at = time.monotonic() + self._grace_s
            self._tee.say(f"{why}; the program has {self._grace_s:g} s to end")
            self._program.signal_group(number)

    def _act(self, now: float) -> None:
        if self._drain_until is not None:
            return
        if self._program.has_ended():
            # Not reaped yet, so the group's id is still its own: end what it left behind.
            self._program.signal_group(signal.SIGKILL)
            self._drain_until = now + DRAIN_S
            return
        if now >= self._check_cancel_at:
            self._check_cancel_at = now + CANCEL_CHECK_S
            if self._stop_signal is None and self._is_canceled():
                self._stop(signal.SIGTERM, "the attempt was canceled")
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._tee.say("the program did not end in time; killed")
            self._program.signal_group(signal.SIGKILL)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="argus_runner.py")
    parser.add_argument("--job-root", required=True)
    parser.add_argument("argv", nargs="+", metavar="ARGV")
    options = parser.parse_args(arguments)
    wakeup = _wake_on_signals()
    try:
        root = JobRoot(options.job_root)
        root.claim()
    except Refused as refusal:
        _write_all(1, f"argus-runner: {refusal}\n".encode())
        return refusal.exit_code
    started_at = time.time()
    tee = Tee(root.open_log)
    signal_number = None
    # Once more: whoever cancels writes the marker first and looks for started.json then, so one of us sees
    # the other.
    if root.is_canceled():
        tee.say("the attempt was canceled before it started")
        code = EXIT_CANCELED
    else:
        try:
            program = Program(options.argv, options.job_root)
        except (OSError, subprocess.SubprocessError) as error:
            tee.say(f"cannot start {options.argv[0]}: {error}")
            code = EXIT_CANNOT_START
        else:
            grace_s = float(os.environ.get("ARGUS_STOP_GRACE_S", "25"))
            code = Supervision(program, tee, root.is_canceled, grace_s).run(wakeup)
            if code < 0:
                signal_number, code = -code, 128 - code
    try:
        root.record_exit(code, signal_number, started_at)
    except OSError as error:
        tee.say(f"cannot write exit.json: {error}")
    return code


def _wake_on_signals() -> socket.socket:
    """Signals only put their number into a socket: the loop acts on them, one at a time."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reader


def _make_directory(path: str, parent: int | None) -> int:
    """A directory of mode 0755 at `path`, new or there already, as a descriptor. A link in its place is an
    error."""
    if parent is None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.mkdir(path, 0o755, dir_fd=parent)
        is_new = True
    except FileExistsError:
        is_new = False
    fd = os.open(path, _DIRECTORY, dir_fd=parent)
    if is_new and stat.S_IMODE(os.fstat(fd).st_mode) != 0o755:  # the umask took something
        os.fchmod(fd, 0o755)
    return fd


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
