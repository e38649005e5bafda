"""Getting the service onto a Ray head that runs, from outside Ray: `serve deploy`, again until it is there; and whether
its API answers."""

from __future__ import annotations

import enum
import http.client
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from argus_ray.disk import own
from argus_ray.node import ports, processes
from argus_ray.node.decision import backoff_s
from argus_ray.node.journal import Journal
from argus_ray.node.raychild import command_beside_python

_TIMEOUT_S = 240.0
#: The exit code of `argus_ray.config` for settings with mistakes.
_REFUSED = 65
#: A head that came back on its durable store brings the API back by itself; `serve deploy` then only applies what has
#: changed in the file, and must not compete with it for the machine.
_COMES_BACK_S = 60.0
#: Never by a proxy: it is this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str, timeout_s: float = 5) -> bool:
    """Whether it answers 200 in time."""
    try:
        with _OPENER.open(url, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


class ApiState(enum.Enum):
    OURS = "answers"
    SILENT = "does not answer"
    #: Somebody else has its port.
    TAKEN = "is taken"


@dataclass(frozen=True)
class ApiLook:
    state: ApiState
    words: str


def look(url: str, head_id: str, timeout_s: float = 2) -> ApiLook:
    """Whether the API of the head with this id answers there.

    `serve deploy` says that all is well although no proxy could take the port (ray 2.60), and two programs may listen
    at one port without an error (SO_REUSEPORT). So nothing but an answer with our own word counts.
    """
    try:
        with _OPENER.open(f"{url}/healthz", timeout=timeout_s) as answer:
            found = answer.headers.get("X-Argus-Head")
            if answer.status == 200 and found == head_id:
                return ApiLook(ApiState.OURS, f"the API answers at {url}")
            return ApiLook(ApiState.TAKEN, f"{url} is answered by {'another head' if found else 'another program'}")
    except urllib.error.HTTPError as error:
        with error:
            said = f"{error.code} {error.reason}"
        return ApiLook(ApiState.SILENT, f"{url}/healthz answers {said}")
    except http.client.HTTPException as error:
        return ApiLook(ApiState.SILENT, f"{url} does not speak HTTP ({type(error).__name__})")
    except OSError as error:
        return ApiLook(ApiState.SILENT, f"{url} does not answer: {getattr(error, 'reason', error)}")


@dataclass(frozen=True)
class Application:
    """What is deployed, to which head, and where it answers then."""

    config: Path
    dashboard: str
    #: As others reach it.
    api_url: str
    #: On this machine.
    local_url: str
    head_id: str


class Deployment:
    """`serve deploy` of our file: tried until it has succeeded, with a pause that grows."""

    def __init__(
        self,
        application: Application,
        journal: Journal,
        environ: Mapping[str, str],
        log: Path,
        ours: Callable[[], Collection[int]],
        *,
        comes_back: bool,
    ) -> None:
        """`ours`: the ids of the processes that belong to this head."""
        self._application = application
        self._journal = journal
        self._environ = environ
        self._comes_back = comes_back
        self._log = log
        self._ours = ours
        self._child: subprocess.Popen[bytes] | None = None
        self._checks = False
        #: The process that was killed last, since it took too long.
        self._killed = 0
        self._begun = time.monotonic()
        self._next = 0.0
        self._failures = 0
        self.is_done = False
        self.words = f"waiting to deploy {application.config}"

    @property
    def pid(self) -> int | None:
        """Of `serve deploy`, or of the check before it, while it has not been waited for."""
        return self._child.pid if self._child is not None else None

    def look(self) -> ApiLook:
        """Whether the API answers; waits for two seconds at most."""
        application = self._application
        found = look(application.local_url, application.head_id)
        if found.state is not ApiState.SILENT:
            return found
        port = urllib.parse.urlsplit(application.local_url).port or 80
        listeners = ports.listeners(port)
        ours = self._ours() if listeners else ()
        if strangers := [pid for pid in listeners if pid not in ours]:
            return ApiLook(ApiState.TAKEN, f"port {port} is taken by {ports.names(strangers)}")
        return found

    def step(self) -> None:
        """Called again and again; waits no longer than `look`."""
        now = time.monotonic()
        if self.is_done or now < self._next:
            return
        if self._child is None:
            if self._comes_back and now - self._begun < _COMES_BACK_S and self.look().state is not ApiState.OURS:
                return
            self._start(self._check())
            self._checks, self._comes_back, self._begun = True, False, now
            return
        code = self._child.poll()
        is_late = now - self._begun >= _TIMEOUT_S
        if code is None:
            if is_late:
                self._kill(self._child)
            return
        self._child = None
        if self._checks and code != _REFUSED:
            # What it cannot tell, `serve deploy` does.
            self._start(self._deploy())
            self._checks, self._begun = False, now
            return
        if code == 0:
            self.is_done = True
            self.words = f"{self._application.config} is deployed"
            self._journal.say("deployed", f"{self._application.config}; the API is {self._application.api_url}")
            return
        self._failures += 1
        pause = backoff_s(self._failures, secrets.randbelow(1000) / 1000)
        self._next = now + pause
        if self._checks:
            self.words = f"{self._application.config} has mistakes; see {self._log}"
            self._journal.say("deploy failed", self.words)
            return
        self.words = f"`serve deploy` has failed {self._failures} times; see {self._log}"
        self._journal.say("deploy failed", f"{'no answer' if is_late else f'exit code {code}'}; see {self._log}")

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        """Not waited for: it may be stuck in the kernel, and no other is begun beside it. The second time tells."""
        child.kill()
        if self._killed == child.pid:
            self.words = f"process {child.pid}, which deploys {self._application.config}, does not end"
            self._journal.say("warning", f"{self.words}; this machine may need a restart")
        self._killed = child.pid

    def end(self) -> None:
        """End what runs. Raises TimeoutError if it does not die."""
        child, self._child = self._child, None
        if child is not None and child.poll() is None:
            child.kill()
            processes.collect(child)

    def _check(self) -> list[str]:
        """`serve deploy` says that all is well whatever Argus's own settings are: they are read later, inside Ray."""
        return [sys.executable, "-I", "-m", "argus_ray.config", str(self._application.config)]

    def _deploy(self) -> list[str]:
        command = [command_beside_python("serve"), "deploy", str(self._application.config)]
        return [*command, "--address", self._application.dashboard]

    def _start(self, command: list[str]) -> None:
        with own.open_log(self._log, append=True) as out:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**self._environ},
                start_new_session=True,
            )
