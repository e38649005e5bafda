"""The scribe: the process that writes an attempt's files in its job root: start marker, driver log, exit record.

A fork of the runner, since a disk that hangs holds who writes to it, and a process that is held so can neither hear a
signal nor end. The runner hands it what is to be written, and never waits for it without a bound. When the runner is
gone it writes what it still has, and ends. The names of the files are those of argus_ray/core/paths.py, which this
module cannot import where it runs."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import stat
import struct
import time

import argus_folders  # type: ignore[import-not-found]
import argus_processes  # type: ignore[import-not-found]
import argus_reserve  # type: ignore[import-not-found]
import argus_secrets  # type: ignore[import-not-found]
from argus_log import NEW_FILE, Log, write_all  # type: ignore[import-not-found]

CANCEL_CHECK_S = 1.0
#: Output that the runner holds for a disk that is slow.
QUEUE_BYTES = 8 << 20
_PIPE_BYTES = 1 << 20
_FRAME = struct.Struct("!cI")
_LOG, _EXIT = b"l", b"e"
_F_SETPIPE_SZ = 1031

#: Exit codes of the runner where it did not start the program.
EXIT_BAD_JOB_ROOT = 74
EXIT_CANCELED = 75
EXIT_RAN_ALREADY = 76


class Refused(Exception):
    """The program must not run. Carries our exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Scribe:
    """The runner's end. `answers` can be read when there is something for `read`; `channel` takes more when `pump` is
    due."""

    def __init__(self, job_root: str, log_bytes: int) -> None:
        channel, self.channel = os.pipe()
        self.answers, answers = os.pipe()
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            fcntl.fcntl(self.channel, _F_SETPIPE_SZ, _PIPE_BYTES)

        def run() -> None:
            _Writer(job_root, log_bytes, channel, answers).run()

        self._job_root, self._record = job_root, b""
        self.pid = argus_processes.fork(run, (channel,), answers)
        os.close(channel)
        os.close(answers)
        os.set_blocking(self.channel, False)
        self._queue: collections.deque[memoryview] = collections.deque()
        self._lines = b""
        self.queued = 0
        #: When the disk took something last, or had nothing to take; of the monotonic clock.
        self.moved_at = time.monotonic()

    def read(self) -> tuple[list[tuple[str, str]], bool]:
        """What it said, as word and rest, and whether it has ended: `claimed`, `refused CODE WHY`, `canceled` (the
        marker is there), `trouble WHY` (of the log), `recorded WHY` (the exit record; a reason if it could not be)."""
        data = os.read(self.answers, 1 << 16)
        *lines, self._lines = (self._lines + data).split(b"\n")
        said = [line.decode(errors="replace").partition(" ") for line in lines]
        return [(word, rest) for word, _, rest in said], not data

    def log(self, data: bytes) -> None:
        self._put(_LOG, data)

    def record_exit(self, code: int, signal_number: int | None, started_at: float) -> None:
        number = "null" if signal_number is None else str(signal_number)
        record = (
            f'{{"exit_code": {code}, "signal": {number}, "started_at": {started_at!r}, "ended_at": {time.time()!r}}}'
        )
        self._record = record.encode()
        self._put(_EXIT, self._record)

    def record_anew(self, patience_s: float) -> str:
        """Where the scribe was killed: the exit record by another process, which may hang as well. Why not, else empty:
        without a record nobody knows that the attempt is over."""
        answers, teller = os.pipe()

        def run() -> None:
            JobRoot(self._job_root).record_exit(self._record)
            os.write(teller, b"recorded")

        argus_processes.fork(run, (), teller)
        os.close(teller)
        poll = select.poll()
        poll.register(answers, select.POLLIN)
        said = os.read(answers, 4096) if poll.poll(patience_s * 1000) else b"the disk does not answer"
        os.close(answers)
        return "" if said == b"recorded" else said.decode(errors="replace").strip()

    def pump(self) -> None:
        """Hand over what it takes now."""
        try:
            while self._queue:
                view = self._queue[0]
                taken = os.write(self.channel, view)
                self.queued -= taken
                self.moved_at = time.monotonic()
                if taken < len(view):
                    self._queue[0] = view[taken:]
                else:
                    self._queue.popleft()
        except BlockingIOError:
            return
        except OSError:  # it was killed
            self._queue.clear()
            self.queued = 0

    def end(self) -> None:
        """It has written all, and ends when the channel is closed. Waits a moment for that."""
        os.close(self.channel)
        poll = select.poll()
        poll.register(self.answers, select.POLLIN)
        if poll.poll(1000) and not os.read(self.answers, 4096):
            os.waitpid(self.pid, 0)

    def leave(self) -> None:
        """What it has not taken yet waits on in a process of its own, as long as it takes."""
        if not self._queue:
            return

        def carry() -> None:
            os.set_blocking(self.channel, True)
            for view in self._queue:
                while view:
                    view = view[os.write(self.channel, view) :]

        argus_processes.fork(carry, (self.channel,), self.answers)

    def _put(self, kind: bytes, data: bytes) -> None:
        if not self.queued:
            self.moved_at = time.monotonic()
        for part in (_FRAME.pack(kind, len(data)), data):
            self._queue.append(memoryview(part))
            self.queued += len(part)
        self.pump()


