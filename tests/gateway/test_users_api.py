"""Users, tokens and who may call what."""

from __future__ import annotations

import re

import pytest

from tests.support.gateway import ADMIN, ADMIN_TOKEN, INTERNAL, YAML, Api, bearer_header


def _who(me: dict[str, object]) -> dict[str, object]:
    """Without what test_usage_api.py is about."""
    return {name: value for name, value in me.items() if name not in ("usage", "limits", "token")}


def test_admin_create_user_and_issue_token(api: Api) -> None:
    created = api.client.post("/api/v2/users", json={"user_id": "alice", "display_name": "Alice"}, headers=ADMIN)
    assert created.status_code == 201
    assert created.json()["user_id"] == "alice"
    assert created.json()["state"] == "ACTIVE"
    again = api.client.post("/api/v2/users", json={"user_id": "alice"}, headers=ADMIN)
    assert (again.status_code, again.json()["code"]) == (409, "user_exists")

    issued = api.client.post("/api/v2/users/alice/tokens", headers=ADMIN)
    assert issued.status_code == 201
    assert issued.headers["cache-control"] == "no-store"
    token = issued.json()["token"]
    assert re.fullmatch(r"argus_u_[0-9a-f]{64}", token)
    me = api.get("/api/v2/me", bearer_header(token))
    assert _who(me) == {"role": "user", "user_id": "alice", "scopes": ["tasks"]}

    # Shown once: nothing that is read later holds it.
    listed = api.client.get("/api/v2/users/alice/tokens", headers=ADMIN)
    assert token not in listed.text
    [info] = listed.json()["tokens"]
    assert info["token_id"] == issued.json()["token_id"]
    assert "digest" not in info


def test_disabled_user_token_rejected(api: Api) -> None:
    alice = api.user("alice")
    assert api.client.get("/api/v2/queue", headers=alice).status_code == 200

    for _ in range(2):
        disabled = api.client.post("/api/v2/users/alice:disable", headers=ADMIN)
        assert (disabled.status_code, disabled.json()["state"]) == (200, "DISABLED")
        refused = api.client.get("/api/v2/queue", headers=alice)
        assert (refused.status_code, refused.json()["code"]) == (403, "user_disabled")
    submit = api.client.post("/api/v2/tasks", content=api.world.spec(), headers={**alice, **YAML})
    assert submit.status_code == 403

    assert api.client.post("/api/v2/users/alice:enable", headers=ADMIN).json()["state"] == "ACTIVE"
    assert api.client.get("/api/v2/queue", headers=alice).status_code == 200


def test_users_are_listed_and_got(api: Api) -> None:
    api.user("alice")
    api.user("bob")
    assert [user["user_id"] for user in api.get("/api/v2/users", ADMIN)["users"]] == ["alice", "bob"]
    assert api.get("/api/v2/users/bob", ADMIN)["state"] == "ACTIVE"
    for user_id in ("nobody", "x" * 4000, "UPPER", "a%00b"):
        missing = api.client.get(f"/api/v2/users/{user_id}", headers=ADMIN)
        assert (missing.status_code, missing.json()["code"]) == (404, "user_not_found"), user_id


def test_a_revoked_token_is_refused_at_once(api: Api) -> None:
    alice = api.user("alice")
    second = api.token("alice", label="laptop")
    infos = api.get("/api/v2/users/alice/tokens", ADMIN)["tokens"]
    laptop = next(info for info in infos if info["label"] == "laptop")
    for _ in range(2):
        revoked = api.client.delete(f"/api/v2/users/alice/tokens/{laptop['token_id']}", headers=ADMIN)
        assert revoked.status_code == 200
        assert revoked.json()["revoked_at"] is not None
    refused = api.client.get("/api/v2/me", headers=second)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert api.client.get("/api/v2/me", headers=alice).status_code == 200
    unknown = api.client.delete("/api/v2/users/alice/tokens/tok-none", headers=ADMIN)
    assert unknown.json()["code"] == "token_not_found"


def test_an_expired_token_is_refused(api: Api) -> None:
    alice = api.user("alice", expires_in_s=60)
    assert api.client.get("/api/v2/me", headers=alice).status_code == 200
    api.world.clock.advance(60)
    refused = api.client.get("/api/v2/me", headers=alice)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="argus", error="invalid_token"'


def test_a_user_is_refused_on_every_admin_call(api: Api) -> None:
    alice = api.user("alice")
    calls = [
        ("GET", "/api/v2/users"), ("POST", "/api/v2/users/alice:disable"), ("GET", "/api/v2/users/alice"),
        ("POST", "/api/v2/users/alice/tokens"), ("GET", "/api/v2/users/alice/tokens"),
        ("GET", "/api/v2/admin/queue"), ("GET", "/api/v2/nodes"), ("GET", "/api/v2/tasks?user_id=bob"),
    ]  # fmt: skip
    for method, path in calls:
        refused = api.client.request(method, path, headers=alice)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), path


