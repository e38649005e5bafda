"""What is told of a task that nobody has submitted yet: what it would be told if it had been. Bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core.estimates import MAX_TOLD, Basis, Range, Unknown
from argus_ray.core.forecast.model import Newcomer
from argus_ray.core.model import Gang
from argus_ray.core.observation import JobStatus
from argus_ray.scheduler import newcomers
from argus_ray.scheduler.newcomers import GOOD_FOR_S, Newcomers
from tests.scheduler.test_forecaster import ForecastLab
from tests.support.simlab import checked

SOON = Range(10.0, 20.0, Basis.ASSUMES_NO_OVERTAKING)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[ForecastLab]:
    yield from checked(ForecastLab(tmp_path))


def newcomer(nnodes: int = 1, gpus: int = 4) -> Newcomer:
    return Newcomer("ada", "sft", Gang(nnodes, gpus, 3.0 * gpus))


def busy(lab: ForecastLab) -> None:
    """A task of 400 s runs, and holds all of the pool; it is half through. Nothing waits, so only who asks has its
    steps looked at."""
    lab.world.submit(lab.ada, total_training_steps=100)
    lab.tick()
    [name] = lab.begin()
    for step in (25, 50):
        lab.world.clock.advance(100)
        lab.step(name, step, 0)
        lab.tick()
        foreseen(lab, newcomer())


def foreseen(lab: ForecastLab, wanted: Newcomer) -> Range | Unknown:
    return asyncio.run(lab.forecaster.foresee(wanted))


def test_it_is_told_what_the_submitted_task_is_told(lab: ForecastLab) -> None:
    busy(lab)
    before = foreseen(lab, newcomer())
    task = lab.world.submit(lab.ada)
    lab.tick()
    lab.foretell()
    assert isinstance(before, Range) and lab.start(task) == before
    now = lab.world.clock.now
    assert now + 50 < before.earliest < now + 200 < before.latest
    assert lab.questions[-2].only is not None, "the futures go no further than its start"


def test_who_waits_comes_before_it(lab: ForecastLab) -> None:
    busy(lab)
    alone = foreseen(lab, newcomer())
    lab.world.submit(lab.ada)
    lab.tick()
    assert foreseen(lab, newcomer()) is Unknown.NO_HISTORY_AHEAD and isinstance(alone, Range)
    [name] = [name for name, job in lab.ray.jobs.items() if job.is_alive]
    lab.world.clock.advance(200)
    lab.step(name, 100, 0)
    lab.ray._finish(name, JobStatus.SUCCEEDED, 0)
    lab.tick()
    lab.begin()
    lab.foretell()  # a run like it is over
    lab.world.submit(lab.ada)
    lab.tick()
    behind = foreseen(lab, newcomer())
    assert isinstance(behind, Range) and behind.latest - lab.world.clock.now > 400


def test_nothing_is_foreseen_while_nothing_starts_or_of_what_never_fits(lab: ForecastLab) -> None:
    busy(lab)
    assert foreseen(lab, newcomer(nnodes=2)) is Unknown.NEVER_FITS
    lab.maintenance(True)
    lab.tick()
    assert foreseen(lab, newcomer()) is Unknown.MAINTENANCE


def test_behind_the_first_200_it_is_too_far_back(lab: ForecastLab) -> None:
    busy(lab)
    for _ in range(MAX_TOLD):
        lab.world.submit(lab.ada)
    lab.tick()
    assert foreseen(lab, newcomer()) is Unknown.TOO_FAR_BACK


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """Counts what is worked out."""

    def __init__(self) -> None:
        self.clock, self.asked = Clock(), list[Newcomer]()
        self.newcomers = Newcomers(self._foresee, self.clock)
        self.fails = False

    async def _foresee(self, newcomer: Newcomer) -> Range | Unknown:
        self.asked.append(newcomer)
        self.clock.now += 2.0
        if self.fails:
            raise ChildProcessError("gone")
        return SOON

    def answer(self) -> float | None:
        return asyncio.run(self.newcomers.answer_one())


def test_an_answer_is_given_again_for_half_a_minute() -> None:
    desk = Desk()
    assert desk.newcomers.start_of(newcomer()) is Unknown.NOT_YET
    assert desk.newcomers.start_of(newcomer()) is Unknown.NOT_YET
    assert (desk.answer(), desk.answer()) == (2.0, None), "two who ask for the same are one"
    desk.clock.now += GOOD_FOR_S - 1
    assert desk.newcomers.start_of(newcomer()) == SOON and desk.answer() is None
    desk.clock.now += 2
    assert desk.newcomers.start_of(newcomer()) is Unknown.NOT_YET and desk.answer() == 2.0
    assert len(desk.asked) == 2


def test_the_newest_is_answered_first_and_who_has_given_up_not_at_all() -> None:
    desk = Desk()
    desk.newcomers.start_of(newcomer(gpus=1))
    desk.clock.now += newcomers._GIVEN_UP_S - 3
    desk.newcomers.start_of(newcomer(gpus=2))
    desk.newcomers.start_of(newcomer(gpus=4))
    while desk.answer() is not None:
        pass
    assert [each.gang.gpus_per_node for each in desk.asked] == [4, 2]


def test_what_waits_and_what_is_kept_is_bounded() -> None:
    desk = Desk()
    for number in range(2 * newcomers._MAX_WAITING):
        desk.newcomers.start_of(replace(newcomer(), user_id=f"u{number}"))
    assert len(desk.newcomers._asked) == newcomers._MAX_WAITING
    for number in range(newcomers._MAX_KEPT + 5):
        desk.newcomers.start_of(replace(newcomer(), user_id=f"v{number}"))
        desk.answer()
    assert len(desk.newcomers._known) == newcomers._MAX_KEPT


def test_what_failed_is_not_tried_again_at_once() -> None:
    desk = Desk()
    desk.fails = True
    desk.newcomers.start_of(newcomer())
    desk.answer()
    assert desk.newcomers.start_of(newcomer()) is Unknown.NOT_YET and desk.answer() is None


def test_it_is_asked_from_another_thread_and_answered_on_the_loop() -> None:
    told: list[Range | Unknown] = []

    async def main() -> None:
        desk = Newcomers(answer_now, lambda: 0.0)  # no question is given up
        answering = asyncio.create_task(desk.run())
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            while (start := await asyncio.to_thread(desk.start_of, newcomer())) is Unknown.NOT_YET:
                await answered.wait()
        told.append(start)
        answering.cancel()

    answered = asyncio.Event()

    async def answer_now(_: Newcomer) -> Range | Unknown:
        asyncio.get_running_loop().call_soon(answered.set)
        return SOON

    asyncio.run(main())
    assert told == [SOON]
