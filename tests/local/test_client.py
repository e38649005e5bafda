"""The small HTTP client, against a server that records what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from argus_ray.local.client import Api, ApiError, in_one_line

ANSWERS = {
    "/api/v2/queue": (200, b'{"running": []}'),
    "/api/v2/users": (201, b"{}"),
    "/api/v2/users/ada/tokens": (201, b'{"token": "argus_u_1"}'),
    "/api/v2/tasks": (201, b'{"task_id": "t"}'),
    "/api/v2/tasks/t/logs": (200, b"caf\xe9\n"),
    "/api/v2/tasks/t/logs/stream": (200, b"id: 1\ndata: one\n\n"),
    "/no": (409, b'{"code": "conflict"}'),
}


class Server(HTTPServer):
    seen: list[tuple[str, str, str | None, bytes]]


class Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert isinstance(self.server, Server)
        self.server.seen.append((self.path, self.headers["Authorization"], self.headers["Content-Type"], body))
        code, content = ANSWERS[self.path]
        self.send_response(code)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Server(("127.0.0.1", 0), Handler) as found:
        found.seen = []
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def api(server: Server) -> Api:
    return Api(f"http://127.0.0.1:{server.server_port}", "secret")


def test_calls_carry_the_token_and_go_by_no_proxy(api: Api, server: Server) -> None:
    assert api.get("/api/v2/queue") == {"running": []}
    assert api.text("/api/v2/tasks/t/logs") == "caf\ufffd\n"
    assert list(api.stream("/api/v2/tasks/t/logs/stream")) == ["id: 1\n", "data: one\n", "\n"]
    assert {authorization for _, authorization, _, _ in server.seen} == {"Bearer secret"}


def test_a_text_is_yaml_and_the_rest_is_json(api: Api, server: Server) -> None:
    assert api.post("/api/v2/tasks", "workload: sft\n") == {"task_id": "t"}
    assert api.new_user("ada", "Ada", "quickstart") == "argus_u_1"
    assert [(path, kind) for path, _, kind, _ in server.seen] == [
        ("/api/v2/tasks", "application/yaml"),
        ("/api/v2/users", "application/json"),
        ("/api/v2/users/ada/tokens", "application/json"),
    ]
    assert server.seen[0][3] == b"workload: sft\n"
    assert json.loads(server.seen[1][3]) == {"user_id": "ada", "display_name": "Ada"}
    assert json.loads(server.seen[2][3]) == {"label": "quickstart"}


def test_a_refusal_is_quoted_with_its_address(api: Api) -> None:
    with pytest.raises(ApiError, match=r'/no: 409 \{"code": "conflict"\}'):
        api.get("/no")


def test_a_service_that_is_not_there_is_an_api_error(server: Server) -> None:
    with pytest.raises(ApiError, match="refused"):
        Api("http://127.0.0.1:9", "secret").get("/api/v2/queue")


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ({"state": "QUEUED", "position": 2, "reason": "no GPU"}, "QUEUED, position 2, no GPU"),
        ({"state": "RUNNING", "progress": {"step": 3, "total_steps": 9}}, "RUNNING, step 3 of 9"),
        ({"state": "RUNNING", "progress": {"step": 0, "total_steps": None}}, "RUNNING, step 0 of ?"),
        ({"state": "SUCCEEDED", "position": None, "progress": None, "reason": None}, "SUCCEEDED"),
    ],
)
def test_a_task_in_one_line(task: dict[str, Any], line: str) -> None:
    assert in_one_line(task) == line
