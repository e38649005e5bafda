"""One error shape over every route, the headers of every answer, and what never appears in a log."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest

from argus_ray.core import errors
from argus_ray.core.actions import Action, Credential
from argus_ray.gateway.http import problems
from tests.support.gateway import ADMIN, ADMIN_TOKEN, INTERNAL_TOKEN, YAML, Api, TestClient


class Raising:
    """A control plane that fails in one way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def call(self, who: Credential, action: Action[Any]) -> Any:
        raise self.error


def check_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert set(body) >= {"type", "title", "status", "detail", "instance", "code"}
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:argus:error:{code}")
    assert body["instance"] == f"urn:argus:request:{answer.headers['x-request-id']}"
    for error in body.get("errors", []):
        assert set(error) == {"field", "rule"}
    return body


def all_errors() -> list[type[errors.ArgusError]]:
    found = [errors.ArgusError]
    for cls in found:
        found += cls.__subclasses__()
    return [cls for cls in found if cls.__module__.startswith("argus_ray.")]


def test_every_code_has_a_status_and_every_status_a_code() -> None:
    assert {cls.code for cls in all_errors()} == set(problems.PROBLEMS)


@pytest.mark.parametrize("error", all_errors(), ids=lambda cls: cls.code)
def test_every_error_is_a_problem(api: Api, error: type[errors.ArgusError]) -> None:
    client = TestClient(api.make_app(control=Raising(error("the detail"))))
    status, _ = problems.PROBLEMS[error.code]
    answer = client.get("/api/v2/me", headers=ADMIN)
    body = check_problem(answer, status, error.code)
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert (body["detail"] == "the detail") == (status != 500)


