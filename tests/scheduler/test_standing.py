"""Nodes that cannot start a program, on which starts hang, or which have died unseen: they get no gang, and no task
loses anything by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core.model import Task
from argus_ray.core.observation import FailureKind, JobStatus
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.scheduler import standing
from tests.support.sanity import sanity_check
from tests.support.simlab import Lab, checked_lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from checked_lab(tmp_path)


def submit(lab: Lab, count: int, gpus: int = 1, nnodes: int = 1) -> list[Task]:
    return [lab.world.submit(lab.ada, nnodes=nnodes, n_gpus_per_node=gpus) for _ in range(count)]


def starts(lab: Lab, tasks: list[Task]) -> Counter[str]:
    """By the driver's node."""
    return Counter(attempt.nodes[0] for task in tasks for attempt in lab.task(task).attempts)


def work(lab: Lab) -> None:
    """What Ray holds begins; what has begun before comes to its end."""
    running = [name for name, job in lab.ray.jobs.items() if job.held]
    for name in running:
        lab.ray._finish(name, JobStatus.SUCCEEDED, 0)
    lab.tick(2)
    lab.begin()


def work_until_all_end(lab: Lab, tasks: list[Task], limit: int = 2000) -> None:
    for _ in range(limit):
        work(lab)
        if all(lab.task(task).state.is_final for task in tasks):
            return
    raise AssertionError([(lab.task(task).state, lab.task(task).reason) for task in tasks])


def barred(lab: Lab, name: str) -> str | None:
    """As the last tick has told it."""
    assert lab.dispatcher.view is not None
    return next(node.barred for node in lab.dispatcher.view.nodes if node.node_id == name)


@pytest.mark.parametrize("workers", [2, 8])
def test_one_bad_worker_costs_no_task_anything(tmp_path: Path, workers: int) -> None:
    lab = Lab(tmp_path, {f"n{k}": 1 for k in range(workers)})
    lab.ray.bad = {"n0"}
    tasks = submit(lab, 24)
    work_until_all_end(lab, tasks)
    assert {(lab.task(task).state, lab.task(task).losses) for task in tasks} == {(TaskState.SUCCEEDED, 0)}
    assert starts(lab, tasks)["n0"] <= standing.MAX_FAILED_STARTS + 2, "and a trial now and then"
    sanity_check(lab.world.store)


def test_a_start_that_never_began_is_no_loss_and_says_so(lab: Lab) -> None:
    lab.ray.bad = {"n1", "n2"}
    (task,) = submit(lab, 1)
    lab.tick()
    lab.begin()
    seen = lab.task(task)
    assert (seen.state, seen.losses) == (TaskState.PENDING_RESOURCES, 0) or seen.state is TaskState.QUEUED
    assert seen.not_before is not None and 4 < seen.not_before - lab.world.clock() <= 6
    (attempt,) = seen.attempts
    assert (attempt.outcome, attempt.exit_code) == (Outcome.INFRASTRUCTURE, 127)
    assert attempt.failure is not None and attempt.failure.code == "not_started"
    told = " ".join(lab.told(task))
    assert "its program never began" in told and "start 1 in a row that failed, of 50 that may" in told


def test_the_second_start_of_one_goes_to_the_other_node(lab: Lab) -> None:
    lab.ray.bad = {"n1"}
    (task,) = submit(lab, 1)
    work_until_all_end(lab, [task])
    assert [attempt.nodes[0] for attempt in lab.task(task).attempts] == ["n1", "n2"]


def test_a_task_that_nobody_can_start_fails_in_the_end_and_bars_no_node(lab: Lab) -> None:
    """Its own trouble, perhaps: one task alone says nothing of nodes."""
    lab.ray.bad = {"n1", "n2"}
    (task,) = submit(lab, 1)
    began = lab.world.clock()
    for _ in range(100):
        lab.tick(max(2, (lab.task(task).not_before or 0) - lab.world.clock()))
        lab.begin()
        assert barred(lab, "n1") is None and barred(lab, "n2") is None
        if lab.task(task).state.is_final:
            break
    failed = lab.task(task)
    assert (failed.state, failed.losses, len(failed.attempts)) == (TaskState.FAILED, 0, 51)
    assert "never began 51 times in a row" in str(failed.reason)
    assert lab.world.clock() - began > 6 * 3600, "a mount may be away for a night"


def test_where_starts_fail_everywhere_half_of_the_workers_are_tried_on_and_all_heal(lab: Lab) -> None:
    lab.ray.bad = {"n1", "n2"}
    tasks = submit(lab, 12)
    for _ in range(60):
        work(lab)
    assert [barred(lab, name) is None for name in ("n1", "n2")].count(True) >= 1
    assert all(not lab.task(task).state.is_final and lab.task(task).losses == 0 for task in tasks)
    lab.ray.bad = set()
    work_until_all_end(lab, tasks)
    assert {lab.task(task).state for task in tasks} == {TaskState.SUCCEEDED}


