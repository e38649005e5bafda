"""Real HAProxy with the configuration of the Serve that is installed, made ours; replicas that do as they are told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from argus_ray.gateway.http import address, problems
from argus_ray.local.cluster import free_port
from argus_ray.node import haproxy, haproxy_start, ports, processes
from tests.support import serve_config

PROBLEM = {"content-type": "application/problem+json"}
#: Seconds: these tests run beside others, which come first.
PATIENCE_S = 60


class Replica:
    """Answers each request by `answer`, a function of the connection and of what was read."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.requests: list[str] = []
        self.answer: Callable[[socket.socket, str], None] = lambda peer, _: say(peer, "200 OK", "text/plain", b"well")
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            text = peer.recv(65536).decode("latin-1")
            if text.startswith("GET /-/healthz "):
                say(peer, "200 OK", "text/plain", b"success")
            elif text:
                self.requests.append(text)
                self.answer(peer, text)


def say(peer: socket.socket, status: str, content_type: str, body: bytes) -> None:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    peer.sendall(head.encode() + body)


class Proxy:
    """One HAProxy of one node."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = folder / "log"

    def configure(self, *replicas: Replica, **environ: str) -> None:
        """Write what Serve writes. On a busy machine a replica is late, so HAProxy looks at it but once."""
        environ = {"RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1h", **environ}
        ours = haproxy.environment("haproxy", self.folder, haproxy.parse_ports(haproxy.DEFAULT_PORTS), environ)
        self.environ = {**os.environ, **ours}
        command = [sys.executable, serve_config.__file__, str(self.folder), str(self.port)]
        command += [str(each.port) for each in replicas]
        subprocess.run(command, env=self.environ, check=True, capture_output=True, timeout=60)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """As Serve does; waits until this process answers."""
        command = [haproxy_start.__file__, "-db", "-f", str(self.folder / "haproxy.cfg"), "-dR", *arguments]
        with self.log.open("ab") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=self.environ)
        self.processes.append(process)
        is_there = processes.wait_until(
            lambda: self.answering() == process.pid or process.poll() is not None, PATIENCE_S
        )
        assert is_there, self.log.read_text()
        return process

    def answering(self) -> int | None:
        """The id of the process at the admin socket."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.folder / "s"))
            admin.sendall(b"show info\n")
            text = b"".join(iter(lambda: admin.recv(4096), b"")).decode()
            found = text.partition("\nPid: ")[2].split()
            return int(found[0]) if found else None
        return None

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(30)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory(prefix="argus-", dir="/tmp") as short:  # of a Unix socket's path
        made = Proxy(Path(short) / "p")
        yield made
        made.close()


@pytest.fixture
def replicas() -> Iterator[tuple[Replica, Replica]]:
    made = Replica(), Replica()
    yield made
    for each in made:
        each.close()


def is_unavailable(answer: httpx2.Response) -> bool:
    return (
        answer.status_code == 503
        and answer.headers["content-type"] == "application/problem+json"
        and answer.headers["retry-after"] == str(haproxy_start.RETRY_AFTER)
        and answer.json() == haproxy_start.UNAVAILABLE
    )


def test_it_says_what_the_gateway_says() -> None:
    for code, ours in (("unavailable", haproxy_start.UNAVAILABLE), ("not_found", haproxy_start.NOT_FOUND)):
        status, title = problems.PROBLEMS[code]
        assert (ours["code"], ours["status"], ours["title"]) == (code, status, title)
        assert ours["type"] == f"urn:argus:error:{code}"
    assert haproxy_start.NOT_FOUND["detail"] == problems.RouteNotFound().detail
    assert str(haproxy_start.RETRY_AFTER) == problems._RETRY_AFTER["unavailable"]


