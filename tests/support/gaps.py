"""Clients that retry: for how long they wait when a part of the service is killed with SIGKILL, and what they are told.

`scripts/bench gaps` prints it; tests ask that nobody is told what no client may be told (see docs/operations.md).
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx2

from argus_ray.node import processes

#: Part -> what its process's command line looks like. The newest one is killed.
PARTS = {
    "gateway replica": r"^ray::(ServeReplica|SERVE_REPLICA)",
    "HAProxy": r"/haproxy\0-db\0",
    # Not the ProxyActor, which Serve keeps beside it and no request reaches.
    "proxy actor": r"^ray::HAProxyManager",
    "Serve's controller": r"^ray::ServeController",
}
_PAUSE_S = 0.05
_CALM_S = 5.0


@dataclass(frozen=True)
class Gap:
    """`gap_s`: the longest time from a client's first try of a call to its answer. `silence_s`: the longest one in
    which no client was answered. `forbidden`: how many answers no client may get."""

    part: str
    gap_s: float
    silence_s: float
    answers: dict[str, int]
    forbidden: int


class Clients:
    """Threads that call the service and repeat what fails. `with Clients(url, token, 4) as clients`."""

    def __init__(self, url: str, token: str, count: int, *, pause_s: float = _PAUSE_S) -> None:
        """`pause_s`: from an answer to the next call. Without one they take all that the service and the machine can
        give."""
        self._url, self._token, self._pause_s = url, token, pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._tries: list[tuple[float, str]] = []
        self._calls: list[tuple[float, float]] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def is_calm(self, since: float, calm_s: float = _CALM_S) -> bool:
        """Whether each try of the last seconds was answered well, and some were."""
        now = time.monotonic()
        with self._lock:
            recent = [what for at, what in self._tries if at >= max(since, now - calm_s)]
        return now - since >= calm_s and bool(recent) and all(is_well(what) for what in recent)

    def since(self, part: str, begun: float) -> Gap:
        with self._lock:
            tries = [(at, what) for at, what in self._tries if at >= begun]
            gaps = [end - first for first, end in self._calls if end >= begun]
        well = [begun, *(at for at, what in tries if is_well(what))]
        silence = max((later - sooner for sooner, later in itertools.pairwise(well)), default=0.0)
        answers = Counter(what for _, what in tries)
        forbidden = sum(count for what, count in answers.items() if not is_allowed(what))
        return Gap(part, round(max(gaps, default=0.0), 2), round(silence, 2), dict(answers), forbidden)

    def _run(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}"}
        with httpx2.Client(base_url=self._url, headers=headers, timeout=30, trust_env=False) as http:
            while not self._stop.is_set():
                self._call(http)
                self._stop.wait(self._pause_s)

    def _call(self, http: httpx2.Client) -> None:
        first = time.monotonic()
        while not self._stop.is_set():
            try:
                what = _words(http.get("/api/v2/me"))
            except httpx2.HTTPError as error:
                what = type(error).__name__
            now = time.monotonic()
            with self._lock:
                self._tries.append((now, what))
                if is_well(what):
                    self._calls.append((first, now))
            if is_well(what):
                return
            self._stop.wait(_PAUSE_S)


def _words(answer: httpx2.Response) -> str:
    if answer.is_success:
        return str(answer.status_code)
    is_problem = answer.headers.get("content-type", "").startswith("application/problem+json")
    retry = " Retry-After" if "retry-after" in answer.headers else ""
    return f"{answer.status_code} {answer.json()['code'] if is_problem else repr(answer.text[:60])}{retry}"


def is_well(what: str) -> bool:
    return what.startswith("2")


def is_allowed(what: str) -> bool:
    """A good answer, a connection that was refused or has ended, or a 503 problem that says when to try again."""
    return is_well(what) or what.isalpha() or bool(re.fullmatch(r"503 [a-z_]+ Retry-After", what))


def kill(mark: str, part: str) -> int:
    """SIGKILL to the newest process of this part, of the machine with this mark; its id. Raises LookupError."""
    found = []
    for pid in processes.marked(mark):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if re.search(PARTS[part], command):
            found.append(pid)
    if not found:
        raise LookupError(f"there is no {part}")
    newest = max(found, key=_started)
    os.kill(newest, signal.SIGKILL)
    return newest


def _started(pid: int) -> int:
    """When, in ticks since the machine's boot; 0 if it has gone. Process ids begin anew after 32,768."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def measure(mark: str, clients: Clients, part: str) -> Gap:
    """Kill the part, and wait until all is calm. Raises TimeoutError."""
    begun = time.monotonic()
    kill(mark, part)
    if not processes.wait_until(lambda: clients.is_calm(begun), 120):
        raise TimeoutError(f"no calm within two minutes after the kill of {part}: {clients.since(part, begun)}")
    return clients.since(part, begun)
