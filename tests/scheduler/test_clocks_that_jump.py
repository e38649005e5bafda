"""The wall clock is set while tasks wait and run: forward, back, with or without a process that sees it. What is
measured goes on as if nothing had happened, and nobody waits for the hour."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.errors import FieldError
from argus_ray.core.lifecycle import Advance, FilesMeasured, Hold
from argus_ray.core.model import Task
from argus_ray.core.observation import JobStatus
from argus_ray.core.reasons import Code, Reason, because
from argus_ray.core.retention import DAY_S, Chore
from argus_ray.core.stall import MetricsSeen
from argus_ray.core.states import AttemptState, TaskState
from argus_ray.disk.inputs import Findings
from argus_ray.scheduler import standing
from argus_ray.scheduler.ports import SubmissionRefused
from tests.support.builders import ADMIN, make_service
from tests.support.simlab import Lab, checked
from tests.support.simray import make_dispatcher

HOUR = 3600
GONE = Findings(errors=(FieldError("train_file", "does not exist"),))
BOTH_WAYS = pytest.mark.parametrize("step", [HOUR, -HOUR, 86_400, -86_400, 5])


class Clocks(Lab):
    """With settings, and a new scheduler or a new state actor when the test says so."""

    def __init__(self, root: Path, nodes: dict[str, int], **settings: Any) -> None:
        super().__init__(root, nodes)
        self.world.reopen(settings=settings)
        self.restart()

    def restart(self) -> None:
        self.dispatcher = make_dispatcher(self.world, self.ray, random.Random(0))

    def grow(self, name: str) -> None:
        root = self.ray.job_root(name)
        size = self.ray.metrics.get(root, MetricsSeen()).size + 1
        self.ray.metrics[root] = MetricsSeen(size, self.world.clock.now)

    def age(self, task: Task) -> float:
        """Of its overtaking clock, by the clocks of the moment."""
        since = self.task(task).overtaken_since
        assert since is not None
        return self.world.clock.now - since


def make(root: Path, nodes: dict[str, int] | None = None, **settings: Any) -> Clocks:
    return Clocks(root, nodes or {"n1": 4}, **settings)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Clocks]:
    yield from checked(make(tmp_path, {"n1": 4, "n2": 4}))


# --- runs that make no steps


STOP = {"scheduling": {"stall_after_s": 600, "stop_stalled": True}}


@BOTH_WAYS
def test_a_healthy_run_is_neither_stalled_nor_stopped(tmp_path: Path, step: int) -> None:
    lab = make(tmp_path, **STOP)
    task = lab.world.submit(lab.ada)
    lab.tick()
    (name,) = lab.begin()
    for k in range(60):
        lab.tick(60)
        lab.grow(name)
        if k == 30:
            lab.world.clock.jump(step)
    (attempt,) = lab.task(task).attempts
    assert (attempt.stalled_since, attempt.stop_reason, attempt.state) == (None, None, AttemptState.RUNNING)
    assert not any("no new step" in message for message in lab.told(task))
    lab.world.close()


@BOTH_WAYS
def test_a_run_that_hangs_is_stopped_in_its_time(tmp_path: Path, step: int) -> None:
    lab = make(tmp_path, **STOP)
    task = lab.world.submit(lab.ada)
    lab.tick()
    (name,) = lab.begin()
    lab.tick(60)
    lab.grow(name)
    lab.tick(60)
    lab.world.clock.jump(step)
    lab.tick(540)
    assert lab.task(task).attempts[0].stop_reason is None
    lab.tick(60)
    assert (lab.task(task).attempts[0].stop_reason or "").startswith("no new step for 600 s")
    lab.world.close()


def test_a_mark_stays_what_it_was(tmp_path: Path) -> None:
    lab = make(tmp_path, scheduling={"stall_after_s": 600})
    task = lab.world.submit(lab.ada)
    lab.tick()
    lab.begin()
    for _ in range(12):
        lab.tick(60)
    for step in (-HOUR, 2 * HOUR):
        before = lab.world.clock.now - (lab.task(task).attempts[0].stalled_since or 0)
        lab.world.clock.jump(step)
        lab.tick(60)
        assert lab.world.clock.now - (lab.task(task).attempts[0].stalled_since or 0) == before + 60
    assert len([message for message in lab.told(task) if "no new step" in message]) == 1, "and is told once"
    lab.world.close()


def test_a_new_scheduler_after_a_step_marks_and_stops_only_what_it_has_watched_itself(tmp_path: Path) -> None:
    lab = make(tmp_path, **STOP)
    task = lab.world.submit(lab.ada)
    lab.tick()
    (name,) = lab.begin()
    lab.grow(name)
    lab.tick(60)
    lab.world.clock.jump(HOUR)
    lab.restart()
    lab.tick()
    attempt = lab.task(task).attempts[0]
    assert attempt.stalled_since is not None, "by all that it can know"
    assert attempt.stop_reason is None
    lab.tick(540)
    lab.grow(name)
    lab.tick(60)
    attempt = lab.task(task).attempts[0]
    assert (attempt.stalled_since, attempt.stop_reason) == (None, None)
    lab.tick(600)
    assert lab.task(task).attempts[0].stop_reason is not None, "one that hangs is stopped all the same"
    lab.world.close()


def test_the_clock_of_a_files_machine_only_makes_a_run_look_younger(tmp_path: Path) -> None:
    for number, off in enumerate((-HOUR, HOUR)):
        lab = make(tmp_path / str(number), **STOP)
        lab.world.submit(lab.ada)
        lab.tick()
        (name,) = lab.begin()
        lab.tick(300)
        lab.ray.metrics[lab.ray.job_root(name)] = MetricsSeen(1, lab.world.clock.now + off)
        lab.restart()
        lab.tick()
        lab.tick(240)
        (attempt,) = next(iter(lab.world.active())).attempts
        assert attempt.stalled_since is None
        lab.tick(840)
        (attempt,) = next(iter(lab.world.active())).attempts
        assert attempt.stop_reason is not None, "no file's time keeps it alive for ever"
        lab.world.close()


@pytest.mark.parametrize("is_new", [False, True])
@BOTH_WAYS
def test_a_gang_is_given_its_time_to_be_placed(tmp_path: Path, step: int, is_new: bool) -> None:
    lab = make(tmp_path, scheduling={"claim_after_s": 600})
    task = lab.world.submit(lab.ada)
    lab.tick()
    lab.ray.taken["n1"] = 1
    lab.begin()
    lab.tick(30)
    assert lab.task(task).state is TaskState.RUNNING
    lab.world.clock.jump(step)
    if is_new:
        lab.restart()
        lab.tick()
    lab.tick(540)
    assert lab.task(task).attempts[0].stop_reason is None
    lab.tick(60)
    assert "its gang was not placed in" in (lab.task(task).attempts[0].stop_reason or "")
    lab.world.close()


@pytest.mark.parametrize(("hours", "is_progress"), [(5, True), (3, False)])
@BOTH_WAYS
def test_what_a_lost_run_has_achieved_is_what_it_has_made(
    tmp_path: Path, step: int, hours: int, is_progress: bool
) -> None:
    lab = make(tmp_path)
    task = lab.world.submit(lab.ada)
    lab.tick()
    (name,) = lab.begin()
    for k in range(6 * hours):
        lab.tick(600)
        lab.grow(name)
        if k == hours:
            lab.world.clock.jump(step)
    lab.tick(60)
    lab.lose(name)
    lab.tick()
    (told,) = [message for message in lab.told(task) if "lost to infrastructure" in message]
    assert (f"had made steps for {hours}.0 hours" in told) == is_progress, told
    lab.world.close()


# --- tasks that wait


def after_the_step(lab: Clocks, step: int, how: str) -> None:
    lab.world.clock.jump(step)
    if how != "seen":
        lab.world.reopen()  # the state actor was down when the clock was set
    if how == "both are new":
        lab.restart()


HOW = pytest.mark.parametrize("how", ["seen", "new state actor", "both are new"])


@HOW
def test_a_task_in_backoff_does_not_wait_for_the_hour(lab: Clocks, how: str) -> None:
    lab.ray.bad = {"n1", "n2"}
    task = lab.world.submit(lab.ada)
    lab.tick()
    lab.begin()
    seen = lab.task(task)
    assert len(seen.attempts) == 1 and seen.not_before is not None
    wait = seen.not_before - lab.world.clock.now
    lab.ray.bad = set()
    after_the_step(lab, -HOUR, how)
    lab.tick(1)
    assert len(lab.task(task).attempts) == 1, "nor less than its wait"
    explained = lab.world.service.handle(lab.ada, actions.ExplainTask(task.task_id))
    assert isinstance(explained, actions.Explanation) and explained.task.next_retry_at is not None
    assert explained.task.next_retry_at <= lab.world.clock.now + wait
    lab.tick(wait)
    assert len(lab.task(task).attempts) == 2


@HOW
def test_a_task_with_bad_inputs_is_looked_at_again_in_its_time(lab: Clocks, how: str) -> None:
    task = lab.world.submit(lab.ada)
    lab.ray.findings[task.task_id] = GONE
    lab.tick()
    lab.tick(10)
    after_the_step(lab, -HOUR, how)
    lab.ray.findings.clear()
    lab.tick(49 if how == "seen" else 59)
    assert lab.task(task).state is TaskState.PENDING_RESOURCES
    lab.tick(1)
    assert len(lab.task(task).attempts) == 1


def test_a_task_with_bad_inputs_is_given_its_time(lab: Clocks) -> None:
    """It may just be put back: an hour that was not must not fail it."""
    task = lab.world.submit(lab.ada)
    lab.ray.findings[task.task_id] = GONE
    lab.tick()
    lab.world.clock.jump(HOUR)
    lab.tick(59)
    assert lab.task(task).state is TaskState.PENDING_RESOURCES
    lab.tick(1)
    assert lab.task(task).state is TaskState.FAILED


@BOTH_WAYS
def test_a_submission_that_failed_is_tried_again_in_its_time(lab: Clocks, step: int) -> None:
    tries: list[float] = []
    submit = lab.ray.submit

    async def fails_at_first(*args: Any) -> None:
        tries.append(lab.world.clock.since_boot)
        if len(tries) < 3:
            raise SubmissionRefused("no")
        await submit(*args)

    lab.ray.submit = fails_at_first  # type: ignore[method-assign, assignment]
    task = lab.world.submit(lab.ada)
    lab.tick()
    lab.world.clock.jump(step)
    for _ in range(8):
        lab.tick(0.5)
    assert [later - tries[0] for later in tries] == [0, 1, 3]
    assert lab.task(task).state is TaskState.SUBMITTED


@BOTH_WAYS
def test_after_a_hang_a_checkpoint_is_searched_in_its_time(lab: Clocks, step: int) -> None:
    find, asked = lab.ray.find_checkpoint, []

    async def hangs(task: Task) -> Any:
        asked.append(lab.world.clock.since_boot)
        if len(asked) == 1:
            raise TimeoutError
        return await find(task)

    lab.ray.find_checkpoint = hangs  # type: ignore[method-assign]
    task = lab.world.submit(lab.ada)
    lab.tick()
    lab.lose(*lab.begin())
    lab.tick()
    assert len(asked) == 1 and len(lab.task(task).attempts) == 1
    lab.world.clock.jump(step)
    for _ in range(62):
        lab.tick(1)
    assert len(lab.task(task).attempts) == 2
    assert 60 <= asked[1] - asked[0] <= 61


def an_old_gang(lab: Clocks) -> Task:
    """It needs both nodes; somebody runs on one of them, and a younger task has overtaken it."""
    lab.world.submit(lab.ada, n_gpus_per_node=1)
    lab.tick()
    lab.begin()
    gang = lab.world.submit(lab.ada, nnodes=2)
    lab.tick()
    lab.world.submit(lab.ada, n_gpus_per_node=1)
    lab.tick()
    lab.begin()
    return gang


@BOTH_WAYS
def test_the_overtaking_clock_goes_on_as_if_nothing_had_happened(lab: Clocks, step: int) -> None:
    gang = an_old_gang(lab)
    lab.tick(300)
    assert lab.age(gang) == 300
    lab.world.clock.jump(step)
    lab.tick()
    assert lab.age(gang) == 300
    lab.tick(299)
    younger = lab.world.submit(lab.ada, n_gpus_per_node=1)
    lab.tick()
    assert len(lab.task(younger).attempts) == 1
    lab.begin()
    lab.tick(1)
    younger = lab.world.submit(lab.ada, n_gpus_per_node=4)
    lab.tick()
    reason = lab.task(younger).reason
    assert isinstance(reason, Reason) and reason.code is Code.BEHIND_OLDER, "reserved after 600 s"


def test_what_was_decided_stands_until_its_time_comes_which_is_another_one_now(lab: Clocks) -> None:
    """The clock is not set back to before the decision."""
    task = lab.world.submit(lab.ada)
    lab.ray.findings[task.task_id] = GONE
    lab.tick()
    lab.tick(50)
    lab.world.clock.jump(-45)
    lab.ray.findings.clear()
    lab.tick(10)
    assert len(lab.task(task).attempts) == 1


@BOTH_WAYS
def test_an_overtaking_clock_stands_in_maintenance_and_for_no_longer(lab: Clocks, step: int) -> None:
    gang = an_old_gang(lab)
    lab.tick(300)
    lab.world.service.handle(ADMIN, actions.SetMaintenance(True))
    lab.tick(100)
    lab.world.clock.jump(step)
    lab.tick(100)
    lab.world.service.handle(ADMIN, actions.SetMaintenance(False))
    lab.tick(10)
    assert lab.age(gang) == 310


def test_an_overtaking_clock_that_began_in_the_future_runs_from_the_start_of_the_state_actor(lab: Clocks) -> None:
    gang = an_old_gang(lab)
    lab.tick(300)
    after_the_step(lab, -HOUR, "both are new")
    lab.tick()
    assert lab.age(gang) == 0
    after_the_step(lab, 0, "both are new")
    lab.tick(100)
    after_the_step(lab, 0, "both are new")
    assert lab.age(gang) == 100, "a further start does not begin it anew"


def test_a_hold_that_was_made_just_before_the_step_waits_no_longer_than_it_may(lab: Clocks) -> None:
    task = lab.world.submit(lab.ada)
    now = lab.world.clock.now
    lab.world.clock.jump(-HOUR)
    reason = because(Code.BAD_INPUTS, what="x")
    assert lab.world.service.apply([Hold(task.task_id, reason, now + 60, now)]) == [True]
    held = lab.task(task)
    assert (held.not_before, held.overtaken_since) == (lab.world.clock.now + 60, lab.world.clock.now)
    lab.world.clock.jump(-HOUR)
    age = 0.0
    assert lab.world.service.apply([Hold(task.task_id, reason, None, now)]) == [True]
    assert lab.age(task) == age, "a clock that runs is not set by who has read it before the step"


# --- nodes


@BOTH_WAYS
def test_a_barred_node_is_barred_for_its_time(tmp_path: Path, step: int) -> None:
    lab = make(tmp_path, {"n1": 1, "n2": 1})
    lab.ray.bad = {"n1"}
    for _ in range(8):
        lab.world.submit(lab.ada, n_gpus_per_node=1)
    for _ in range(20):
        lab.tick(2)
        lab.begin()
        if barred(lab, "n1"):
            break
    assert "failed" in str(barred(lab, "n1"))
    lab.world.clock.jump(step)
    lab.tick(standing.FIRST_PAUSE_S - 5)
    assert "starts in a row have failed" in str(barred(lab, "n1"))
    lab.tick(6)
    assert "starts in a row have failed" not in str(barred(lab, "n1")), "one start is tried"
    lab.world.close()


@pytest.mark.parametrize("is_new", [False, True])
@BOTH_WAYS
def test_a_start_is_slow_after_its_time(lab: Clocks, step: int, is_new: bool) -> None:
    lab.world.submit(lab.ada)
    lab.tick()
    (name,) = lab.ray.jobs
    (node,) = lab.ray.jobs[name].task.attempts[-1].nodes
    lab.world.clock.jump(step)
    if is_new:
        lab.restart()
    lab.tick()
    lab.tick(standing.SLOW_START_S - 1)
    assert barred(lab, node) is None
    lab.tick(2)
    assert "has been on its way" in str(barred(lab, node))


def barred(lab: Clocks, name: str) -> str | None:
    assert lab.dispatcher.view is not None
    return next(node.barred for node in lab.dispatcher.view.nodes if node.node_id == name)


# --- files


def ended(lab: Clocks) -> Task:
    task = lab.world.submit(lab.ada)
    lab.tick()
    (name,) = lab.begin()
    lab.ray._finish(name, JobStatus.SUCCEEDED, 0)
    lab.tick()
    assert lab.task(task).state is TaskState.SUCCEEDED
    return task


@HOW
def test_the_files_of_a_task_are_measured_in_their_time(lab: Clocks, how: str) -> None:
    task = lab.world.submit(lab.ada)
    lab.tick()
    lab.world.service.apply([Advance(next(iter(lab.ray.jobs)), running=True), FilesMeasured(task.task_id)])
    assert lab.world.service.chores(Chore.LIVE).tasks == ()
    lab.world.clock.advance(600)
    after_the_step(lab, -2 * HOUR, how)
    lab.world.clock.advance(HOUR if how != "seen" else HOUR - 600)
    assert [each.task_id for each in lab.world.service.chores(Chore.LIVE).tasks] == [task.task_id]


def test_a_task_that_never_had_files_is_not_measured_for_a_step(lab: Clocks) -> None:
    task = lab.world.submit(lab.ada)
    lab.world.service.handle(lab.ada, actions.CancelTask(task.task_id))
    lab.world.service.apply([FilesMeasured(task.task_id)])
    for step in (-DAY_S, 300 * DAY_S):
        lab.world.clock.jump(step)
        assert lab.world.service.chores(Chore.ENDED).tasks == ()
        lab.world.clock.advance(2 * DAY_S)
        assert lab.world.service.chores(Chore.ENDED).tasks == ()


def test_a_year_that_was_not_moves_nothing_to_the_trash_while_it_may_be_a_mistake(tmp_path: Path) -> None:
    world = make_service(tmp_path.resolve(), settings={"retention": {"trash_after_days": 30, "delete_after_days": 30}})
    ada = world.user("ada")
    task = world.submit(ada)
    world.service.handle(ada, actions.CancelTask(task.task_id))
    world.clock.jump(365 * DAY_S)
    assert world.service.chores(Chore.TRASH).tasks == ()
    world.clock.advance(DAY_S - 60)
    assert world.service.chores(Chore.TRASH).tasks == (), "somebody has a day to set the clock right"
    world.clock.jump(-365 * DAY_S)
    world.clock.advance(28 * DAY_S)
    assert world.service.chores(Chore.TRASH).tasks == ()
    world.clock.advance(2 * DAY_S)
    assert [each.task_id for each in world.service.chores(Chore.TRASH).tasks] == [task.task_id]
    world.close()


def test_a_clock_that_was_set_right_for_good_is_believed_after_a_day(tmp_path: Path) -> None:
    world = make_service(tmp_path.resolve(), settings={"retention": {"trash_after_days": 30}})
    ada = world.user("ada")
    task = world.submit(ada)
    world.service.handle(ada, actions.CancelTask(task.task_id))
    world.clock.jump(365 * DAY_S)
    assert world.service.chores(Chore.TRASH).tasks == ()
    world.clock.advance(DAY_S)
    assert [each.task_id for each in world.service.chores(Chore.TRASH).tasks] == [task.task_id]
    world.close()


# --- and said once


def test_a_step_is_logged_once_and_an_idle_pool_wakes_nobody(lab: Clocks, caplog: pytest.LogCaptureFixture) -> None:
    lab.tick()
    lab.world.clock.jump(HOUR)
    for _ in range(5):
        lab.tick(5)
    told = [record.getMessage() for record in caplog.records if "clock was set" in record.getMessage()]
    assert sorted(told) == ["the clock was set by +3600 s", "the clock was set by +3600 s; 0 stored times follow it"]
    assert asyncio.run(lab.dispatcher.tick()).value == "later"
