"""What bodies that are made to be slow cost others: 64 at once by one user, again and again, while another user reads
GET /api/v2/me. Beside it: nobody else, and 64 ordinary submissions at once.

The bodies are within the limit, and each kind is sent as often as the others.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from benchmarks import cluster, report, rounds, wrk
from benchmarks.cluster import Cluster

_AT_ONCE = 64


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--bytes", type=int, default=8000, help="of each body; the limit is 8 KiB")
    options = parser.parse_args(argv)
    argus = cluster.running()
    with report.recorded("crafted", options) as found:
        spec = argus.spec()
        ordinary = [spec.replace("@N@", f"crafted-{number}") for number in range(_AT_ONCE)]
        bad = list(crafted(options.bytes).values())
        attacks = {"ordinary submissions": _Bursts(argus, ordinary), "crafted bodies": _Bursts(argus, bad)}
        sides = {"nobody else": partial(_read, argus, None, options)}
        sides |= {f"{_AT_ONCE} {name}": partial(_read, argus, bursts, options) for name, bursts in attacks.items()}
        runs = rounds.alternate(options.rounds, sides)
        for name, counted in runs.items():
            goal = "< 200" if "crafted" in name else ""
            found.figure(f"GET /me beside {name}: p99", "ms", [run.p99_ms for run in counted], goal)
            found.figure(f"GET /me beside {name}: max", "ms", [run.max_ms for run in counted])
            if odd := wrk.others(counted, (200,)):
                found.note(f"GET /me beside {name}: also {odd}")
        for name, bursts in attacks.items():
            found.figure(f"{_AT_ONCE} {name}: until all were answered", "ms", [s * 1e3 for s in bursts.took])
            found.note(f"{name} were answered: {', '.join(f'{n} x {s}' for s, n in sorted(bursts.answers.items()))}")
        argus.cancel_all()
    return 0


def crafted(size: int) -> dict[str, str]:
    """One body of each kind, of nearly this many bytes."""

    def filled(part: str, before: str = "", after: str = "") -> str:
        return before + part * ((size - len(before) - len(after)) // len(part)) + after

    def lines(line: Callable[[int], str]) -> str:
        text, number = "", 0
        while len(text) + len(added := line(number)) <= size:
            text, number = text + added, number + 1
        return text

    half = size // 2 - 8
    return {
        "nested lists": "x: " + "[" * half + "]" * half,
        "nested lists, open": filled("[", "x: "),
        "nested mappings": filled("{a: ", "x: "),
        "nested by indentation": filled("- ", "x:\n "),
        "sexagesimal": filled(":1", "x: 1"),
        "many keys": lines(lambda n: f"k{n}: {n}\n"),
        "one key again and again": filled("nnodes: 1\n"),
        "aliases": lines(lambda n: f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9 if n else 'x'}]\n"),
        "anchors": filled("- &a 1\n"),
        "huge number": filled("9", "nnodes: "),
        "huge number in hex": filled("f", "nnodes: 0x"),
        "huge exponent": filled("9", "nnodes: 1e"),
        "underscores": filled("1_", "nnodes: ", "1"),
        "long path": filled("/a", "code_path: "),
        "escapes": filled("\\x41", 'model_id: "', '"'),
        "folded lines": filled("\n  a", "model_id: a"),
        "open quote": filled("a\n", 'model_id: "'),
        "complex keys": filled("? a\n: b\n"),
        "tags": filled("- !!int 1\n"),
        "documents": filled("---\n"),
        "comments": filled("#\n"),
        "timestamps": filled("- 2001-12-14t21:59:43.10-05:00\n"),
    }


@dataclass
class _Bursts:
    """Bodies that one user sends, 64 at a time."""

    argus: Cluster
    bodies: list[str]
    took: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def run(self, over: threading.Event) -> None:
        token = self.argus.tokens()[0]
        several = [self.bodies[number % len(self.bodies)] for number in range(_AT_ONCE)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while not over.is_set():
                begun = time.perf_counter()
                self.answers.update(pool.map(lambda body: self._send(token, body), several))
                self.took.append(time.perf_counter() - begun)

    def _send(self, token: str, body: str) -> str:
        try:
            return str(self.argus.try_once("POST", "/api/v2/tasks", token=token, body=body).status)
        except OSError as error:
            return type(error).__name__


def _read(argus: Cluster, bursts: _Bursts | None, options: argparse.Namespace) -> wrk.Counted:
    """Another user's GET /me at one connection, meanwhile."""
    me = wrk.Load(f"{argus.url}/api/v2/me", tokens=argus.file("reader", f"{argus.tokens()[1]}\n"))
    if bursts is None:
        return argus.run(me, connections=1, seconds=options.seconds)
    over = threading.Event()
    thread = threading.Thread(target=bursts.run, args=(over,))
    thread.start()
    try:
        return argus.run(me, connections=1, seconds=options.seconds)
    finally:
        over.set()
        thread.join()
