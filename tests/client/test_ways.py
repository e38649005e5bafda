"""The two ways of sending a call, by http.client and by httpx2, are one to whoever calls."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from argus_ray.client import broken, errors, full, plain, transport, trust
from argus_ray.client.calls import Answer, Call
from argus_ray.client.errors import BadAnswer, BadArgument, ServerUnreachable
from argus_ray.client.transport import Transport
from tests.support.fakeray import free_port

WAYS = ("plain", "full")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
PACKED = gzip.compress(b'{"a": 1}' * 1000)


class Raw:
    """A server that plays bytes: each list is a connection, each of its items what one request is answered; after the
    last the connection is closed. An item of None is answered never."""

    def __init__(self, connections: Sequence[Sequence[bytes | None]], tls: ssl.SSLContext | None = None) -> None:
        self._connections, self._tls = list(connections), tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.closed = threading.Event()
        #: Connections that have been played to their end.
        self.played = threading.Semaphore(0)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.closed.set()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            for answers in self._connections:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._play, args=(connection, answers), daemon=True).start()

    def _play(self, connection: socket.socket, answers: Sequence[bytes | None]) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            if self._tls is not None:
                connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
            file = stack.enter_context(connection.makefile("rb"))
            for answer in answers:
                line = file.readline().decode().strip()
                if not line:
                    return  # the client has left
                headers: dict[str, str] = {}
                while (raw := file.readline().decode().strip()) != "":
                    name, _, value = raw.partition(":")
                    headers[name.lower()] = value.strip()
                self.requests.append((line, headers, file.read(int(headers.get("content-length", 0)))))
                if answer is None:
                    self.closed.wait(60)
                else:
                    connection.sendall(answer)
        self.played.release()


@pytest.fixture
def playing() -> Iterator[Callable[..., Raw]]:
    servers: list[Raw] = []

    def played(*connections: Sequence[bytes | None], tls: ssl.SSLContext | None = None) -> Raw:
        servers.append(Raw(connections, tls))
        return servers[-1]

    yield played
    for server in servers:
        server.close()


@contextlib.contextmanager
def connected(way: str, url: str, **options: Any) -> Iterator[Transport]:
    with pytest.MonkeyPatch.context() as patch:
        if way == "full":
            patch.setattr(transport, "can_reach", lambda url: False)
        defaults: dict[str, Any] = {"ca_file": None, "timeout": 60.0, "retry_s": 0.0}
        made = Transport(url, {"Authorization": "Bearer t", "Accept": "application/json"}, **{**defaults, **options})
    assert (made._plain is None) == (way == "full")
    try:
        yield made
    finally:
        made.close()


def call(method: str = "GET", **parts: Any) -> Call[Answer]:
    return Call(method, "/api/v2/me", lambda answer: answer, **parts)


def outcome(made: Transport, asked: Call[Answer] | None = None) -> tuple[Any, ...]:
    """What a caller can tell one from another by; the words of an error are each way's own."""
    try:
        answer = made._once(asked or call(), (asked or call()).target)
    except broken.Broken as error:
        return ("broken", error.final, error.unsent)
    except (BadAnswer, BadArgument) as error:
        return (type(error).__name__, str(error))
    return ("answer", answer.status, answer.content, {k: v for k, v in answer.headers.items() if k != "connection"})


def both(playing: Callable[..., Raw], *connections: Sequence[bytes | None]) -> list[Any]:
    """The outcome of each way against a server of its own, which must be one."""
    found = []
    hangs = any(None in each for each in connections)
    for way in WAYS:
        url = f"http://127.0.0.1:{playing(*connections).port}"
        with connected(way, url, timeout=0.5 if hangs else 60.0) as made:
            found.append(outcome(made))
    assert found[0] == found[1]
    return list(found[0])


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (OK, ["answer", 200, b"{}"]),
        (CHUNKED + b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n", ["answer", 200, b"{}"]),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", ["answer", 200, b"{}"]),
        (b"HTTP/1.1 503 \r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", ["answer", 503, b""]),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", ["answer", 302, b""]),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ["answer", 204, b""]),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, ["answer", 200, b"{}"]),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, ["answer", 200, b"{}"]),
        (b"HTTP/1.1 200 OK\r\nA: 1\r\nB: x\r\na: 2\r\nContent-Length: 0\r\n\r\n", ["answer", 200, b""]),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED) + PACKED,
            ["answer", 200, b'{"a": 1}' * 1000],
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", ["broken", False, False]),
        (CHUNKED + b"5\r\n{}", ["broken", False, False]),
        (CHUNKED + b"2\r\n{}\r\n", ["broken", False, False]),
        (CHUNKED + b"zz\r\n{}", ["broken", False, False]),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nno gzip", ["broken", True, False]),
        (b"SSH-2.0-OpenSSH\r\n", ["broken", False, False]),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, ["broken", False, False]),
        (b"", ["broken", False, False]),
        (None, ["broken", False, False]),
    ],
)  # fmt: skip
def test_an_answer_is_the_same_by_both(playing: Callable[..., Raw], answer: bytes | None, kind: list[Any]) -> None:
    assert both(playing, [answer])[:3] == kind


