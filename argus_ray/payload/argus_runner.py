"""Runs one attempt's program on its worker: `argus_runner.py --job-root ROOT -- ARGV...`.

Three processes, each a fork of the first one, with one thread each:
- the runner, which Ray knows: hears signals, takes the program's output, and decides;
- the guard (`argus_guard`): starts the program, and ends all that is left below it, also when the runner is killed;
- the scribe (`argus_scribe`): writes the job root's files, since a disk that hangs holds whoever writes to it.

The program runs at most once, never after a cancel, its end is recorded, and nothing of it outlives the runner.
Standard library only, and little of it: each import is paid for before a task's first line."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]  # its neighbours; Python was told to look nowhere else

import argus_processes  # type: ignore[import-not-found]  # noqa: E402
from argus_guard import EXIT_CANNOT_START, Guard  # type: ignore[import-not-found]  # noqa: E402
from argus_scribe import EXIT_BAD_JOB_ROOT, QUEUE_BYTES, Refused, Scribe  # type: ignore[import-not-found]  # noqa: E402

_USAGE = 2
_TROUBLE = "cannot write logs/driver.log"

LOG_BYTES = 1 << 30
#: How long output may still arrive after the program has ended: something that does not die may hold the pipe.
DRAIN_S = 1.0
#: The disk hangs if it takes nothing for so long. Until then a program that prints faster than it waits for it.
HANGS_AFTER_S = 5.0
#: How long the end waits for the disk. The scribe may still write after that.
RECORD_S = 8.0
#: Of the program's output, to our standard output, which Ray keeps on the worker's own disk without a bound.
HEAD_BYTES = 32 * 1024
#: Its end follows there if the log could not be written.
TAIL_BYTES = 16 * 1024
_READ_BYTES = 1 << 16


class Output:
    """The program's output: all of it to the log, as far as the disk takes it; a bounded part of it to Ray's."""

    def __init__(self, scribe: Scribe, log: str) -> None:
        self._scribe, self._log = scribe, log
        #: Of the log, and of our standard output.
        self._is_new_line, self._is_new_line_here = True, True
        self._head_left = HEAD_BYTES
        self._tail = b""
        self._dropped = 0
        self._log_fails = False

    @property
    def has_room(self) -> bool:
        """Whether more may be read now. A program that prints faster than the disk takes it waits, but never for one
        that hangs."""
        return self._scribe.queued < QUEUE_BYTES or self._hangs

    @property
    def _hangs(self) -> bool:
        return self._scribe.queued > 0 and time.monotonic() - self._scribe.moved_at > HANGS_AFTER_S

    def write(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        if self._head_left:
            self._print(data[: self._head_left])
            self._head_left -= min(len(data), self._head_left)
            if not self._head_left:
                self._print_line(f"the rest of the output is in {self._log} only")
        if self._scribe.queued >= QUEUE_BYTES:
            self._dropped += len(data)
            return
        self.tell_dropped()
        self._scribe.log(data)
        self._is_new_line = data.endswith(b"\n")

    def say(self, message: str) -> None:
        """A line of our own; it never breaks one of the program's."""
        self.tell_dropped(now=True)
        self._log_line(message)
        self._print_line(message)

    def complain(self, message: str) -> None:
        """Of the log, so it is not said there."""
        self._log_fails = True
        self._print_line(message)

    def tell_dropped(self, *, now: bool = False) -> None:
        """Once the disk takes something again, or else now."""
        if self._dropped and (now or self._scribe.queued <= QUEUE_BYTES // 2):
            message = f"the log's disk did not answer; {self._dropped} bytes of the output are missing here"
            self._dropped = 0
            self._log_line(message)

    def end(self, code: int) -> None:
        """What Ray's own log should have, since ours may not."""
        if code and not self._head_left and (self._log_fails or self._scribe.queued):
            self._print_line("the end of the output:")
            self._print(self._tail)

    def _log_line(self, message: str) -> None:
        self._scribe.log(_line(message, self._is_new_line))
        self._is_new_line = True

    def _print_line(self, message: str) -> None:
        self._print(_line(message, self._is_new_line_here))

    def _print(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            write_all(data)
        if data:
            self._is_new_line_here = data.endswith(b"\n")


class Stopping:
    """Whether and by which signal the run is to be stopped. Signals only put their number into a pipe: the loop acts on
    them, one at a time."""

    def __init__(self) -> None:
        self.wakeup, writer = os.pipe()
        for fd in (self.wakeup, writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in argus_processes.STOPS:
            signal.signal(number, lambda *_: None)
        # Ray blocks SIGINT in all that it starts.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, argus_processes.STOPS)

    def number(self) -> int | None:
        """The first stop that has come since the last look."""
        return next((number for number in os.read(self.wakeup, 4096) if number in argus_processes.STOPS), None)


class Supervision:
    """Follows a program until it, and all that it has started, has ended."""

    def __init__(
        self,
        guard: Guard,
        scribe: Scribe,
        output: Output,
        stopping: Stopping,
        grace_s: float,
        unheard: list[tuple[str, str]],
        spare: tuple[int, ...],
    ) -> None:
        """`unheard`: what the scribe has said already. `spare`: children of ours that are none of the program's."""
        self._spare = spare
        self.collected: set[int] = set()
        self._guard, self._scribe, self._output, self._stopping = guard, scribe, output, stopping
        self._unheard = unheard
        self._grace_s = grace_s
        self._is_stopping = False
        self._kill_at: float | None = None
        self._drain_until: float | None = None
        self._status: int | None = None
        self.failure: str | None = None

    def run(self, pipe: int, looks: int) -> tuple[int, int | None]:
        """The exit code, and the signal that ended the program. `pipe`: the program's output; `looks`: lines of
        `argus_leftovers`."""
        poll = select.poll()
        for fd in (self._stopping.wakeup, self._guard.events, self._scribe.answers, looks):
            poll.register(fd, select.POLLIN)
        reads_pipe, is_open = False, True
        for word, rest in self._unheard:
            self._note_scribe(word, rest)
        while self._drain_until is None or (is_open and time.monotonic() < self._drain_until):
            wants = is_open and (self._output.has_room or self._drain_until is not None)
            if wants != reads_pipe:
                reads_pipe = wants
                (poll.register if wants else poll.unregister)(pipe)
            poll.register(self._scribe.channel, select.POLLOUT if self._scribe.queued else 0)
            for fd, _ in poll.poll(self._patience_ms(reads_pipe)):
                if fd == pipe:
                    if data := os.read(pipe, _READ_BYTES):
                        self._output.write(data)
                    else:
                        is_open = reads_pipe = False
                        poll.unregister(pipe)
                elif fd == self._scribe.channel:
                    self._scribe.pump()
                    self._output.tell_dropped()
                elif fd == looks:
                    if not self._say_lines(looks):
                        poll.unregister(looks)
                elif not self._hear(fd):
                    poll.unregister(fd)
            self._act(time.monotonic())
        if self.failure is not None:
            return EXIT_CANNOT_START, None
        code = os.waitstatus_to_exitcode(self._status) if self._status is not None else -signal.SIGKILL
        return (code, None) if code >= 0 else (128 - code, -code)

    def _patience_ms(self, reads_pipe: bool) -> float | None:
        deadlines = [d for d in (self._kill_at, self._drain_until) if d is not None]
        if not reads_pipe and self._drain_until is None:
            deadlines.append(time.monotonic() + 0.25)  # a disk that hangs is told by the clock
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1 if deadlines else None

    def _hear(self, fd: int) -> bool:
        """False: nothing more comes from there."""
        if fd == self._stopping.wakeup:
            if number := self._stopping.number():
                self._stop(number, f"received {signal.Signals(number).name}")
            return True
        if fd == self._guard.events:
            said, has_ended = self._guard.read()
            for word, rest in said:
                self._note_guard(word, rest)
            if has_ended and self._drain_until is None:
                self._output.say("its guard was killed; ending what runs below it")
                left = argus_processes.end_children(spare=self._spare, reaped=self._note_child)
                self._note_guard("stuck", " ".join(map(str, left)))
                self._drain_until = time.monotonic() + DRAIN_S
            return not has_ended
        said, has_ended = self._scribe.read()
        for word, rest in said:
            self._note_scribe(word, rest)
        if has_ended:
            self._output.complain("what writes logs/driver.log was killed; the run goes on")
        return not has_ended

    def _note_scribe(self, word: str, rest: str) -> None:
        if word == "canceled":
            self._stop(signal.SIGTERM, "the attempt was canceled")
        elif word in ("trouble", "crashed"):
            self._output.complain(f"{_TROUBLE} ({rest}); the run goes on")

    def _note_guard(self, word: str, rest: str) -> None:
        if word == "failed":
            self.failure = rest
        elif word == "crashed":
            self._output.say(f"its guard failed: {rest}")
        elif word == "stuck" and rest:
            self._output.say(f"processes that do not die: {rest}")
        elif word == "ended":
            self._status = int(rest)
            self._drain_until = time.monotonic() + DRAIN_S

    def _note_child(self, pid: int, status: int) -> None:
        self.collected.add(pid)
        if pid == self._guard.program:
            self._status = status

    def _say_lines(self, looks: int) -> bytes:
        data = os.read(looks, 4096)
        for line in data.decode(errors="replace").splitlines():
            self._output.say(line)
        return data

    def _stop(self, number: int, why: str) -> None:
        if not self._is_stopping and self._drain_until is None:
            self._is_stopping = True
            self._kill_at = time.monotonic() + self._grace_s
            self._output.say(f"{why}; the program has {self._grace_s:g} s to end")
            self._guard.signal(number)

    def _act(self, now: float) -> None:
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            if self._drain_until is None:
                self._output.say("the program did not end in time; killed")
                self._guard.signal(signal.SIGKILL)


def main(arguments: list[str]) -> int:
    try:
        job_root, log_bytes, argv = _parse(arguments)
    except (ValueError, KeyError):
        write_all(b"usage: argus_runner.py --job-root ROOT [--log-bytes N] -- ARGV...\n")
        return _USAGE
    stopping = Stopping()
    scribe = Scribe(job_root, log_bytes)
    try:
        unheard = _await_claim(scribe, stopping)
    except Refused as refusal:
        write_all(_line(str(refusal), True))
        return refusal.exit_code
    argus_processes.become_subreaper()
    started_at = time.time()
    output = Output(scribe, f"{job_root}/logs/driver.log")
    code, signal_number = _run(argv, job_root, scribe, output, stopping, unheard)
    output.tell_dropped(now=True)
    scribe.record_exit(code, signal_number, started_at)
    _await_record(scribe, output)
    output.end(code)
    return code


def _run(
    argv: list[str],
    job_root: str,
    scribe: Scribe,
    output: Output,
    stopping: Stopping,
    unheard: list[tuple[str, str]],
) -> tuple[int, int | None]:
    pipe, writer = os.pipe()
    try:
        # The scribe hears of the runner's death once the guard has ended all.
        guard = Guard(argv, job_root, writer, keep=(scribe.channel,))
    except OSError as error:
        output.say(f"cannot start {argv[0]}: {error}")
        return EXIT_CANNOT_START, None
    finally:
        os.close(writer)
    looks, teller = os.pipe()
    helper = argus_processes.fork(lambda: _look(job_root, teller), (), teller)
    os.close(teller)
    grace_s = float(os.environ.get("ARGUS_STOP_GRACE_S", "25"))
    supervision = Supervision(guard, scribe, output, stopping, grace_s, unheard, (scribe.pid, helper))
    try:
        code, number = supervision.run(pipe, looks)
    finally:
        if helper not in supervision.collected and os.waitpid(helper, os.WNOHANG) == (0, 0):
            # It still looks, perhaps by a program of its own.
            argus_processes.end_children(spare=(scribe.pid,))
    if supervision.failure is not None:
        output.say(f"cannot start {argv[0]}: {supervision.failure}")
    return code, number


def _look(job_root: str, teller: int) -> None:
    import argus_leftovers  # type: ignore[import-not-found]

    argus_leftovers.look(job_root, lambda line: os.write(teller, line.encode(errors="replace") + b"\n"))


def _await_claim(scribe: Scribe, stopping: Stopping) -> list[tuple[str, str]]:
    """Until the program may start: what the scribe has said beyond that. Raises Refused."""
    poll = select.poll()
    poll.register(scribe.answers, select.POLLIN)
    poll.register(stopping.wakeup, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == stopping.wakeup:
                if number := stopping.number():
                    name = signal.Signals(number).name
                    raise Refused(f"received {name} before the program started", 128 + number)
                continue
            said, has_ended = scribe.read()
            if said:
                word, rest = said[0]
                if word == "claimed":
                    return said[1:]
                if word == "crashed":
                    raise Refused(f"cannot use the job root: {rest}", EXIT_BAD_JOB_ROOT)
                code, _, why = rest.partition(" ")
                raise Refused(why, int(code))
            if has_ended:
                raise Refused("what writes the job root's files was killed", EXIT_BAD_JOB_ROOT)


def _await_record(scribe: Scribe, output: Output) -> None:
    """Wait until all is written, with a bound."""
    deadline = time.monotonic() + RECORD_S
    poll = select.poll()
    poll.register(scribe.answers, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        poll.register(scribe.channel, select.POLLOUT if scribe.queued else 0)
        for fd, _ in poll.poll(left * 1000 + 1):
            if fd == scribe.channel:
                scribe.pump()
                continue
            said, has_ended = scribe.read()
            for word, rest in said:
                if word == "trouble":
                    output.complain(f"{_TROUBLE} ({rest})")
                if word == "recorded":
                    if rest:
                        output.complain(f"cannot write exit.json: {rest}")
                    scribe.end()
                    return
            if has_ended:
                if why := scribe.record_anew(max(1.0, deadline - time.monotonic())):
                    output.complain(f"cannot write exit.json: what writes it was killed, and another one: {why}")
                return
    scribe.leave()
    output.complain(
        f"cannot write exit.json: the disk did not answer for {RECORD_S:g} s; what writes it waits on for the disk"
    )


def _parse(arguments: list[str]) -> tuple[str, int, list[str]]:
    """Raises ValueError or KeyError. No argparse: it takes longer to import than all else here."""
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    job_root, log_bytes = options.pop("--job-root"), int(options.pop("--log-bytes", LOG_BYTES))
    argv = arguments[split + 1 :]
    if options or not argv:
        raise ValueError
    return job_root, log_bytes, argv


def _line(message: str, is_new_line: bool) -> bytes:
    return (b"" if is_new_line else b"\n") + f"argus-runner: {message}\n".encode(errors="replace")


def write_all(data: bytes) -> None:
    """To our standard output."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
