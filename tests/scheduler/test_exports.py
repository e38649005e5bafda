"""Exports in the pool: where they go, and that the scheduler treats them as any task."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.admission import AdmissionPolicy, decide
from argus_ray.core.errors import FieldError
from argus_ray.core.exports import WORKLOAD
from argus_ray.core.model import Gang, NodeView, SlimTask, Task
from argus_ray.core.observation import JobStatus
from argus_ray.core.orders import NodeOrder
from argus_ray.core.quotas import Quotas
from argus_ray.core.reasons import Code, words
from argus_ray.core.shares import NO_SHARES
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.core.verl import merge
from argus_ray.disk.inputs import Findings
from tests.support.builders import make_service
from tests.support.simlab import Lab, checked
from tests.support.simray import SimRay, make_dispatcher


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Two nodes of four GPUs; runs without a step are stopped after ten minutes."""
    made = Lab(tmp_path, {"n1": 4, "n2": 4})
    made.world.close()
    settings = {"scheduling": {"stall_after_s": 600, "stop_stalled": True, "claim_after_s": 600}}
    made.world = make_service(tmp_path.resolve(), settings=settings)
    made.dispatcher = make_dispatcher(made.world, made.ray, random.Random(0))
    yield from checked(made)


def export(lab: Lab, of: Task) -> Task:
    root = lab.task(of).attempts[-1].job_root
    answer = lab.world.service.handle(lab.ada, actions.ExportTask(of.task_id, step=10, job_root=root))
    return lab.world.task(answer.submitted.task_id)


def stop_as_asked(lab: Lab) -> None:
    for name, job in lab.ray.jobs.items():
        if job.is_alive and job.stop_asked:
            lab.ray._finish(name, JobStatus.STOPPED, 143)


def test_it_runs_beside_full_gpus_and_its_worker_may_be_lost(lab: Lab) -> None:
    training = lab.world.submit(lab.ada, nnodes=2)
    lab.tick()
    lab.begin()
    task = export(lab, training)
    lab.tick()
    (first,) = lab.begin()
    assert first == f"{task.task_id}--a01" and task.workload == WORKLOAD
    assert lab.task(task).state is TaskState.RUNNING, "no GPU is free, and it needs none"
    lab.lose(first)
    lab.tick(5)
    lab.tick(5)
    (second,) = lab.begin()
    assert second == f"{task.task_id}--a02"
    lost, live = lab.task(task).attempts
    assert lost.outcome is Outcome.INFRASTRUCTURE and live.state is AttemptState.RUNNING
    assert live.job_root != lost.job_root
    assert live.command == ("run", second)
    assert not any("resumes" in line or "from the beginning" in line for line in lab.told(task)), "it is made anew"
    lab.ray._finish(second, JobStatus.SUCCEEDED, 0)
    lab.tick(5)
    assert lab.task(task).state is TaskState.SUCCEEDED
    assert lab.task(training).state is TaskState.RUNNING


def test_it_makes_no_steps_and_is_not_stopped_for_that(lab: Lab) -> None:
    training = lab.world.submit(lab.ada)
    lab.tick()
    (name,) = lab.begin()
    task = export(lab, training)
    lab.ray._finish(name, JobStatus.SUCCEEDED, 0)
    lab.tick(5)
    lab.begin()
    for _ in range(30):
        lab.tick(120)
    (attempt,) = lab.task(task).attempts
    assert (attempt.state, attempt.stalled_since, attempt.stop_reason) == (AttemptState.RUNNING, None, None)


def test_cancel_and_drain_are_those_of_any_task(lab: Lab) -> None:
    training = lab.world.submit(lab.ada)
    lab.tick()
    lab.begin()
    canceled, drained = export(lab, training), export(lab, training)
    lab.tick()
    first, _ = lab.begin()
    assert first.startswith(canceled.task_id)
    lab.world.service.handle(lab.ada, actions.CancelTask(canceled.task_id))
    lab.tick(5)
    assert lab.ray.jobs[first].stop_asked and lab.task(canceled).state is TaskState.CANCELED
    stop_as_asked(lab)
    (node,) = lab.task(drained).attempts[-1].nodes
    lab.order(NodeOrder.DRAIN, node, deadline_s=60)
    for _ in range(30):
        lab.tick(10)
        stop_as_asked(lab)
        lab.begin()
    last = lab.task(drained).attempts[-1]
    assert last.number == 2 and last.nodes != (node,)


def test_one_whose_checkpoint_is_gone_fails_and_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    training = lab.world.submit(lab.ada)
    lab.tick()
    lab.begin()
    task = export(lab, training)

    async def gone(self: SimRay, task: Task) -> Findings:
        return Findings(errors=(FieldError("checkpoint", "of step 10 is gone"),))

    monkeypatch.setattr(SimRay, "check_inputs", gone)
    lab.tick()
    for _ in range(10):
        lab.tick(60)
    ended = lab.task(task)
    assert ended.state is TaskState.FAILED and ended.attempts == ()
    assert ended.reason is not None and "checkpoint of step 10 is gone" in words(ended.reason)


def node(name: str, gpus_free: float, cpus_free: float, *, cordoned: bool = False) -> NodeView:
    view = NodeView(name, name, False, 8.0, 32.0, gpus_free, cpus_free, 9.0, 10.0)
    return replace(view, is_cordoned=True, barred="cordoned") if cordoned else view


def waiting(seq: int, gang: Gang = merge.GANG, **more: float) -> SlimTask:
    return SlimTask(f"t{seq}", "ada", seq, TaskState.QUEUED, gang, **more)  # type: ignore[arg-type]


POLICY = AdmissionPolicy(max_overtake_s=3600, retry_interval_s=60, quotas=Quotas(default=1))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("whole", 8, 32), node("full", 0, 8)], "full"),  # whole nodes stay whole
        ([node("whole", 8, 32), node("busy", 0, 1)], "whole"),
        ([node("cordoned", 8, 32, cordoned=True), node("open", 0, 2)], "open"),
    ],
)
def test_it_goes_where_cpus_are_free(nodes: list[NodeView], expected: str) -> None:
    found = decide([waiting(1)], nodes, 0.0, POLICY, shares=NO_SHARES)
    assert found.nodes_of == {"t1": (expected,)}, "nor does a quota of GPUs count"


def test_without_a_free_cpu_it_waits_and_says_for_what(lab: Lab) -> None:
    found = decide([waiting(1)], [node("busy", 8, 1)], 0.0, POLICY)
    assert found.admitted == ()
    (part,) = found.parts
    assert part.verdict.reason is not None
    assert words(part.verdict.reason) == "needs 1 node with 2 CPUs free"
    lab.ray.nodes = {}
    training = lab.world.submit(lab.ada)
    change = lab.world.admission(training)
    assert lab.world.service.apply([change]) == [True]
    task = export(lab, training)
    lab.tick()
    reason = lab.task(task).reason
    assert reason is not None and not isinstance(reason, str) and reason.code is Code.NO_WORKER
