"""While the shared filesystem is low nothing starts, everybody is told why, and a disk that hangs is not a full one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Explanation
from argus_ray.core.model import Task
from argus_ray.core.reasons import Code, Reason
from argus_ray.core.reserve import LowDisk, Space
from argus_ray.core.states import TaskState
from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway.tasks.schemas import ExplanationOut
from argus_ray.scheduler.reserve import ReserveWatch
from argus_ray.scheduler.tick import MAX_HOLDS, Next
from tests.support.simlab import Lab, checked_lab

GIB = 1024**3


class Disk:
    """What it says at each look."""

    def __init__(self, lab: Lab) -> None:
        self.free: int | None = 10 * GIB
        self.error: OSError | None = None
        self.watch = ReserveWatch(self._look, 2 * GIB, lab.world.clock)
        lab.dispatcher.low_disk = lambda: self.watch.low

    async def _look(self) -> Space | None:
        if self.error is not None:
            raise self.error
        return None if self.free is None else Space(self.free, "/private")

    def has(self, free: int | None, error: OSError | None = None) -> bool:
        self.free, self.error = free, error
        return asyncio.run(self.watch.once())


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from checked_lab(tmp_path)


@pytest.fixture
def disk(lab: Lab) -> Disk:
    return Disk(lab)


def reason_of(lab: Lab, task: Task) -> Code | None:
    reason = lab.task(task).reason
    return reason.code if isinstance(reason, Reason) else None


def test_nothing_starts_while_it_is_low_and_all_goes_on_afterwards(lab: Lab, disk: Disk) -> None:
    runs = lab.world.submit(lab.ada)
    lab.tick()
    assert lab.begin()
    assert disk.has(GIB), "who waits for the next tick is to be woken"
    waits = lab.world.submit(lab.ada)  # it is accepted
    for _ in range(100):
        lab.tick(1)
    assert lab.task(runs).state is TaskState.RUNNING
    assert lab.task(waits).state is TaskState.PENDING_RESOURCES and reason_of(lab, waits) is Code.LOW_DISK
    assert len(lab.ray.jobs) == 1
    assert disk.has(3 * GIB)
    lab.tick()
    assert lab.task(waits).state in (TaskState.SUBMITTING, TaskState.SUBMITTED)
    told = lab.told(waits)
    assert ["less than 2.0 GiB free" in each for each in told[:3]] == [False, True, False]
    assert "admitted" in told[2], "the end is told by what comes next"


def test_explain_says_why(lab: Lab, disk: Disk) -> None:
    disk.has(GIB)
    task = lab.world.submit(lab.ada)
    lab.tick()
    found = lab.world.service.handle(lab.ada, actions.ExplainTask(task.task_id))
    assert isinstance(found, Explanation)
    out = ExplanationOut.of(found, None)
    assert out.reason_code is Code.LOW_DISK
    assert "less than 2.0 GiB free: nothing starts until 2.2 GiB are free" in out.summary


def test_a_task_that_waits_for_room_is_told_of_both_ends(lab: Lab, disk: Disk) -> None:
    lab.world.submit(lab.ada, n_gpus_per_node=4, nnodes=2)
    task = lab.world.submit(lab.ada)
    lab.tick()
    assert reason_of(lab, task) is Code.POOL_BUSY
    for free in (GIB, GIB // 2, 2 * GIB, GIB, 3 * GIB, int(2.1 * GIB), 3 * GIB):
        disk.has(free)
        lab.tick(5)
    assert reason_of(lab, task) is Code.POOL_BUSY
    assert [each.split(":")[0] for each in lab.told(task)[1:]] == [
        "needs 1 node with 4 GPUs and 4 CPUs free; none has now",
        "the shared filesystem has less than 2.0 GiB free",
        "needs 1 node with 4 GPUs and 4 CPUs free",
    ]


def test_an_attempt_that_is_lost_meanwhile_waits(lab: Lab, disk: Disk) -> None:
    task = lab.world.submit(lab.ada)
    lab.tick()
    [name] = lab.begin()
    disk.has(0)
    lab.lose(name)
    for _ in range(50):
        lab.tick(1)
    assert lab.task(task).state is TaskState.PENDING_RESOURCES and reason_of(lab, task) is Code.LOW_DISK
    assert len(lab.task(task).attempts) == 1
    disk.has(10 * GIB)
    lab.tick()
    assert len(lab.task(task).attempts) == 2


def test_a_cancel_works_meanwhile(lab: Lab, disk: Disk) -> None:
    task = lab.world.submit(lab.ada)
    disk.has(0)
    lab.tick()
    lab.world.service.handle(lab.ada, actions.CancelTask(task.task_id))
    lab.tick()
    assert lab.task(task).state is TaskState.CANCELED


def test_a_long_queue_is_told_in_parts_and_then_there_is_nothing_to_do(lab: Lab, disk: Disk) -> None:
    tasks = [lab.world.submit(lab.ada) for _ in range(2 * MAX_HOLDS + 10)]
    disk.has(GIB)
    ticks = [asyncio.run(lab.dispatcher.tick()) for _ in range(4)]
    assert ticks == [Next.IN_A_MOMENT, Next.IN_A_MOMENT, Next.SOON, Next.SOON]
    assert {reason_of(lab, task) for task in tasks} == {Code.LOW_DISK}
    changes = lab.world.store._db.total_changes
    lab.tick(100)
    assert lab.world.store._db.total_changes == changes, "what is told is told"


def test_the_clock_of_overtaking_stands(lab: Lab, disk: Disk) -> None:
    lab.world.submit(lab.ada)
    lab.tick()
    large = lab.world.submit(lab.ada, nnodes=2)
    lab.world.submit(lab.ada)  # overtakes it
    lab.tick()
    lab.tick(100)
    disk.has(0)
    lab.tick()
    lab.tick(5000)
    disk.has(10 * GIB)
    lab.tick()
    since = lab.task(large).overtaken_since
    assert since is not None and lab.world.clock.now - since == pytest.approx(100, abs=2)


def test_what_is_unknown_is_not_full_and_not_roomy(lab: Lab, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    hung = TimeoutError("no answer")
    assert not disk.has(None, hung) and disk.watch.low is None
    assert not disk.has(None, hung)
    assert caplog.text.count("is not known: TimeoutError: no answer") == 1
    disk.has(GIB)
    assert not disk.has(None, hung) and disk.watch.low is not None
    assert not disk.has(None) and disk.watch.low is not None
    assert disk.has(3 * GIB) and disk.watch.low is None
    assert [text for text in ("is low: 1.0 GiB free at /private", "has room again") if text not in caplog.text] == []


def test_a_look_that_hangs_ends_in_time(lab: Lab) -> None:
    release = threading.Event()

    async def scenario() -> LowDisk | None:
        threads = BoundedThreads("space-test", 1)

        def hang() -> Space | None:
            release.wait(60)
            return Space(0, "/private")

        watch = ReserveWatch(lambda: threads.run(hang, 0.05), GIB, lab.world.clock)
        for _ in range(3):
            assert not await asyncio.wait_for(watch.once(), 10)
        return watch.low

    try:
        assert asyncio.run(scenario()) is None
    finally:
        release.set()


def test_without_a_reserve_nobody_looks(lab: Lab) -> None:
    async def look() -> Space | None:
        raise AssertionError

    assert not asyncio.run(ReserveWatch(look, 0, lab.world.clock).once())
