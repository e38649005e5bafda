"""The busiest calls go past FastAPI, and nobody can tell by the answers."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from ray.serve._private.thirdparty.get_asgi_route_name import extract_route_patterns

from tests.support.gateway import ADMIN, YAML, Api, Headers, TestClient, bearer_header

EXPRESS = {
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/healthz"),
    ("GET", "/api/v2/me"),
    ("GET", "/api/v2/version"),
    ("GET", "/api/v2/schema/taskspec"),
    ("POST", "/api/v2/tasks"),
    ("GET", "/api/v2/tasks/{task_id}"),
}


@pytest.fixture
def alice(api: Api) -> Headers:
    return api.user("alice")


def test_each_route_that_takes_the_request_alone_goes_past_fastapi(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    calls = {path: path.replace("{task_id}", task_id) for _, path in EXPRESS}

    async def refuse(*_: Any) -> None:
        raise AssertionError("FastAPI was asked")

    api.app.fastapi.router.app = refuse  # type: ignore[assignment]
    api.app.fastapi.router.middleware_stack = refuse  # type: ignore[assignment]
    for method, path in sorted(EXPRESS):
        content = api.world.spec() if method == "POST" else None
        answer = api.client.request(method, calls[path], content=content, headers=alice | YAML)
        assert answer.status_code in (200, 201), answer.text
    assert api.client.get("/readyz").status_code == 500, "the others do go there"


def requests(task_id: str, alice: Headers, bob: Headers, spec: str) -> list[dict[str, Any]]:
    stranger = bearer_header("argus_u_" + "0" * 52)
    made: list[dict[str, Any]] = []
    for headers in ({}, alice, ADMIN, stranger, {"Authorization": "Basic abc"}):
        made += [{"method": "GET", "url": url, "headers": headers} for url in ("/healthz", "/api/v2/me")]
    for name in (
        task_id,
        "argus-nobody",
        "a:b",
        "a%2Fb",
        "%00",
        "",
        "ä",
        f"{task_id}:cancel",
        f"{task_id}/",
        "{task_id}",
    ):
        made += [{"method": "GET", "url": f"/api/v2/tasks/{name}", "headers": who} for who in (alice, bob, ADMIN, {})]
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST"):
        for url in ("/healthz", "/api/v2/me", "/api/v2/tasks/", f"/api/v2/tasks/{task_id}", "//api/v2/me", "/healthz/"):
            made.append({"method": method, "url": url, "headers": alice})
    made += [{"method": "GET", "url": f"{url}?x=1", "headers": alice} for url in ("/healthz", "/api/v2/me")]
    post = {"method": "POST", "url": "/api/v2/tasks"}
    for body, headers in (
        (b"", alice | YAML),
        (b"a: b: c", alice | YAML),
        (b"\xff", alice | YAML),
        (b"x" * 10_000, alice | YAML),
        (spec.encode(), alice),
        (spec.encode(), YAML),
        (spec.encode(), ADMIN | YAML),
        (spec.encode(), alice | YAML | {"Idempotency-Key": "ä"}),
        (spec.encode(), alice | YAML | {"Idempotency-Key": "once"}),
    ):
        made.append({**post, "headers": {k: v.encode() for k, v in headers.items()}, "content": body})
    return made


def seen(client: TestClient, request: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
    answer = client.request(**request)
    return answer.status_code, sorted(answer.headers.multi_items()), answer.content


def test_the_answers_are_those_of_fastapi(api: Api, alice: Headers) -> None:
    """Of each request, right and wrong ones, with all headers."""
    task_id, bob = api.submit(alice), api.user("bob")
    api.client.post("/api/v2/tasks", content=api.world.spec(), headers=alice | YAML | {"Idempotency-Key": "once"})
    plain = TestClient(api.app.fastapi)
    id_ = {"X-Request-Id": "one-of-the-test"}
    differ = []
    for request in requests(task_id, alice, bob, api.world.spec()):
        request["headers"] = request["headers"] | id_
        express, fastapi = api.client.request(**request), plain.request(**request)
        answers = [
            (answer.status_code, sorted(answer.headers.multi_items()), answer.content) for answer in (express, fastapi)
        ]
        if answers[0] != answers[1]:
            differ.append((request["method"], request["url"], answers))
    assert differ == []


def test_the_access_line_names_the_route(api: Api, alice: Headers, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="argus.access"):
        api.client.get("/api/v2/me", headers=alice)
    (line,) = [json.loads(record.getMessage()) for record in caplog.records if record.name == "argus.access"]
    assert (line["route"], line["user_id"], line["status"]) == ("/api/v2/me", "alice", 200)


def test_serve_has_no_routes_to_search(api: Api) -> None:
    """It would match each request against all of them, for a name in metrics that nobody reads."""
    assert extract_route_patterns(api.app) == []
    assert extract_route_patterns(api.app.fastapi), "the test asks what Serve asks"
