"""Another user's task is not even read: the owner is part of each query, so the answer is as quick as for no task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.gateway import ADMIN, Api, Headers

_JSON = {"Content-Type": "application/json"}


@dataclass
class Asked:
    """What the database was asked, and how many steps its machine has made for it."""

    statements: list[str] = field(default_factory=list)
    steps: int = 0


@contextmanager
def watched(api: Api) -> Iterator[Asked]:
    db, asked = api.world.store._db, Asked()

    def step() -> int:
        asked.steps += 1
        return 0

    db.set_trace_callback(asked.statements.append)
    db.set_progress_handler(step, 1)
    try:
        yield asked
    finally:
        db.set_trace_callback(None)
        db.set_progress_handler(None, 1)


def routes_of_a_task(api: Api) -> list[tuple[str, str]]:
    paths = api.app.fastapi.openapi()["paths"]
    return [
        (method.upper(), path) for path, operations in paths.items() if "{task_id}" in path for method in operations
    ]


def ask(api: Api, route: tuple[str, str], task_id: str, who: Headers) -> tuple[Any, Asked]:
    method, path = route
    body = b"{}" if path.endswith((":resubmit", ":export")) else None
    url = path.replace("{task_id}", task_id) + ("?q=a" if path.endswith("/logs/search") else "")
    with watched(api) as asked:
        answer = api.client.request(method, url, content=body, headers={**who, **(_JSON if body else {})})
    return answer, asked


def comparable(answer: Any) -> tuple[object, ...]:
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, answer.text.replace(answer.headers["x-request-id"], "ID"), headers


def test_on_every_route_of_a_task_a_foreign_one_is_asked_for_as_one_that_is_not_there(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    waiting, running = api.submit(alice), api.submit(alice)
    api.run(running)
    api.submit(bob)
    routes = routes_of_a_task(api)
    assert len(routes) >= 9
    for route in routes:
        for foreign in (waiting, running):
            none = foreign[:-1] + ("0" if foreign[-1] != "0" else "1")  # of the same length, beside it in every index
            ask(api, route, none, bob)  # what is said once is said
            refused, about_foreign = ask(api, route, foreign, bob)
            unknown, about_none = ask(api, route, none, bob)
            assert comparable(refused) == comparable(unknown), route
            assert refused.status_code == 404 and refused.json()["code"] == "task_not_found", route
            statements = [text.replace(foreign, "ID") for text in about_foreign.statements]
            assert statements == [text.replace(none, "ID") for text in about_none.statements], route
            assert about_foreign.steps == about_none.steps > 0, (route, "the foreign row was looked at")
            of_tasks = [text for text in about_foreign.statements if foreign in text]
            assert of_tasks, route
            assert all("'bob'" in text for text in of_tasks), (route, of_tasks)


def test_the_owner_and_an_admin_still_find_it(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    for who in (alice, ADMIN):
        assert api.get(f"/api/v2/tasks/{task_id}", who)["user_id"] == "alice"
        assert api.get(f"/api/v2/tasks/{task_id}/events", who)["events"]


def test_the_plan_searches_by_owner_and_id(api: Api) -> None:
    alice, bob = api.user("alice"), api.user("bob")
    task_id = api.submit(alice)
    _, asked = ask(api, ("GET", "/api/v2/tasks/{task_id}"), task_id, bob)
    [statement] = [text for text in asked.statements if task_id in text]
    with api.world.store.transaction() as db:
        plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert len(plan) == 1 and re.search(r"SEARCH tasks .*\(user_id=\? AND task_id=\?\)", plan[0]), plan
