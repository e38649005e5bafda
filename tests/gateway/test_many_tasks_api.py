"""Lists, counts and calls about many tasks."""

from __future__ import annotations

from typing import Any

import pytest

from argus_ray.core.states import Outcome, TaskState
from argus_ray.service import bulk
from tests.support.gateway import ADMIN, Api, Headers

HOUR_S = 3600.0


def names(api: Api, query: str, who: Headers) -> list[str]:
    return [task["task_id"] for task in api.get(f"/api/v2/tasks?{query}", who)["tasks"]]


def counts(api: Api, query: str, who: Headers) -> dict[str, int]:
    """Those that are not 0."""
    found = api.get(f"/api/v2/tasks:counts?{query}", who)
    assert set(found["counts"]) == {state.value for state in TaskState}
    assert found["total"] == sum(found["counts"].values())
    return {state: n for state, n in found["counts"].items() if n}


@pytest.fixture
def some(api: Api, alice: Headers) -> list[str]:
    """Three hours apart: sft SUCCEEDED, grpo FAILED, sft RUNNING, sft QUEUED."""
    made = []
    rl = {"train_file": f"{api.world.shared_root}/common/datasets/gsm8k/rl.parquet"}
    for workload in ("sft", "grpo", "sft", "sft"):
        made.append(api.submit(alice, workload=workload, **(rl if workload == "grpo" else {})))
        api.world.clock.advance(3 * HOUR_S)
    api.end(api.run(made[0]))
    api.end(api.run(made[1]), Outcome.APPLICATION, 1)
    api.run(made[2])
    return made


def test_a_list_is_narrowed_by_time_workload_and_id(api: Api, alice: Headers, some: list[str]) -> None:
    first, second, third, fourth = some
    at = api.get(f"/api/v2/tasks/{second}", alice)["created_at"]
    for query, wanted in {
        "": [fourth, third, second, first],
        "since=4h": [fourth],
        "since=390m": [fourth, third],
        "until=390m": [second, first],
        "since=1w&until=10h": [first],
        f"since={at}": [fourth, third, second],
        f"until={at}": [first],
        f"since={at.replace('Z', '%2B00:00')}&until=7h": [second],
        "workload=sft": [fourth, third, first],
        "workload=sft,grpo&workload=ppo": [fourth, third, second, first],
        "workload=export": [],
        "workload=sft&state=RUNNING,SUCCEEDED": [third, first],
        f"id_suffix={second[-4:]}": [second],
        f"id_prefix={third[:-5]}": [third],
        "id_prefix=argus-alice-grpo": [second],
        "id_prefix=argus-bob": [],
        f"ids={first},{third}&ids=argus-none": [third, first],
        f"ids={first},{third}&state=RUNNING": [third],
        "since=&until=&workload=&ids=&id_prefix=&id_suffix=": [fourth, third, second, first],
    }.items():
        assert names(api, query, alice) == wanted, query
        assert sum(counts(api, query, alice).values()) == len(wanted), query
    assert counts(api, "", alice) == {"SUCCEEDED": 1, "FAILED": 1, "RUNNING": 1, "QUEUED": 1}
    assert counts(api, "state=FAILED,QUEUED&since=12h", alice) == {"FAILED": 1, "QUEUED": 1}


def test_pages_of_a_filter_meet(api: Api, alice: Headers, some: list[str]) -> None:
    found: list[str] = []
    cursor = ""
    while True:
        page = api.get(f"/api/v2/tasks?workload=sft&since=1d&limit=1&cursor={cursor}", alice)
        found += [task["task_id"] for task in page["tasks"]]
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    assert found == [some[3], some[2], some[0]]


def test_another_users_tasks_are_neither_listed_nor_counted(api: Api, some: list[str]) -> None:
    bob = api.user("bob")
    for query in (
        f"ids={some[0]}",
        f"id_prefix={some[0]}",
        f"id_suffix={some[0][-4:]}",
        "since=1w",
        "workload=sft",
        "",
    ):
        assert names(api, query, bob) == [] and counts(api, query, bob) == {}
        assert api.client.get(f"/api/v2/tasks:counts?{query}&user_id=alice", headers=bob).status_code == 403
    assert counts(api, "user_id=alice&state=RUNNING", ADMIN) == {"RUNNING": 1}
    assert names(api, f"id_suffix={some[0][-4:]}", ADMIN) == [some[0]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=yesterday", "since"),
        ("since=2026-02-30T00:00:00Z", "since"),
        ("since=2026-01-01T00:00:00", "since"),
        ("since=2026-01-01", "since"),
        ("until=9x", "until"),
        ("until=0001-01-01T00:00:00%2B23:59", "until"),
        ("since=٣d", "since"),
        ("workload=dpo", "workload"),
        ("state=DONE", "state"),
        ("id_suffix=abc", "id_suffix"),
        ("ids=" + ",".join(map(str, range(101))), "ids"),
        ("ids=" + "a" * 129, "ids"),
        ("workloads=sft", "workloads"),
    ],
)
def test_a_broken_filter_names_its_field(api: Api, alice: Headers, query: str, field: str) -> None:
    for path in ("/api/v2/tasks", "/api/v2/tasks:counts"):
        refused = api.client.get(f"{path}?{query}", headers=alice)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert [error["field"] for error in refused.json()["errors"]] == [field]
        assert "Input" not in refused.text


def test_counts_have_no_pages(api: Api, alice: Headers) -> None:
    refused: Any = api.client.get("/api/v2/tasks:counts?limit=5", headers=alice)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "limit")


def cancel(api: Api, who: Headers, **body: Any) -> Any:
    answer = api.client.post("/api/v2/tasks:cancel", json=body, headers=who)
    assert answer.status_code == 200, answer.text
    return answer.json()


