"""Simulated weeks and months of tasks that are refused or lost again and again. Over a real service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from argus_ray.core.model import Task
from argus_ray.core.observation import JobStatus
from argus_ray.core.stall import MetricsSeen
from argus_ray.core.states import Outcome, TaskState
from tests.support.sanity import sanity_check
from tests.support.simlab import Lab

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
VERLS_SENTENCE = "ValueError: Total available GPUs 0 is less than total desired GPUs 4\n"


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
    waits = [later - sooner for sooner, later in pairwise(starts)]
    assert all(wait >= before - MINUTE for before, wait in pairwise(waits) if before < HOUR)
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


def lose_every_other_day(lab: Lab, task: Task, days: int, save_every_s: float | None) -> None:
    """The task trains, a step a minute, saves now and then, and each second day it loses its machine."""
    for day in range(0, days, 2):
        lab.tick(MINUTE)
        if lab.task(task).state.is_final:
            return
        (name,) = lab.begin()
        root = lab.ray.job_root(name)
        for part in range(8):
            lab.world.clock.advance(6 * HOUR)
            lab.ray.metrics[root] = MetricsSeen(part + 1, lab.world.clock.now)
            if save_every_s is not None and (part + 1) * 6 * HOUR >= save_every_s:
                lab.ray.saved[root] = 1000 * day + part
            lab.tick()
        lab.lose(name)
        lab.tick()


@pytest.mark.parametrize("save_every_s", [DAY, None], ids=["saves", "never saves"])
def test_a_month_that_loses_a_machine_each_second_day_goes_on(lab: Lab, save_every_s: float | None) -> None:
    task = lab.world.submit(lab.ada)
    lose_every_other_day(lab, task, 30, save_every_s)
    alive = lab.task(task)
    assert (alive.state.is_final, alive.losses, len(alive.attempts)) == (False, 1, 16)
    why = "had saved step 28007" if save_every_s else "had made steps for 48.0 hours"
    counted = f"(loss 1 of 5, counted anew since it {why}; the task is back at its place in the queue)"
    assert [line for line in lab.told(task) if line.endswith(counted)]


def test_who_saves_checkpoints_is_judged_by_them_alone(lab: Lab) -> None:
    """It comes to the next checkpoint in no attempt: it makes steps for days, and always the same ones."""
    task = lab.world.submit(lab.ada)
    lose_every_other_day(lab, task, 2, DAY)
    lose_every_other_day(lab, task, 30, None)
    failed = lab.task(task)
    assert (failed.state, failed.losses, len(failed.attempts)) == (TaskState.FAILED, 6, 6)
    assert "lost 6 attempts to infrastructure without progress, and the budget is 5" in str(failed.reason)


def test_a_task_that_kills_its_machine_each_time_fails_and_those_that_train_beside_it_do_not(lab: Lab) -> None:
    """Each time all that runs is lost with it; the innocent ones save between two such losses."""
    innocent = [lab.world.submit(lab.ada, n_gpus_per_node=1) for _ in range(2)]
    poison = lab.world.submit(lab.ada, n_gpus_per_node=1)
    step = 0
    for _ in range(12):
        lab.tick(MINUTE)
        lab.begin()
        running = [name for name, job in lab.ray.jobs.items() if job.held]
        step += 10
        for name in running:
            if not name.startswith(poison.task_id):
                lab.ray.saved[lab.ray.job_root(name)] = step
        lab.tick(5 * MINUTE)
        if lab.task(poison).live_attempt is None:
            break
        lab.lose(*running)
        lab.tick()
    assert (lab.task(poison).state, lab.task(poison).losses) == (TaskState.FAILED, 6)
    assert [(lab.task(task).state, lab.task(task).losses) for task in innocent] == [(TaskState.RUNNING, 1)] * 2


def test_a_loss_of_which_the_disk_says_nothing_fails_nobody(lab: Lab) -> None:
    task = lab.world.submit(lab.ada)
    lab.ray.is_silent = True
    for _ in range(9):
        lab.tick(MINUTE)
        lab.lose(*lab.begin())
        lab.tick()
    assert (lab.task(task).state.is_final, lab.task(task).losses) == (False, 5)
    doubtful = "(loss 5 of 5, and whether it had made progress is not known; "
    assert len([line for line in lab.told(task) if doubtful in line]) == 5
    lab.ray.is_silent = False
    lab.tick(MINUTE)
    lab.lose(*lab.begin())
    lab.tick()
    assert (lab.task(task).state, lab.task(task).losses) == (TaskState.FAILED, 6)
