"""Two users: neither sees, cancels, reads or guesses the other's tasks, by any route there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.support.gateway import ADMIN, YAML, Api, Headers, log_of

SECRET = "the-secret-model-of-alice"
UNKNOWN_IDS = ("argus-alice-sft-20270115-080000-ffff", "x", "x" * 3000, "a%0ab", "a%00", "%e2%88%95")


def test_task_visibility_isolated(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    task_id = api.submit(alice)
    calls = [
        ("GET", ""), ("GET", "/spec"), ("GET", "/explain"), ("GET", "/events"), ("GET", "/logs"),
        ("GET", "/logs/stream"), ("GET", "/logs?attempt=1"),
        ("GET", "/logs/search?q=a"), ("GET", "/logs/download"), ("GET", "/metrics"), ("GET", "/metrics?names=x"),
        ("GET", "/files"), ("GET", "/files/x"), ("GET", "/files?path=.."), ("GET", "/files/%2e%2e%2fx"),
        ("GET", "/rollouts"), ("GET", "/rollouts?step=1"),
        ("POST", ":cancel"), ("POST", ":resubmit"), ("POST", ":export"),
    ]  # fmt: skip
    for method, rest in calls:
        refused = api.client.request(method, f"/api/v2/tasks/{task_id}{rest}", headers=bob)
        assert (refused.status_code, refused.json()["code"]) == (404, "task_not_found"), rest
    assert api.get(f"/api/v2/tasks/{task_id}", alice)["state"] == "QUEUED"
    assert api.get(f"/api/v2/tasks/{task_id}", ADMIN)["user_id"] == "alice"


def test_queue_isolated(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    of_alice, of_bob = api.submit(alice), api.submit(bob)
    assert [task["task_id"] for task in api.get("/api/v2/queue", alice)["pending"]] == [of_alice]
    assert [task["task_id"] for task in api.get("/api/v2/queue", bob)["pending"]] == [of_bob]
    everyone = api.get("/api/v2/admin/queue", ADMIN)["pending"]
    assert [task["task_id"] for task in everyone] == [of_alice, of_bob]


def _operations(api: Api) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, operations in api.app.fastapi.openapi()["paths"].items()
        for method, operation in operations.items()
    ]


def _is_open(operation: dict[str, Any]) -> bool:
    return "security" not in operation


def _request(api: Api, method: str, path: str, who: Headers) -> Any:
    body = b"{}" if method == "POST" else None
    if path.endswith("/logs/search"):
        path += "?q=a"
    is_json = "users" in path or path.endswith((":resubmit", ":export"))
    content_type = {"Content-Type": "application/json"} if is_json else YAML
    return api.client.request(method, path, content=body, headers={**who, **content_type})


def test_only_these_are_open(api: Api) -> None:
    """Health, and what a client needs before it has a token: the command, the version, and what a TaskSpec is."""
    opened = [path for _, path, operation in _operations(api) if _is_open(operation)]
    about = ["/api/v2/schema/taskspec", "/api/v2/version", "/argus.pyz"]
    assert sorted(opened) == [*about, "/healthz", "/readyz"]


def test_every_operation_without_a_token_is_a_401_problem(api: Api) -> None:
    seen = 0
    for method, path, operation in _operations(api):
        if _is_open(operation):
            continue
        for query in ("", "?nonsense=1"):
            refused = _request(api, method, re.sub(r"{\w+}", "x", path) + query, {})
            assert refused.status_code == 401, (method, path)
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.headers["www-authenticate"].startswith('Bearer realm="argus"')
            assert refused.json()["code"] == "unauthenticated"
        seen += 1
    assert seen >= 20


def test_every_route_hides_alice_from_bob(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    waiting = api.submit(alice, model_id=f"org/{SECRET}")
    running = api.submit(alice, model_id=f"org/{SECRET}")
    change = api.run(running)
    log_of(change).write_text(f"{SECRET} in the log\n")
    (Path(change.job_root) / "metrics.jsonl").write_text(f'{{"step": 1, "data": {{"{SECRET}": 1.0}}}}\n')
    own = api.submit(bob)

    for method, path, _ in _operations(api):
        if path == "/api/v2/stream":
            continue  # it never ends: test_changes_api.py looks at what is in it
        for task_id in (waiting, running):
            # What the request itself says may come back; nothing else of alice may.
            real = path.format(task_id=task_id, user_id="alice", token_id="tok-1", node="n1", path="metrics.jsonl")
            answer = _request(api, method, real, bob)
            heads = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
            for secret in (waiting, running, "alice", SECRET):
                assert secret not in answer.text, (method, path, secret)
                assert secret not in heads, (method, path, secret)
            if "{task_id}" in path:
                assert answer.status_code == 404
                for unknown in UNKNOWN_IDS:
                    same = _request(api, method, path.replace("{task_id}", unknown), bob)
                    assert _comparable(same) == _comparable(answer), (method, path, unknown)
    explained = api.get(f"/api/v2/tasks/{own}/explain", bob)
    assert (explained["others_ahead"], explained["active_tasks"]) == (1, 1)
    for view in ("", "/events", "/explain"):
        # The folder of this test has her name, and bob's TaskSpec names files below it.
        shown = api.client.get(f"/api/v2/tasks/{own}{view}", headers=bob).text
        assert "alice" not in shown.replace(api.world.shared_root, "")
    assert api.task(waiting).state.value == "QUEUED"
    assert api.task(running).state.value == "RUNNING"


def _comparable(answer: Any) -> tuple[object, ...]:
    request_id = answer.headers["x-request-id"]
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, answer.text.replace(request_id, "ID"), headers


def test_a_stranger_cannot_tell_users_apart(api: Api) -> None:
    """An admin's route answers a user the same for a user who exists and one who does not."""
    api.user("alice")
    bob = api.user("bob")
    for path in ("/api/v2/users/{}", "/api/v2/users/{}/tokens", "/api/v2/tasks?user_id={}"):
        exists = api.client.get(path.format("alice"), headers=bob)
        unknown = api.client.get(path.format("nobody"), headers=bob)
        assert _comparable(exists) == _comparable(unknown)