def test_without_a_replica_each_path_is_a_503_problem_and_nothing_else_listens(proxy: Proxy) -> None:
    proxy.configure()
    process = proxy.start()
    for path in ("/", "/api/v2/tasks", "/healthz"):
        assert is_unavailable(httpx2.get(proxy.url + path, trust_env=False, timeout=PATIENCE_S)), path
    assert is_unavailable(httpx2.post(f"{proxy.url}/api/v2/tasks", content=b"x", trust_env=False, timeout=PATIENCE_S))
    assert (
        httpx2.head(f"{proxy.url}/api/v2/me", trust_env=False, timeout=PATIENCE_S).headers["content-type"]
        == "application/problem+json"
    )
    assert listening(process.pid) == {proxy.port}
    assert stat.S_IMODE((proxy.folder / "s").stat().st_mode) == 0o600


def test_streams_and_downloads_are_told_that_their_client_has_left(
    proxy: Proxy, replicas: tuple[Replica, Replica]
) -> None:
    """Serve listens for it unless this header says that it need not."""
    one, _ = replicas
    proxy.configure(one)
    proxy.start()
    task = f"{proxy.url}/api/v2/tasks/t"
    for path, is_told in {
        "/logs/stream": True, "/logs/stream?tail=0": True, "/logs/download": True, "/logs/download?attempt=2": True,
        "/files/model.pt": True, "/files/a/b%20c?attempt=1": True,
        "/files": False, "": False, "/logs": False, "/rollouts?x=/files/": False,
    }.items():  # fmt: skip
        httpx2.get(task + path, headers={"x-request-disconnect-disabled": "?1"}, trust_env=False, timeout=PATIENCE_S)
        assert ("x-request-disconnect-disabled: ?1" in one.requests[-1].lower()) != is_told, path


def test_errors_of_ours_pass_and_those_of_serve_become_503_problems(
    proxy: Proxy, replicas: tuple[Replica, Replica]
) -> None:
    one, _ = replicas
    proxy.configure(one)
    proxy.start()
    with httpx2.Client(base_url=proxy.url, trust_env=False, timeout=PATIENCE_S) as http:
        for status in ("404 Not Found", "500 Internal Server Error", "503 Service Unavailable"):
            for content_type in ("application/problem+json", "application/problem+json; charset=utf-8"):
                body = json.dumps({"code": "ours"}).encode()
                one.answer = lambda peer, _, s=status, c=content_type, b=body: say(peer, s, c, b)  # type: ignore[misc]
                answer = http.get("/api/v2/me")
                assert f"{answer.status_code}" == status[:3] and answer.json() == {"code": "ours"}
            one.answer = lambda peer, _, s=status: say(peer, s, "text/plain", b"Serve's own")  # type: ignore[misc]
            assert is_unavailable(http.get("/api/v2/me")), status
        one.answer = lambda peer, _: peer.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
        assert is_unavailable(http.get("/api/v2/me"))
        one.answer = lambda peer, _: say(peer, "413 Too Large", "text/plain", b"kept")
        assert http.get("/api/v2/me").text == "kept"


def ask(proxy: Proxy, *lines: str) -> httpx2.Response:
    """A request as it stands; HAProxy's answer."""
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as peer:
        peer.settimeout(PATIENCE_S)
        peer.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        head, _, body = b"".join(iter(lambda: peer.recv(65536), b"")).partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    return httpx2.Response(int(status.split()[1]), headers=dict(line.split(": ", 1) for line in headers), content=body)


def is_problem(answer: httpx2.Response, code: str) -> bool:
    status, title = problems.PROBLEMS[code]
    given = (answer.status_code, answer.json()["status"], answer.json()["title"], answer.json()["code"])
    return given == (status, status, title, code) and answer.headers["content-type"] == "application/problem+json"


def test_nobody_sees_the_pages_of_serve(proxy: Proxy, replicas: tuple[Replica, Replica]) -> None:
    """HAProxy's, with words of Serve, and those that each replica has as well."""
    one, _ = replicas
    for servers in ((), (one,)):
        proxy.configure(*servers)
        running = proxy.start()
        for path in ("/-/healthz", "/-/routes", "/-/HealthZ", "/-/", "/-/other?x=1", "/%2D/healthz", "/%2d%2froutes"):
            assert is_problem(httpx2.get(proxy.url + path, trust_env=False, timeout=PATIENCE_S), "not_found"), path
            assert httpx2.head(proxy.url + path, trust_env=False, timeout=PATIENCE_S).status_code == 404
        running.kill()
        running.wait(30)
    assert one.requests == []