def test_legacy_internal_token_is_an_admin_with_tasks_of_its_own(api: Api) -> None:
    """What the clients of the single-tenant service do with MVP_INTERNAL_TOKEN."""
    assert api.get("/api/v2/queue", INTERNAL) == {"pending": [], "running": []}
    task_id = api.submit(INTERNAL)
    assert task_id.startswith("argus-internal-sft-")
    assert [task["task_id"] for task in api.get("/api/v2/queue", INTERNAL)["pending"]] == [task_id]
    assert api.get(f"/api/v2/tasks/{task_id}", INTERNAL)["user_id"] == "internal"
    assert _who(api.get("/api/v2/me", INTERNAL)) == {
        "role": "internal",
        "user_id": "internal",
        "scopes": ["admin", "tasks"],
    }
    assert api.client.get("/api/v2/users", headers=INTERNAL).status_code == 200
    assert api.client.post(f"/api/v2/tasks/{task_id}:cancel", headers=INTERNAL).json()["state"] == "CANCELED"


def test_the_admin_token_is_no_user(api: Api) -> None:
    me = api.get("/api/v2/me", ADMIN)
    assert _who(me) == {"role": "admin", "user_id": None, "scopes": ["admin"]}
    assert (me["usage"], me["limits"], me["token"]) == (None, None, {"token_id": None, "expires_at": None})
    refused = api.client.post("/api/v2/tasks", content=api.world.spec(), headers={**ADMIN, **YAML})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user_id"),
        ({"user_id": "Alice"}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": "a", "extra": 1}, "extra"),
        ({"user_id": "a", "display_name": "x" * 1000}, "display_name"),
        ({"user_id": "a", "display_name": "line\nbreak"}, "display_name"),
        ({"user_id": "../a"}, "user_id"),
    ],
)
def test_a_bad_user_is_refused_by_field(api: Api, body: dict[str, object], field: str) -> None:
    refused = api.client.post("/api/v2/users", json=body, headers=ADMIN)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert field in [error["field"] for error in refused.json()["errors"]]


@pytest.mark.parametrize("body", ['{"label":1}', '{"expires_in_s":0}', '{"expires_in_s":1e3}', "[]", "{", "nul"])
def test_a_bad_token_request_is_refused(api: Api, body: str) -> None:
    api.user("alice")
    headers = {**ADMIN, "Content-Type": "application/json"}
    refused = api.client.post("/api/v2/users/alice/tokens", content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")


def test_json_bodies_are_strict(api: Api) -> None:
    headers = {**ADMIN, "Content-Type": "application/json"}
    for body in (b'{"user_id":"a","user_id":"b"}', b'{"user_id":NaN}', b"\xff", b"[" * 10_000, b""):
        refused = api.client.post("/api/v2/users", content=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), body[:20]
    wrong = api.client.post("/api/v2/users", content=b"user_id=a", headers={**ADMIN, **YAML})
    assert wrong.status_code == 415
    huge = api.client.post("/api/v2/users", content=b" " * 70_000, headers=headers)
    assert huge.status_code == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {ADMIN_TOKEN}x"},
        {"Authorization": f"Bearer {ADMIN_TOKEN[:-1]}"},
        {"Authorization": f"Bearer {ADMIN_TOKEN} {ADMIN_TOKEN}"},
        {"Authorization": "Bearer argus_u_" + "0" * 64},
        {"Authorization": "Bearer " + "x" * 5000},
    ],
)
def test_a_wrong_token_is_invalid(api: Api, headers: dict[str, str]) -> None:
    refused = api.client.get("/api/v2/users", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == 'Bearer realm="argus", error="invalid_token"'


def test_no_token_is_asked_for_without_an_error_code(api: Api) -> None:
    for headers in ({}, {"Authorization": "Basic dTpw"}):
        refused = api.client.get("/api/v2/users", headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Bearer realm="argus"'


def test_two_authorization_headers_are_refused(api: Api) -> None:
    pair = [("Authorization", f"Bearer {ADMIN_TOKEN}"), ("Authorization", "Bearer x")]
    refused = api.client.get("/api/v2/users", headers=pair)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")


def test_the_scheme_is_case_insensitive(api: Api) -> None:
    assert api.client.get("/api/v2/me", headers={"Authorization": f"bearer {ADMIN_TOKEN}"}).status_code == 200


def test_a_token_in_the_query_is_never_taken(api: Api) -> None:
    for name in ("token", "access_token", "authorization"):
        assert api.client.get(f"/api/v2/users?{name}={ADMIN_TOKEN}").status_code == 401
        assert api.client.get(f"/api/v2/users?{name}={ADMIN_TOKEN}", headers=ADMIN).status_code == 400
