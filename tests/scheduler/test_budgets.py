"""Simulated weeks and months of tasks that are refused or lost again and again. Over a real service."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.model import Event, Task
from argus_ray.core.observation import FailureKind, JobStatus
from argus_ray.core.stall import MetricsSeen
from argus_ray.core.states import Outcome, TaskState
from tests.support.builders import World, make_service
from tests.support.sanity import sanity_check
from tests.support.simray import Job, SimRay, make_dispatcher, settle

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
VERLS_SENTENCE = "ValueError: Total available GPUs 0 is less than total desired GPUs 4\n"


class Lab:
    """One scheduler over a pool whose programs do as the test says, and no more."""

    def __init__(self, root: Path, nodes: dict[str, int]) -> None:
        self.world: World = make_service(root.resolve())
        self.ada = self.world.user("ada")
        self.ray = SimRay(random.Random(0), nodes)
        self.dispatcher = make_dispatcher(self.world, self.ray, random.Random(0))

    def tick(self, seconds: float = 0.0) -> None:
        self.world.clock.advance(seconds)
        asyncio.run(settle(self.dispatcher))

    def begin(self) -> list[str]:
        """Every job that Ray holds starts and claims its gang; the names of those that have just done so."""
        new = [name for name, job in self.ray.jobs.items() if job.is_alive and not job.held]
        for name in new:
            self.ray._start(name)
            self.ray._claim(self.ray.jobs[name])
        self.tick()
        return [name for name in new if self.ray.jobs[name].held]

    def fail(self, name: str, log: str) -> None:
        """The program prints this and exits with 1."""
        self.ray.logs[self.ray.job_root(name)] = log
        self.ray._finish(name, JobStatus.FAILED, 1)

    def lose(self, *names: str) -> None:
        """Their node dies, and another one takes its place."""
        for name in names:
            job: Job = self.ray.jobs[name]
            job.held, job.status, job.failure = {}, JobStatus.FAILED, FailureKind.SUPERVISOR

    def task(self, task: Task) -> Task:
        return self.world.task(task.task_id)

    def told(self, task: Task) -> list[str]:
        found = self.world.service.handle(self.ada, actions.TaskEvents(task.task_id, limit=1000))
        assert isinstance(found, tuple)
        return [event.message for event in found if isinstance(event, Event)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path, {"n1": 4, "n2": 4})
    yield made
    sanity_check(made.world.store)
    made.world.close()


def for_a_week(lab: Lab, task: Task, do: Callable[[str], None]) -> None:
    end = lab.world.clock.now + 7 * DAY
    while lab.world.clock.now < end and not lab.task(task).state.is_final:
        lab.tick(MINUTE)
        for name in lab.begin():
            do(name)
            lab.tick()


@pytest.mark.parametrize("workload", ["grpo", "ppo", "sft"])
def test_a_program_that_only_says_it_found_too_few_gpus_does_not_run_for_ever(lab: Lab, workload: str) -> None:
    common = f"{lab.world.shared_root}/common/datasets/gsm8k"
    data = {} if workload == "sft" else {"train_file": f"{common}/rl.parquet", "val_file": f"{common}/rl.parquet"}
    task, began = lab.world.submit(lab.ada, workload=workload, **data), lab.world.clock.now
    starts: list[float] = []

    def refuse(name: str) -> None:
        starts.append(lab.world.clock.now - began)
        lab.fail(name, VERLS_SENTENCE)

    for_a_week(lab, task, refuse)
    failed = lab.task(task)
    assert (failed.state, failed.losses, len(failed.attempts)) == (TaskState.FAILED, 0, 21)
    assert "too few resources 21 times in a row, and the budget is 20" in str(failed.reason)
    waits = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert all(wait >= before - MINUTE for before, wait in itertools.pairwise(waits) if before < HOUR)
    assert waits[0] < 3 * MINUTE and HOUR <= waits[-1] <= 1.2 * HOUR + 2 * MINUTE
    assert failed.ended_at is not None and failed.ended_at - began > 10 * HOUR, "a pool may be in trouble overnight"


def test_a_program_that_says_so_after_a_step_fails_at_once(lab: Lab) -> None:
    task = lab.world.submit(lab.ada)

    def step_and_refuse(name: str) -> None:
        lab.ray.metrics[lab.ray.job_root(name)] = MetricsSeen(100, lab.world.clock.now)
        lab.fail(name, VERLS_SENTENCE)

    for_a_week(lab, task, step_and_refuse)
    failed = lab.task(task)
    assert (failed.state, len(failed.attempts)) == (TaskState.FAILED, 1)
    assert failed.attempts[0].outcome is Outcome.APPLICATION


def test_a_pool_that_has_room_again_lets_a_refused_task_go_on(lab: Lab) -> None:
    task = lab.world.submit(lab.ada)
    refused = 0

    def refuse_ten_times(name: str) -> None:
        nonlocal refused
        refused += 1
        if refused <= 10:
            lab.fail(name, VERLS_SENTENCE)
        else:
            lab.ray._finish(name, JobStatus.SUCCEEDED, 0)

    for_a_week(lab, task, refuse_ten_times)
    assert lab.task(task).state is TaskState.SUCCEEDED
    assert [line for line in lab.told(task) if "refusal 10 of 20 in a row" in line]
