"""What a client costs that asks for a stream of a long log and reads nothing of it: the growth of the memory of all
the head's processes (PSS), and what Ray has spilled to disk. One such stream, 16 of them, and none: how much it grows
by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import cluster, memory, report, rounds
from benchmarks.cluster import Cluster

_LINE = b"step:12345 - train/loss:0.123456789 - timing_s/step:1.234 - perf/throughput:12345.678 - a log line\n"


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.set_defaults(rounds=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="that the streams stay open")
    parser.add_argument("--megabytes", type=int, default=1024, help="of the log")
    options = parser.parse_args(argv)
    argus = cluster.running(workers=1, gpus=128)
    with report.recorded("unread", options) as found:
        token = argus.tokens()[0]
        task = _with_long_log(argus, token, options.megabytes)
        sides = {_words(number): partial(_grow, argus, task, token, number, options) for number in (0, 1, 16)}
        for name, runs in rounds.alternate(options.rounds, sides).items():
            grown, spilled, words = zip(*runs, strict=True)
            found.figure(f"{name}: memory of the head grew by", "MB", grown, "" if name == _words(0) else "< 20")
            found.figure(f"{name}: spilled", "MB", spilled, "0")
            found.note(f"{name}: most by {words[-1]}")
    return 0


def _words(streams: int) -> str:
    return {0: "no stream", 1: "one stream"}.get(streams, f"{streams} streams")


def _with_long_log(argus: Cluster, token: str, megabytes: int) -> str:
    """A task that has ended, whose log is then made long."""
    task = argus.run_to_end(token, argus.trivial_spec())
    root = Path(argus.ask("GET", f"/api/v2/tasks/{task}", token=token).json()["attempts"][-1]["job_root"])
    block = _LINE * (2**20 // len(_LINE))
    with (root / "logs" / "driver.log").open("wb") as log:
        for _ in range(megabytes):
            log.write(block)
    return task


def _grow(argus: Cluster, task: str, token: str, streams: int, options: argparse.Namespace) -> tuple[float, float, str]:
    """MB of memory, MB spilled, and which programs grew most."""
    before, spilled = memory.by_program(argus.head_pids()), _spilled_mb(argus)
    with _open_streams(argus, task, token, streams):
        peaks = memory.Peaks(lambda: memory.by_program(argus.head_pids()))
        peaks.start()
        time.sleep(options.seconds)
        peaks.stop()
        spilled = _spilled_mb(argus) - spilled
    time.sleep(5)  # for the streams to be missed
    grown = {name: mb - before.get(name, 0.0) for name, mb in peaks.each.items()}
    most = sorted(grown.items(), key=lambda pair: -pair[1])[:3]
    return peaks.total - sum(before.values()), spilled, ", ".join(f"{name} {mb:+.1f} MB" for name, mb in most)


def _spilled_mb(argus: Cluster) -> float:
    return memory.bytes_in(argus.machine.root, "ray/session_2*/ray_spilled_objects*") / 1e6


@contextlib.contextmanager
def _open_streams(argus: Cluster, task: str, token: str, count: int) -> Iterator[None]:
    """From the log's first byte. Raises OSError if one is not answered with 200."""
    where = urlsplit(argus.url)
    request = (
        f"GET /api/v2/tasks/{task}/logs/stream HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Authorization: Bearer {token}\r\nLast-Event-ID: 1:0\r\nAccept: text/event-stream\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            opened = stack.enter_context(socket.socket())
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            opened.settimeout(30)
            opened.connect((where.hostname, where.port))
            opened.sendall(request.encode())
            first = opened.recv(64, socket.MSG_PEEK).decode(errors="replace")  # it stays unread
            if " 200 " not in first:
                raise OSError(f"a stream was answered: {json.dumps(first)}")
        yield
