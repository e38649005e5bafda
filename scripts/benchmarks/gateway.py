"""A gateway in a process of its own, by uvicorn as in Serve's replica, over a real service and database, without Ray.

Like inside.py it stands on the world of the tests. `python -m benchmarks.gateway FOLDER USERS` prints one line of JSON
and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from argus_ray.gateway.logs.stream import StreamTiming
from tests.support.builders import memory_folder
from tests.support.gateway import ADMIN_TOKEN, make_api

__all__ = ["ADMIN_TOKEN", "Gateway", "behind_haproxy", "gateway", "many_files"]


@dataclass(frozen=True)
class Gateway:
    pid: int
    port: int
    #: Of each user.
    tokens: tuple[str, ...]
    #: A task of each, which runs, and the job root of its attempt.
    tasks: tuple[str, ...]
    job_roots: tuple[str, ...]


@contextlib.contextmanager
def gateway(users: int, where: Path | None = None) -> Iterator[Gateway]:
    """Each of so many users has one task that runs. `where`: to lie below; in memory without it, so that a commit
    costs no disk."""
    folder = Path(tempfile.mkdtemp(prefix="argus-bench-", dir=where or memory_folder()))
    command = [sys.executable, "-m", "benchmarks.gateway", str(folder), str(users)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        lists: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in told.items()}
        yield Gateway(process.pid, **lists)
    finally:
        process.communicate(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def behind_haproxy(port: int) -> Iterator[tuple[int, int]]:
    """HAProxy with the configuration that Serve writes and Argus changes, before this replica: its port and its pid."""
    from tests.node.test_haproxy_start import Proxy  # it imports Ray Serve, and the gateway here does not

    with tempfile.TemporaryDirectory(prefix="argus-", dir="/tmp") as short:
        proxy = Proxy(Path(short) / "p")
        try:
            proxy.configure(_Replica(port))  # type: ignore[arg-type]
            yield proxy.port, proxy.start().pid
        finally:
            proxy.close()


@dataclass
class _Replica:
    port: int


def many_files() -> None:
    """As many open files as this process may have: a thousand connections are as many files."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(folder: str, users: str) -> None:
    many_files()
    api = make_api(Path(folder), settings={"limits": {"log_tail_bytes": 4 << 20}})
    api.timing = StreamTiming()
    tokens, tasks, job_roots = [], [], []
    with api.client:
        for number in range(int(users)):
            who = api.user(f"user-{number}")
            change = api.run(api.submit(who))
            tokens.append(who["Authorization"].removeprefix("Bearer "))
            tasks.append(change.submission_id.partition("--")[0])
            job_roots.append(change.job_root)
    app = api.make_app(clock=time.time, monotonic=time.monotonic, timing=api.timing, ready_fresh_s=1.0)
    config = uvicorn.Config(_healthy(app), log_level="critical", access_log=False, lifespan="off", backlog=4096)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    threading.Thread(target=_until_left, args=(server,), daemon=True).start()
    facts = {"port": listener.getsockname()[1], "tokens": tokens, "tasks": tasks, "job_roots": job_roots}
    print(json.dumps(facts), flush=True)
    asyncio.run(server.serve([listener]))
    os._exit(0)  # streams are open, and nobody waits for them


def _until_left(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = server.force_exit = True


def _healthy(app: Any) -> Any:
    """It says to HAProxy that it is well, as Serve's replica does."""

    async def around(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/-/healthz":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
            await send({"type": "http.response.body", "body": b"success"})
            return
        await app(scope, receive, send)

    return around


if __name__ == "__main__":
    main(*sys.argv[1:])
