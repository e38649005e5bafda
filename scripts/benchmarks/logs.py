"""A log of a GiB that is really written: what it takes of a gateway's memory to open, tail, read and search it, and how
long a line takes from the worker's program to a follower, beside `tail -F` of the same file. The line goes the whole
way: the runner and its scribe, the disk, a gateway by uvicorn, a stream of events.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import gateway, report, rounds
from benchmarks.gateway import Gateway

_RUNNER = report.ROOT / "argus_ray/payload/argus_runner.py"
#: Fills the log, and then says the time in each line, whenever it is told to.
_PROGRAM = """
import os, sys, time
line = "step:12345 - train/loss:0.123456789 - timing_s/step:1.234 - perf/throughput:12345.678 - a log line\\n"
size, block = int(sys.argv[1]), line * 10_000
for _ in range(size // len(block)):
    sys.stdout.write(block)
sys.stdout.flush()
for told in open(sys.argv[2]):
    print("stamp", time.monotonic(), flush=True)
"""
_PATIENCE_S = 300.0


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.set_defaults(rounds=1)
    parser.add_argument("--megabytes", type=int, default=1024, help="of the log")
    parser.add_argument("--lines", type=int, default=60, help="that are followed, in each round")
    options = parser.parse_args(argv)
    with report.recorded("logs", options) as found:
        grown, cpu, calls = zip(*(_memory(options.megabytes) for _ in range(options.rounds)), strict=True)
        found.figure("open, tail, read and search it: memory grows by", "MB", grown, "< 50")
        found.figure("of CPU for that", "s", cpu)
        found.note(f"in {calls[-1]} calls, six of the searches from end to end")
        ours: list[float] = []
        floor: list[float] = []
        for _ in range(options.rounds):
            with gateway.gateway(1, Path("/var/tmp")) as served:  # noqa: S108 - a folder of our own in it
                mine, tail = _delays(served, options.megabytes << 20, options.lines)
            ours.append(rounds.percentile(mine, 0.5))
            floor.append(rounds.percentile(tail, 0.5))
            found.figure("a line to the follower, p95", "ms", 1000 * rounds.percentile(mine, 0.95))
            found.figure("a line to `tail -F`, p95", "ms", 1000 * rounds.percentile(tail, 0.95))
        found.figure("a line to the follower, median", "ms", [1000 * each for each in ours], "< 1000")
        found.figure("a line to `tail -F`, median", "ms", [1000 * each for each in floor])
    return 0


def _memory(megabytes: int) -> tuple[float, float, int]:
    folder = tempfile.mkdtemp(prefix="argus-bench-", dir="/var/tmp")
    command = [sys.executable, "-m", "tests.support.log_memory", folder, str(megabytes), "written"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=report.ROOT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    facts = json.loads(done.stdout)
    return facts["grown"] / 1e6, facts["cpu_s"], facts["calls"]


def _delays(served: Gateway, size: int, lines: int) -> tuple[list[float], list[float]]:
    """Seconds, at the follower and at `tail -F`."""
    rng = random.Random(0)
    root, log = served.job_roots[0], Path(served.job_roots[0]) / "logs" / "driver.log"
    with _running(root, size) as tell:
        _until(lambda: log.exists() and log.stat().st_size >= size - (1 << 20), "the log is written")
        with _follower(served) as mine, _tail(log) as tail:
            for number in range(lines):
                time.sleep(0.2 + 0.6 * rng.random())  # against the follower's pace
                tell()
                _until(lambda n=number + 1: len(mine) >= n and len(tail) >= n, "the line has come")  # type: ignore[misc]
            return list(mine), list(tail)


@contextlib.contextmanager
def _running(root: str, size: int) -> Iterator[Callable[[], None]]:
    """What has the program print a line. The runner gives it no standard input, so it is told through a pipe with a
    name."""
    pipe = str(Path(root).parents[3] / "tell")
    os.mkfifo(pipe)
    runner = [sys.executable, "-S", str(_RUNNER), "--job-root", root, "--log-bytes", str(4 * size), "--"]
    command = [*runner, sys.executable, "-c", _PROGRAM, str(size), pipe]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        with open(os.open(pipe, os.O_RDWR), "w", buffering=1) as end:  # for both, so that no open waits
            yield lambda: print("now", file=end)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _follower(served: Gateway) -> Iterator[list[float]]:
    with socket.create_connection(("127.0.0.1", served.port)) as peer:
        path = f"/api/v2/tasks/{served.tasks[0]}/logs/stream?tail=0"
        peer.sendall(f"GET {path} HTTP/1.1\r\nHost: argus\r\nAuthorization: Bearer {served.tokens[0]}\r\n\r\n".encode())
        with _reading(peer.fileno(), lambda: peer.recv(65536)) as heard:
            _until(lambda: heard.is_open, "the stream is open")
            yield heard.delays


@contextlib.contextmanager
def _tail(log: Path) -> Iterator[list[float]]:
    process = subprocess.Popen(["tail", "-n", "1", "-F", str(log)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        out = process.stdout
        with _reading(out.fileno(), lambda: out.read1(65536)) as heard:  # type: ignore[attr-defined]
            _until(lambda: heard.is_open, "it has read the end")
            yield heard.delays
    finally:
        process.kill()
        process.wait()


class _Heard:
    def __init__(self) -> None:
        self.is_open = False
        self.delays: list[float] = []
        self._rest = b""

    def take(self, data: bytes, at: float) -> None:
        self.is_open = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            words = line.removeprefix(b"data: ").split()
            if words[:1] == [b"stamp"]:
                self.delays.append(at - float(words[1]))


@contextlib.contextmanager
def _reading(fd: int, read: Callable[[], bytes]) -> Iterator[_Heard]:
    heard, over = _Heard(), threading.Event()

    def loop() -> None:
        while not over.is_set():
            if select.select([fd], [], [], 0.2)[0]:
                data = read()
                if not data:
                    return
                heard.take(data, time.monotonic())

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        over.set()
        thread.join()


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {_PATIENCE_S:g} s: {what}")
        time.sleep(0.005)
