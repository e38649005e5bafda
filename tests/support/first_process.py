"""The first process of a lab host: starts what the lab asks for, reaps every orphan, and ends with the lab.

It runs as pid 1 inside the host's namespaces, by `python -I -S`, and its standard input is one end of a socket whose
other end is `lab.Host`. Each message is one JSON object. A command's parent is thus this process, as on a real machine
it is systemd; with nsenter it would be a process outside, which stops when the command stops and then reaps nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn


def main() -> None:
    # The dup is not inherited by what we start, descriptor 0 would be.
    lab = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
    numbers: dict[int, int] = {}  # pid in this namespace -> the lab's number of the command
    _tell(lab, event="ready")
    while True:
        readable, _, _ = select.select([lab.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _reap(lab, numbers)
        if lab.fileno() in readable:
            message = lab.recv(1 << 20)
            if not message:  # the lab is gone, however it ended; and with pid 1 all of this host ends
                return
            _start(lab, numbers, json.loads(message))


def _tell(lab: socket.socket, **fact: Any) -> None:
    try:
        lab.send(json.dumps(fact).encode())
    except (BrokenPipeError, ConnectionResetError):
        sys.exit()


def _reap(lab: socket.socket, numbers: dict[int, int]) -> None:
    exited = []
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            if pid in numbers:  # an orphan has none
                exited.append((numbers.pop(pid), os.waitstatus_to_exitcode(status)))
    # After all of them: who hears that a process has ended finds no zombie that it has left.
    for number, returncode in exited:
        _tell(lab, event="exited", number=number, returncode=returncode)


def _start(lab: socket.socket, numbers: dict[int, int], request: dict[str, Any]) -> None:
    failure, in_child = os.pipe()  # closed by a successful exec
    pid = os.fork()
    if pid == 0:
        _become(lab, in_child, request)
    numbers[pid] = request["number"]
    os.close(in_child)
    error = os.read(failure, 4096).decode()
    os.close(failure)
    _tell(lab, event="running", number=request["number"], error=error or None)


def _become(lab: socket.socket, failure: int, request: dict[str, Any]) -> NoReturn:
    try:
        # A session of its own: a signal to its group, or to the group of whoever is below it, reaches nobody else.
        os.setsid()
        for signum in (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        # The kernel adds the sender's pid to this message, as the reader outside sees it.
        lab.send(json.dumps({"event": "started", "number": request["number"]}).encode())
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(request["stdout"], append, 0o644), 1)
        os.dup2(os.open(request["stderr"], append, 0o644), 2)
        os.chdir(request["folder"])
        os.execvpe(request["command"][0], request["command"], request["env"])  # noqa: S606 - no shell is meant
    except OSError as error:
        os.write(failure, str(error).encode())
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()