def test_what_serve_says_of_too_many_requests_is_a_503_problem(proxy: Proxy, replicas: tuple[Replica, Replica]) -> None:
    one, _ = replicas
    proxy.configure(one)
    proxy.start()
    one.answer = lambda peer, _: say(peer, "429 Too Many Requests", "text/plain", b"Request dropped")
    assert is_unavailable(httpx2.get(f"{proxy.url}/api/v2/me", trust_env=False, timeout=PATIENCE_S))
    one.answer = lambda peer, _: say(peer, "429 Too Many Requests", PROBLEM["content-type"], b'{"code": "queue_full"}')
    assert httpx2.get(f"{proxy.url}/api/v2/me", trust_env=False, timeout=PATIENCE_S).json() == {"code": "queue_full"}


@pytest.mark.parametrize(
    "line",
    [
        "X-Request-Timeout-Seconds: 0.001",  # Serve would break the call off, and say 408
        "X-Request-Timeout-Seconds: \xff",  # and answer 500 to these three
        "X-Session-Id: \xff",
        "Serve-Multiplexed-Model-Id: \xff",
        "X-Request-Id: \xff\xff\xff\xff\xff\xff\xff\xff",
        "X-Request-Id: short",
        'X-Request-Id: 12345678"}injected',
    ],
)
def test_no_client_tells_serve_what_to_do(proxy: Proxy, replicas: tuple[Replica, Replica], line: str) -> None:
    one, _ = replicas
    proxy.configure(one)
    proxy.start()
    assert ask(proxy, "GET /api/v2/me HTTP/1.1", "Host: a", "Connection: close", line).text == "well"
    (seen,) = one.requests
    assert line.partition(":")[0].lower() not in seen.lower()
    good = "X-Request-Id: an-id-of-a-client"
    assert ask(proxy, "GET / HTTP/1.1", "Host: a", "Connection: close", good).text == "well"
    assert good.lower() in one.requests[-1].lower()


FORWARDED = (
    "X-Forwarded-Prefix: /argus",
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: https",
    "Forwarded: for=x",
)


@pytest.mark.parametrize(
    ("trusted", "passes"),
    [("", True), ("*", True), ("10.0.0.9, 127.0.0.0/8", True), ("10.0.0.9,fd00::/8", False), ("::1", False)],
)
def test_what_a_proxy_forwards_is_taken_from_trusted_ones(
    proxy: Proxy, replicas: tuple[Replica, Replica], trusted: str, passes: bool
) -> None:
    """A replica sees HAProxy alone, which is this machine, and would believe it all."""
    one, _ = replicas
    proxy.configure(one, FORWARDED_ALLOW_IPS=trusted)
    proxy.start()
    assert ask(proxy, "GET / HTTP/1.1", "Host: a", "Connection: close", *FORWARDED).text == "well"
    seen = one.requests[0].lower()
    assert [line.lower() in seen for line in FORWARDED] == [passes] * 4, seen


def test_a_replica_is_told_who_asks_and_by_nobody_else(proxy: Proxy, replicas: tuple[Replica, Replica]) -> None:
    """The gateway believes it: gateway/http/address.py."""
    one, _ = replicas
    proxy.configure(one, FORWARDED_ALLOW_IPS="*")
    proxy.start()
    forged = ("x-argus-peer: 203.0.113.9", "X-Argus-Peer: 203.0.113.8")
    assert ask(proxy, "GET / HTTP/1.1", "Host: a", "Connection: close", *forged).text == "well"
    said = [line for line in one.requests[0].lower().splitlines() if line.startswith("x-argus-peer")]
    assert said == ["x-argus-peer: 127.0.0.1"]
    assert haproxy_start._PEER.encode() == address.PEER


