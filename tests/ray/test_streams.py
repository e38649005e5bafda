"""Log streams and downloads that are not read, on real Ray: what they cost the head, and when it gives them up."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from argus_ray.node import processes
from tests.support.raycluster import Api, Cluster

MIB = 1024 * 1024
#: Bytes of a log line.
LINE = b"%015d " + b"." * 111 + b"\n"
#: What the head's processes may grow by, however many clients do not read. It includes what they grow by anyhow.
ALLOWED = 20 * MIB
#: What the log grows by, beyond its first GiB, while it is not read. More than all buffers of the kernel on the way.
GROWTH = 48 * MIB
#: As many as one user may have.
MOST = 16


class Growing:
    """A log to which a thread appends numbered lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.written = 0

    def __enter__(self) -> Growing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        block = b"".join(LINE % number for number in range(MIB // 4 // 128))
        with self._path.open("ab") as log:
            while not self._stop.wait(0.05):
                log.write(block)
                log.flush()
                self.written += len(block)


@dataclass
class BigLog:
    """The log of a task that runs, of a GiB and more."""

    user: Api
    task_id: str
    path: Path


@pytest.fixture(scope="module")
def big(cluster: Cluster) -> Iterator[BigLog]:
    user = cluster.user()
    gate = user.gate()
    task_id = user.submit({"wait_for_file": str(gate)}, n_gpus_per_node=1)
    view = user.wait(task_id, lambda v: bool(v["attempts"]) and cluster.executions(v) == [1], "running")
    path = cluster.job_root(view) / "logs" / "driver.log"
    try:
        block = b"".join(LINE % number for number in range(16 * MIB // 128))
        with path.open("ab") as log:
            for _ in range(64):
                log.write(block)
        yield BigLog(user, task_id, path)
    finally:
        gate.touch()
        user.wait_final(task_id)
        path.unlink()


def open_stream(cluster: Cluster, caller: Api, big: BigLog) -> tuple[socket.socket, int]:
    """A stream from the log's beginning, of which only the status is read; and that status."""
    client = socket.create_connection(("127.0.0.1", cluster.machine.http_port), timeout=60)
    client.sendall(
        f"GET /api/v2/tasks/{big.task_id}/logs/stream HTTP/1.1\r\nHost: argus\r\n"
        f"Authorization: Bearer {caller.token}\r\nLast-Event-ID: 1:0\r\n\r\n".encode()
    )
    return client, int(client.recv(12).split()[1])


def head_memory(cluster: Cluster) -> int:
    """Bytes that the head's processes hold for themselves, and of Ray's object store."""
    own, shared = 0, 0
    for pid in processes.descendants(cluster.machine.children["head"].pid):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            found = dict(line.split(":", 1) for line in status.splitlines())
            own += int(found.get("RssAnon", "0").split()[0]) * 1024
            shared = max(shared, int(found.get("RssShmem", "0").split()[0]) * 1024)
    return own + shared


def wait_for_calm(cluster: Cluster) -> int:
    """The head's memory, once its processes have stopped growing from their start."""
    seen = [0]

    def is_calm() -> bool:
        seen.append(head_memory(cluster))
        return abs(seen[-1] - seen[-2]) < MIB // 2

    assert processes.wait_until(is_calm, 90, 5), [size // MIB for size in seen]
    return seen[-1]


def spilled(cluster: Cluster) -> list[str]:
    """Files of objects that Ray has put on the disk."""
    found = (cluster.machine.root / "ray").glob("session_*/ray_spilled_objects*/**/*")
    return [str(path) for path in found if path.is_file()]


def bytes_read_by_gateway(cluster: Cluster) -> int:
    """What the gateway's replica has read by system calls, of files above all."""
    for pid in processes.descendants(cluster.machine.children["head"].pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ServeReplica:argus:gateway"):
                found = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
                return int(found["rchar"])
    raise AssertionError("no replica of the gateway")


@pytest.mark.timeout(300)
def test_a_client_that_reads_is_told_of_the_gap_and_follows(cluster: Cluster, big: BigLog) -> None:
    headers = {"Authorization": f"Bearer {big.user.token}", "Last-Event-ID": "1:0"}
    url = f"{cluster.machine.url}/api/v2/tasks/{big.task_id}/logs/stream"
    mark = "the last line of this test"
    seen: list[str] = []
    with httpx2.stream("GET", url, headers=headers, timeout=60, trust_env=False) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                seen.append(line)
            if line == "event: gap":
                with big.path.open("a") as log:
                    log.write(mark + "\n")
            if line == f"data: {mark}":
                break
    assert seen == ["event: attempt", "event: gap"]


@pytest.mark.timeout(300)
def test_streams_that_are_not_read_cost_the_head_little_and_give_their_places_back(
    cluster: Cluster, big: BigLog
) -> None:
    with contextlib.ExitStack() as clients:

        def opens(caller: Api) -> bool:
            client, status = open_stream(cluster, caller, big)
            clients.enter_context(client)
            return status == 200

        # What the first stream costs once is not what is measured.
        assert opens(cluster.admin)
        before, read_before = wait_for_calm(cluster), bytes_read_by_gateway(cluster)
        peak = before
        for count in (1, MOST - 1):
            for _ in range(count):
                assert opens(big.user)
            with Growing(big.path) as log:

                def has_grown(log: Growing = log) -> bool:
                    nonlocal peak
                    peak = max(peak, head_memory(cluster))
                    return log.written >= GROWTH

                assert processes.wait_until(has_grown, 120, 0.2), "the log has not grown"
            grown, read = peak - before, bytes_read_by_gateway(cluster) - read_before
            print(f"{count} more unread streams: the head grew by {grown / MIB:.1f} MiB, read {read / MIB:.1f} MiB")
            assert grown < ALLOWED
            assert spilled(cluster) == []
            # All that was read lies in the kernel's buffers now, or was skipped.
            assert read < count * 16 * MIB + 32 * MIB
        # The user has as many open as one may have, so one more says that another one was given up.
        with Growing(big.path):
            assert processes.wait_until(lambda: opens(big.user), 75, 1), "the places are still taken"


@pytest.mark.timeout(300)
def test_downloads_that_are_not_read_cost_the_head_little_and_can_be_resumed(cluster: Cluster, big: BigLog) -> None:
    """Of 10 GiB, which would fill the head's memory or its disk if anything on the way took them in."""
    path = big.path.parent / "sparse.bin"
    path.touch()
    os.truncate(path, 10 << 30)
    with path.open("r+b") as file:
        file.seek((10 << 30) - 4)
        file.write(b"end.")
    url = f"{cluster.machine.url}/api/v2/tasks/{big.task_id}/files/logs/sparse.bin"
    headers = {"Authorization": f"Bearer {big.user.token}"}

    def begin() -> tuple[socket.socket, int]:
        client = socket.create_connection(("127.0.0.1", cluster.machine.http_port), timeout=60)
        client.sendall(
            f"GET /api/v2/tasks/{big.task_id}/files/logs/sparse.bin HTTP/1.1\r\nHost: argus\r\n"
            f"Authorization: Bearer {big.user.token}\r\n\r\n".encode()
        )
        return client, int(client.recv(12).split()[1])

    try:
        with contextlib.ExitStack() as clients:
            before, read_before = wait_for_calm(cluster), bytes_read_by_gateway(cluster)
            statuses: list[int] = []
            while 503 not in statuses:
                assert len(statuses) < 20
                client, status = begin()
                clients.enter_context(client)
                statuses.append(status)
            taken = statuses.count(200)
            # Each replica counts for itself, and HAProxy says who is asked.
            assert 4 <= taken <= 8
            peaks: list[int] = []

            def is_given_up() -> bool:
                peaks.append(head_memory(cluster))
                client, status = begin()
                clients.enter_context(client)
                return status == 200

            # Within 40 s without a byte taken; meanwhile the places are taken.
            assert processes.wait_until(is_given_up, 120, 2), "the places are still taken"
            grown, read = max(peaks) - before, bytes_read_by_gateway(cluster) - read_before
            print(f"{taken} unread downloads: the head grew by {grown / MIB:.1f} MiB, read {read / MIB:.1f} MiB")
            assert grown < 2 * ALLOWED and spilled(cluster) == []
            assert read < (taken + 2) * 24 * MIB
        whole = httpx2.head(url, headers=headers, timeout=60, trust_env=False)
        assert whole.headers["content-length"] == str(10 << 30)
        resumed = {**headers, "Range": f"bytes={(10 << 30) - 4}-", "If-Range": whole.headers["etag"]}

        def is_resumed() -> bool:
            answer = httpx2.get(url, headers=resumed, timeout=60, trust_env=False)
            assert answer.status_code in (206, 503)
            return answer.status_code == 206 and answer.content == b"end."

        assert processes.wait_until(is_resumed, 75, 1)
    finally:
        path.unlink()
