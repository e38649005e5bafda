"""The load generator wrk (one thread, keep-alive connections), and what it counted.

Each answer's status is counted: a rate is that of the wanted status alone, and the others are shown.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("load.lua")
_LINE = re.compile(r"^BENCH (.*)$", re.MULTILINE)
_ODD = re.compile(r"^BENCH-ODD (.*)$", re.MULTILINE)


class NoWrk(Exception):
    """wrk is not installed."""

    def __init__(self) -> None:
        super().__init__("wrk is not installed (Debian: apt-get install wrk)")


@dataclass(frozen=True)
class Load:
    """What is sent. Files, since wrk's script reads them: see load.lua."""

    url: str
    method: str = "GET"
    tokens: Path | None = None
    paths: Path | None = None
    body: Path | None = None
    content_type: str = ""
    #: The bodies of all 201 answers are appended here, a line each.
    record: Path | None = None


@dataclass(frozen=True)
class Counted:
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    statuses: dict[int, int]
    #: connect, read, write, timeout.
    broken: dict[str, int]
    #: The beginning of the first answer of 400 or more.
    odd: str

    def rate(self, wanted: int) -> float:
        return self.statuses.get(wanted, 0) / self.seconds


def run(load: Load, *, connections: int, seconds: float, start: str = "0") -> Counted:
    """`start` begins each number that stands for @N@ in the body: another one each run, so that no body comes twice."""
    program = shutil.which("wrk")
    if program is None:
        raise NoWrk
    variables = {
        "BENCH_METHOD": load.method,
        "BENCH_TYPE": load.content_type or None,
        "BENCH_TOKENS": load.tokens,
        "BENCH_PATHS": load.paths,
        "BENCH_BODY": load.body,
        "BENCH_RECORD": load.record,
        "BENCH_START": start,
    }
    environ = {**os.environ, **{name: str(value) for name, value in variables.items() if value is not None}}
    options = [f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(_SCRIPT)]
    command = [program, "-t1", f"-c{connections}", *options, load.url]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=seconds + 120)
    if done.returncode:
        raise OSError(f"wrk: {(done.stdout + done.stderr)[-500:]}")
    return parse(done.stdout)


def parse(output: str) -> Counted:
    """What load.lua prints at the end."""
    found = _LINE.search(output)
    if found is None:
        raise OSError(f"wrk said nothing that load.lua prints: {output[-500:]}")
    pairs = dict(word.split("=", 1) for word in found[1].split(" "))
    statuses = dict(pair.split("=") for pair in pairs["statuses"].split(",") if pair)
    odd = _ODD.search(output)
    return Counted(
        seconds=float(pairs["seconds"]),
        p50_ms=float(pairs["p50_ms"]),
        p99_ms=float(pairs["p99_ms"]),
        max_ms=float(pairs["max_ms"]),
        statuses={int(status): int(count) for status, count in statuses.items()},
        broken={name: int(pairs[name]) for name in ("connect", "read", "write", "timeout")},
        odd=odd[1] if odd else "",
    )


def others(runs: Sequence[Counted], wanted: Collection[int]) -> str:
    """The answers that were not wanted, in words; empty if there are none."""
    counts: dict[str, int] = {}
    for run_ in runs:
        for status, count in run_.statuses.items():
            if status not in wanted:
                counts[str(status)] = counts.get(str(status), 0) + count
        for name, count in run_.broken.items():
            if count:
                counts[name] = counts.get(name, 0) + count
    odd = next((run_.odd for run_ in runs if run_.odd), "")
    words = ", ".join(f"{count} x {name}" for name, count in sorted(counts.items()))
    return f"{words}; the first said: {odd}" if words and odd else words