class _Writer:
    """The scribe's own life."""

    def __init__(self, job_root: str, log_bytes: int, channel: int, answers: int) -> None:
        self._path, self._log_bytes = job_root, log_bytes
        self._channel, self._answers = channel, answers
        self._has_record = False
        self._said_canceled = False

    def run(self) -> None:
        try:
            root = JobRoot(self._path)
            root.claim()
        except Refused as refusal:
            self._say(f"refused {refusal.exit_code} {refusal}")
            return
        # Once more: whoever cancels writes the marker first and looks for started.json then, so one of us sees the
        # other.
        if root.is_canceled():
            self._say(f"refused {EXIT_CANCELED} the attempt was canceled before it started")
        else:
            self._say("claimed")
        log = Log(root.open_logs, self._log_bytes, self._trouble, argus_reserve.Reserve.of_job(root.fd))
        self._work(root, log)
        log.end()
        if not self._has_record:
            with contextlib.suppress(OSError):
                root.note_killed()

    def _work(self, root: JobRoot, log: Log) -> None:
        """Until the runner is gone."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        pending = bytearray()
        check_at = time.monotonic() + CANCEL_CHECK_S
        while True:
            if poll.poll(max(0.0, min(check_at, log.show_at) - time.monotonic()) * 1000):
                data = os.read(self._channel, _PIPE_BYTES)
                if not data:
                    return
                pending += data
                self._write(root, log, pending)
            log.show()
            if time.monotonic() >= check_at:
                check_at = time.monotonic() + CANCEL_CHECK_S
                root.show_metrics()
                if not self._said_canceled and root.is_canceled():
                    self._said_canceled = True
                    self._say("canceled")

    def _write(self, root: JobRoot, log: Log, pending: bytearray) -> None:
        """The whole frames of what is pending."""
        while len(pending) >= _FRAME.size:
            kind, size = _FRAME.unpack_from(pending)
            end = _FRAME.size + size
            if len(pending) < end:
                return
            data = bytes(pending[_FRAME.size : end])
            del pending[:end]
            if kind == _LOG:
                log.write(data)
                continue
            log.end()
            self._has_record = True
            try:
                root.record_exit(data)
            except OSError as error:
                self._say(f"recorded {error}")
            else:
                self._say("recorded ")

    def _trouble(self, error: OSError) -> None:
        self._say(f"trouble {error}")

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the runner is gone
            os.write(self._answers, line.replace("\n", " ").encode(errors="replace") + b"\n")


class JobRoot:
    """The job root, held by descriptor. Files are created exclusively and links are not followed, so that
    nothing that was put there before can lead a write elsewhere."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._metrics: tuple[int, int] | None = None
        self._umask = argus_folders.umask_of()
        os.umask(self._umask)  # of this process, which makes nothing but these files
        try:
            self.fd = argus_folders.job_root(path, self._umask)
        except OSError as error:
            raise Refused(f"cannot use the job root {path}: {error}", EXIT_BAD_JOB_ROOT) from None

    def is_canceled(self) -> bool:
        try:
            os.stat("canceled", dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def show_metrics(self) -> None:
        """What the program has written there since, as `Log.show` does; where the program runs on another machine this
        changes nothing."""
        with contextlib.suppress(OSError):
            status = os.stat("metrics.jsonl", dir_fd=self.fd, follow_symlinks=False)
            seen = status.st_size, status.st_mtime_ns
            if stat.S_ISREG(status.st_mode) and seen != self._metrics:
                self._metrics = seen
                # Opened for writing, or its close shows nothing. It is the program's, which may put anything there.
                flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                os.close(os.open("metrics.jsonl", flags, dir_fd=self.fd))

    def claim(self) -> None:
        """Create the start marker; only one process ever succeeds."""
        import json

        if self.is_canceled():
            raise Refused("the attempt was canceled before it started", EXIT_CANCELED)
        marker = {
            "pid": os.getppid(),
            "host": os.uname().nodename,
            "started_at": time.time(),
            "submission_id": os.environ.get("ARGUS_SUBMISSION_ID", os.path.basename(self.path)),
        }
        try:
            self._write("started.json", json.dumps(marker).encode())
        except FileExistsError:
            raise Refused("this submission id ran already: started.json exists", EXIT_RAN_ALREADY) from None
        except OSError as error:
            raise Refused(f"cannot write {self.path}/started.json: {error}", EXIT_BAD_JOB_ROOT) from None

    def open_logs(self) -> int:
        """The folder of the log, made if it is not there."""
        return argus_folders.folder("logs", self.fd, self._umask)

    def record_exit(self, record: bytes) -> None:
        self._clear_secrets()
        temporary = f".exit.{os.urandom(8).hex()}"
        self._write(temporary, record)
        os.rename(temporary, "exit.json", src_dir_fd=self.fd, dst_dir_fd=self.fd)
        os.fsync(self.fd)

    def note_killed(self) -> None:
        """Tell whoever finds something of this attempt, on another node, that nobody owns it any more."""
        self._clear_secrets()
        self._write("killed.json", f'{{"at": {time.time()!r}}}'.encode())

    def _clear_secrets(self) -> None:
        with contextlib.suppress(OSError):  # no reason to leave no record
            argus_secrets.clear(self.fd)

    def _write(self, name: str, content: bytes) -> None:
        fd = os.open(name, NEW_FILE, 0o666, dir_fd=self.fd)
        try:
            write_all(fd, content + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        os.fsync(self.fd)
