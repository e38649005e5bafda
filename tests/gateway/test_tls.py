"""TLS by nginx before the gateway, with the configuration that docs/nginx.conf gives."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from argus_ray.core.states import TaskState
from argus_ray.gateway.http.problems import PROBLEMS
from argus_ray.local.cluster import free_port
from argus_ray.node.ports import listeners
from argus_ray.node.processes import wait_until
from tests.gateway.test_stream_server import served
from tests.support.gateway import YAML, Api, Headers, log_of

EXAMPLE = Path(__file__).parents[2] / "docs" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
DEADLINE_S = 60.0
NAME = "argus.example.org"
Head = dict[str, list[str]]

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]


@dataclass
class Front:
    """nginx, and what has come through it."""

    http_port: int
    url: str
    tls: ssl.SSLContext
    heads: list[Head] = field(default_factory=list)

    def client(self, **options: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, verify=self.tls, trust_env=False, timeout=DEADLINE_S, **options)


def recorded(app: Any, heads: list[Head]) -> Any:
    """The application, which notes the headers of each request."""

    async def with_record(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            head: Head = {}
            for name, value in scope["headers"]:
                head.setdefault(name.decode(), []).append(value.decode())
            heads.append(head)
        await app(scope, receive, send)

    return with_record


def example(changes: dict[str, str]) -> str:
    """The file as it stands, but for its addresses and files. Each stands there once, or this fails."""
    text = EXAMPLE.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def fronted(folder: Path, behind: int, *, rate: str | None = None) -> Iterator[Front]:
    """nginx before this port, with its files in this folder. `rate`: with the bound for downloads, of so much."""
    assert NGINX is not None
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={NAME}",
         "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    port, http_port = free_port(), free_port()
    site = example(
        {
            "server 127.0.0.1:8000;": f"server 127.0.0.1:{behind};",
            "listen 80;": f"listen 127.0.0.1:{http_port};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
            "/etc/argus/tls/fullchain.pem": str(certificate),
            "/etc/argus/tls/key.pem": str(key),
        }
    )
    if rate is not None:
        site, count = re.subn(
            r"^        # ( *(?:location|proxy_\w+|limit_rate|\}).*)$", r"        \1", site, flags=re.MULTILINE
        )
        assert count == 7 and site.count("limit_rate 20m;") == 1
        site = site.replace("limit_rate 20m;", f"limit_rate {rate};")
    # Root's nginx would give its work, and so these folders, to another user.
    user = "user root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    config, log = folder / "nginx.conf", folder / "nginx.log"
    config.write_text(
        f"{user} daemon off; pid {folder}/pid; error_log stderr; events {{}}\nhttp {{\n{temporary}\n{site}\n}}\n"
    )
    with log.open("wb") as out:
        nginx = subprocess.Popen([NGINX, "-p", str(folder), "-e", "stderr", "-c", str(config)], stderr=out)
    try:
        assert wait_until(lambda: bool(listeners(port)) or nginx.poll() is not None, DEADLINE_S, 0.02)
        assert nginx.poll() is None, log.read_text()
        yield Front(http_port, f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=str(certificate)))
    finally:
        nginx.terminate()
        nginx.wait(DEADLINE_S)


@pytest.fixture
def front(api: Api, tmp_path: Path) -> Iterator[Front]:
    heads: list[Head] = []
    with served(recorded(api.app, heads)) as behind, fronted(tmp_path, behind) as made:
        made.heads = heads
        yield made


def test_calls_over_tls_with_a_token(front: Front, api: Api, alice: Headers) -> None:
    with front.client() as http:
        assert http.get("/healthz").status_code == 200
        assert http.get("/api/v2/me").status_code == 401
        answer = http.get("/api/v2/me", headers=alice)
        assert answer.json()["user_id"] == "alice"
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        done = http.post("/api/v2/tasks", content=api.world.spec(), headers={**alice, **YAML, "Idempotency-Key": "k"})
        assert done.status_code == 201
        task_id = done.json()["task_id"]
        assert done.headers["location"].endswith(f"/api/v2/tasks/{task_id}")
        assert http.post(f"/api/v2/tasks/{task_id}:cancel", headers=alice).json()["state"] == TaskState.CANCELED
    with pytest.raises(httpx2.ConnectError), httpx2.Client(trust_env=False) as stranger:
        stranger.get(front.url)  # whoever does not know the certificate


def test_plain_http_is_sent_to_the_servers_own_name(front: Front, alice: Headers) -> None:
    front.heads.clear()
    with httpx2.Client(base_url=f"http://127.0.0.1:{front.http_port}", trust_env=False) as http:
        for method in ("GET", "POST"):
            answer = http.request(method, "/api/v2/tasks?limit=1", headers={**alice, "Host": "evil.example.com"})
            assert answer.status_code == 308
            assert answer.headers["location"] == f"https://{NAME}/api/v2/tasks?limit=1"
    assert front.heads == [], "nothing of it has reached the gateway"


def test_a_client_cannot_forge_what_a_proxy_says(front: Front, alice: Headers) -> None:
    forged = {
        "X-Forwarded-For": "10.9.9.9",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Host": "evil.example.com",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Prefix": "/evil",
        "X-Real-IP": "10.9.9.9",
        "Forwarded": "for=10.9.9.9;host=evil.example.com",
    }
    front.heads.clear()
    with front.client() as http:
        assert http.get("/api/v2/me", headers={**alice, **forged, "Host": NAME}).status_code == 200
    [head] = front.heads
    assert head["x-forwarded-for"] == ["127.0.0.1"]
    assert head["x-forwarded-proto"] == ["https"]
    assert head["x-forwarded-host"] == head["host"] == [NAME]
    assert head["x-forwarded-port"] == ["443"]
    assert head["x-real-ip"] == ["127.0.0.1"]
    assert "forwarded" not in head and "x-forwarded-prefix" not in head
    assert head["authorization"] == [alice["Authorization"]]


def test_a_body_that_is_too_long_gets_our_error(front: Front, api: Api, alice: Headers) -> None:
    """Of the gateway, where it says how much is allowed; of nginx itself beyond its own bound."""
    with front.client() as http:
        for size, said in ((8 * 1024 + 1, "8192"), (100_000, "8192"), (300_000, "too long"), (3_000_000, "too long")):
            answer = http.post("/api/v2/tasks", content=b"#" * size, headers={**alice, **YAML})
            assert answer.status_code == 413, size
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "body_too_large" and said in answer.json()["detail"]
            assert answer.json()["title"] == PROBLEMS["body_too_large"][1]
    assert api.get("/api/v2/tasks", alice)["tasks"] == []


def test_a_log_stream_is_not_held_back(front: Front, api: Api, alice: Headers) -> None:
    """Each line comes while the stream is open: the next is written only when the one before was read."""
    task_id = api.submit(alice)
    change = api.run(task_id)
    path = log_of(change)
    path.write_text("line 0\n")
    with front.client() as http, http.stream("GET", f"/api/v2/tasks/{task_id}/logs/stream", headers=alice) as stream:
        lines = stream.iter_lines()
        for number in range(1, 6):
            assert any(line == f"data: line {number - 1}" for line in lines)
            with path.open("a") as log:
                log.write(f"line {number}\n")
        api.end(change)
        assert any(line == "event: end" for line in lines)


def test_a_head_that_is_away_is_a_503_problem(tmp_path: Path) -> None:
    with fronted(tmp_path, free_port()) as front, front.client() as http:
        answer = http.get("/api/v2/me")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json()["code"] == "unavailable" and answer.headers["retry-after"] == "2"
    assert answer.json()["title"] == PROBLEMS["unavailable"][1]


def test_downloads_have_the_bound_that_the_example_can_give_them(api: Api, alice: Headers, tmp_path: Path) -> None:
    change = api.run(api.submit(alice))
    path = log_of(change)
    path.write_bytes(os.urandom(3 << 20))
    base = f"/api/v2/tasks/{change.submission_id.partition('--')[0]}"
    times: dict[str | None, float] = {}
    for rate in (None, "1m"):
        folder = tmp_path / f"nginx-{rate}"
        folder.mkdir()
        with served(api.make_app()) as behind, fronted(folder, behind, rate=rate) as front, front.client() as http:
            assert http.get(base, headers=alice).json()["state"] == TaskState.RUNNING, "all else is as it was"
            begun = time.monotonic()
            answer = http.get(f"{base}/files/logs/driver.log", headers=alice)
            times[rate] = time.monotonic() - begun
            assert answer.content == path.read_bytes()
            part = http.get(f"{base}/files/logs/driver.log", headers={**alice, "Range": "bytes=-7"})
            assert (part.status_code, part.content) == (206, path.read_bytes()[-7:])
    # nginx counts whole seconds: two MiB in the first of them.
    assert times["1m"] > 1.0, times
