"""Where attempts are: told of each attempt for good, and of each node as it is now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus_ray.core.lifecycle import Advance
from argus_ray.core.model import NodeView, PlacedNode
from tests.support.gateway import ADMIN, NODE, Api, Headers

TWO = NodeView("n2", "10.0.0.3", False, 8.0, 32.0, 8.0, 32.0, 100.0, 100.0, "worker-2")
PLACED = (PlacedNode("n1", "worker-1", "10.0.0.2", 4), PlacedNode("n2", "worker-2", "10.0.0.3", 4))


def test_an_attempt_tells_its_nodes_as_they_were(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice, nnodes=2)
    change = replace(api.world.admission(api.task(task_id)), nodes=("n1", "n2"), placement=PLACED)
    api.apply(change)
    wanted = [
        {"node_id": "n1", "hostname": "worker-1", "ip": "10.0.0.2", "gpus": 4},
        {"node_id": "n2", "hostname": "worker-2", "ip": "10.0.0.3", "gpus": 4},
    ]
    api.nodes = ()
    api.end(change)
    for restarts in (False, True):
        one = api.restart() if restarts else api
        assert one.get(f"/api/v2/tasks/{task_id}", alice)["attempts"][0]["placement"] == wanted


def test_an_attempt_of_an_earlier_version_has_none(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    api.run(task_id)
    assert api.get(f"/api/v2/tasks/{task_id}", alice)["attempts"][0]["placement"] is None


@pytest.mark.parametrize("stored", ['["n1"]', '[{"node_id": "n1"}]', '[{"node_id":1,"hostname":"","ip":"","gpus":1}]'])
def test_a_placement_of_another_version_hides_nothing(api: Api, alice: Headers, stored: str) -> None:
    task_id = api.submit(alice)
    api.run(task_id)
    with api.world.store.transaction() as db:
        db.execute("UPDATE attempts SET placement = ?", (stored,))
    assert api.get(f"/api/v2/tasks/{task_id}", alice)["attempts"][0]["placement"] is None


def test_each_node_tells_an_admin_what_is_on_it(api: Api, alice: Headers) -> None:
    bob = api.user("bob")
    hers, his, waiting, over = api.submit(alice, nnodes=2), api.submit(bob), api.submit(bob), api.submit(bob)
    for task_id, nodes in ((hers, ("n1", "n2")), (his, ("n1",)), (over, ("n1",))):
        change = replace(api.world.admission(api.task(task_id)), nodes=nodes)
        api.apply(change, Advance(change.submission_id, running=True))
    api.end(change)
    api.nodes = (NODE, TWO)
    first, second = api.get("/api/v2/nodes", ADMIN)["nodes"]
    assert first["tasks"] == [
        {"task_id": hers, "user_id": "alice", "gpus": 4},
        {"task_id": his, "user_id": "bob", "gpus": 4},
    ]
    assert second["tasks"] == [{"task_id": hers, "user_id": "alice", "gpus": 4}]
    # One that was canceled is there until its job is over.
    api.client.post(f"/api/v2/tasks/{his}:cancel", headers=bob)
    assert [each["task_id"] for each in api.get("/api/v2/nodes", ADMIN)["nodes"][0]["tasks"]] == [hers, his]
    assert api.client.get("/api/v2/nodes", headers=alice).status_code == 403
    assert api.task(waiting).attempts == ()


def test_an_attempt_whose_nodes_ray_chose_is_on_its_drivers(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    change = api.admit(task_id)
    api.apply(Advance(change.submission_id, running=True, node_id="n1"))
    assert [each["task_id"] for each in api.get("/api/v2/nodes", ADMIN)["nodes"][0]["tasks"]] == [task_id]
