"""What the scheduler tells of the room that is free, to whoever explains why a task waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core.explaining import Why, largest_that_fits, why
from argus_ray.core.reserve import LowDisk, Space
from tests.support.simlab import Lab, checked_lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from checked_lab(tmp_path)


def test_the_pool_is_told_by_the_ledger(lab: Lab) -> None:
    assert lab.dispatcher.pool_now() is None, "it was not seen yet"
    lab.world.submit(lab.ada)
    waits = lab.world.submit(lab.ada, nnodes=2)
    lab.tick()
    pool = lab.dispatcher.pool_now()
    assert pool is not None
    # Ray does not show yet what the first one has been given.
    assert [node.gpus_free for node in pool.shown] == [4.0, 4.0]
    assert sorted(node.gpus_free for node in pool.free) == [0.0, 4.0]
    task = lab.task(waits)
    assert why(task, None, pool, lab.world.clock()) is Why.JUST_STARTED_TASKS
    assert largest_that_fits(task.gang, pool.left) == 1
    lab.begin()
    pool = lab.dispatcher.pool_now()
    assert why(task, None, pool, lab.world.clock()) is Why.GPUS_SHORT


def test_what_is_reserved_is_not_left(lab: Lab) -> None:
    lab.world.submit(lab.ada)
    waits = lab.world.submit(lab.ada, nnodes=2)
    lab.tick()
    lab.begin()
    young = lab.world.submit(lab.ada)
    lab.tick()  # the young one starts before the older one
    [name] = lab.begin()
    lab.tick(lab.world.settings.scheduling.max_overtake_s + 1)
    lab.ray._finish(name, lab.ray.jobs[name].status.SUCCEEDED, 0)
    lab.tick()
    pool = lab.dispatcher.pool_now()
    assert pool is not None and lab.task(young).state.is_final
    assert sorted(node.gpus_free for node in pool.free) == [0.0, 4.0]
    assert largest_that_fits(lab.task(waits).gang, pool.left) == 0, "the free one is reserved"


def test_a_disk_that_is_nearly_full_is_told(lab: Lab) -> None:
    lab.dispatcher.low_disk = lambda: LowDisk(0.0, 1, Space(0, "shared"))
    lab.tick()
    pool = lab.dispatcher.pool_now()
    assert pool is not None and pool.is_low_disk
