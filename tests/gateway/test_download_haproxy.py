"""A download through real HAProxy with Serve's configuration, made ours: what one that is not read costs on the way."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from argus_ray.gateway.files.download import Downloads
from argus_ray.node import processes
from tests.gateway.test_download_server import no_piece_before, resident
from tests.gateway.test_stream_server import DEADLINE_S, open_unread, served
from tests.node.test_haproxy_start import Proxy, Replica, proxy
from tests.support.gateway import Api, Headers

MIB = 1024 * 1024
SIZE = 10 << 30

__all__ = ["proxy"]  # a fixture


def healthy(app: Any) -> Any:
    """The application, which says to HAProxy that it is well, as Serve's replica does."""

    async def around(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/-/healthz":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
            await send({"type": "http.response.body", "body": b"success"})
            return
        await app(scope, receive, send)

    return around


def own_memory(pid: int) -> int:
    """Bytes."""
    match = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def test_a_download_that_is_not_read_piles_up_nowhere_and_can_be_resumed(
    api: Api, alice: Headers, proxy: Proxy, pieces: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    change = api.run(api.submit(alice))
    path = Path(change.job_root) / "sparse.bin"
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, SIZE)
    with path.open("r+b") as file:
        file.seek(SIZE - 4)
        file.write(b"end.")
    downloads = Downloads.of_server(send_waits=True)
    downloads.flow = replace(downloads.flow, burst=1 << 40, rate=1 << 40, stall_s=8.0)
    url = f"/api/v2/tasks/{change.submission_id.partition('--')[0]}/files/sparse.bin"
    with served(healthy(api.make_app(downloads=downloads))) as port, contextlib.ExitStack() as clients:
        replica = Replica()
        replica.close()
        replica.port = port
        proxy.configure(replica)
        haproxy = proxy.start()
        with httpx2.Client(base_url=proxy.url, headers=alice, trust_env=False, timeout=DEADLINE_S) as http:
            assert processes.wait_until(lambda: http.head(url).status_code == 200, DEADLINE_S, 0.1)
            before = resident() + own_memory(haproxy.pid)
            all_have_come = no_piece_before(monkeypatch)
            for _ in range(4):
                clients.enter_context(open_unread(proxy.port, url, alice["Authorization"]))
            assert downloads.limit.open == 4
            all_have_come.set()
            assert processes.wait_until(lambda: downloads.limit.open == 0, DEADLINE_S, 0.05), "they are given up"
            assert resident() + own_memory(haproxy.pid) - before < 48 * MIB
            # What the kernel, HAProxy and uvicorn hold of each.
            assert sum(pieces) < 4 * 16 * MIB
            whole = http.head(url)
            assert whole.headers["content-length"] == str(SIZE)
            part = http.get(url, headers={"Range": f"bytes={SIZE - 4}-", "If-Range": whole.headers["etag"]})
            assert (part.status_code, part.content) == (206, b"end.")
            # One that leaves is heard of, and not only missed after a while.
            clients.enter_context(open_unread(proxy.port, url, alice["Authorization"]))
            assert downloads.limit.open == 1
            clients.close()
            assert processes.wait_until(lambda: downloads.limit.open == 0, DEADLINE_S, 0.01)
