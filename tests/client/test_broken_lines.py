"""Logs and downloads through a network that breaks connections at any byte: nothing is lost, nothing comes twice."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.client import Client
from argus_ray.client.models.results import Line, LogEnd, LogGap
from tests.client.conftest import MakeClient
from tests.support.gateway import Api, log_of


class Cutter:
    """A way to a server that cuts each connection after so many bytes of the answers, which `budget` draws."""

    def __init__(self, port: int, seed: int, most: int) -> None:
        self._to, self._random, self._most = port, random.Random(seed), most
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        #: Connections that are not cut any more, so that a test ends.
        self.calm_after = 60
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                budget = self._random.randrange(1, self._most) if self.cuts < self.calm_after else 1 << 60
                threading.Thread(target=self._carry, args=(client, budget), daemon=True).start()

    def _carry(self, client: socket.socket, budget: int) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            with contextlib.suppress(OSError):
                while data := server.recv(min(65536, budget)):
                    client.sendall(data)
                    budget -= len(data)
                    if budget <= 0:
                        self.cuts += 1
                        break
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


@contextlib.contextmanager
def cut(port: int, seed: int, most: int) -> Iterator[Cutter]:
    cutter = Cutter(port, seed, most)
    try:
        yield cutter
    finally:
        cutter.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_every_line_comes_once_and_in_order(api: Api, port: int, alice: Client, connect: MakeClient, seed: int) -> None:
    task_id = alice.submit(api.world.spec()).task_id
    first = api.run(task_id)
    wanted = [f"{number} {'é' * (number % 50)}" for number in range(12_000)]
    log_of(first).write_text("\n".join(wanted[:1000]) + "\n")
    api.end(first)
    token = alice._transport._http.headers["authorization"].removeprefix("Bearer ")
    with (
        cut(port, seed, 150_000) as way,
        Client(f"http://127.0.0.1:{way.port}", token, follow_s=60, draw=lambda: 0.0) as client,
    ):
        log_of(first).write_text("\n".join(wanted) + "\n")
        seen = list(client.log_events(task_id, tail=20_000))
    assert 3 <= way.cuts < way.calm_after, "the way was too good, or each connection began anew"
    assert [each.text for each in seen if isinstance(each, Line)] == wanted
    assert isinstance(seen[-1], LogEnd) and not any(isinstance(each, LogGap) for each in seen)
    places = [each.offset for each in seen if isinstance(each, Line)]
    assert places == sorted(set(places)) and places[1] == len(wanted[0].encode()) + 1


def test_what_a_stream_leaves_out_is_fetched(api: Api, alice: Client) -> None:
    task_id = alice.submit(api.world.spec()).task_id
    change = api.run(task_id)
    wanted = [f"{number:06d} {'x' * 200}" for number in range(45_000)]
    log_of(change).write_text("\n".join(wanted))
    api.end(change)
    seen = list(alice.log_events(task_id, after="1:0"))
    assert [each.text for each in seen if isinstance(each, Line)] == wanted
    assert all(each.offset == index * 208 for index, each in enumerate(each for each in seen if isinstance(each, Line)))
    assert not any(isinstance(each, LogGap) for each in seen)


@pytest.mark.parametrize(("unit", "end"), [("12 %|####", "\r"), ("abc" + "é" * 49_999, "")])
def test_what_is_left_out_is_told_as_it_comes(
    api: Api, alice: Client, monkeypatch: pytest.MonkeyPatch, unit: str, end: str
) -> None:
    """Also of a progress bar that is all one line, and of one without any end: a client does not hold it all."""
    task_id = alice.submit(api.world.spec()).task_id
    change = api.run(task_id)
    content = (unit + end) * (24_000_000 // len((unit + end).encode()))
    log_of(change).write_bytes(content.encode())
    api.end(change)
    asked = 0
    log_range = Client.log_range

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        return log_range(*given, **named)

    monkeypatch.setattr(Client, "log_range", counted)
    lines = (each for each in alice.log_events(task_id, after="1:0") if isinstance(each, Line))
    first = next(lines)
    assert asked <= 3
    seen = [first, *lines]
    assert asked >= 4, "there was too little for this test"
    assert "".join(each.text + end * each.ends for each in seen) == content
    assert [each.offset for each in seen] == sorted({each.offset for each in seen})


def test_a_download_goes_on_where_it_was(api: Api, port: int, alice: Client, tmp_path: Path) -> None:
    task_id = alice.submit(api.world.spec()).task_id
    root = Path(api.run(task_id).job_root)
    root.mkdir(parents=True)
    content = random.Random(5).randbytes(400_000)
    (root / "a.bin").write_bytes(content)
    token = alice._transport._http.headers["authorization"].removeprefix("Bearer ")
    told: list[int] = []
    with (
        cut(port, 3, 100_000) as way,
        Client(f"http://127.0.0.1:{way.port}", token, follow_s=60, draw=lambda: 0.0) as client,
    ):
        saved = client.download(task_id, "a.bin", tmp_path / "b", on_progress=lambda have, _: told.append(have))
    assert saved.read_bytes() == content and way.cuts >= 3
    assert told == sorted(told), "it never begins anew"
    # The next one has another version of the file, and a part of the old one.
    (root / "a.bin").write_bytes(content[::-1])
    assert alice.download(task_id, "a.bin", tmp_path / "b").read_bytes() == content[::-1]
    assert list(tmp_path.glob(".*.part")) == []