def test_a_barred_node_is_tried_with_one_driver_at_a_time_and_proves_itself(tmp_path: Path) -> None:
    lab = Lab(tmp_path, {"n1": 4, "n2": 4})
    lab.ray.bad = {"n1"}
    submit(lab, 4)
    for _ in range(3):
        lab.tick(2)
        lab.begin()
    assert "starts in a row have failed" in str(barred(lab, "n1"))
    lab.tick(standing.FIRST_PAUSE_S + 1)
    for name in [name for name, job in lab.ray.jobs.items() if job.held]:
        lab.ray._finish(name, JobStatus.SUCCEEDED, 0)
    submit(lab, 8)
    lab.tick(2)
    on_it = [task for task in lab.world.active() if task.live_attempt and task.live_attempt.nodes == ("n1",)]
    assert len(on_it) == 1
    assert "one start is tried" in str(barred(lab, "n1"))
    lab.ray.bad = set()
    lab.begin()
    lab.tick(2)
    assert barred(lab, "n1") is None
    on_it = [task for task in lab.world.active() if task.live_attempt and task.live_attempt.nodes == ("n1",)]
    assert len(on_it) == 4
    sanity_check(lab.world.store)


def test_a_start_that_hangs_keeps_others_from_its_node(lab: Lab) -> None:
    lab.ray.clogged = {"n1"}
    (first,) = submit(lab, 1)
    lab.tick()
    assert lab.task(first).attempts[0].state is AttemptState.SUBMITTED
    lab.tick(standing.SLOW_START_S + 1)
    tasks = submit(lab, 4)
    lab.tick()
    assert starts(lab, tasks) == {"n2": 4}
    assert "on its way for more than 45 s" in str(barred(lab, "n1"))
    (name,) = [name for name, job in lab.ray.jobs.items() if job.task.task_id == first.task_id]
    lab.ray.jobs[name].status, lab.ray.jobs[name].failure = JobStatus.FAILED, FailureKind.SUPERVISOR
    lab.ray.clogged = set()
    work_until_all_end(lab, [first, *tasks])
    assert lab.task(first).losses == 0


def test_a_node_that_died_unseen_gets_nothing_before_it_answers(lab: Lab) -> None:
    """Ray notices up to a minute later. Until then it shows the node with all its GPUs free."""
    (task,) = submit(lab, 1, gpus=4, nnodes=2)
    (other,) = submit(lab, 1, gpus=4)
    lab.tick()
    lab.begin()
    (name,) = lab.ray.jobs
    lab.lose(name)
    lab.ray.dead = {"n2"}
    for _ in range(20):
        lab.tick(2)
    assert [attempt.outcome for attempt in lab.task(task).attempts] == [Outcome.INFRASTRUCTURE]
    assert lab.task(other).attempts[0].nodes == ("n1",), "the rest goes on"
    assert "does not answer" in str(barred(lab, "n2"))
    lab.ray.notice()
    lab.tick(2)
    lab.ray.nodes["n3"] = 4
    work_until_all_end(lab, [task, other])
    ended = lab.task(task)
    assert [attempt.outcome for attempt in ended.attempts] == [Outcome.INFRASTRUCTURE, Outcome.SUCCEEDED]
    assert set(ended.attempts[1].nodes) == {"n1", "n3"}


def test_of_two_nodes_that_are_as_good_the_one_without_losses_is_taken(lab: Lab) -> None:
    (task,) = submit(lab, 1, gpus=4)
    lab.tick()
    lab.begin()
    (name,) = lab.ray.jobs
    lab.lose(name)
    lab.tick(2)
    lab.tick(2)
    assert [attempt.nodes for attempt in lab.task(task).attempts] == [("n1",), ("n2",)]


def test_a_run_from_before_the_trouble_proves_nothing(lab: Lab) -> None:
    (old,) = submit(lab, 1)
    lab.tick()
    lab.begin()
    lab.ray.bad = {"n1"}
    lab.ray.nodes["n2"] = 0
    submit(lab, 3)
    lab.tick(2)
    lab.begin()
    lab.ray.nodes["n2"] = 4
    lab.tick(2)
    assert "failed" in str(barred(lab, "n1"))
    (name,) = [name for name, job in lab.ray.jobs.items() if job.task.task_id == old.task_id]
    lab.ray._finish(name, JobStatus.SUCCEEDED, 0)
    lab.tick(2)
    assert "failed" in str(barred(lab, "n1"))


def test_a_gang_that_finds_no_room_goes_back_to_its_place_and_keeps_nobody_waiting(lab: Lab) -> None:
    """Somebody uses Ray beside Argus, from just after the decision."""
    (task,) = submit(lab, 1, gpus=4, nnodes=2)
    (other,) = submit(lab, 1, gpus=4)
    lab.tick()
    lab.ray.taken["n2"] = 1
    lab.begin()
    lab.tick(601)
    lab.tick(2)
    (name,) = lab.ray.jobs
    assert lab.ray.jobs[name].stop_asked
    lab.ray._finish(name, JobStatus.STOPPED, 143)
    lab.tick(2)
    seen = lab.task(task)
    assert (seen.state, seen.losses) == (TaskState.PENDING_RESOURCES, 0)
    assert seen.attempts[0].outcome is Outcome.INSUFFICIENT_RESOURCES
    assert "the node n2 (n2) has 3 GPUs" in str(seen.attempts[0].reason)
    assert lab.task(other).state is TaskState.SUBMITTED
    lab.ray.taken.clear()
    work_until_all_end(lab, [task, other])
    assert lab.task(task).state is TaskState.SUCCEEDED
