"""HEAD wherever GET is, OPTIONS and `Allow` everywhere, and headers that may stand once."""

from __future__ import annotations

import http.client
import json
import logging
from typing import Any

import pytest
from starlette.routing import Route

from argus_ray.disk import logs
from tests.gateway.test_errors import check_problem
from tests.gateway.test_stream_server import served
from tests.support.gateway import ADMIN, YAML, Api, Headers, log_of

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def concrete(path: str, task_id: str) -> str:
    return path.format(task_id=task_id, user_id="alice", token_id="t", node="worker-1", path="x")


def documented(api: Api) -> dict[str, set[str]]:
    """Each path of the API, and the methods that its document names."""
    paths = api.app.fastapi.openapi()["paths"]
    return {path: {method.upper() for method in operations} for path, operations in paths.items()}


def test_head_answers_as_get_does_and_without_a_body(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    seen = 0
    for path in ["/docs", "/openapi.json", *(path for path, has in documented(api).items() if "GET" in has)]:
        if path.endswith("/stream"):
            continue
        for who in (alice, ADMIN, {}):
            url, headers = concrete(path, task_id), who | {"X-Request-Id": "one-of-the-test"}
            get, head = api.client.get(url, headers=headers), api.client.head(url, headers=headers)
            assert (head.status_code, head.content) == (get.status_code, b""), url
            assert sorted(head.headers.items()) == sorted(get.headers.items()), url
            assert head.headers["content-length"] == str(len(get.content)), url
            seen += get.status_code == 200
    assert seen > 25


def test_head_of_a_stream_starts_none(api: Api, alice: Headers, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = api.submit(alice)
    log_of(api.run(task_id)).write_text("a line\n")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the log was followed")

    monkeypatch.setattr(logs, "read_lines_from", refuse)
    with served(api.app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for _ in range(2):
            connection.request("HEAD", f"/api/v2/tasks/{task_id}/logs/stream", headers=alice)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["x-accel-buffering"] == "no"
        connection.request("HEAD", "/api/v2/tasks/none/logs/stream", headers=alice)
        assert connection.getresponse().status == 404
        connection.close()
    assert api.streams.open == 0


def test_head_over_a_real_connection_leaves_it_usable(api: Api) -> None:
    """A byte of a body would be read as the beginning of the next answer."""
    with served(api.app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for method, path, status in (("HEAD", "/healthz", 200), ("HEAD", "/none", 404), ("GET", "/healthz", 200)):
            connection.request(method, path)
            answer = connection.getresponse()
            assert answer.status == status and int(answer.headers["content-length"]) > 0
            assert bool(answer.read()) == (method == "GET")
        connection.close()


def test_head_where_get_is_not(api: Api, alice: Headers) -> None:
    answer = api.client.head("/api/v2/tasks/x/logs/none", headers=alice)
    assert (answer.status_code, answer.content) == (404, b"")
    answer = api.client.head("/api/v2/users/alice/tokens/t", headers=ADMIN)
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, OPTIONS")


def test_options_tells_the_methods_of_each_path_to_everybody(api: Api) -> None:
    """Without a token: it tells what /openapi.json tells, and those who probe have none."""
    for path, has in [*documented(api).items(), ("/docs", {"GET"}), ("/openapi.json", {"GET"})]:
        for headers in ({}, ADMIN, {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}):
            answer = api.client.options(concrete(path, "t"), headers=headers)
            assert (answer.status_code, answer.content) == (204, b""), path
            allowed = set(answer.headers["allow"].split(", "))
            assert allowed >= has | {"OPTIONS"} | ({"HEAD"} if "GET" in has else set()), path
            assert not [name for name in answer.headers if name.startswith("access-control-")], "no CORS"
            assert answer.headers["x-request-id"] and "content-length" not in answer.headers
    check_problem(api.client.options("/none"), 404, "not_found")


def test_allow_is_what_holds_for_each_path_and_method(api: Api) -> None:
    for path in documented(api):
        url = concrete(path, "t")
        allowed = set(api.client.options(url).headers["allow"].split(", "))
        # What never ends, but of a task that is not there, is read by tests of its own.
        is_endless = path.endswith("/stream") and "{" not in path
        for method in METHODS - ({"GET"} if is_endless else set()):
            answer = api.client.request(method, url, headers=ADMIN, content=b"")
            assert (answer.status_code == 405) == (method not in allowed), (method, url, answer.status_code)
            if answer.status_code == 405:
                assert set(answer.headers["allow"].split(", ")) == allowed


def test_no_route_takes_head_or_options_by_itself(api: Api) -> None:
    """One place does it for all of them."""
    for route in api.app.fastapi.routes:
        if isinstance(route, Route):
            assert "OPTIONS" not in (route.methods or ()), route.path


def test_the_access_line_says_head(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="argus.access"):
        api.client.head("/healthz")
    (line,) = [json.loads(record.getMessage()) for record in caplog.records if record.name == "argus.access"]
    assert (line["method"], line["route"], line["status"]) == ("HEAD", "/healthz", 200)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Content-Type", ("application/yaml", "application/json")),
        ("Content-Type", ("application/yaml", "application/yaml")),
        ("Authorization", ("{token}", "{token}")),
        ("Authorization", ("Bearer x", "{token}")),
        ("Idempotency-Key", ("a", "a")),
        ("Content-Length", ("3", "{length}")),
        ("Content-Encoding", ("identity", "gzip")),
        ("Last-Event-ID", ("1:0", "1:5")),
    ],
)
@pytest.mark.parametrize("path", ["/api/v2/tasks", "/api/v2/users"])
def test_a_header_that_decides_may_stand_once(
    api: Api, alice: Headers, name: str, values: tuple[str, str], path: str
) -> None:
    """What is in front of us may read the one, and we the other."""
    body = api.world.spec().encode()
    known = {"token": alice["Authorization"], "length": str(len(body))}
    given = {"content-type": "application/yaml", "authorization": alice["Authorization"]}
    given.pop(name.lower(), None)
    headers = [*given.items(), *((name, value.format(**known)) for value in values)]
    answer = api.client.post(path, content=body, headers=headers)
    found = check_problem(answer, 400, "invalid_request")
    assert found["errors"] == [{"field": name, "rule": "must be given once"}]


def test_two_content_types_in_one_line_are_two(api: Api, alice: Headers) -> None:
    """As a proxy joins them."""
    for value in ("application/yaml, application/json", "application/yaml,application/yaml"):
        answer = api.client.post("/api/v2/tasks", content=api.world.spec(), headers=alice | {"Content-Type": value})
        found = check_problem(answer, 400, "invalid_request")
        assert found["errors"] == [{"field": "Content-Type", "rule": "must be given once"}]


@pytest.mark.parametrize("value", ["yaml", "a/b/c", "/", "text/", "application yaml", "text/plain x", ";", " "])
def test_what_is_no_content_type_is_none_of_ours(api: Api, alice: Headers, value: str) -> None:
    answer = api.client.post("/api/v2/tasks", content=api.world.spec(), headers=alice | {"Content-Type": value})
    check_problem(answer, 415, "unsupported_media_type")


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class TestCurl:
    """`curl -d @task.yaml` sends a form, and no newlines."""

    def test_a_form_is_told_the_flags(self, api: Api, alice: Headers) -> None:
        answer = api.client.post("/api/v2/tasks", content=b"workload: sft", headers=alice | FORM)
        found = check_problem(answer, 415, "unsupported_media_type")
        assert "--data-binary @FILE -H 'Content-Type: application/yaml'" in found["detail"]
        answer = api.client.post("/api/v2/users", content=b"{}", headers=ADMIN | FORM)
        assert "-H 'Content-Type: application/json'" in check_problem(answer, 415, "unsupported_media_type")["detail"]
        answer = api.client.post("/api/v2/tasks", content=b"{}", headers=alice | {"Content-Type": "image/png"})
        assert "curl" not in check_problem(answer, 415, "unsupported_media_type")["detail"]

    @pytest.mark.parametrize("comment", ["", "# my task\n"])
    def test_a_body_without_its_newlines_is_told_why(self, api: Api, alice: Headers, comment: str) -> None:
        sent = (comment + api.world.spec()).replace("\n", "").encode()  # what curl -d makes of it
        answer = api.client.post("/api/v2/tasks", content=sent, headers=alice | YAML)
        found = check_problem(answer, 400, "invalid_spec")
        assert "--data-binary" in found["detail"] and "newlines" in found["detail"]

    @pytest.mark.parametrize("body", ["workload: sft", "{workload: sft, nnodes: 1}", "x", "nnodes: 1\nworkload: no\n"])
    def test_other_broken_bodies_are_not(self, api: Api, alice: Headers, body: str) -> None:
        answer = api.client.post("/api/v2/tasks", content=body.encode(), headers=alice | YAML)
        assert "newlines" not in check_problem(answer, 400, "invalid_spec")["detail"]