def test_the_replicas_believe_haproxy_and_whom_the_operator_names(tmp_path: Path) -> None:
    def believed(proxy: str = "haproxy", host: str = "*", **environ: str) -> str | None:
        return haproxy.environment(proxy, tmp_path, haproxy.Ports(30000, 30099), environ, host=host).get(
            "FORWARDED_ALLOW_IPS"
        )

    assert believed() == "127.0.0.1,::1"
    assert believed(FORWARDED_ALLOW_IPS="10.0.0.9") == "127.0.0.1,::1,10.0.0.9"
    assert believed(FORWARDED_ALLOW_IPS="*") == "127.0.0.1,::1,*"
    # HAProxy's own address towards replicas that listen there.
    assert believed(host="10.0.0.1") == "127.0.0.1,::1,10.0.0.1"
    assert believed("ray") == "127.0.0.1,::1", "Serve's own proxy: as uvicorn has it"
    assert believed("ray", FORWARDED_ALLOW_IPS="10.0.0.9") == "10.0.0.9"


@pytest.mark.parametrize("text", ["10.0.0", "proxy.example", "10.0.0.1/8", "10.0.0.9;", "127.0.0.1 }\n"])
def test_a_trusted_proxy_is_an_address_or_a_network(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|has host bits"):
        haproxy.parse_proxies(text)


def test_a_replica_that_is_gone(proxy: Proxy, replicas: tuple[Replica, Replica]) -> None:
    one, other = replicas
    proxy.configure(one, other)
    proxy.start()
    one.close()
    with httpx2.Client(base_url=proxy.url, trust_env=False, timeout=PATIENCE_S) as http:
        for _ in range(20):
            assert http.post("/api/v2/tasks", content=b"x").text == "well", "nothing was sent to the one that is gone"
        other.close()
        assert is_unavailable(http.get("/api/v2/me"))


def test_a_request_that_a_replica_died_with_is_repeated_where_that_is_safe(
    proxy: Proxy, replicas: tuple[Replica, Replica]
) -> None:
    for each in replicas:
        each.answer = lambda peer, _: None  # the connection ends without a word
    proxy.configure(*replicas)
    proxy.start()

    def times() -> int:
        return sum(len(each.requests) for each in replicas)

    def post(*headers: str, path: str = "/api/v2/tasks") -> str:
        """Headers and body in one packet: of a request that is still on its way HAProxy repeats nothing."""
        head = (f"POST {path} HTTP/1.1", "Host: argus", "Connection: close", "Content-Length: 1", *headers)
        with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as peer:
            peer.settimeout(PATIENCE_S)
            peer.sendall("\r\n".join([*head, "", "x"]).encode())
            return b"".join(iter(lambda: peer.recv(65536), b"")).decode()

    assert post().startswith("HTTP/1.1 503")
    assert times() == 1
    assert post("Idempotency-Key: k", path="/api/v2/users/u/tokens").startswith("HTTP/1.1 503")
    assert times() == 2, "nobody there takes a key: twice would be two tokens"
    assert post("Idempotency-Key: k").startswith("HTTP/1.1 503")
    assert times() > 3
    before = times()
    assert is_unavailable(httpx2.get(f"{proxy.url}/api/v2/me", trust_env=False, timeout=PATIENCE_S))
    assert times() > before + 1


def test_slow_answers_and_quiet_streams_live_and_a_client_that_reads_nothing_does_not(
    proxy: Proxy, replicas: tuple[Replica, Replica]
) -> None:
    """With a second in the place of the client's minute."""
    one, _ = replicas
    proxy.configure(one, RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S="1")
    proxy.start()
    may_go_on = threading.Event()

    def slowly(peer: socket.socket, _: str) -> None:
        may_go_on.wait(2.5)  # longer than the client's bound
        say(peer, "200 OK", "text/plain", b"late")

    one.answer = slowly
    assert httpx2.get(proxy.url, timeout=PATIENCE_S, trust_env=False).text == "late"

    def quietly(peer: socket.socket, _: str) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for _beat in range(5):
            may_go_on.wait(0.6)  # a heartbeat
            peer.sendall(b": \n\n")
            taken.acquire(timeout=PATIENCE_S)

    one.answer = quietly
    arrivals, taken = [], threading.Semaphore(0)
    with httpx2.stream("GET", proxy.url, timeout=PATIENCE_S, trust_env=False) as stream:
        for _ in stream.iter_raw():
            arrivals.append(time.monotonic())
            taken.release()
    assert len(arrivals) == 5 and arrivals[-1] - arrivals[0] > 1.5, "each as it comes, and none was cut off"

    written: list[int] = []
    ended = threading.Event()

    def endlessly(peer: socket.socket, _: str) -> None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        try:
            while True:
                written.append(peer.send(b"x" * 65536))
        except OSError:
            ended.set()

    one.answer = endlessly
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", proxy.port))
        deaf.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert ended.wait(20), "its connection is closed, and with it the replica's"
    assert sum(written) < 4_000_000, "what it did not read stayed with the replica"


def test_a_client_that_is_gone_without_a_word_is_given_up(proxy: Proxy) -> None:
    """By the kernel, since nothing in HAProxy sees it: the option of the socket is all that can be looked at here."""
    proxy.configure()
    proxy.start()
    config = (proxy.folder / "haproxy.cfg").read_text()
    assert f"\n    bind 127.0.0.1:{proxy.port} tcp-ut 40s\n" in config


def test_a_port_that_is_taken_is_an_error_and_never_shared(proxy: Proxy) -> None:
    proxy.configure()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", proxy.port))
        stranger.listen()
        process = proxy.start()
        assert process.wait(30) != 0
        assert "cannot bind socket (Address already in use)" in proxy.log.read_text()


def test_a_new_proxy_actor_takes_over_from_the_haproxy_of_a_killed_one(
    proxy: Proxy, replicas: tuple[Replica, Replica]
) -> None:
    """It starts as if it were the first, and knows of no replica yet."""
    one, _ = replicas
    proxy.configure(one)
    old = proxy.start()
    answers: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(httpx2.get(proxy.url, trust_env=False, timeout=PATIENCE_S).text)
            except httpx2.HTTPError as error:
                answers.append(repr(error))

    client = threading.Thread(target=ask)
    client.start()
    try:
        proxy.configure()
        new = proxy.start()
        assert old.wait(20) == 0, "the old one ends when its last connection has"
        assert proxy.answering() == new.pid
        count = len(answers)
        assert processes.wait_until(lambda: len(answers) > count + 10, PATIENCE_S)
    finally:
        stop.set()
        client.join(30)
    assert set(answers) == {"well"}


def test_replicas_of_which_serve_says_nothing_go_on_as_long_as_they_live(
    proxy: Proxy, replicas: tuple[Replica, Replica]
) -> None:
    """Serve names none while it builds the application anew, and after it could not."""
    one, _ = replicas
    proxy.configure(one)
    old = proxy.start()
    proxy.configure()
    proxy.start("-sf", str(old.pid), "-x", str(proxy.folder / "s"))
    assert old.wait(20) == 0
    assert httpx2.get(proxy.url, trust_env=False, timeout=PATIENCE_S).text == "well"
    one.close()
    assert is_unavailable(httpx2.get(proxy.url, trust_env=False, timeout=PATIENCE_S)), (
        "at once, not only when a check has failed"
    )


def test_it_outlives_the_actor_and_ends_with_the_raylet(proxy: Proxy) -> None:
    proxy.configure()
    raylet = subprocess.Popen(
        [sys.executable, "-c", RAYLET, haproxy_start.__file__, str(proxy.folder / "haproxy.cfg")],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=proxy.environ,
    )
    try:
        assert raylet.stdout is not None
        actor = int(raylet.stdout.readline())
        assert processes.wait_until(lambda: proxy.answering() is not None, PATIENCE_S)
        ours = proxy.answering()
        assert ours is not None
        os.killpg(actor, signal.SIGKILL)  # as the raylet does with what an actor leaves
        assert raylet.stdout.readline() == b"actor ended\n"
        assert is_unavailable(httpx2.get(proxy.url, trust_env=False, timeout=PATIENCE_S)), "it serves on"
    finally:
        raylet.kill()
        raylet.wait(30)
    assert processes.wait_until(lambda: not Path(f"/proc/{ours}").exists(), PATIENCE_S)
    assert ports.listeners(proxy.port) == []


#: A raylet that starts an actor (a group of its own), which starts HAProxy.
RAYLET = """
import ctypes, os, subprocess, sys, time
ctypes.CDLL(None).prctl(15, b"raylet", 0, 0, 0)
actor = os.fork()
if actor == 0:
    os.setpgrp()
    subprocess.run([sys.argv[1], "-db", "-f", sys.argv[2]])
print(actor, flush=True)
os.waitpid(actor, 0)
print("actor ended", flush=True)
time.sleep(600)
"""


def test_another_template_is_refused(proxy: Proxy) -> None:
    proxy.configure()
    path = proxy.folder / "haproxy.cfg"
    path.write_text(path.read_text().replace("return status 404", "return status 410"))
    assert proxy.start().wait(30) == 1
    assert "UnknownTemplate" in proxy.log.read_text()


def test_two_heads_share_no_port_and_no_path_and_an_operator_may_set_the_rest(tmp_path: Path) -> None:
    given = [
        haproxy.environment("haproxy", haproxy.make_folder(tmp_path, name), haproxy.Ports(first, first + 39), {})
        for name, first in (("head-a-h", 21000), ("head-b-h", 22000))
    ]
    same = {name for name in given[0] if given[0][name] == given[1][name]}
    for name in ("SOCKET_PATH", "CONFIG_FILE_LOC", "SERVER_STATE_BASE", "SERVER_STATE_FILE", "METRICS_SOCKET_PATH"):
        assert f"RAY_SERVE_HAPROXY_{name}" not in same
    for name in ("FALLBACK_PROXY_HTTP_PORT", "DIRECT_INGRESS_MIN_HTTP_PORT", "DIRECT_INGRESS_MAX_HTTP_PORT"):
        assert f"RAY_SERVE_{name}" not in same
    own = {"RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "7", "RAY_SERVE_HAPROXY_BINARY_PATH": "/usr/sbin/haproxy"}
    mine = haproxy.environment("haproxy", tmp_path, haproxy.Ports(1, 99), own)
    assert mine["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] == "7"
    assert mine["RAY_SERVE_HAPROXY_BINARY_PATH"] == haproxy_start.__file__
    assert mine["ARGUS_HAPROXY_BINARY"] == "/usr/sbin/haproxy"


def test_a_folder_is_made_anew_and_one_that_is_too_long_lies_elsewhere(tmp_path: Path) -> None:
    short = Path(f"/tmp/argus-t-{os.getpid()}-run")
    deep = tmp_path / ("x" * 60)
    try:
        folder = haproxy.make_folder(short, "head-a-b")
        (folder / "old").touch()
        assert haproxy.make_folder(short, "head-a-b") == folder and not list(folder.iterdir())
        assert folder.parent == short and stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert haproxy.make_folder(short, "head-a-c") != folder
        other = haproxy.make_folder(deep, "head-a-b")
        assert other.parent == Path("/tmp") and stat.S_IMODE(other.stat().st_mode) == 0o700
        other.rmdir()
    finally:
        for each in sorted(short.rglob("*"), reverse=True):
            each.rmdir()
        short.rmdir()


@pytest.mark.parametrize("text", ["", "30000", "30000-", "a-b", "30000-30010", "30099-30000", "80-200", "65000-65536"])
def test_ports_that_are_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$|\d|a-b|invalid literal"):
        haproxy.parse_ports(text)


def listening(pid: int) -> set[int]:
    """The TCP ports at which a process listens."""
    inodes = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a file that was closed meanwhile
            inodes.add(os.readlink(each))  # noqa: PTH115
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}
