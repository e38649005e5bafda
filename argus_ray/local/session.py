"""One run of a program over a one-machine cluster: it tells its story, and whatever comes of that, nothing is left."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from argus_ray.local.client import ApiError
from argus_ray.local.cluster import NotStarted, OneMachine
from argus_ray.local.folder import Refused, claim

#: Exit codes.
OK, FAILED, REFUSED = 0, 1, 2

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BEGUN = time.monotonic()

#: What a program does with the machine and the admin's token; its exit code.
Story = Callable[[OneMachine, str], int]


def exit_code(program: str, run: Callable[[], int]) -> int:
    """What `run` returns; REFUSED if it was Refused, FAILED if the system refused something. The reason goes to
    standard error."""
    try:
        return run()
    except Refused as refusal:
        print(f"{program}: {refusal}", file=sys.stderr)  # noqa: T201
        return REFUSED
    except OSError as error:
        print(f"{program}: {error}", file=sys.stderr)  # noqa: T201
        return FAILED


def on_machine(program: str, root: Path, story: Story, *, home: Path, keep: bool = False) -> int:
    """What `story` returns, told of a machine in the folder `root`, which is claimed and emptied; or FAILED with the
    reason on standard error. All that it has started there is ended, whatever comes of it. To `keep` it, the story must
    come to its end. `home`: what is started runs there, and takes it for a place to import from. Raises Refused."""
    os.chdir(home)
    admin = secrets.token_hex(24)
    machine = OneMachine(root, claim(root), environ={"ARGUS_ADMIN_TOKEN": admin})
    stays = False
    try:
        try:
            code = story(machine, admin)
            stays = keep
            return code
        finally:
            ignore_signals()  # nothing may break off the cleanup
    except (NotStarted, ApiError, subprocess.SubprocessError, OSError) as error:
        print(f"\n{program}: {error}\nThe logs are in {machine.logs}.", file=sys.stderr)  # noqa: T201
        return FAILED
    finally:
        if not stays:
            with contextlib.suppress(OSError):  # whoever read our output may have gone
                say("stopping everything that was started")
            machine.stop()


def say(words: str) -> None:
    """One line on standard output, after the seconds since the program began."""
    print(f"[{time.monotonic() - _BEGUN:5.0f} s] {words}", flush=True)  # noqa: T201


def end_on_signals() -> None:
    """SIGINT, SIGTERM and SIGHUP end the program by way of its cleanup. Only the first one does: Ctrl-C may be pressed
    twice."""

    def end(number: int, _: object) -> None:
        ignore_signals()
        sys.exit(128 + number)

    for each in _SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:  # as under nohup
            signal.signal(each, end)


def ignore_signals() -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
