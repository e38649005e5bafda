"""Lists, counts and calls about many tasks."""

from __future__ import annotations

from typing import Any

import pytest

from argus_ray.core.states import Outcome, TaskState
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
