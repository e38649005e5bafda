"""Why a task is where it is, as a code, a sentence and a count, over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from argus_ray.core.estimates import GOOD_FOR_S, Basis, Range, Unknown
from argus_ray.core.explaining import PoolNow
from argus_ray.core.forecast.model import Told
from argus_ray.core.lifecycle import Hold
from argus_ray.core.reasons import Code, because
from argus_ray.core.states import Outcome
from tests.support.gateway import ADMIN, NODE, Api, Headers, TestClient

BUSY = because(Code.POOL_BUSY, nodes=2, gpus=4, cpus=12.0)


def explained(api: Api, task_id: str, who: Headers) -> Any:
    return api.get(f"/api/v2/tasks/{task_id}/explain", who)


def test_a_task_is_told_what_is_short_and_what_would_start(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice, nnodes=2)
    api.apply(Hold(task_id, BUSY))
    found = explained(api, task_id, alice)
    assert (found["code"], found["would_start_now"]) == ("gpus_short", 1)
    assert found["sentence"] == (
        "Too few GPUs are free: it needs 2 nodes with 4 GPUs and 12 CPUs free each; 1 has now."
    )
    api.nodes = (NODE, replace(NODE, node_id="n2", barred="it does not answer"))
    assert explained(api, task_id, alice)["code"] == "nodes_barred"
    api.nodes = ()
    found = explained(api, task_id, alice)
    assert (found["code"], found["would_start_now"]) == ("gpus_short", None), "the rest is answered all the same"


def test_what_is_free_is_so_by_the_schedulers_own_account(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    full = NODE.with_free(0.0, 0.0, 0.0)
    given = {"pool": PoolNow((NODE,), (full,), (full,))}

    async def look() -> PoolNow:
        return given["pool"]

    api.client = TestClient(api.make_app(pool_now=look))
    found = explained(api, task_id, alice)
    assert (found["code"], found["would_start_now"]) == ("just_started_tasks", 0)
    assert found["shortfall"][0]["gpus_free"] == 0.0
    given["pool"] = PoolNow((NODE,), (NODE,), (full,))
    found = explained(api, task_id, alice)
    assert (found["code"], found["would_start_now"]) == ("behind_overtaken_task", 0)
    given["pool"] = replace(PoolNow.as_shown((NODE,)), is_low_disk=True)
    found = explained(api, task_id, alice)
    assert (found["code"], found["would_start_now"]) == ("low_disk", 0)


def test_nothing_would_start_in_maintenance_or_above_the_quota(api: Api) -> None:
    alice = api.user("alice")
    runs, task_id = api.submit(alice), api.submit(alice)
    api.run(runs)
    assert explained(api, task_id, alice)["would_start_now"] == 1
    api.client.put("/api/v2/maintenance", json={"on": True}, headers=ADMIN).raise_for_status()
    found = explained(api, task_id, alice)
    assert (found["code"], found["would_start_now"]) == ("maintenance", 0)
    api.client.put("/api/v2/maintenance", json={"on": False}, headers=ADMIN).raise_for_status()
    api.world.reopen(settings={"limits": {"running_gpus_per_user": 6}})
    assert explained(Api(api.world), task_id, alice)["would_start_now"] == 0, "2 GPUs are left of the quota"


def test_tasks_that_do_not_wait_have_a_code_as_well(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    assert explained(api, task_id, alice)["code"] == "queued"
    change = api.run(task_id)
    found = explained(api, task_id, alice)
    assert (found["code"], found["sentence"], found["would_start_now"]) == ("running", "It runs.", None)
    api.end(change)
    assert explained(api, task_id, alice)["code"] == "ended"


# --- when it may start ---


def told(api: Api, task_id: str, start: Range | Unknown) -> None:
    api.world.service.foretell([Told(task_id, start)], [])


def test_a_waiting_task_shows_its_range_everywhere_and_its_event_tells_it_once(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    assert explained(api, task_id, alice)["start"] == {"unknown": "not_yet"}
    api.apply(Hold(task_id, BUSY))
    now = api.world.clock.now
    told(api, task_id, Unknown.NO_PACE_YET)
    assert explained(api, task_id, alice)["start"] == {"unknown": "no_pace_yet"}
    assert explained(api, task_id, alice)["first_estimate"] is None
    told(api, task_id, Range(now + 60, now + 600, Basis.ASSUMES_NO_OVERTAKING))
    api.world.clock.advance(60)
    told(api, task_id, Range(now + 120, now + 300, Basis.FIRM))
    expected = {"earliest": "2027-01-15T08:02:00.000Z", "latest": "2027-01-15T08:05:00.000Z", "basis": "firm"}
    first = {
        "at": "2027-01-15T08:00:00.000Z", "earliest": "2027-01-15T08:01:00.000Z",
        "latest": "2027-01-15T08:10:00.000Z", "basis": "assumes_no_overtaking",
    }  # fmt: skip
    found = explained(api, task_id, alice)
    assert (found["start"], found["first_estimate"]) == (expected, first)
    assert api.get(f"/api/v2/tasks/{task_id}", alice)["start"] == expected
    assert api.get("/api/v2/tasks", alice)["tasks"][0]["start"] == expected
    assert api.get("/api/v2/queue", alice)["pending"][0]["start"] == expected
    messages = [event["message"] for event in api.get(f"/api/v2/tasks/{task_id}/events", alice)["events"]]
    assert [each for each in messages if each.startswith("starts between")] == [
        "starts between 2027-01-15T08:01:00Z and 2027-01-15T08:10:00Z, if nothing that comes later starts before it; "
        "sooner if a task ends early, later if one is lost"
    ]
    api.world.clock.advance(GOOD_FOR_S + 1)
    assert explained(api, task_id, alice)["start"] == {"unknown": "not_yet"}, "nobody has looked for long"
    api.run(task_id)
    found = explained(api, task_id, alice)
    assert (found["start"], found["first_estimate"]) == (None, first)


def test_the_first_range_is_judged_at_the_start_and_counted_for_its_owner(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    none = {"inside": 0, "early": 0, "late": 0, "none": 0, "last": {"right": 0, "of": 0}}
    assert api.get("/api/v2/estimates", alice) == none
    now = api.world.clock.now
    ranges = [
        Range(now, now + 200, Basis.FIRM),
        Range(now + 200, now + 300, Basis.FIRM),
        Range(now, now + 50, Basis.FIRM),
    ]
    starts: list[Range | Unknown] = [*ranges, Unknown.STALLED]
    for start in starts:
        task_id = api.submit(alice)
        api.apply(Hold(task_id, BUSY))
        told(api, task_id, start)
        told(api, task_id, Range(now + 99, now + 101, Basis.FIRM) if start is not Unknown.STALLED else start)
    api.world.clock.advance(100)
    for task in api.world.waiting():
        api.run(task.task_id)
    quick = api.submit(alice)
    api.run(quick)
    of_alice = {"inside": 1, "early": 1, "late": 1, "none": 1, "last": {"right": 1, "of": 3}}
    assert api.get("/api/v2/estimates", alice) == of_alice, "one that did not have to wait does not count"
    assert api.get("/api/v2/estimates", bob) == none
    assert api.get("/api/v2/estimates", ADMIN) == of_alice
    names = [task["task_id"] for task in api.get("/api/v2/tasks", alice)["tasks"]]
    events = [event for name in names for event in api.get(f"/api/v2/tasks/{name}/events", alice)["events"]]
    messages = [event["message"] for event in events if event["cause"] == "admitted"]
    assert sorted(message.partition("starts")[2].partition(" (")[0] for message in messages) == [
        "", "", ", as was told", ", later than was told", ", sooner than was told",
    ]  # fmt: skip


def test_a_task_that_comes_back_waits_anew(api: Api) -> None:
    alice = api.user("alice")
    task_id, now = api.submit(alice), api.world.clock.now
    api.apply(Hold(task_id, BUSY))
    told(api, task_id, Range(now, now + 50, Basis.FIRM))
    change = api.run(task_id)
    told(api, task_id, Range(now + 1, now + 2, Basis.FIRM))
    assert explained(api, task_id, alice)["first_estimate"]["latest"] == "2027-01-15T08:00:50.000Z", "it came too late"
    api.end(change, Outcome.INFRASTRUCTURE, None)
    api.apply(Hold(task_id, BUSY))
    told(api, task_id, Unknown.NO_PACE_YET)
    assert explained(api, task_id, alice)["first_estimate"] is None
    told(api, task_id, Range(now + 10, now + 20, Basis.FIRM))
    assert explained(api, task_id, alice)["first_estimate"]["latest"] == "2027-01-15T08:00:20.000Z"
    api.run(task_id)
    assert api.get("/api/v2/estimates", alice) == {
        "inside": 1, "early": 1, "late": 0, "none": 0, "last": {"right": 1, "of": 2}
    }  # fmt: skip