def test_a_request_is_the_same_by_both(playing: Callable[..., Raw]) -> None:
    seen = []
    for way in WAYS:
        server = playing([OK] * 3)
        with connected(way, f"http://127.0.0.1:{server.port}/below") as made:
            made.send(call(query=(("a", "ä b"), ("c", ["1", "2"]))))
            made.send(call("POST", content=b"x: 1", headers={"Content-Type": "application/yaml"}))
            made.send(call("POST"))
        own = {"accept-encoding", "user-agent", "connection"}
        seen.append([(line, {k: v for k, v in h.items() if k not in own}, body) for line, h, body in server.requests])
        for _, headers, _ in seen[-1]:
            assert headers.pop("host") == f"127.0.0.1:{server.port}"
    assert seen[0] == seen[1] and len(seen[0]) == 3
    assert seen[0][0][0] == "GET /below/api/v2/me?a=%C3%A4%20b&c=1&c=2 HTTP/1.1"
    assert seen[0][0][1]["authorization"] == "Bearer t"


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_is_used_again_unless_the_server_has_closed_it(playing: Callable[..., Raw], way: str) -> None:
    server = playing([OK, OK], [OK])
    with connected(way, f"http://127.0.0.1:{server.port}") as made:
        made.send(call())
        made.send(call())
        assert server.played.acquire(timeout=60), "the server closes it"
        made.send(call())
    assert len(server.requests) == 3


def test_a_connection_that_rested_for_long_is_left(
    playing: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "KEPT_S", -1.0)
    server = playing([OK, None], [OK])
    with connected("plain", f"http://127.0.0.1:{server.port}") as made:
        made.send(call())
        made.send(call())
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "asked",
    [
        call(headers={"Idempotency-Key": "a\nb"}),
        call(headers={"Idempotency-Key": "a\0"}),
        call(headers={"A b": "c"}),
    ],
)
def test_what_no_header_can_carry_is_refused_by_both(playing: Callable[..., Raw], asked: Call[Answer]) -> None:
    for way in WAYS:
        with connected(way, f"http://127.0.0.1:{playing([OK]).port}") as made:
            assert outcome(made, asked) == ("BadArgument", broken.BAD_HEADER)


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_without_an_end_is_given_up(
    playing: Callable[..., Raw], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (plain, full):
        monkeypatch.setattr(module, "MOST_BYTES", 100)
    for answer in (
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED) + PACKED,
    ):
        with connected(way, f"http://127.0.0.1:{playing([answer]).port}") as made:
            assert outcome(made) == ("BadAnswer", broken.TOO_LARGE)


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_is_not_there_got_nothing(way: str) -> None:
    for url in (f"http://127.0.0.1:{free_port()}", f"https://127.0.0.1:{free_port()}"):
        with connected(way, url) as made:
            assert outcome(made) == ("broken", False, True)
    with connected(way, "http://no-such-host.invalid") as made:
        found = outcome(made)
        assert found[0] == "broken" and found[2]


@pytest.mark.parametrize("way", WAYS)
def test_a_write_that_was_cut_off_is_told_as_one(playing: Callable[..., Raw], way: str) -> None:
    with (
        connected(way, f"http://127.0.0.1:{playing([b'HTTP']).port}") as made,
        pytest.raises(ServerUnreachable) as caught,
    ):
        made.send(call("POST", repeats=False))
    assert caught.value.may_be_done


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", str(key), "-out", str(pem), "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return pem, key


@pytest.mark.parametrize("way", WAYS)
def test_certificates_are_checked_by_both(
    playing: Callable[..., Raw], way: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pem, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    server = playing(*[[OK, OK]] * 8, tls=context)
    good, other_name = f"https://127.0.0.1:{server.port}", f"https://localhost:{server.port}"
    refused = ("broken", True, True)
    with connected(way, good, ca_file=str(pem)) as made:
        assert outcome(made)[:2] == ("answer", 200) and outcome(made)[:2] == ("answer", 200)
    with connected(way, other_name, ca_file=str(pem)) as made:
        assert outcome(made) == refused
    with connected(way, good) as made:
        assert outcome(made) == refused
        with pytest.raises(ServerUnreachable, match="its certificate is not trusted"):
            made.send(call())
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setattr(trust, "is_loopback", lambda host: False)
    with connected(way, good) as made:
        assert outcome(made)[:2] == ("answer", 200)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with connected(way, good) if way == "plain" else contextlib.nullcontext() as found:
        assert way == "full" or outcome(found)[0] == "BadArgument"  # type: ignore[arg-type]


def test_the_system_is_trusted_as_by_httpx2() -> None:
    import httpcore2

    assert trust.of_system(trust_env=True).cert_store_stats() == httpcore2.default_ssl_context().cert_store_stats()


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_a_proxy_is_asked_by_the_way_that_can(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Raw([[OK]])
    try:
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.port}")
        with contextlib.closing(
            Transport("http://argus.example:8000", {"A": "b"}, ca_file=None, timeout=5.0, retry_s=0.0)
        ) as made:
            assert made._plain is None
            if name != "HTTPS_PROXY":
                assert outcome(made)[:2] == ("answer", 200)
                assert server.requests[0][0] == "GET http://argus.example:8000/api/v2/me HTTP/1.1"
        with connected("plain", f"http://127.0.0.1:{free_port()}"):
            pass  # never for this machine's own
    finally:
        server.close()


def test_an_odd_url_goes_the_way_that_translates_it() -> None:
    for url in ("http://bücher.example", "http://argus.example/a b", "http://[fe80::1%25eth0]:8000"):
        assert not plain.can_reach(url)
    for url in ("http://10.0.0.1:8000", "https://argus.example.org/below/it", "http://[::1]:8000"):
        assert plain.can_reach(url)


def test_a_problem_of_the_api_is_raised_by_both(playing: Callable[..., Raw]) -> None:
    body = json.dumps({"code": "forbidden", "detail": "no"}).encode()
    answer = b"HTTP/1.1 403 Forbidden\r\nX-Request-ID: r1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for way in WAYS:
        with (
            connected(way, f"http://127.0.0.1:{playing([answer]).port}") as made,
            pytest.raises(errors.Forbidden) as caught,
        ):
            made.send(call())
        assert caught.value.request_id == "r1"
