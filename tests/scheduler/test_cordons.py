"""What operators order about the pool, and what the scheduler makes of it: cordons, drains, maintenance."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.lifecycle import Admit, Change, Halt
from argus_ray.core.model import NodeView, Task
from argus_ray.core.observation import JobStatus
from argus_ray.core.orders import NodeOrder
from argus_ray.core.reasons import Code, Reason
from argus_ray.core.states import Outcome, TaskState
from argus_ray.scheduler import standing
from tests.support.simlab import Lab, checked_lab
from tests.support.simray import SimState, make_dispatcher

CORDON, UNCORDON, DRAIN = NodeOrder.CORDON, NodeOrder.UNCORDON, NodeOrder.DRAIN


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from checked_lab(tmp_path)


def submit(lab: Lab, count: int = 1, gpus: int = 4, nnodes: int = 1) -> list[Task]:
    return [lab.world.submit(lab.ada, nnodes=nnodes, n_gpus_per_node=gpus) for _ in range(count)]


def nodes_of(lab: Lab, task: Task) -> tuple[str, ...]:
    live = lab.task(task).live_attempt
    assert live is not None, lab.task(task).reason
    return live.nodes


def seen(lab: Lab, name: str) -> NodeView:
    """As the last tick has told it."""
    assert lab.dispatcher.view is not None
    return next(node for node in lab.dispatcher.view.nodes if node.node_id == name)


def reason(lab: Lab, task: Task) -> Reason:
    found = lab.task(task).reason
    assert isinstance(found, Reason), found
    return found


def end(lab: Lab, task: Task, status: JobStatus = JobStatus.SUCCEEDED, code: int = 0) -> None:
    live = lab.task(task).live_attempt
    assert live is not None
    lab.ray._finish(live.submission_id, status, code)
    lab.tick(2)


def new_scheduler(lab: Lab) -> None:
    lab.dispatcher = make_dispatcher(lab.world, lab.ray, lab.ray.rng)


# --- cordons ------------------------------------------------------------------------------------------------------


def test_a_cordoned_node_gets_no_gang_and_what_runs_there_goes_on(lab: Lab) -> None:
    (before,) = submit(lab)
    lab.tick()
    lab.begin()
    assert nodes_of(lab, before) == ("n1",)
    lab.order(CORDON, "n1", reason="a fan")
    end_of_it, other, third = submit(lab, 3)
    lab.tick()
    assert nodes_of(lab, end_of_it) == ("n2",)
    lab.begin()
    end(lab, before)
    assert lab.task(before).state is TaskState.SUCCEEDED
    for _ in range(5):
        lab.tick(60)
    assert [lab.task(task).state for task in (other, third)] == [TaskState.PENDING_RESOURCES] * 2
    assert reason(lab, other).code is Code.POOL_BUSY, "the other node will be free again"
    assert seen(lab, "n1").barred == "cordoned by admin since 2027-01-15T08:00:00Z: a fan"
    assert seen(lab, "n2").barred is None
    lab.order(UNCORDON, "n1")
    lab.tick()
    assert nodes_of(lab, other) == ("n1",)
    assert seen(lab, "n1").barred is None


def test_a_cordon_outlives_scheduler_state_actor_and_a_rejoin_of_its_machine(lab: Lab) -> None:
    lab.order(CORDON, "n1", "n2")
    (task,) = submit(lab)
    lab.tick()
    lab.world.reopen()
    new_scheduler(lab)
    lab.tick()
    assert lab.task(task).attempts == ()
    lab.ray.lose_session()
    lab.ray.nodes = {"n1": 4, "n3": 4}
    lab.tick()
    assert nodes_of(lab, task) == ("n3",), "the one that nobody spoke of"


@pytest.mark.parametrize("is_past_its_bound", [False, True])
def test_nothing_is_reserved_on_a_cordoned_node(tmp_path: Path, is_past_its_bound: bool) -> None:
    """An old gang of two nodes beside three, one of which is cordoned: it is the two others that are kept for it."""
    lab = Lab(tmp_path, {"n1": 4, "n2": 4, "n3": 4})
    lab.order(CORDON, "n1")
    busy = submit(lab, 2, gpus=3)
    lab.tick()
    lab.begin()
    (gang,) = submit(lab, nnodes=2)
    (small,) = submit(lab, gpus=1)
    lab.tick()
    assert lab.task(small).state is TaskState.SUBMITTED
    lab.begin()
    lab.tick(700 if is_past_its_bound else 0)
    (late,) = submit(lab, gpus=1)
    lab.tick()
    assert bool(lab.task(late).attempts) is not is_past_its_bound
    lab.begin()
    if not is_past_its_bound:
        end(lab, late)
    end(lab, busy[0])
    end(lab, busy[1])
    end(lab, small)
    assert set(nodes_of(lab, gang)) == {"n2", "n3"}
    lab.world.close()


@pytest.mark.parametrize(("nnodes", "able"), [(1, 0), (2, 1)])
def test_what_only_cordoned_nodes_could_take_says_so(tmp_path: Path, nnodes: int, able: int) -> None:
    lab = Lab(tmp_path, {"n1": 4, **{f"m{k}": 4 if k < able else 1 for k in range(2)}})
    lab.order(CORDON, "n1")
    (task,) = submit(lab, nnodes=nnodes)
    lab.tick()
    assert reason(lab, task).code is Code.NODES_CORDONED
    assert (reason(lab, task)["able"], reason(lab, task)["cordoned"]) == (able, 1)
    assert any("cordoned by an operator" in line for line in lab.told(task))
    small = submit(lab, 2, gpus=1)
    lab.tick(7 * 86_400)
    assert all(lab.task(each).attempts for each in small), "the rest goes on"
    assert lab.task(task).overtaken_since is None, "nobody overtakes what could not run"
    lab.begin()
    for each in small:
        end(lab, each)
    lab.order(UNCORDON, "n1")
    lab.tick()
    assert "n1" in nodes_of(lab, task)
    lab.world.close()


def test_what_fits_nowhere_says_that_and_not_that_nodes_are_cordoned(lab: Lab) -> None:
    lab.order(CORDON, "n1", "n2")
    (large,) = submit(lab, gpus=8)
    (wide,) = submit(lab, nnodes=3)
    lab.tick()
    assert reason(lab, large).code is Code.NODE_TOO_SMALL and reason(lab, large)["largest"] == 4
    assert reason(lab, wide).code is Code.POOL_TOO_SMALL and reason(lab, wide)["able"] == 2


def test_a_task_that_comes_when_all_is_cordoned_is_told_so_without_a_pass_over_the_others(lab: Lab) -> None:
    lab.order(CORDON, "n1", "n2")
    submit(lab)
    lab.tick()
    (late,) = submit(lab)
    lab.tick()
    assert reason(lab, late).code is Code.NODES_CORDONED


def test_cordons_are_not_counted_in_the_half_that_failed_starts_may_bar(tmp_path: Path) -> None:
    lab = Lab(tmp_path, {f"n{k}": 4 for k in range(4)})
    lab.order(CORDON, "n0", "n1", "n2")
    lab.ray.bad = {"n3"}
    submit(lab, 6, gpus=1)
    for _ in range(20):
        lab.tick(2)
        lab.begin()
    assert [seen(lab, f"n{k}").is_cordoned for k in range(4)] == [True, True, True, False]
    assert seen(lab, "n3").barred is None, "the only one left is tried on"
    lab.world.close()


def test_uncordon_clears_what_the_scheduler_held_against_the_node(lab: Lab) -> None:
    lab.ray.bad = {"n1"}
    submit(lab, 4, gpus=1)
    for _ in range(3):
        lab.tick(2)
        lab.begin()
    assert "starts in a row have failed" in str(seen(lab, "n1").barred)
    lab.ray.bad = set()
    lab.order(UNCORDON, "n1", reason="mounted again")
    lab.tick()
    assert seen(lab, "n1").barred is None
    lab.order(CORDON, "n2")
    tasks = submit(lab, 3, gpus=1)
    lab.tick()
    assert [nodes_of(lab, task) for task in tasks] == [("n1",)] * 3, "no trial of one at a time"
    lab.tick(standing.SLOW_START_S / 2)
    assert seen(lab, "n1").barred is None


def test_a_start_that_hangs_is_forgiven_from_the_moment_of_the_word_on(lab: Lab) -> None:
    lab.ray.clogged = {"n1"}
    submit(lab, gpus=1)
    lab.tick()
    lab.tick(standing.SLOW_START_S + 1)
    assert "on its way" in str(seen(lab, "n1").barred)
    lab.order(UNCORDON, "n1")
    lab.tick()
    assert seen(lab, "n1").barred is None
    lab.tick(standing.SLOW_START_S + 1)
    assert "on its way" in str(seen(lab, "n1").barred)


def test_an_admission_that_was_decided_before_the_order_is_not_made(lab: Lab) -> None:
    """The order comes between the scheduler's look and its word."""
    (task,) = submit(lab)
    state = lab.dispatcher.state
    assert isinstance(state, SimState)
    apply = state.apply
    dropped: list[Admit] = []

    async def late(changes: Sequence[Change]) -> list[bool]:
        if not dropped:
            lab.order(CORDON, "n1")
        done = await apply(changes)
        dropped.extend(change for change, ok in zip(changes, done, strict=True) if isinstance(change, Admit) and not ok)
        return done

    state.apply = late  # type: ignore[method-assign]
    asyncio.run(lab.dispatcher.tick())
    assert [change.nodes for change in dropped] == [("n1",)]
    assert lab.task(task).attempts == () and lab.ray.jobs == {}
    lab.tick()
    assert nodes_of(lab, task) == ("n2",)


