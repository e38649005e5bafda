"""Bodies, headers and ids that are made to cost much, or to tell or to do what they should not."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from argus_ray.core import taskspec
from argus_ray.core.errors import InvalidSpec
from argus_ray.core.taskspec import MAX_SPEC_BYTES
from argus_ray.gateway.http import body
from tests.core.test_taskspec import bombs
from tests.gateway.test_stream_server import served
from tests.node.test_haproxy_start import Proxy, Replica, proxy
from tests.support.gateway import ADMIN, YAML, Api, Headers

__all__ = ["proxy"]

DEADLINE_S = 30.0
#: Seconds of CPU for the worst body of 8 KiB; the reader works on the thread that serves everybody.
BOUND_S = 0.002


def made_up() -> dict[str, str]:
    """Bodies of 8 KiB of one unit again and again, of the characters that mean something to YAML."""
    rng = random.Random(15)
    alphabet = "{}[]:-?,&*!|>'\"%@`#~ \n\t\\.0_19aexo+<="
    units = ("".join(rng.choices(alphabet, k=rng.randint(1, 7))) for _ in range(300))
    return {unit: (unit * MAX_SPEC_BYTES)[:MAX_SPEC_BYTES] for unit in units}


def cost(text: str) -> float:
    """Seconds of CPU, the least of some tries: what others do at that moment does not count."""
    best = float("inf")
    for _ in range(50):
        begun = time.thread_time()
        with contextlib.suppress(InvalidSpec):
            taskspec.parse(text, shared_root="/private")
        best = min(best, time.thread_time() - begun)
        if best < BOUND_S:
            break
    return best


def test_yaml_bombs_cost_less_than_two_milliseconds() -> None:
    costs = {name: cost(text) for name, text in (bombs() | made_up()).items()}
    worst = max(costs, key=lambda name: costs[name])
    print(f"{len(costs)} bodies; the worst: {worst!r}, {costs[worst] * 1000:.2f} ms")
    assert costs[worst] < BOUND_S, worst


def test_yaml_bombs_over_http_are_never_a_500(api: Api, alice: Headers) -> None:
    for name, text in (bombs() | made_up()).items():
        answer = api.client.post("/api/v2/tasks", content=text.encode(), headers={**alice, **YAML})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_spec"), name


def test_json_bombs_are_never_a_500(api: Api) -> None:
    units = ("[", '{"a":', "[{", '"', "1", "-", "\\", "[[],", "9" * 50, "\ufeff", '{"user_id":"a",')
    for unit in units:
        body = (unit * 16384).encode()[:16384]
        answer = api.client.post("/api/v2/users", content=body, headers={**ADMIN, "Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), unit


def _ask(port: int, head: bytes) -> bytes:
    """The first bytes of the answer; empty if the connection was ended."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as peer:
        peer.settimeout(DEADLINE_S)
        try:
            peer.sendall(head)
            return peer.recv(4096)
        except (ConnectionError, BrokenPipeError):
            return b""


def header_bombs(token: str) -> dict[str, bytes]:
    many = "".join(f"X-{number}: {number}\r\n" for number in range(1000))
    bodies = {
        "1,000 headers": many,
        "1,000 times the same": "X-A: b\r\n" * 1000,
        "1,000 tokens": f"Authorization: {token}\r\n" * 1000,
        "1,000 content types": "Content-Type: application/yaml\r\n" * 1000,
        "a header of 64 KiB": f"X-A: {'b' * 65536}\r\n",
        "a name of 64 KiB": f"{'X' * 65536}: b\r\n",
        "a token of 64 KiB": f"Authorization: Bearer {'b' * 65536}\r\n",
        "a request id of 64 KiB": f"X-Request-Id: {'b' * 65536}\r\n",
        "a key of 64 KiB": f"Idempotency-Key: {'b' * 65536}\r\n",
        "a place of 64 KiB": f"Last-Event-ID: {'9' * 65536}\r\n",
    }
    lines = {name: f"GET /api/v2/me HTTP/1.1\r\nHost: a\r\n{text}\r\n" for name, text in bodies.items()}
    lines["a path of 64 KiB"] = f"GET /{'a' * 65536} HTTP/1.1\r\nHost: a\r\n\r\n"
    lines["a query of 64 KiB"] = f"GET /api/v2/tasks?cursor={'a' * 65536} HTTP/1.1\r\nHost: a\r\n\r\n"
    return {name: line.encode() for name, line in lines.items()}


