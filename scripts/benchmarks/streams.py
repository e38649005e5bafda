"""A thousand streams of changes over real sockets: what each costs its gateway in memory, what all of them cost while
nothing happens, and how long a change takes from the call that makes it to each stream that tells it. Straight to the
server, and through HAProxy as Serve has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import gateway, memory, report, rounds
from benchmarks.gateway import Gateway

_TICKS = os.sysconf("SC_CLK_TCK")
#: Seconds for what should take one.
_PATIENCE_S = 60.0


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.set_defaults(rounds=2)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--users", type=int, default=40, help="who share them; 32 streams each at most")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds in which nothing happens")
    options = parser.parse_args(argv)
    gateway.many_files()
    with report.recorded("streams", options) as found:
        sides = {"uvicorn": lambda: _measure(options, False), "behind HAProxy": lambda: _measure(options, True)}
        for name, runs in rounds.alternate(options.rounds, sides).items():
            for figure, unit in _UNITS.items():
                values = [run.figures[figure] for run in runs if figure in run.figures]
                if values:
                    found.figure(f"{name}: {figure}", unit, values)
            found.note(f"{name}: {runs[-1].told} changes were told")
    return 0


_UNITS = {
    "memory of the gateway, a stream": "KiB",
    "memory of HAProxy, a stream": "KiB",
    "CPU of the gateway, all idle": "% of a core",
    "CPU of HAProxy, all idle": "% of a core",
    "from the call to a stream, median": "ms",
    "from the call to a stream, p99": "ms",
    "from the call to a stream, most": "ms",
}


class _Run:
    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.told = 0


def _measure(options: object, has_proxy: bool) -> _Run:
    with gateway.gateway(options.users) as served, _way(served, has_proxy) as (port, pids):  # type: ignore[attr-defined]
        return asyncio.run(_run(served, port, pids, options))


@contextlib.contextmanager
def _way(served: Gateway, has_proxy: bool) -> Iterator[tuple[int, dict[str, int]]]:
    if not has_proxy:
        yield served.port, {"the gateway": served.pid}
        return
    with gateway.behind_haproxy(served.port) as (port, pid):
        yield port, {"the gateway": served.pid, "HAProxy": pid}


async def _run(served: Gateway, port: int, pids: dict[str, int], options: object) -> _Run:
    run, listeners = _Run(), [_Listener(port) for _ in range(options.streams)]  # type: ignore[attr-defined]
    users = len(served.tokens)
    # What is loaded once counts for no stream.
    await listeners[0].open(served.tokens[0])
    before = {name: memory.pss_mb(pid) for name, pid in pids.items()}
    for start in range(1, len(listeners), 50):
        some = range(start, min(start + 50, len(listeners)))
        await asyncio.gather(*(listeners[i].open(served.tokens[i % users]) for i in some))
    for name, pid in pids.items():
        grown = (memory.pss_mb(pid) - before[name]) * 1e6 / 1024
        run.figures[f"memory of {name}, a stream"] = grown / (len(listeners) - 1)
    spent = {name: _cpu_s(pid) for name, pid in pids.items()}
    await asyncio.sleep(options.idle)  # type: ignore[attr-defined]
    for name, pid in pids.items():
        run.figures[f"CPU of {name}, all idle"] = 100 * (_cpu_s(pid) - spent[name]) / options.idle  # type: ignore[attr-defined]
    delays: list[float] = []
    for number, task in enumerate(served.tasks):
        theirs = [listener for i, listener in enumerate(listeners) if i % users == number]
        begun = time.monotonic()
        await _cancel(port, served.tokens[number], task)
        heard = await asyncio.gather(*(listener.hears(task) for listener in theirs))
        delays += [1000 * (at - begun) for at in heard]
    run.told = len(delays)
    run.figures["from the call to a stream, median"] = rounds.percentile(delays, 0.5)
    run.figures["from the call to a stream, p99"] = rounds.percentile(delays, 0.99)
    run.figures["from the call to a stream, most"] = max(delays)
    for listener in listeners:
        listener.close()
    return run


class _Listener:
    """One stream; when it heard of each task."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._heard: dict[str, asyncio.Future[float]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, token: str) -> None:
        """Until its first event."""
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(_request("GET", "/api/v2/stream", token))
        await asyncio.wait_for(reader.readuntil(b"event: hello"), _PATIENCE_S)
        self._reading = asyncio.create_task(self._read(reader))

    async def hears(self, task: str) -> float:
        return await asyncio.wait_for(self._of(task), _PATIENCE_S)

    def close(self) -> None:
        if self._reading is not None and self._writer is not None:
            self._reading.cancel()
            self._writer.close()

    def _of(self, task: str) -> asyncio.Future[float]:
        return self._heard.setdefault(task, asyncio.get_running_loop().create_future())

    async def _read(self, reader: asyncio.StreamReader) -> None:
        mark = b'data: {"task_id":"'
        while True:
            line = await reader.readline()
            if not line:
                return
            if line.startswith(mark):
                heard = self._of(line[len(mark) :].partition(b'"')[0].decode())
                if not heard.done():
                    heard.set_result(time.monotonic())


async def _cancel(port: int, token: str, task: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_request("POST", f"/api/v2/tasks/{task}:cancel", token))
    status = await asyncio.wait_for(reader.readline(), _PATIENCE_S)
    assert b" 200 " in status, status
    writer.close()


def _request(method: str, path: str, token: str) -> bytes:
    length = "Content-Length: 0\r\n" if method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nHost: argus\r\nAuthorization: Bearer {token}\r\n{length}\r\n".encode()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
