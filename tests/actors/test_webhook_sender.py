"""Deliveries over real sockets: what is sent, to whom, and to whom never."""

from __future__ import annotations

import asyncio
import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from argus_ray.actors import webhook_sender
from argus_ray.actors.webhook_sender import Sender
from argus_ray.core import webhooks
from argus_ray.core.webhooks import Reply, Verdict, Webhook
from tests.support.running import until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    port: int
    #: Headers and body of each request.
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    #: What is written as a body, part by part.
    body: Callable[[Any], None] = lambda out: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=b"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            made.requests.append(({name.lower(): value for name, value in self.headers.items()}, content))
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                made.body(self.wfile)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def send(url: str, *, allow_local: bool = True, secret: str | None = SECRET, **options: Any) -> Reply:
    environ = {} if secret is None else {"HOOK_SECRET": secret}

    async def once() -> Reply:
        sender = Sender(environ, clock=lambda: 1731705121.0, **options)
        return await sender(Webhook("chat", url, "HOOK_SECRET", allow_local=allow_local), "pool-7", b'{"a":1}')

    return asyncio.run(once())


def test_what_is_sent_is_signed(receiver: Receiver) -> None:
    assert send(receiver.url).verdict is Verdict.DELIVERED
    ((headers, content),) = receiver.requests
    assert json.loads(content) == {"a": 1}
    expected = webhooks.headers("pool-7", 1731705121.0, content, SECRET)
    assert expected.items() <= headers.items()
    assert headers["host"] == f"127.0.0.1:{receiver.port}" and headers["user-agent"] == "argus"
    assert SECRET not in str(headers) and "authorization" not in headers


@pytest.mark.parametrize("secret", [None, ""])
def test_nothing_is_sent_unsigned(receiver: Receiver, secret: str | None) -> None:
    reply = send(receiver.url, secret=secret)
    assert reply.verdict is Verdict.LATER and "HOOK_SECRET is not set" in reply.words
    assert receiver.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]"])
def test_this_machine_is_not_called_unless_the_operator_says_so(receiver: Receiver, host: str) -> None:
    reply = send(f"http://{host}:{receiver.port}/", allow_local=False)
    assert reply.verdict is Verdict.LATER and "allow_local" in reply.words
    assert receiver.requests == []


def test_a_name_that_changes_its_address_reaches_nothing(receiver: Receiver) -> None:
    """It has a good address when it is looked at, and ours from then on."""
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["192.0.2.1"] if len(asked) == 1 else ["127.0.0.1"]

    sender_s = webhook_sender._STEP_S
    webhook_sender._STEP_S = 0.2
    try:
        reply = send(f"http://rebind.test:{receiver.port}/", allow_local=False, resolve_host=rebinding)
    finally:
        webhook_sender._STEP_S = sender_s
    assert reply.verdict is Verdict.LATER and asked == ["rebind.test"]
    assert receiver.requests == []


def test_one_bad_address_of_several_is_enough(receiver: Receiver) -> None:
    reply = send(
        f"http://both.test:{receiver.port}/",
        allow_local=False,
        resolve_host=lambda host, port: ["10.0.0.1", "127.0.0.1"],
    )
    assert "allow_local" in reply.words and receiver.requests == []


def test_the_name_stays_in_the_request(receiver: Receiver) -> None:
    reply = send(f"http://hook.test:{receiver.port}/", resolve_host=lambda host, port: ["127.0.0.1"])
    assert reply.verdict is Verdict.DELIVERED
    assert receiver.requests[0][0]["host"] == f"hook.test:{receiver.port}"


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 307, {"location": receiver.url}
    assert send(receiver.url).verdict is Verdict.REFUSED
    assert len(receiver.requests) == 1


def test_proxies_of_the_environment_are_not_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    assert send(receiver.url).verdict is Verdict.DELIVERED


def test_how_long_to_wait_is_heard(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 503, {"Retry-After": "17"}
    assert send(receiver.url) == Reply(Verdict.LATER, "status 503", 17.0)


def test_an_answer_without_end_is_left(receiver: Receiver) -> None:
    written = 0

    def endless(out: Any) -> None:
        nonlocal written
        while True:
            out.write(b"x" * 65536)
            written += 65536

    receiver.status, receiver.body = 200, endless
    assert send(receiver.url).verdict is Verdict.DELIVERED
    assert written < 64 * 1024 * 1024


def test_one_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sender, "_WHOLE_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        reply = send(f"http://127.0.0.1:{mute.getsockname()[1]}/")
    assert reply.verdict is Verdict.LATER and reply.words == "no answer in 0.2 s"


def test_one_that_takes_its_time_to_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than it may take to be connected: the docs give it 15 s."""
    monkeypatch.setattr(webhook_sender, "_STEP_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as slow:

        def answer() -> None:
            peer, _ = slow.accept()
            with peer:
                peer.recv(65536)
                time.sleep(0.6)
                peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert send(f"http://127.0.0.1:{slow.getsockname()[1]}/").verdict is Verdict.DELIVERED
        thread.join(30)


def test_one_that_talks_for_ever_is_not_waited_for(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte by byte, so that no single step takes long."""
    monkeypatch.setattr(webhook_sender, "_WHOLE_S", 0.5)
    stopped = threading.Event()

    def drip(out: Any) -> None:
        while not stopped.wait(0.02):
            out.write(b"x")
            out.flush()

    receiver.status, receiver.body = 200, drip
    try:
        assert send(receiver.url) == Reply(Verdict.LATER, "no answer in 0.5 s")
        until(lambda: not any(map(is_busy, threading.enumerate())), "its thread is free again")
    finally:
        stopped.set()


def is_busy(thread: threading.Thread) -> bool:
    """In a delivery."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code is not Sender._send.__code__:
        frame = frame.f_back
    return frame is not None


def test_nobody_there_and_no_such_name() -> None:
    with closing(socket.socket()) as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        assert send(f"http://127.0.0.1:{port}/") == Reply(Verdict.LATER, "ConnectError")
    assert send("http://no-such-host.invalid/") == Reply(Verdict.LATER, "ConnectError")


def test_a_certificate_of_nobody_is_not_trusted(receiver: Receiver) -> None:
    assert send(receiver.url.replace("http:", "https:")).verdict is Verdict.LATER
    assert receiver.requests == []


def test_receivers_that_hang_hold_up_no_other(receiver: Receiver) -> None:
    stopped, hangs = threading.Event(), threading.Semaphore(0)

    def resolve(host: str, port: int) -> list[str]:
        if host == "hangs.test":
            hangs.release()
            stopped.wait(30)
        return ["127.0.0.1"]

    async def all_at_once() -> Reply:
        sender = Sender({"HOOK_SECRET": SECRET}, resolve_host=resolve)
        away = [Webhook(name, f"http://hangs.test:{receiver.port}/", "HOOK_SECRET") for name in ("one", "two", "three")]
        hanging = [asyncio.create_task(sender(hook, f"m{n}", b"{}")) for hook in away for n in range(4)]
        try:
            for _ in hanging:
                assert await asyncio.to_thread(hangs.acquire, timeout=10)
            good = Webhook("good", receiver.url, "HOOK_SECRET", allow_local=True)
            return await asyncio.wait_for(sender(good, "m", b"{}"), 10.0)
        finally:
            stopped.set()
            await asyncio.gather(*hanging)

    assert asyncio.run(all_at_once()).verdict is Verdict.DELIVERED