def results(found: Any) -> list[tuple[str, str, str | None]]:
    return [(each["task_id"], each["result"], each["state"]) for each in found["results"]]


def test_tasks_are_canceled_by_their_ids_at_one_moment(api: Api, alice: Headers, some: list[str]) -> None:
    bob = api.user("bob")
    his = api.submit(bob)
    first, _, running, queued = some
    api.wakes.clear()
    names = [queued, "argus-none", his, first, running, queued]
    wanted = [
        (queued, "would_cancel", "QUEUED"),
        ("argus-none", "not_found", None),
        (his, "not_found", None),
        (first, "already_ended", "SUCCEEDED"),
        (running, "would_cancel", "RUNNING"),
    ]
    found = cancel(api, alice, ids=names, dry_run=True)
    assert (results(found), found["matched"], found["more"]) == (wanted, 3, False)
    assert api.wakes == [] and api.task(queued).state is TaskState.QUEUED

    found = cancel(api, alice, ids=names)
    wanted[0], wanted[4] = (queued, "canceled", "CANCELED"), (running, "canceled", "CANCELED")
    assert (results(found), found["matched"], found["more"]) == (wanted, 3, False)
    assert api.wakes == ["wake"], "once"
    assert api.task(his).state is TaskState.QUEUED
    ends = {api.task(name).ended_at for name in (queued, running)}
    assert len(ends) == 1
    live = api.task(running).live_attempt
    assert live is not None and live.state.value == "STOPPING"
    events = api.get(f"/api/v2/tasks/{queued}/events", alice)["events"]
    assert events[-1]["message"] == "canceled by its user"

    again = cancel(api, alice, ids=[queued, running])
    assert {each[1] for each in results(again)} == {"already_ended"} and api.wakes == ["wake"]
    assert results(cancel(api, ADMIN, ids=[his])) == [(his, "canceled", "CANCELED")]


def test_tasks_are_canceled_by_a_filter(api: Api, alice: Headers, some: list[str]) -> None:
    his = api.submit(api.user("bob"))
    _, _, running, queued = some
    found = cancel(api, alice, filter={"workload": ["grpo"]})
    assert (results(found), found["matched"], found["more"]) == ([], 0, False), "it has ended"
    found = cancel(api, alice, filter={"until": "4h", "state": ["RUNNING", "QUEUED"]}, dry_run=True)
    assert results(found) == [(running, "would_cancel", "RUNNING")]
    found = cancel(api, alice, filter={})
    assert results(found) == [(queued, "canceled", "CANCELED"), (running, "canceled", "CANCELED")]
    assert (found["matched"], found["more"]) == (2, False)
    assert api.task(his).state is TaskState.QUEUED
    assert results(cancel(api, ADMIN, filter={"user_id": "bob"})) == [(his, "canceled", "CANCELED")]


def test_a_filter_cancels_so_many_at_a_time_those_that_wait_first(
    api: Api, alice: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [api.submit(alice) for _ in range(7)]
    api.run(made[6])
    monkeypatch.setattr(bulk, "MAX_CANCELED", 3)
    seen = []
    for left, more in ((7, True), (4, True), (1, False), (0, False)):
        found = cancel(api, alice, filter={"state": []})
        assert (found["matched"], found["more"]) == (left, more)
        seen += [each["task_id"] for each in found["results"]]
    assert seen == [*reversed(made[:6]), made[6]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "ids, filter"),
        ({"ids": ["a"], "filter": {}}, "ids, filter"),
        ({"ids": []}, "ids"),
        ({"ids": ["a"] * 501}, "ids"),
        ({"ids": ["a" * 129]}, "ids"),
        ({"ids": [1]}, "ids.0"),
        ({"ids": "a"}, "ids"),
        ({"filter": {"state": ["FAILED"]}}, "filter.state"),
        ({"filter": {"state": ["DONE"]}}, "filter.state"),
        ({"filter": {"workload": ["dpo"]}}, "filter.workload"),
        ({"filter": {"since": "now"}}, "filter.since"),
        ({"filter": {"stat": ["QUEUED"]}}, "filter.stat"),
        ({"ids": ["a"], "dry_run": "yes"}, "dry_run"),
    ],
)
def test_a_broken_cancel_changes_nothing(api: Api, alice: Headers, body: Any, field: str) -> None:
    task_id = api.submit(alice)
    refused = api.client.post("/api/v2/tasks:cancel", json=body, headers=alice)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), refused.text
    assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert api.task(task_id).state is TaskState.QUEUED


def test_who_may_not_cancel_whom(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    bob = api.user("bob")
    body = {"filter": {"user_id": "alice"}}
    assert api.client.post("/api/v2/tasks:cancel", json=body, headers=bob).status_code == 403
    refused = api.client.post("/api/v2/tasks:cancel", json={"filter": {}}, headers=ADMIN)
    assert refused.json()["errors"][0]["field"] == "filter.user_id", "an admin's slip would end everybody's work"
    gone = api.client.post("/api/v2/tasks:cancel", json={"filter": {"user_id": "eve"}}, headers=ADMIN)
    assert (gone.status_code, gone.json()["code"]) == (404, "user_not_found")
    assert api.client.post("/api/v2/tasks:cancel", json={"ids": [task_id]}).status_code == 401
    assert api.task(task_id).state is TaskState.QUEUED


def test_as_many_ids_as_a_call_may_name_fit_into_its_body(api: Api, alice: Headers) -> None:
    names = [f"{number:0128}" for number in range(500)]
    found = cancel(api, alice, ids=names)
    assert {each["result"] for each in found["results"]} == {"not_found"} and len(found["results"]) == 500
