"""The guard: the process that starts an attempt's program and ends all that is left below it, when the program has
ended, or when the runner is gone.

A fork of the runner in a session of its own, so that what kills the runner's session or process group spares it. It is
a subreaper: children that called setsid, double forks and orphans stay below it. It touches no disk, and has one thread
(the kernel ties the program's life to the thread that started it): nothing can hold it up. If it is killed itself, its
program dies with it, and the runner, a subreaper too, ends the rest."""

from __future__ import annotations

import contextlib
import os
import select
import signal

import argus_processes  # type: ignore[import-not-found]

EXIT_CANNOT_START = 127


class Guard:
    """The runner's end. `events` can be read when there is something for `read`."""

    def __init__(self, argv: list[str], cwd: str, output: int, keep: tuple[int, ...] = ()) -> None:
        """Starts the guard, which starts the program with `output` as its standard output and error. `keep`:
        descriptors that stay open as long as the guard lives. Raises OSError."""
        commands, self._commands = os.pipe()
        self.events, events = os.pipe()

        def run() -> None:
            _Keeper(argv, cwd, output, commands, events).run()

        try:
            self.pid = argus_processes.fork(run, (commands, output, *keep), events)
        finally:
            os.close(commands)
            os.close(events)
        self._lines = b""
        #: Its process; 0 until it is known.
        self.program = 0

    def signal(self, number: int) -> None:
        """To the program's process group."""
        with contextlib.suppress(OSError):  # the guard is gone; `read` tells
            os.write(self._commands, bytes([number]))

    def read(self) -> tuple[list[tuple[str, str]], bool]:
        """What the guard said, as word and rest, and whether it has ended: `started PID`; `failed TEXT`: the program
        did not start; `ended STATUS`: as of waitpid, and nothing is left; `stuck PIDS`: but these."""
        data = os.read(self.events, 1 << 16)
        *lines, self._lines = (self._lines + data).split(b"\n")
        said = [line.decode(errors="replace").partition(" ") for line in lines]
        for word, _, rest in said:
            if word == "started":
                self.program = int(rest)
        return [(word, rest) for word, _, rest in said], not data


class _Keeper:
    """The guard's own life."""

    def __init__(self, argv: list[str], cwd: str, output: int, commands: int, events: int) -> None:
        self._argv, self._cwd, self._output = argv, cwd, output
        self._commands, self._events = commands, events
        self._program = 0
        self._status: int | None = None

    def run(self) -> None:
        argus_processes.become_subreaper()
        wake, writer = os.pipe()
        for fd in (wake, writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        failure = self._start()
        os.close(self._output)
        poll = select.poll()
        for fd in (self._commands, wake):
            poll.register(fd, select.POLLIN)
        while not self._program_has_ended():
            for fd, _ in poll.poll():
                if fd == wake:
                    os.read(fd, 4096)
                elif not self._obey(os.read(fd, 64)):
                    self._end()  # the runner is gone
                    return
        if text := os.read(failure, 4096):
            self._say(b"failed " + text.replace(b"\n", b" "))
        self._end()

    def _start(self) -> int:
        """The program's process; a descriptor from which its failure to start can be read."""
        failure, report = os.pipe()
        parent = os.getpid()
        # What comes before the program can hear it waits for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, argus_processes.STOPS)
        self._program = os.fork()
        if self._program:
            self._say(f"started {self._program}".encode())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, argus_processes.STOPS)
            os.close(report)
            return failure
        try:
            os.setsid()
            argus_processes.die_with_parent(parent)
            for number in (*argus_processes.STOPS, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(self._output, 1)
            os.dup2(self._output, 2)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, argus_processes.STOPS)
            os.chdir(self._cwd)
            os.execvp(self._argv[0], self._argv)
        except BaseException as error:
            os.write(report, str(error).encode(errors="replace"))
        finally:
            os._exit(EXIT_CANNOT_START)

    def _obey(self, numbers: bytes) -> bool:
        for number in numbers:
            # Not collected yet, so the group's id is still its own.
            try:
                os.killpg(self._program, number)
            except ProcessLookupError:  # it has none yet
                os.kill(self._program, number)
        return bool(numbers)

    def _program_has_ended(self) -> bool:
        """Collects what else has ended meanwhile: orphans."""
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return False
            if ended.si_pid == self._program:
                return True
            os.waitpid(ended.si_pid, 0)

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._program, signal.SIGKILL)
        left = argus_processes.end_children(reaped=self._note)
        if left:
            self._say(f"stuck {' '.join(map(str, left))}".encode())
        if self._status is not None:
            self._say(f"ended {self._status}".encode())

    def _note(self, pid: int, status: int) -> None:
        if pid == self._program:
            self._status = status

    def _say(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # the runner is gone
            os.write(self._events, line + b"\n")
