"""What the scheduler writes down of the nodes that it chooses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core.observation import JobStatus
from argus_ray.core.states import TaskState
from tests.support.simlab import Lab, checked_lab


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


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_run_that_a_restored_database_does_not_know_is_where_it_has_begun(lab: Lab, has_ended: bool) -> None:
    """It is assigned anew, and Ray, which is given it again, has it already: on another node."""
    task = lab.world.submit(lab.ada)
    lab.tick()
    [attempt] = lab.task(task).attempts
    [job] = lab.ray.jobs.values()
    [there] = {"n1", "n2"} - set(attempt.nodes)
    job.task = replace(job.task, attempts=(replace(attempt, nodes=(there,)),))
    if has_ended:
        lab.ray._start(attempt.submission_id)
        lab.ray._finish(attempt.submission_id, JobStatus.SUCCEEDED, 0)
        lab.tick()
    else:
        assert lab.begin() == [attempt.submission_id]
    [found] = lab.task(task).attempts
    assert found.nodes == (there,)
    assert found.placement is not None and [each.node_id for each in found.placement] == [there]
    if has_ended:
        lab.tick()
        assert lab.task(task).state is TaskState.SUCCEEDED
        return
    # Its own room is held, and the other node's is not; that one may die.
    lab.ray.lose_node(*attempt.nodes)
    lab.tick(60)
    assert lab.task(task).state is TaskState.RUNNING and not job.stop_asked
    lab.ray._finish(attempt.submission_id, JobStatus.SUCCEEDED, 0)
    lab.tick()
    assert lab.task(task).state is TaskState.SUCCEEDED


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
