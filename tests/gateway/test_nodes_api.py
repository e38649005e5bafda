"""Cordons, drains and maintenance over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from argus_ray.core.model import NodeView
from tests.support.gateway import ADMIN, INTERNAL, NODE, Api, Headers

TWO = NodeView("n2", "10.0.0.3", False, 8.0, 32.0, 8.0, 32.0, 100.0, 100.0, "worker-2")
SAME = (
    NodeView("n3", "10.0.0.4", False, 8.0, 32.0, 8.0, 32.0, 100.0, 100.0, "worker"),
    NodeView("n4", "10.0.0.5", False, 8.0, 32.0, 8.0, 32.0, 100.0, 100.0, "worker"),
)


@pytest.fixture(autouse=True)
def pool(api: Api) -> None:
    api.nodes = (NODE, TWO, *SAME)


def order(api: Api, name: str, verb: str, body: dict[str, Any] | None = None, who: Headers = ADMIN) -> Any:
    return api.client.post(f"/api/v2/nodes/{name}:{verb}", json=body, headers=who)


def node(api: Api, node_id: str) -> Any:
    return next(node for node in api.get("/api/v2/nodes", ADMIN)["nodes"] if node["node_id"] == node_id)


@pytest.mark.parametrize("name", ["worker-1", "10.0.0.2", "n1"])
def test_a_node_is_cordoned_by_any_of_its_names_and_shown_so_at_once(api: Api, name: str) -> None:
    answer = order(api, name, "cordon", {"reason": "a fan"})
    assert answer.status_code == 200
    cordon: dict[str, Any] = {
        "machine": "worker-1",
        "state": "cordoned",
        "by": "admin",
        "since": "2027-01-15T08:00:00.000Z",
        "reason": "a fan",
        "deadline": None,
        "tasks": [],
    }
    assert answer.json() == {**cordon, "nodes": ["n1"]}
    assert api.wakes == ["wake"]
    assert node(api, "n1")["cordon"] == cordon
    assert node(api, "n1")["barred"] == "cordoned by admin since 2027-01-15T08:00:00Z: a fan"
    assert (node(api, "n2")["cordon"], node(api, "n2")["barred"]) == (None, None)
    api = api.restart()
    assert node(api, "n1")["cordon"] == cordon
    # What the scheduler has told last is older than the next order.
    api.nodes = (replace(NODE, barred="cordoned by admin since", is_cordoned=True),)
    cleared = order(api, name, "uncordon")
    assert (cleared.status_code, cleared.json()["state"]) == (200, "cleared")
    assert (node(api, "n1")["cordon"], node(api, "n1")["barred"]) == (None, None)


def test_a_drain_tells_what_still_runs_there_and_when_it_is_over(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    change = replace(api.world.admission(api.task(task_id)), nodes=("n1", "n2"))
    api.apply(change)
    answer = order(api, "worker-1", "drain", {"deadline_s": 600})
    assert answer.status_code == 200
    assert {key: answer.json()[key] for key in ("state", "deadline", "tasks", "nodes")} == {
        "state": "draining",
        "deadline": "2027-01-15T08:10:00.000Z",
        "tasks": [task_id],
        "nodes": ["n1"],
    }
    assert node(api, "n1")["barred"].startswith("draining by admin since")
    assert node(api, "n2")["cordon"] is None
    api.end(change)
    assert (node(api, "n1")["cordon"]["state"], node(api, "n1")["cordon"]["tasks"]) == ("drained", [])
    assert order(api, "worker-1", "drain").json()["deadline"] is None, "the newest order counts"


def test_a_name_of_several_machines_is_a_conflict_that_lists_them(api: Api) -> None:
    answer = order(api, "worker", "cordon")
    assert (answer.status_code, answer.json()["code"]) == (409, "ambiguous_node")
    assert answer.json()["errors"] == [
        {"field": "n3", "rule": "worker at 10.0.0.4"},
        {"field": "n4", "rule": "worker at 10.0.0.5"},
    ]
    assert order(api, "10.0.0.4", "cordon").json()["machine"] == "10.0.0.4"
    assert (node(api, "n3")["cordon"] is None, node(api, "n4")["cordon"] is None) == (False, True)


@pytest.mark.parametrize("name", ["nobody", "x" * 300, "a%00b", "%7e"])
def test_a_name_of_no_machine_is_not_found(api: Api, name: str) -> None:
    answer = order(api, name, "cordon")
    assert (answer.status_code, answer.json()["code"]) == (404, "node_not_found")
    assert api.wakes == []


def test_a_machine_that_is_away_stays_cordoned_and_can_be_uncordoned(api: Api) -> None:
    order(api, "worker-1", "cordon")
    api.nodes = (TWO,)
    page = api.get("/api/v2/nodes", ADMIN)
    assert [(each["machine"], each["state"]) for each in page["away"]] == [("worker-1", "cordoned")]
    api.nodes = ()  # nor does the scheduler answer
    assert order(api, "worker-2", "uncordon").status_code == 503
    assert order(api, "worker-1", "drain").status_code == 503, "whether it is empty is not known"
    assert order(api, "worker-1", "uncordon").json()["state"] == "cleared"
    api.nodes = (NODE,)
    assert node(api, "n1")["cordon"] is None and api.get("/api/v2/nodes", ADMIN)["away"] == []


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("cordon", {"deadline_s": 5}),
        ("uncordon", {"deadline_s": 5}),
        ("drain", {"deadline_s": -1}),
        ("drain", {"deadline_s": "5"}),
        ("drain", {"deadline": 5}),
        ("drain", {"reason": "x" * 501}),
        ("drain", {"reason": "two\nlines"}),
    ],
)
def test_odd_bodies_are_refused(api: Api, verb: str, body: dict[str, Any]) -> None:
    answer = order(api, "worker-1", verb, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert node(api, "n1")["cordon"] is None


def test_users_may_not_order_and_do_not_learn_which_nodes_there_are(api: Api, alice: Headers) -> None:
    for name in ("worker-1", "worker", "nobody"):
        for verb in ("cordon", "uncordon", "drain"):
            answer = order(api, name, verb, who=alice)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    for method in ("GET", "PUT"):
        answer = api.client.request(
            method, "/api/v2/maintenance", json={"on": True} if method == "PUT" else None, headers=alice
        )
        assert answer.status_code == 403
    assert api.get("/api/v2/maintenance", ADMIN)["on"] is False


def test_maintenance_is_turned_on_shown_and_turned_off(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    explained = api.get(f"/api/v2/tasks/{task_id}/explain", alice)
    off = {"on": False, "by": None, "since": None, "reason": ""}
    assert explained["maintenance"] == off == api.get("/api/v2/maintenance", ADMIN)
    api.wakes.clear()
    answer = api.client.put("/api/v2/maintenance", json={"on": True, "reason": "new switches"}, headers=INTERNAL)
    on = {"on": True, "by": "internal", "since": "2027-01-15T08:00:00.000Z", "reason": "new switches"}
    assert (answer.status_code, answer.json(), api.wakes) == (200, on, ["wake"])
    api = api.restart()
    assert api.get("/api/v2/maintenance", ADMIN) == on
    api.submit(alice)
    explained = api.get(f"/api/v2/tasks/{task_id}/explain", alice)
    assert explained["maintenance"] == on
    assert explained["summary"].endswith(
        "maintenance is on by internal since 2027-01-15T08:00:00Z, and nothing starts: new switches"
    )
    answer = api.client.put("/api/v2/maintenance", json={"on": False}, headers=ADMIN)
    assert (answer.json(), api.wakes[-1]) == (off, "wake")


@pytest.mark.parametrize("body", [{}, {"on": "yes"}, {"on": 1}, {"on": True, "until": "noon"}])
def test_odd_maintenance_is_refused(api: Api, body: dict[str, Any]) -> None:
    answer = api.client.put("/api/v2/maintenance", json=body, headers=ADMIN)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_a_low_disk_is_a_part_of_readiness_that_spoils_nothing(api: Api) -> None:
    """The head is as good as before, and a standby would find the same disk."""
    api.ready["disk"] = "1.0 GiB free at /private"
    page = api.client.get("/readyz")
    assert (page.status_code, page.json()["status"]) == (200, "ready")
    assert page.json()["parts"]["disk"] == "1.0 GiB free at /private"
    api.ready["state"] = "Unavailable"
    page = api.client.get("/readyz")
    assert page.status_code == 503 and page.json()["detail"] == "Not ready: state."


def test_backups_that_cannot_be_made_are_a_part_of_readiness_that_spoils_nothing(api: Api) -> None:
    api.ready["backup"] = "no backup was made: there is no room"
    page = api.client.get("/readyz")
    assert (page.status_code, page.json()["status"]) == (200, "ready")
    assert page.json()["parts"]["backup"] == "no backup was made: there is no room"


def test_maintenance_is_a_part_of_readiness_that_spoils_nothing(api: Api) -> None:
    api.ready["maintenance"] = "on since 2027-01-15T08:00:00Z"
    page = api.client.get("/readyz")
    assert (page.status_code, page.json()["status"]) == (200, "ready")
    assert page.json()["parts"]["maintenance"].startswith("on since")
    api.ready["state"] = "it does not answer"
    page = api.client.get("/readyz")
    assert page.status_code == 503
    assert page.json()["detail"] == "Not ready: state."
