"""Small curves of many tasks in one answer."""

from __future__ import annotations

from typing import Any

import pytest

from argus_ray.core.states import Outcome
from argus_ray.gateway.metrics import curves
from argus_ray.gateway.metrics.curves import CurveReader, Limits
from tests.support.gateway import ADMIN, Api, Headers, lines, metrics_of


def asked(api: Api, who: Headers, *names: str, more: str = "") -> Any:
    return api.get(f"/api/v2/sparklines?task={','.join(names)}{more}", who)["tasks"]


def task_with(api: Api, who: Headers, text: str) -> str:
    task_id = api.submit(who)
    metrics_of(api.run(task_id)).write_text(text)
    return task_id


def test_each_task_has_its_headline_in_the_order_of_the_query(api: Api, alice: Headers) -> None:
    loss = task_with(api, alice, "".join(lines(step, train__loss=10 - step) for step in range(1, 6)))
    score = task_with(
        api, alice, lines(1, critic__score__mean=0.25, actor__pg_loss=3) + lines(2, critic__score__mean=0.5)
    )
    waiting = api.submit(alice)
    answers = asked(api, alice, score, loss, waiting, score)
    assert [each["task_id"] for each in answers] == [score, loss, waiting]
    first, second, third = answers
    assert (first["name"], first["steps"], first["values"]) == ("critic/score/mean", [1, 2], [0.25, 0.5])
    assert (second["name"], second["values"]) == ("train/loss", [9, 8, 7, 6, 5])
    assert third == {"task_id": waiting, "name": None, "steps": [], "values": [], "complete": True}


def test_it_goes_through_all_attempts_and_past_the_end(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    first = api.run(task_id)
    metrics_of(first).write_text(lines(1, 2, 3, train__loss=3))
    api.end(first, Outcome.INFRASTRUCTURE, None)
    api.world.clock.advance(3600)
    second = api.run(task_id)
    metrics_of(second).write_text(lines(3, 4, train__loss=2))
    api.end(second)
    [found] = asked(api, alice, task_id)
    assert (found["steps"], found["values"]) == ([1, 2, 3, 4], [3, 3, 2, 2])


def test_a_long_run_is_thinned_and_keeps_its_spikes(api: Api, alice: Headers) -> None:
    text = "".join(lines(step, train__loss=100 if step == 1234 else 1) for step in range(3000))
    [found] = asked(api, alice, task_with(api, alice, text), more="&max_points=10")
    assert len(found["values"]) <= 10 and max(found["values"]) == 100 and found["steps"][-1] == 2999


def test_another_users_task_is_left_out_like_one_that_is_not_there(api: Api, alice: Headers) -> None:
    bob = api.user("bob")
    his, hers = task_with(api, bob, lines(1)), task_with(api, alice, lines(1))
    assert [each["task_id"] for each in asked(api, alice, his, hers, "nothing")] == [hers]
    assert [each["task_id"] for each in asked(api, ADMIN, his, hers)] == [his, hers]


@pytest.mark.parametrize(
    "query", ["", "?task=", "?task=,", "?task=" + ",".join("abcd" * 30 for _ in range(101)), "?x=1"]
)
def test_what_is_no_question_is_refused(api: Api, alice: Headers, query: str) -> None:
    answer = api.client.get(f"/api/v2/sparklines{query}", headers=alice)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_what_cannot_be_read_in_time_is_incomplete_and_goes_on(
    api: Api, alice: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [task_with(api, alice, lines(*range(20_000))) for _ in range(3)]
    # One piece of a file a call.
    gateway = api.app.fastapi.state.gateway
    gateway.sparklines.reader = CurveReader(Limits(request_bytes=1))
    seen = []
    for _ in range(20):
        found = asked(api, alice, *tasks)
        seen.append([each["complete"] for each in found])
        if all(seen[-1]):
            break
    assert not all(seen[0]) and all(seen[-1])
    assert [each["steps"][-1] for each in found] == [19_999] * 3


def test_a_file_that_does_not_answer_costs_its_own_curve_alone(
    api: Api, alice: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = task_with(api, alice, lines(1)), task_with(api, alice, lines(1))
    root = api.task(broken).attempts[0].job_root
    real = curves._File.advance

    def advance(self: Any, job_root: str, budget: Any) -> bool:
        if job_root == root:
            raise OSError(5, "the disk")
        return real(self, job_root, budget)

    monkeypatch.setattr(curves._File, "advance", advance)
    first, second = asked(api, alice, broken, whole)
    assert (first["name"], first["complete"]) == (None, False)
    assert (second["name"], second["complete"]) == ("train/loss", True)
