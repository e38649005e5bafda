"""Why a task is where it is, as a code, a sentence and a count, over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from argus_ray.core.explaining import PoolNow
from argus_ray.core.lifecycle import Hold
from argus_ray.core.reasons import Code, because
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
