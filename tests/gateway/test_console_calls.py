"""What pages for people ask that no other call told: the queue in numbers, the state of the cluster, specs as data."""

from __future__ import annotations

import pytest
import yaml

from argus_ray.core.model import NodeView
from argus_ray.core.monitoring import TICK_BOUNDS, ActorFacts, Observed, PoolFacts, PublisherFacts, SchedulerFacts
from argus_ray.core.reserve import Space
from tests.support.gateway import ADMIN, INTERNAL, Api, Headers, lines, metrics_of

NOTHING = {"waiting": 0, "active": 0, "gpus": 0}


def test_the_queue_in_numbers_names_nobody(api: Api, alice: Headers) -> None:
    bob = api.user("bob")
    assert api.get("/api/v2/queue:counts", alice) == {"own": NOTHING, "others": NOTHING}
    hers = [api.submit(alice, n_gpus_per_node=2) for _ in range(3)]
    his = [api.submit(bob, n_gpus_per_node=4) for _ in range(2)]
    running = api.run(hers[0])
    api.run(his[0])
    own = {"waiting": 2, "active": 1, "gpus": 2}
    others = {"waiting": 1, "active": 1, "gpus": 4}
    assert api.get("/api/v2/queue:counts", alice) == {"own": own, "others": others}
    assert api.get("/api/v2/queue:counts", bob) == {"own": others, "others": own}
    everything = {"waiting": 3, "active": 2, "gpus": 6}
    for who in (ADMIN, INTERNAL):
        assert api.get("/api/v2/queue:counts", who) == {"own": NOTHING, "others": everything}
    # A canceled task has left the queue, and its GPUs until its program has ended.
    api.client.post(f"/api/v2/tasks/{hers[0]}:cancel", headers=alice)
    assert api.get("/api/v2/queue:counts", alice)["own"] == {"waiting": 2, "active": 0, "gpus": 2}
    api.end(running)
    assert api.get("/api/v2/queue:counts", alice)["own"] == {"waiting": 2, "active": 0, "gpus": 0}


def test_the_cluster_in_one_answer(api: Api, alice: Headers) -> None:
    api.submit(alice, n_gpus_per_node=2)
    node = NodeView("n1", "10.0.0.2", False, 8.0, 32.0, 4.0, 16.0, 99.0, 100.0, "worker-1")
    ticks = Observed(TICK_BOUNDS).histogram()
    scheduler = SchedulerFacts(ticks, 1.5, True, PoolFacts.of([node]), 0, Space(100, "/shared", 1000))
    api.actors = ActorFacts(scheduler, PublisherFacts(2.5, 7, 30.0))
    found = api.get("/api/v2/cluster", ADMIN)
    assert found["parts"] == api.ready and found["maintenance"] is False
    assert (found["last_tick_age_s"], found["head_file"]) == (1.5, {"age_s": 2.5, "ttl_s": 30.0, "epoch": 7})
    assert found["gpus"] == {"total": 8.0, "free": 4.0, "barred": 0.0, "claimed": 0}
    assert found["nodes"] == {"ready": 1, "barred": 0, "cordoned": 0}
    assert (found["waiting"]["tasks"], found["waiting"]["gpus"]) == (1, 2)
    assert found["shared_disk"] == {"free": 100, "size": 1000}
    assert found["store_bytes"] > 0 and found["backup_age_s"] is None


def test_what_does_not_answer_is_null_and_the_rest_is_told(api: Api) -> None:
    found = api.get("/api/v2/cluster", ADMIN)
    assert [found[name] for name in ("last_tick_age_s", "head_file", "nodes", "shared_disk")] == [None] * 4
    assert found["gpus"] == {"total": None, "free": None, "barred": None, "claimed": 0}
    assert found["waiting"] == {"tasks": 0, "gpus": 0, "oldest_s": 0.0}


@pytest.mark.parametrize("path", ["/api/v2/cluster"])
def test_it_is_for_admins(api: Api, alice: Headers, path: str) -> None:
    refused = api.client.get(path, headers=alice)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert api.client.get(path).status_code == 401


def test_a_task_has_its_spec_as_data(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice, n_gpus_per_node=2)
    found = api.get(f"/api/v2/tasks/{task_id}", alice)["spec"]
    text = api.client.get(f"/api/v2/tasks/{task_id}/spec", headers=alice).text
    assert found == yaml.safe_load(text) and found["n_gpus_per_node"] == 2


def test_curves_tell_when_each_attempt_ran(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    change = api.run(task_id)
    metrics_of(change).write_text(lines(1, 2))
    api.world.clock.advance(60)
    [running] = api.get(f"/api/v2/tasks/{task_id}/metrics", alice)["attempts"]
    [attempt] = api.get(f"/api/v2/tasks/{task_id}", alice)["attempts"]
    assert (running["started_at"], running["ended_at"]) == (attempt["started_at"], None)
    api.end(change)
    [ended] = api.get(f"/api/v2/tasks/{task_id}/metrics", alice)["attempts"]
    [attempt] = api.get(f"/api/v2/tasks/{task_id}", alice)["attempts"]
    assert (ended["started_at"], ended["ended_at"]) == (attempt["started_at"], attempt["ended_at"])