def test_orders_cost_no_bytes_when_they_are_old(lab: Lab) -> None:
    lab.order(CORDON, *(f"m{k}" for k in range(500)))
    lab.tick()
    state = lab.dispatcher.state
    assert isinstance(state, SimState)
    state.crossed = 0
    lab.tick(2)
    assert state.crossed < 1000


# --- drains -------------------------------------------------------------------------------------------------------


def test_a_drain_without_a_deadline_waits_for_what_runs(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    (task,) = submit(lab)
    lab.tick()
    lab.begin()
    lab.order(DRAIN, "n1", reason="a fan")
    caplog.set_level(logging.INFO)
    lab.tick(7 * 86_400)
    assert lab.task(task).state is TaskState.RUNNING and not lab.ray.jobs[next(iter(lab.ray.jobs))].stop_asked
    assert str(seen(lab, "n1").barred).startswith("draining by admin since")
    assert "drained" not in caplog.text
    end(lab, task)
    lab.tick(2)
    assert str(seen(lab, "n1").barred).startswith("drained by admin since")
    lab.tick(2)
    assert caplog.text.count("n1 is drained by admin") == 1


def test_at_the_deadline_tasks_are_stopped_and_go_back_to_their_place_without_a_loss(lab: Lab) -> None:
    gang, alone = *submit(lab, nnodes=2, gpus=3), *submit(lab, gpus=1)
    lab.tick()
    lab.begin()
    waiting = submit(lab, 2, nnodes=2)
    assert set(nodes_of(lab, gang)) == {"n1", "n2"}
    where = nodes_of(lab, alone)[0]
    drained = {"n1": "n2", "n2": "n1"}[where]
    lab.order(DRAIN, drained, reason="a fan", deadline_s=600)
    lab.tick(599)
    assert not any(job.stop_asked for job in lab.ray.jobs.values())
    root = lab.task(gang).attempts[0].job_root
    lab.ray.saved[root] = 70
    lab.tick(1)
    lab.tick(1)
    assert [job.task.task_id for job in lab.ray.jobs.values() if job.stop_asked] == [gang.task_id]
    name = lab.task(gang).attempts[0].submission_id
    lab.ray._finish(name, JobStatus.STOPPED, 143)
    lab.ray.nodes["n3"] = 4
    lab.tick(1)
    back = lab.task(gang)
    assert (back.losses, back.seq) == (0, gang.seq)
    first, second = back.attempts
    assert (first.outcome, first.failure and first.failure.code) == (Outcome.INFRASTRUCTURE, "drained")
    assert set(second.nodes) == {where, "n3"}, "before the younger ones, with no wait"
    assert any(argument.endswith("global_step_70") for argument in second.command)
    assert all(lab.task(task).attempts == () for task in waiting)
    assert lab.task(alone).state is TaskState.RUNNING, "it has no part there"
    told = " ".join(lab.told(gang))
    assert f"its node {drained} is drained by admin, and the time that was given is over: a fan" in told
    assert "no loss of the task's budget" in told and "resumes from step 70 of a01" in told
    assert str(seen(lab, drained).barred).startswith("drained by admin")
    judged = lab.dispatcher.standing.judge([seen(lab, name) for name in ("n1", "n2")], [])
    assert [node.troubles for node in judged] == [0, 0], "no node has done anything wrong"


def test_what_comes_to_its_good_end_before_it_is_stopped_has_succeeded(lab: Lab) -> None:
    (task,) = submit(lab)
    lab.tick()
    lab.begin()
    lab.order(DRAIN, "n1", deadline_s=0)
    lab.tick(1)
    end(lab, task)
    assert lab.task(task).state is TaskState.SUCCEEDED


@pytest.mark.parametrize("ray_has_it", [True, False])
def test_a_start_that_is_on_its_way_is_stopped_at_the_deadline_too(lab: Lab, ray_has_it: bool) -> None:
    (task,) = submit(lab)
    if ray_has_it:
        lab.tick()
        lab.order(DRAIN, "n1", deadline_s=0)
        lab.tick(1)
        lab.tick(1)
        (name,) = [name for name, job in lab.ray.jobs.items() if job.stop_asked]
        lab.ray._finish(name, JobStatus.STOPPED, 143)
    else:
        lab.order(DRAIN, "n1", deadline_s=0)
        admit = replace(lab.world.admission(task), nodes=("n1",))
        lab.world.service.apply([admit, Halt(admit.submission_id, "n1 is drained", Outcome.INFRASTRUCTURE)])
    lab.tick(1)
    assert [attempt.failure and attempt.failure.code for attempt in lab.task(task).attempts] == ["drained", None]
    assert nodes_of(lab, task) == ("n2",) and lab.task(task).losses == 0


def test_a_canceled_task_of_a_drained_node_stays_canceled(lab: Lab) -> None:
    (task,) = submit(lab)
    lab.tick()
    lab.begin()
    lab.order(DRAIN, "n1", deadline_s=0)
    lab.tick(1)
    lab.world.service.handle(lab.ada, actions.CancelTask(task.task_id))
    end(lab, task, JobStatus.STOPPED, 143)
    assert lab.task(task).state is TaskState.CANCELED


def test_an_uncordon_calls_the_deadline_off(lab: Lab) -> None:
    (task,) = submit(lab)
    lab.tick()
    lab.begin()
    lab.order(DRAIN, "n1", deadline_s=600)
    lab.tick()
    lab.order(UNCORDON, "n1")
    lab.tick(700)
    lab.tick(2)
    assert lab.task(task).state is TaskState.RUNNING
    assert not any(job.stop_asked for job in lab.ray.jobs.values())


# --- maintenance --------------------------------------------------------------------------------------------------


def test_in_maintenance_nothing_starts_what_runs_goes_on_and_then_all_goes_on_in_order(lab: Lab) -> None:
    running = submit(lab, 2)
    lab.tick()
    lab.begin()
    lab.maintenance(True)
    tasks = submit(lab, 3)
    end(lab, running[0])
    end(lab, running[1], JobStatus.FAILED, 1)
    assert [lab.task(task).state for task in running] == [TaskState.SUCCEEDED, TaskState.FAILED]
    lab.world.reopen()
    new_scheduler(lab)
    lab.tick(3 * 86_400)
    assert [lab.task(task).state for task in tasks] == [TaskState.QUEUED] * 3, "and nothing is written down"
    lab.maintenance(False)
    lab.tick()
    assert [lab.task(task).state for task in tasks] == [
        TaskState.SUBMITTED,
        TaskState.SUBMITTED,
        TaskState.PENDING_RESOURCES,
    ]


def test_what_is_lost_in_maintenance_waits_at_its_place(lab: Lab) -> None:
    (task,) = submit(lab)
    lab.tick()
    (name,) = lab.begin()
    lab.maintenance(True)
    lab.lose(name)
    lab.tick(2)
    assert (lab.task(task).state, lab.task(task).losses) == (TaskState.QUEUED, 1)
    lab.maintenance(False)
    lab.tick(2)
    assert len(lab.task(task).attempts) == 2


def test_overtaking_clocks_stand_still_in_maintenance(lab: Lab) -> None:
    submit(lab, gpus=1)
    (gang,) = submit(lab, nnodes=2)
    (small,) = submit(lab, gpus=1)
    lab.tick()
    since = lab.task(gang).overtaken_since
    assert since == lab.world.clock() and lab.task(small).attempts
    lab.tick(100)
    lab.maintenance(True)
    lab.tick(86_400)
    lab.maintenance(False)
    lab.tick(10)
    now = lab.world.clock()
    assert now - (lab.task(gang).overtaken_since or 0) == pytest.approx(110)


def test_maintenance_does_not_keep_the_scheduler_busy(lab: Lab) -> None:
    lab.maintenance(True)
    submit(lab, 3)
    lab.tick()  # else `settle` finds that it never rests
    state = lab.dispatcher.state
    assert isinstance(state, SimState) and state.calls["queue_changes"] <= 2
