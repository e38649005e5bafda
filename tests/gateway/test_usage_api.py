"""Use by user, workload and day for admins, and one's own."""

from __future__ import annotations

import pytest

from argus_ray.core.errors import InvalidRequest
from argus_ray.gateway.http.times import time_or_day_of
from tests.support.gateway import ADMIN, Api, Headers

NOW = 1_800_000_000.0


def test_usage_by_what_is_asked_for(api: Api, alice: Headers) -> None:
    bob = api.user("bob")
    one, two = api.run(api.submit(alice)), api.run(api.submit(bob))
    api.world.clock.advance(90)
    api.end(one)
    api.world.clock.advance(10)
    whole = api.get("/api/v2/usage", ADMIN)
    assert (whole["since"], whole["until"], whole["next_cursor"]) == ("2026-12-16", "2027-01-15", None)
    sums = {"tasks": 2, "succeeded": 1, "failed": 0, "canceled": 0, "user_id": None, "workload": None, "day": None}
    assert whole["rows"] == [sums | {"gpu_seconds": 4 * 90.0 + 4 * 100.0}], "with what runs now"
    api.end(two)
    rows = api.get("/api/v2/usage?by=user,day&by=workload&limit=1", ADMIN)
    [first] = rows["rows"]
    assert (first["user_id"], first["workload"], first["day"], first["gpu_seconds"]) == (
        "alice", "sft", "2027-01-15", 360.0,
    )  # fmt: skip
    rest = api.get(f"/api/v2/usage?by=user,day&by=workload&cursor={rows['next_cursor']}", ADMIN)
    assert [(row["user_id"], row["succeeded"]) for row in rest["rows"]] == [("bob", 1)]
    assert api.get("/api/v2/usage?until=2027-01-14&by=user", ADMIN)["rows"] == []
    assert api.get("/api/v2/usage?since=1d&until=2027-01-15&by=user", ADMIN)["since"] == "2027-01-14"
    for query in ("by=task", "since=x", "since=2020-01-01", "limit=0", "cursor=7", "until=2027-01-01&since=1d"):
        refused = api.client.get(f"/api/v2/usage?{query}", headers=ADMIN)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), query
    refused = api.client.get("/api/v2/usage", headers=alice)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_own_use_limits_and_token(api: Api) -> None:
    alice = api.user("alice", expires_in_s=86_400)
    change = api.run(api.submit(alice))
    api.world.clock.advance(60)
    api.end(change)
    api.submit(alice)
    api.run(api.submit(api.user("bob")))
    api.world.clock.advance(60)
    me = api.get("/api/v2/me", alice)
    [token] = api.get("/api/v2/users/alice/tokens", ADMIN)["tokens"]
    own = {"gpu_seconds": 240.0, "tasks": 2, "succeeded": 1, "failed": 0, "canceled": 0}
    assert me["usage"] == {"last_30_days": own, "total": own}
    assert me["limits"] == {"waiting_tasks": 1, "waiting_tasks_limit": 1000, "gpus_held": 0, "gpus_quota": None}
    assert me["token"] == {"token_id": token["token_id"], "expires_at": token["expires_at"]}


def test_a_day_is_its_first_moment() -> None:
    midnight = NOW - 8 * 3600
    assert time_or_day_of("since", "2027-01-15", NOW) == midnight
    assert time_or_day_of("since", "2027-01-15T08:00:00Z", NOW) == NOW
    assert time_or_day_of("since", "2h", NOW) == NOW - 7200
    assert time_or_day_of("since", None, NOW) is None
    for text in ("2027-02-30", "0000-01-01", "2027-1-5", "2027-01-15\n", ""):
        with pytest.raises(InvalidRequest) as refused:
            time_or_day_of("since", text, NOW)
        assert refused.value.fields[0].field == "since"
