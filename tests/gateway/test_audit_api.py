"""The audit over HTTP: lists, and a stream that goes on where it was."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from argus_ray.core.actions import Action, Credential
from argus_ray.core.audit import FollowAudit
from argus_ray.gateway.control import LocalControlPlane
from argus_ray.gateway.http.prefix import TrustedProxies
from argus_ray.store import audit
from tests.support.gateway import ADMIN, INTERNAL, Api, Headers, TestClient
from tests.support.stream import DEADLINE_S, Stream, run

URL = "/api/v2/audit"


def names(found: Any) -> list[str]:
    return [entry["action"] for entry in found["entries"]]


def test_who_did_what_to_whom_when_from_where_by_which_token(api: Api, alice: Headers) -> None:
    http = TestClient(api.make_app(trusted=TrustedProxies("10.0.0.9")), client=("10.0.0.9", 5000))
    sent = http.post("/api/v2/tasks", content=api.world.spec(), headers=alice | {
        "Content-Type": "application/yaml", "X-Forwarded-For": "198.51.100.7, 192.0.2.1",
    })  # fmt: skip
    [token] = api.get("/api/v2/users/alice/tokens", ADMIN)["tokens"]
    newest = api.get(URL, ADMIN)["entries"][0]
    assert newest == {
        "audit_id": 3,
        "at": "2027-01-15T08:00:00.000Z",
        "actor": "alice",
        "role": "user",
        "token_id": token["token_id"],
        "address": "192.0.2.1",
        "action": "task.submit",
        "target": sent.json()["task_id"],
        "user_id": "alice",
        "result": "done",
        "detail": None,
    }


def test_pages_and_filters(api: Api, alice: Headers) -> None:
    start = api.world.clock.now
    for _ in range(5):
        api.world.clock.advance(3600)
        api.submit(alice)
    api.user("bob")
    found, cursor = [], ""
    for _ in range(20):
        page = api.get(f"{URL}?limit=3&cursor={cursor}", ADMIN)
        found += page["entries"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [entry["audit_id"] for entry in found] == list(range(9, 0, -1))
    assert names(api.get(f"{URL}?action=user.create", INTERNAL)) == ["user.create"] * 2
    assert names(api.get(f"{URL}?user=alice&actor=admin", ADMIN)) == ["token.issue", "user.create"]
    assert len(api.get(f"{URL}?actor=alice", ADMIN)["entries"]) == 5
    assert len(api.get(f"{URL}?actor=alice&since=2h", ADMIN)["entries"]) == 3
    assert len(api.get(f"{URL}?actor=alice&until=2h", ADMIN)["entries"]) == 2
    assert start == 1_800_000_000.0
    assert (
        len(api.get(f"{URL}?actor=alice&since=2027-01-15T09:00:00Z&until=2027-01-15T11:00:00Z", ADMIN)["entries"]) == 2
    )
    assert api.get(f"{URL}?since=2027-01-16", ADMIN) == {"entries": [], "next_cursor": None}
    for query in ("limit=0", "limit=501", "cursor=x", "since=yesterday", "until=2027-13-01", "who=alice"):
        refused = api.client.get(f"{URL}?{query}", headers=ADMIN)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), query
        assert refused.json()["errors"][0]["field"] == query.partition("=")[0]


def test_it_is_for_admins_and_says_who_else_has_asked(api: Api, alice: Headers) -> None:
    for path in (URL, f"{URL}/stream"):
        refused = api.client.get(path, headers=alice)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert [(each["action"], each["result"]) for each in api.get(f"{URL}?actor=alice", ADMIN)["entries"]] == [
        ("audit.follow", "forbidden"),
        ("audit.list", "forbidden"),
    ]


def test_a_stream_tells_what_is_new_and_goes_on_after_a_break(api: Api, alice: Headers) -> None:
    async def scenario() -> None:
        app = api.app
        app.fastapi.state.gateway.audit_feed._poll_s = 0.01
        async with Stream(app, f"{URL}/stream", ADMIN) as stream:
            assert stream.status == 200
            first = await asyncio.to_thread(api.submit, alice)
            _, event = await stream.until("entry")
            entry = json.loads(event["data"])
            assert (entry["target"], event["id"]) == (first, str(entry["audit_id"]))
            place = int(event["id"])
        missed = [await asyncio.to_thread(api.submit, alice) for _ in range(3)]
        async with Stream(app, f"{URL}/stream", ADMIN | {"Last-Event-ID": str(place)}) as stream:
            seen = [json.loads((await stream.until("entry"))[1]["data"])["target"] for _ in range(3)]
            assert seen == missed
        filtered = f"{URL}/stream?action=user.create"
        async with Stream(app, filtered, ADMIN | {"Last-Event-ID": "0"}) as stream:
            assert json.loads((await stream.until("entry"))[1]["data"])["target"] == "alice"
            await asyncio.to_thread(api.user, "bob")
            assert json.loads((await stream.until("entry"))[1]["data"])["target"] == "bob"
        assert api.streams.open == 0

    run(scenario)


def test_a_gap_is_told(api: Api, alice: Headers) -> None:
    api.world.clock.advance(100)
    api.submit(alice)
    with api.world.store.transaction() as db:
        assert audit.remove_before(db, round(api.world.clock.now * 1000) - 50_000, 100) == 2

    async def scenario() -> None:
        async with Stream(api.app, f"{URL}/stream", ADMIN | {"Last-Event-ID": "1"}) as stream:
            _, gap = await stream.until("gap")
            assert json.loads(gap["data"]) == {"from": 2, "to": 2}
            assert json.loads((await stream.until("entry"))[1]["data"])["action"] == "task.submit"

    run(scenario)


class Counted(LocalControlPlane):
    """Counts the questions of those who follow."""

    asked = 0

    async def call(self, who: Credential, action: Action[Any]) -> Any:
        self.asked += isinstance(action, FollowAudit) and action.after is not None
        return await super().call(who, action)


def test_many_who_follow_ask_as_one(api: Api, alice: Headers) -> None:
    control = Counted(api.world.service)
    app = api.make_app(control=control)
    # So slow that the first question of the one who asks for all is its only one here.
    app.fastapi.state.gateway.audit_feed._poll_s = 0.3

    async def scenario() -> None:
        streams = [Stream(app, f"{URL}/stream", ADMIN if n % 2 else INTERNAL) for n in range(24)]
        for stream in streams:
            await stream.__aenter__()
        alone, begun = control.asked, time.monotonic()

        def by_now() -> float:
            """The most that the one who asks for all has asked since; each pause is three quarters at least."""
            return 4 + (time.monotonic() - begun) / (0.75 * 0.3)

        await asyncio.to_thread(api.submit, alice)
        events = await asyncio.wait_for(asyncio.gather(*(stream.until("entry") for stream in streams)), DEADLINE_S)
        assert len({event["id"] for _, event in events}) == 1
        assert control.asked - alone <= 24 + by_now(), "but for the first look of each"
        settled, begun = control.asked, time.monotonic()
        await asyncio.to_thread(api.submit, alice)
        await asyncio.wait_for(asyncio.gather(*(stream.until("entry") for stream in streams)), DEADLINE_S)
        assert control.asked - settled <= by_now()
        for stream in streams:
            await stream.leave()

    run(scenario)