def test_a_bug_is_a_500_that_tells_nothing(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    client = TestClient(api.make_app(control=Raising(ValueError("the secret of the inside"))))
    answer = client.get("/api/v2/me", headers=ADMIN)
    check_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text


def test_an_unknown_path_is_a_problem(api: Api) -> None:
    for path in ("/api/v2/nothing", "/api/v2/tasks/", "/api/v2/tasks/x/", "/api/v1/tasks", "/api//v2", "/%00"):
        check_problem(api.client.get(path, headers=ADMIN, follow_redirects=False), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/v2/tasks", "GET, HEAD, OPTIONS, POST"),
        ("PUT", "/api/v2/users", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/api/v2/tasks/x/logs", "GET, HEAD, OPTIONS"),
        ("DELETE", "/api/v2/users/x", "GET, HEAD, OPTIONS"),
        ("GET", "/api/v2/users/x/tokens/y", "DELETE, OPTIONS"),
        ("POST", "/docs", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_names_the_right_ones(api: Api, method: str, path: str, allow: str) -> None:
    answer = api.client.request(method, path, headers=ADMIN)
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


def test_a_broken_rule_names_the_field_and_never_the_input(api: Api) -> None:
    alice = api.user("alice")
    for path, field in [
        ("/api/v2/tasks?limit=SECRETVALUE", "limit"),
        ("/api/v2/tasks?cursor=SECRETVALUE", "cursor"),
        ("/api/v2/tasks?state=SECRETVALUE", "state"),
        ("/api/v2/tasks/x/logs?attempt=SECRETVALUE", "attempt"),
        ("/api/v2/tasks/x/logs?tail=SECRETVALUE", "tail"),
        ("/api/v2/me?odd=SECRETVALUE", "odd"),
    ]:
        answer = api.client.get(path, headers=alice)
        body = check_problem(answer, 400, "invalid_request")
        assert [error["field"] for error in body["errors"]] == [field]
        assert "SECRETVALUE" not in answer.text
    spec = api.world.spec(train_file="/SECRETVALUE/x")
    answer = api.client.post("/api/v2/tasks", content=spec, headers={**alice, **YAML})
    check_problem(answer, 400, "invalid_spec")
    assert "SECRETVALUE" not in answer.text


def test_every_answer_has_the_headers(api: Api) -> None:
    ids = set()
    for path in ("/healthz", "/readyz", "/docs", "/", "/openapi.json", "/api/v2/me", "/nothing"):
        answer = api.client.get(path)
        ids.add(answer.headers["x-request-id"])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        # The document is of nobody: it may be kept, and is asked for anew.
        assert answer.headers["cache-control"] == ("no-cache" if path == "/openapi.json" else "no-store")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
    assert len(ids) == 7


def test_a_proxy_may_give_the_request_id(api: Api) -> None:
    given = "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert api.client.get("/healthz", headers={"X-Request-Id": given}).headers["x-request-id"] == given
    for bad in ("x", "a b c d e f", "x" * 65, 'x"}injected'):
        assert api.client.get("/healthz", headers={"X-Request-Id": bad}).headers["x-request-id"] != bad


def test_behind_serve_the_request_id_is_not_set_twice(api: Api) -> None:
    client = TestClient(api.make_app(sets_request_id=False))
    answer = client.get("/api/v2/me", headers={"X-Request-Id": "an-id-of-serve"})
    assert "x-request-id" not in answer.headers
    assert answer.json()["instance"] == "urn:argus:request:an-id-of-serve"


def test_the_health_pages_are_open(api: Api) -> None:
    silent = TestClient(api.make_app(control=Raising(errors.Unavailable())))
    assert silent.get("/healthz").json() == {"status": "ok"}
    assert silent.get("/healthz?cache=1").status_code == 200
    assert api.client.get("/readyz").json() == {"status": "ready", "parts": api.ready}
    api.ready["scheduler"] = "it does not answer"
    body = check_problem(api.client.get("/readyz"), 503, "unavailable")
    assert body["parts"]["scheduler"] == "it does not answer"
    assert body["detail"] == "Not ready: scheduler."


def test_a_readiness_check_that_fails_is_not_ready(api: Api) -> None:
    async def broken() -> dict[str, str]:
        raise RuntimeError("secret of the inside")

    answer = TestClient(api.make_app(readiness=broken)).get("/readyz")
    check_problem(answer, 503, "unavailable")
    assert "secret" not in answer.text


def test_the_documentation_is_open_and_holds_no_token(api: Api) -> None:
    document = api.client.get("/openapi.json")
    assert not re.search(r"argus_u_[0-9a-f]", document.text)
    assert ADMIN_TOKEN not in document.text
    for path, operations in document.json()["paths"].items():
        for method, operation in operations.items():
            assert "422" not in operation["responses"], (method, path)
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]
            assert operation.get("description"), (method, path)


def test_the_access_log_is_one_line_of_facts(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    with caplog.at_level(logging.INFO, logger="argus.access"):
        caplog.clear()
        api.client.get(f"/api/v2/tasks/{task_id}", headers=alice)
        api.client.get("/api/v2/nothing?x=SECRETVALUE")
    seen, missing = [json.loads(r.getMessage()) for r in caplog.records if r.name == "argus.access"]
    assert seen.pop("ms") >= 0
    request_id = seen.pop("request_id")
    assert re.fullmatch(r"[0-9a-f]{16}", request_id)
    assert seen == {
        "at": api.world.clock(),
        "method": "GET",
        "route": "/api/v2/tasks/{task_id}",
        "status": 200,
        "role": "user",
        "user_id": "alice",
    }
    assert (missing["status"], missing["code"], "route" in missing) == (404, "not_found", False)


def test_tokens_are_never_in_a_log(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        alice = api.user("alice")
        token = alice["Authorization"].removeprefix("Bearer ")
        api.submit(alice)
        api.client.delete(f"/api/v2/users/alice/tokens/{token}", headers=ADMIN)
        api.client.get(f"/api/v2/me?token={token}")
        api.client.get(f"/{token}", headers=alice)
        api.client.post("/api/v2/users", json={"user_id": token}, headers=ADMIN)
        TestClient(api.make_app(control=Raising(ValueError("bug")))).get("/api/v2/me", headers=alice)
    # The client's own log is not ours.
    records = [record for record in caplog.records if not record.name.startswith("httpx")]
    ours = "\n".join(record.getMessage() + str(record.exc_info) for record in records)
    assert len(ours) > 500
    for secret in (token, ADMIN_TOKEN, INTERNAL_TOKEN):
        assert secret not in ours
