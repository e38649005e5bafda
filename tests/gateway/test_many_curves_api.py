"""Curves of several tasks in one answer."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from argus_ray.core.errors import Unavailable
from argus_ray.core.model import Attempt
from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway.metrics.curves import CurveReader, Found, Limits
from argus_ray.gateway.metrics.shared import Comparisons
from tests.support.gateway import ADMIN, Api, Headers, TestClient, lines, metrics_of

#: Seconds, in place of the gateway's: of tasks whose files hang, and of a call in which all do.
TASK_S, CALL_S = 0.5, 2.0
#: And of all others, on a machine that is busy.
PATIENT = 60.0


def task_with(api: Api, who: Headers, *steps: int) -> str:
    task_id = api.submit(who)
    metrics_of(api.run(task_id)).write_text(lines(*steps))
    return task_id


def asked(client: TestClient, who: Headers, *names: str, more: str = "") -> Any:
    answer = client.get(f"/api/v2/curves?task={','.join(names)}{more}", headers=who)
    assert answer.status_code == 200, answer.text
    return answer.json()["tasks"]


def test_each_task_has_what_its_own_call_answers(api: Api, alice: Headers) -> None:
    first, second = task_with(api, alice, 1, 2, 3), task_with(api, alice, 5)
    waiting = api.submit(alice)
    for more in ("", "&names=train/loss&since_step=2&max_points=2"):
        found = asked(api.client, alice, second, first, waiting, more=more)
        assert [each["task_id"] for each in found] == [second, first, waiting]
        assert [each["state"] for each in found] == ["RUNNING", "RUNNING", "QUEUED"]
        for each in found:
            own = api.get(f"/api/v2/tasks/{each['task_id']}/metrics?{more[1:]}", alice)
            assert (each["metrics"], each["problem"]) == (own, None)
    repeated = api.client.get(f"/api/v2/curves?task={first}&task={first},{second}", headers=alice).json()["tasks"]
    assert [each["task_id"] for each in repeated] == [first, second]


def test_another_users_task_is_told_as_one_that_is_not_there(api: Api, alice: Headers) -> None:
    hers, bob = task_with(api, alice, 1), api.user("bob")
    his, none = task_with(api, bob, 1), hers[:-4] + "zzzz"
    answers = asked(api.client, bob, hers, none, his, "..")
    foreign, unknown, own, odd = answers
    for each in (foreign, unknown, odd):
        assert (each["state"], each["metrics"], each["problem"]["code"]) == (None, None, "task_not_found")
    assert foreign["problem"] == unknown["problem"] == odd["problem"]
    assert (own["state"], own["problem"]) == ("RUNNING", None)
    assert [each["state"] for each in asked(api.client, ADMIN, hers, his)] == ["RUNNING", "RUNNING"]


class SlowReader(CurveReader):
    """The files of some tasks hang until they are released; those of others are broken."""

    def __init__(self) -> None:
        super().__init__(Limits(request_s=PATIENT))
        self.hangs: set[str] = set()
        self.breaks: set[str] = set()
        self.release = threading.Event()
        self.at_work = self.most = 0

    def read(self, attempts: Any, names: Any, *, since_step: int, max_points: int) -> Found:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            attempt: Attempt = attempts[0]
            if attempt.task_id in self.breaks:
                raise Unavailable("The shared filesystem does not answer. Try again.")
            if attempt.task_id in self.hangs:
                self.release.wait(60)
            return super().read(attempts, names, since_step=since_step, max_points=max_points)
        finally:
            self.at_work -= 1


class Threads(BoundedThreads):
    def __init__(self, reader: SlowReader) -> None:
        super().__init__("test-comparisons", 2)
        self._reader = reader

    async def run(self, function: Any, timeout_s: float, wait_s: float | None = None) -> Any:
        hangs = function.args[1].task_id in self._reader.hangs
        return await super().run(function, timeout_s if hangs else PATIENT, wait_s)


def test_a_task_whose_files_are_slow_costs_its_own_curves_alone(api: Api, alice: Headers) -> None:
    names = [task_with(api, alice, 1, 2) for _ in range(8)]
    reader = SlowReader()
    reader.hangs, reader.breaks = {names[0], names[1], names[2]}, {names[4]}
    comparisons = Comparisons(threads=Threads(reader), task_s=TASK_S, call_s=PATIENT)
    with TestClient(api.make_app(curves=reader, comparisons=comparisons)) as client:
        try:
            found = asked(client, alice, *names)
            by_code = [each["problem"] and each["problem"]["code"] for each in found]
            assert by_code == ["unavailable"] * 3 + [None, "unavailable", None, None, None]
            assert all(each["state"] == "RUNNING" for each in found)
            assert reader.most <= 2 + 3, "two at a time, beside those that hang"
            # All hang: the call ends all the same.
            reader.hangs = set(names)
            comparisons.call_s = CALL_S
            began = time.monotonic()
            found = asked(client, alice, *names)
            assert {each["problem"]["code"] for each in found} == {"unavailable"}
            assert time.monotonic() - began < CALL_S + 20
        finally:
            reader.release.set()
        reader.hangs, reader.breaks, comparisons.call_s = set(), set(), PATIENT
        assert all(each["problem"] is None for each in asked(client, alice, *names))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "task"),
        ("task=", "task"),
        ("task=,", "task"),
        ("task=" + ",".join(map(str, range(9))), "task"),
        ("task=" + "a" * 129, "task"),
        ("task=a&max_points=1", "max_points"),
        ("task=a&names=a%01b", "names"),
        ("task=a&step=1", "step"),
    ],
)
def test_a_broken_comparison_names_its_field(api: Api, alice: Headers, query: str, field: str) -> None:
    refused = api.client.get(f"/api/v2/curves?{query}", headers=alice)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert [error["field"] for error in refused.json()["errors"]] == [field]
