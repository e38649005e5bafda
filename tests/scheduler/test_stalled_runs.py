"""Attempts that make no steps: told, told again when they do, stopped if that is wanted. Over a real service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.model import Event, Task
from argus_ray.core.observation import FailureKind, JobStatus
from argus_ray.core.stall import MetricsSeen
from argus_ray.core.states import Outcome, TaskState
from argus_ray.scheduler.tick import Dispatcher
from tests.support.builders import World, make_service
from tests.support.sanity import sanity_check
from tests.support.simray import SimRay, make_dispatcher, settle


class Lab:
    """One task of four GPUs that runs, and a dispatcher over it."""

    def __init__(self, root: Path, **scheduling: Any) -> None:
        self.world: World = make_service(root.resolve(), settings={"scheduling": scheduling})
        self.ada = self.world.user("ada")
        self.task_id = self.world.submit(self.ada).task_id
        self.ray = SimRay(random.Random(0), {"n1": 4})
        self.dispatcher = self.restart()
        self.tick()
        self.ray.step()  # it starts, and has not claimed its gang
        self.tick()
        assert self.task.state is TaskState.RUNNING and not self.job.held

    def restart(self) -> Dispatcher:
        self.dispatcher = make_dispatcher(self.world, self.ray, random.Random(0))
        return self.dispatcher

    def tick(self, seconds: float = 0.0) -> None:
        self.world.clock.advance(seconds)
        asyncio.run(settle(self.dispatcher))

    @property
    def task(self) -> Task:
        return self.world.task(self.task_id)

    @property
    def job(self) -> Any:
        return self.ray.jobs[self.task.attempts[-1].submission_id]

    def stalled(self) -> tuple[float | None, str | None]:
        attempt = self.task.attempts[-1]
        return attempt.stalled_since, attempt.stalled_why

    def claim(self) -> None:
        self.ray.step()
        assert self.job.held

    def grow(self, size: int) -> None:
        self.ray.metrics[self.task.attempts[-1].job_root] = MetricsSeen(size, self.world.clock.now)

    def told(self) -> list[str]:
        found = self.world.service.handle(self.ada, actions.TaskEvents(self.task_id))
        assert isinstance(found, tuple)
        return [event.message for event in found if isinstance(event, Event) and event.kind == "attempt"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path, stall_after_s=600)
    yield made
    sanity_check(made.world.store)
    made.world.close()


def test_a_gang_that_finds_no_room_is_recognised(lab: Lab) -> None:
    began = lab.world.clock.now
    for _ in range(9):
        lab.tick(60)
    assert lab.stalled() == (None, None)
    for _ in range(5):
        lab.tick(60)
    assert lab.stalled() == (began, "waits for its placement group: holds 0 of 4 GPUs")
    assert lab.told() == ["attempt a01 has made no new step for 600 s: " + str(lab.stalled()[1])], "one event"
    assert lab.task.state is TaskState.RUNNING
    lab.claim()
    lab.tick(60)
    assert lab.stalled() == (began, "it has made no step at all")
    lab.grow(10)
    lab.tick(60)
    assert lab.stalled() == (None, None)
    assert lab.told()[1:] == ["attempt a01 makes steps again"]


def test_a_run_whose_steps_end_is_told_from_its_last_step_on(lab: Lab) -> None:
    lab.claim()
    for size in range(1, 30):
        lab.grow(size)
        lab.tick(300)
    last = lab.world.clock.now
    assert lab.told() == []
    for _ in range(10):
        lab.tick(100)
    assert lab.stalled() == (last, "its metrics file has not grown")
    assert len(lab.told()) == 1


def test_a_new_scheduler_takes_it_up_where_it_was(lab: Lab) -> None:
    lab.claim()
    lab.tick(100)
    lab.grow(5)
    grown = lab.world.clock.now
    for _ in range(3):
        lab.restart()
        lab.tick(300)
    assert lab.stalled() == (grown, "its metrics file has not grown")
    lab.restart()
    lab.tick(300)
    assert len(lab.told()) == 1


def test_a_disk_that_does_not_answer_says_nothing(lab: Lab) -> None:
    lab.claim()
    asked = 0

    async def hangs(_: str) -> MetricsSeen:
        nonlocal asked
        asked += 1
        raise TimeoutError

    lab.dispatcher.stalls.files.metrics = hangs  # type: ignore[method-assign,assignment]
    for _ in range(100):
        lab.tick(10)
    assert lab.stalled() == (None, None) and lab.told() == []
    assert asked < 20, "not at each tick"
    assert lab.task.state is TaskState.RUNNING


def test_the_disk_is_asked_seldom(lab: Lab) -> None:
    metrics, asked = lab.dispatcher.stalls.files.metrics, []

    async def count(job_root: str) -> MetricsSeen:
        asked.append(lab.world.clock.now)
        return await metrics(job_root)

    lab.dispatcher.stalls.files.metrics = count  # type: ignore[method-assign]
    for _ in range(600):
        lab.tick(1)
    assert 9 <= len(asked) <= 11
    lab.world.clock.jump(-100_000)  # the clock was set back
    lab.tick()
    assert len(asked) in (10, 11, 12)


def test_off_is_off(tmp_path: Path) -> None:
    lab = Lab(tmp_path, stall_after_s=0, stop_stalled=True)
    lab.dispatcher.stalls.files.metrics = None  # type: ignore[method-assign, assignment]
    for _ in range(20):
        lab.tick(10_000)
    assert lab.stalled() == (None, None) and lab.told() == []
    lab.world.close()


def test_a_stalled_attempt_is_stopped_and_its_task_failed(tmp_path: Path) -> None:
    lab = Lab(tmp_path, stall_after_s=600, stop_stalled=True)
    lab.tick(600)
    why = "waits for its placement group: holds 0 of 4 GPUs"
    assert lab.told() == [f"attempt a01 has made no new step for 600 s: {why}; it is being stopped"]
    assert lab.task.state is TaskState.RUNNING and not lab.job.stop_asked
    lab.restart()
    lab.tick(1)
    assert lab.job.stop_asked, "a new scheduler goes on with it"
    assert lab.ray.markers == {lab.task.attempts[0].job_root}
    lab.grow(100)
    lab.tick(60)
    assert lab.task.state is TaskState.RUNNING, "until its job is over"
    lab.ray.step()
    lab.tick(1)
    failed = lab.task
    assert (failed.state, failed.losses, len(failed.attempts)) == (TaskState.FAILED, 0, 1)
    assert failed.reason == f"no new step for 600 s: {why}"
    assert failed.attempts[0].outcome is Outcome.APPLICATION
    sanity_check(lab.world.store)
    lab.world.close()


@pytest.mark.parametrize("how", ["lost with its node", "lost with its session", "good end", "cancel"])
def test_what_happens_to_one_that_is_being_stopped(tmp_path: Path, how: str) -> None:
    lab = Lab(tmp_path, stall_after_s=600, stop_stalled=True)
    lab.tick(600)
    key = lab.task.attempts[0].submission_id
    expected = TaskState.FAILED
    if how == "lost with its node":
        lab.job.status, lab.job.failure = JobStatus.FAILED, FailureKind.SUPERVISOR
    elif how == "lost with its session":
        lab.ray.lose_session()
    elif how == "good end":
        lab.ray._finish(key, JobStatus.SUCCEEDED, 0)
        expected = TaskState.SUCCEEDED
    else:
        lab.world.service.handle(lab.ada, actions.CancelTask(lab.task_id))
        expected = TaskState.CANCELED
    for _ in range(5):
        lab.tick(1)
        lab.ray.step()
    assert lab.task.state is expected
    assert len(lab.task.attempts) == 1 and not lab.world.active()
    sanity_check(lab.world.store)
    lab.world.close()