def test_header_bombs_at_the_gateway(api: Api, alice: Headers) -> None:
    with (
        served(api.app) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=DEADLINE_S) as http,
    ):
        for name, head in header_bombs(alice["Authorization"]).items():
            answer = _ask(port, head)
            assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), (name, answer)
            assert b"b" * 100 not in answer, "nothing of it comes back"
            assert http.get("/api/v2/me", headers=alice).status_code == 200, name


class Gateway(Replica):
    """A server of the real application in the place of one replica."""

    def __init__(self, port: int) -> None:
        self.port = port


def test_header_bombs_at_haproxy_do_not_reach_the_gateway(
    api: Api, alice: Headers, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    with served(_healthy(api.app)) as port:
        proxy.configure(Gateway(port))
        proxy.start()
        with httpx2.Client(base_url=proxy.url, trust_env=False, timeout=DEADLINE_S) as http:
            assert http.get("/api/v2/me", headers=alice).status_code == 200
            for name, head in header_bombs(alice["Authorization"]).items():
                answer = _ask(proxy.port, head)
                assert not answer or answer.startswith(b"HTTP/1.1 4"), (name, answer)
                assert http.get("/api/v2/me", headers=alice).status_code == 200, name


def _healthy(app: Any) -> Any:
    """Serve's own answer to HAProxy's look."""

    async def with_health(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/-/healthz":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
            await send({"type": "http.response.body", "body": b"success"})
            return
        await app(scope, receive, send)

    return with_health


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


def test_slow_bodies_of_a_thousand_sockets(
    api: Api, alice: Headers, proxy: Proxy, crowd: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand senders through HAProxy, half of them with a good token, each of a byte now and then. Others are
    served meanwhile; a stranger is refused at once."""
    monkeypatch.setattr(body, "READ_TIMEOUT_S", 600.0)  # none is given up before the test is over
    text = api.world.spec().encode()
    with served(_healthy(api.app)) as port:
        proxy.configure(Gateway(port))
        proxy.start()
        for number in range(1000):
            peer = socket.create_connection(("127.0.0.1", proxy.port), DEADLINE_S)
            token = alice["Authorization"] if number % 2 else "Bearer argus_u_" + "0" * 64
            peer.sendall(
                f"POST /api/v2/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\nContent-Type: text/yaml\r\n"
                f"Content-Length: {len(text)}\r\n\r\n".encode()
            )
            crowd.append(peer)
        with httpx2.Client(base_url=proxy.url, trust_env=False, timeout=DEADLINE_S) as http:
            longest = 0.0
            for turn in range(20):
                for peer in crowd[1::2]:
                    peer.sendall(text[turn : turn + 1])
                begun = time.monotonic()
                done = http.post("/api/v2/tasks", content=text, headers={**alice, **YAML})
                longest = max(longest, time.monotonic() - begun)
                assert done.status_code == 201, done.text
        print(f"the longest submission beside 1,000 slow ones: {longest * 1000:.0f} ms")
        for stranger in crowd[0::2]:
            stranger.settimeout(DEADLINE_S)
            assert stranger.recv(12) == b"HTTP/1.1 401"
    assert len(api.get("/api/v2/tasks?limit=100", alice)["tasks"]) == 20, "nothing of what came slowly"


def test_id_guessing_of_tokens(api: Api, alice: Headers) -> None:
    """A token's id is good for its own user's path alone, and for an admin alone."""
    bob = api.user("bob")
    [token] = api.get("/api/v2/users/alice/tokens", ADMIN)["tokens"]
    path = "/api/v2/users/{}/tokens/{}"
    by_bob = api.client.delete(path.format("alice", token["token_id"]), headers=bob)
    unknown = api.client.delete(path.format("alice", "tok-unknown"), headers=bob)
    assert by_bob.status_code == unknown.status_code == 403
    assert by_bob.json()["detail"] == unknown.json()["detail"]
    crossed = api.client.delete(path.format("bob", token["token_id"]), headers=ADMIN)
    assert (crossed.status_code, crossed.json()["code"]) == (404, "token_not_found")
    assert api.client.get("/api/v2/me", headers=alice).status_code == 200


def test_id_guessing_of_tasks(api: Api, alice: Headers) -> None:
    """Sixteen bits are all that an id hides; so it is no secret, and knowing it opens nothing."""
    bob = api.user("bob")
    task_id = api.submit(alice)
    stem = task_id[:-4]
    guesses = [task_id, *(f"{stem}{number:04x}" for number in range(0, 65536, 257))]
    answers = set()
    for guess in guesses:
        for method, tail in (
            ("GET", ""),
            ("POST", ":cancel"),
            ("POST", ":resubmit"),
            ("POST", ":export"),
            ("GET", "/logs"),
        ):
            answer = api.client.request(method, f"/api/v2/tasks/{guess}{tail}", headers=bob)
            answers.add((answer.status_code, answer.json()["code"], answer.json()["detail"]))
    assert answers == {(404, "task_not_found", answers.copy().pop()[2])}
    assert api.task(task_id).state.value == "QUEUED"


def test_disable_against_submit(api: Api) -> None:
    """Eight senders through a real server: after the answer to :disable nothing of theirs is accepted."""
    api.user("bob")
    for turn in range(3):
        user = f"eve{turn}"
        token = api.user(user)
        accepted: list[float] = []
        refused = threading.Event()
        text = api.world.spec()
        with served(api.app) as port:
            url = f"http://127.0.0.1:{port}/api/v2"

            def submit(
                url: str = url, token: Headers = token, text: str = text, accepted: list[float] = accepted,
                refused: threading.Event = refused,
            ) -> None:  # fmt: skip
                with httpx2.Client(trust_env=False, timeout=DEADLINE_S) as http:
                    while not refused.is_set():
                        begun = time.monotonic()
                        answer = http.post(f"{url}/tasks", content=text, headers={**token, **YAML})
                        if answer.status_code == 201:
                            accepted.append(begun)
                        else:
                            assert answer.json()["code"] == "user_disabled"
                            refused.set()

            senders = [threading.Thread(target=submit) for _ in range(8)]
            for sender in senders:
                sender.start()
            deadline = time.monotonic() + DEADLINE_S
            while len(accepted) < 20 and time.monotonic() < deadline:
                threading.Event().wait(0.005)
            done = httpx2.post(f"{url}/users/{user}:disable", headers=ADMIN, trust_env=False, timeout=DEADLINE_S)
            answered = time.monotonic()
            assert done.status_code == 200
            known = len(api.world.waiting())
            for sender in senders:
                sender.join(DEADLINE_S)
        assert len(accepted) >= 20 and refused.is_set()
        assert all(begun < answered for begun in accepted), "none that began after the answer"
        assert len(api.world.waiting()) == known, "none that was under way was accepted after it"


def test_nothing_of_a_strangers_path_is_written_down(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Terminal escapes in a path, a query or a header never reach a log of the gateway."""
    with caplog.at_level("DEBUG"):
        for path in ("/%1b[2J", "/api/v2/tasks/%1b%5b2J", "/api/v2/tasks?cursor=%1b%5b2J%0aforged", "/%0d%0aX: y"):
            api.client.get(path, headers={"X-Request-Id": "forged line 1234", "User-Agent": "\x1b[2J"})
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("argus")]
    assert lines
    for line in lines:
        assert line.isprintable() and "forged" not in line and "[2J" not in line
