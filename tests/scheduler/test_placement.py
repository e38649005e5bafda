"""What the scheduler writes down of the nodes that it chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.model import Attempt, Task
from argus_ray.core.observation import JobStatus
from argus_ray.core.states import TaskState
from tests.support.simlab import Lab, checked, checked_lab
from tests.support.simray import Job


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from checked_lab(tmp_path)


def test_an_admission_tells_the_nodes_as_they_are(lab: Lab) -> None:
    names = [lab.world.submit(lab.ada), lab.world.submit(lab.ada)]
    lab.tick()
    view = lab.dispatcher.view
    assert view is not None
    known = {node.node_id: node for node in view.nodes}
    placed = []
    for name in names:
        [attempt] = lab.task(name).attempts
        assert attempt.placement is not None and len(attempt.placement) == 1
        assert tuple(node.node_id for node in attempt.placement) == attempt.nodes
        for node in attempt.placement:
            seen = known[node.node_id]
            assert (node.hostname, node.ip, node.gpus) == (seen.hostname, seen.ip, 4)
            placed.append(node.node_id)
    assert len(set(placed)) == 2


@dataclass
class Restored:
    """A gang of two nodes that a restored database does not know: it is assigned anew, and Ray, which is given it
    again, has it already."""

    lab: Lab
    task: Task
    #: As the database says, and as Ray was given it: (driver's, other). They share one.
    assigned: tuple[str, ...]
    real: tuple[str, ...]

    @property
    def attempt(self) -> Attempt:
        [found] = self.lab.task(self.task).attempts
        return found

    @property
    def job(self) -> Job:
        return self.lab.ray.jobs[self.attempt.submission_id]

    def runs(self) -> None:
        self.lab.ray._start(self.attempt.submission_id)
        self.lab.ray._claim(self.job)
        assert set(self.job.held) == set(self.real)
        self.lab.tick()

    def ends(self) -> None:
        self.lab.ray._finish(self.attempt.submission_id, JobStatus.SUCCEEDED, 0)
        self.lab.tick()
        self.lab.tick()
        assert self.lab.task(self.task).state is TaskState.SUCCEEDED


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Restored]:
    for lab in checked(Lab(tmp_path, {"n1": 4, "n2": 4, "n3": 4})):
        task = lab.world.submit(lab.ada, nnodes=2)
        lab.tick()
        [attempt], [job] = lab.task(task).attempts, lab.ray.jobs.values()
        [third] = {"n1", "n2", "n3"} - set(attempt.nodes)
        real = (third, attempt.nodes[0])
        job.task = replace(job.task, attempts=(replace(attempt, nodes=real),))
        yield Restored(lab, task, attempt.nodes, real)


def test_a_run_that_a_restored_database_does_not_know_is_where_it_has_begun(restored: Restored) -> None:
    restored.runs()
    assert restored.attempt.nodes == restored.real
    assert restored.attempt.placement is not None
    assert tuple(node.node_id for node in restored.attempt.placement) == restored.real
    assert sum("Ray had attempt a01 already: it is on " in each for each in restored.lab.told(restored.task)) == 1
    restored.ends()


def test_its_room_is_held_from_the_moment_on_that_it_is_found(restored: Restored) -> None:
    """It has not claimed it in Ray yet."""
    restored.lab.ray._start(restored.attempt.submission_id)
    asyncio.run(restored.lab.dispatcher.tick())
    free = {node.node_id: node.gpus_free for node in restored.lab.dispatcher.free}
    assert free == {restored.assigned[1]: 4, **dict.fromkeys(restored.real, 0)}
    restored.ends()


def test_it_goes_on_when_a_node_leaves_that_it_is_not_on(restored: Restored) -> None:
    restored.runs()
    restored.lab.ray.lose_node(restored.assigned[1])
    restored.lab.tick(60)
    assert restored.lab.task(restored.task).state is TaskState.RUNNING and not restored.job.stop_asked
    restored.ends()


def test_it_is_stopped_when_a_node_of_its_own_leaves(restored: Restored) -> None:
    restored.runs()
    del restored.lab.ray.nodes[restored.real[1]]
    restored.lab.tick(60)
    assert restored.job.stop_asked


def test_one_that_has_ended_before_it_was_found_never_runs_in_its_history(restored: Restored) -> None:
    restored.lab.ray._start(restored.attempt.submission_id)
    restored.ends()
    assert (restored.attempt.nodes, restored.attempt.started_at) == (restored.real, None)


def test_one_that_was_canceled_before_it_was_found_is_stopped_where_it_is(restored: Restored) -> None:
    restored.lab.ray._start(restored.attempt.submission_id)
    restored.lab.world.service.handle(restored.lab.ada, actions.CancelTask(restored.task.task_id))
    restored.lab.tick()
    restored.lab.tick()
    assert (restored.attempt.nodes, restored.job.stop_asked) == (restored.real, True)


def test_where_a_run_is_on_nodes_that_have_left_it_is_not_told_what_they_were(lab: Lab) -> None:
    task = lab.world.submit(lab.ada)
    lab.tick()
    [attempt] = lab.task(task).attempts
    [job] = lab.ray.jobs.values()
    job.task = replace(job.task, attempts=(replace(attempt, nodes=("n0",)),))
    job.status = JobStatus.RUNNING
    lab.tick()
    [found, *_] = lab.task(task).attempts
    assert (found.nodes, found.placement) == (("n0",), None)
    lab.ray.jobs.clear()
