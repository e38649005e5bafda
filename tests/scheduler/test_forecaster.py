"""Who foretells: what it asks, what it learns from runs that end, and what it costs while nobody waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from argus_ray.core.estimates import Range, Unknown
from argus_ray.core.forecast.calibration import MIN_HITS, UNSEEN
from argus_ray.core.forecast.model import Question, Told
from argus_ray.core.forecast.pace import StepsSeen
from argus_ray.core.forecast.ranges import foretell
from argus_ray.core.model import Task
from argus_ray.core.observation import JobStatus
from argus_ray.core.reserve import LowDisk, Space
from argus_ray.scheduler import futures
from argus_ray.scheduler.forecaster import Forecaster
from argus_ray.scheduler.runs import Runs
from argus_ray.store import forecasts
from tests.support.simlab import Lab, checked
from tests.support.simray import SimState


class ForecastLab(Lab):
    def __init__(self, root: Path) -> None:
        super().__init__(root, {"n1": 4})
        self.steps: dict[str, StepsSeen] = {}
        self.looks: list[str] = []
        self.questions: list[Question] = []
        self.state = SimState(self.world, random.Random(0))
        self.forecaster = Forecaster(
            self.dispatcher, self.state, Runs(self.state, self._look), self._ask, self.world.clock, draws=20
        )

    async def _look(self, job_root: str, wants_total: bool) -> StepsSeen:
        self.looks.append(job_root)
        if job_root not in self.steps:
            raise TimeoutError
        return self.steps[job_root]

    async def _ask(self, question: Question) -> Sequence[Told]:
        self.questions.append(question)
        return foretell(question, random.Random(0).random)

    def begin(self) -> list[str]:
        names = super().begin()
        self.tick()  # it sees what it has stored itself
        return names

    def foretell(self) -> None:
        asyncio.run(self.forecaster.once())

    def start(self, task: Task) -> Range | Unknown:
        with self.world.store.transaction() as db:
            return forecasts.of_tasks(db, [task.task_id])[task.task_id].start

    def step(self, name: str, step: int, at: float) -> None:
        self.steps[self.ray.job_root(name)] = StepsSeen(step, self.world.clock.now - at, total=None)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[ForecastLab]:
    yield from checked(ForecastLab(tmp_path))


def test_a_range_follows_from_the_steps_of_what_runs(lab: ForecastLab) -> None:
    lab.world.submit(lab.ada, total_training_steps=100)
    waits = lab.world.submit(lab.ada)
    lab.tick()
    [name] = lab.begin()
    lab.foretell()
    assert lab.start(waits) is Unknown.NO_PACE_YET, "the disk did not say"
    lab.world.clock.advance(100)
    lab.step(name, 20, 0)
    lab.foretell()
    lab.world.clock.advance(100)
    lab.step(name, 40, 0)
    lab.foretell()
    start, now = lab.start(waits), lab.world.clock.now
    assert isinstance(start, Range) and start.earliest < now + 300 < start.latest < now + 1000


def test_a_run_that_ends_tells_of_those_like_it(lab: ForecastLab) -> None:
    first = lab.world.submit(lab.ada, total_training_steps=100)
    second = lab.world.submit(lab.ada, total_training_steps=50)
    third = lab.world.submit(lab.ada, total_training_steps=50)
    lab.tick()
    [name] = lab.begin()
    lab.step(name, 10, 0)
    lab.foretell()
    lab.world.clock.advance(500)
    lab.step(name, 50, 0)
    lab.foretell()
    assert lab.start(third) is Unknown.NO_HISTORY_AHEAD
    lab.world.clock.advance(500)
    lab.step(name, 100, 0)
    lab.ray._finish(name, JobStatus.SUCCEEDED, 0)
    lab.tick()
    lab.begin()
    lab.foretell()
    start, now = lab.start(third), lab.world.clock.now
    assert lab.task(first).state.is_final and lab.task(second).state.is_active
    # Half as many steps as those that took 1000 s.
    assert isinstance(start, Range) and start.earliest < now + 500 < start.latest < now + 1200


def test_starts_that_miss_their_ranges_make_the_next_ones_wider(lab: ForecastLab) -> None:
    lab.world.submit(lab.ada, total_training_steps=100)
    tasks = [lab.world.submit(lab.ada, total_training_steps=100) for _ in range(MIN_HITS + 3)]
    lab.tick()
    [name] = lab.begin()
    for step in (20, 40):
        lab.world.clock.advance(200)
        lab.step(name, step, 0)
        lab.foretell()
    assert lab.questions[-1].widths == {"sft": UNSEEN}
    for _ in tasks[:-1]:
        lab.world.clock.advance(100)  # each fails sooner than any future says
        lab.ray._finish(name, JobStatus.FAILED, 1)
        lab.tick()
        [name] = lab.begin()
        lab.step(name, 20, 0)
        lab.foretell()
        lab.world.clock.advance(60)
        lab.step(name, 40, 0)
        lab.foretell()
    assert lab.questions[-1].widths["sft"].low < UNSEEN.low
    assert not lab.forecaster._firsts.keys() - {task.task_id for task in lab.dispatcher.queue.waiting.values()}


def test_what_it_does_not_know_it_asks_once(lab: ForecastLab) -> None:
    lab.world.submit(lab.ada)
    lab.world.submit(lab.ada)
    lab.tick()
    lab.begin()
    lab.foretell()
    before = lab.state.calls["tasks"]
    for _ in range(3):
        lab.world.clock.advance(60)
        lab.foretell()
    assert lab.state.calls["tasks"] == before > 0
    assert lab.state.calls["foretell"] == 4


def test_nothing_is_asked_and_played_while_nothing_waits(lab: ForecastLab) -> None:
    lab.world.submit(lab.ada)
    lab.tick()
    lab.begin()
    asked = [asyncio.run(lab.forecaster.once_if_due(lab.world.clock.monotonic))]
    for _ in range(60):
        lab.world.clock.advance(10)
        asked.append(asyncio.run(lab.forecaster.once_if_due(lab.world.clock.monotonic)))
    assert sum(asked) == 3 and not lab.questions
    assert len(lab.looks) == 2 and lab.state.calls["foretell"] == 0


def test_who_waits_is_told_anew_each_half_minute_and_soon_at_first(lab: ForecastLab) -> None:
    lab.world.submit(lab.ada)
    lab.world.submit(lab.ada)
    lab.tick()

    def passes(count: int) -> int:
        found = 0
        for _ in range(count):
            lab.world.clock.advance(5)
            found += asyncio.run(lab.forecaster.once_if_due(lab.world.clock.monotonic))
        return found

    assert passes(13) == 3
    lab.world.submit(lab.ada)
    lab.tick()
    assert passes(2) == 1


def test_nothing_is_foretold_while_nothing_starts(lab: ForecastLab) -> None:
    lab.world.submit(lab.ada)
    waits = lab.world.submit(lab.ada)
    lab.tick()
    lab.begin()
    lab.maintenance(True)
    lab.tick()
    lab.foretell()
    assert lab.start(waits) is Unknown.MAINTENANCE
    lab.maintenance(False)
    lab.dispatcher.low_disk = lambda: LowDisk(0.0, 1, Space(0, "shared"))
    lab.tick()
    lab.foretell()
    assert lab.start(waits) is Unknown.LOW_DISK and not lab.questions


def test_the_futures_are_played_in_a_process_of_their_own(lab: ForecastLab) -> None:
    lab.world.submit(lab.ada)
    lab.world.submit(lab.ada)
    lab.tick()
    lab.begin()
    lab.foretell()
    [question] = lab.questions
    assert [each.start for each in asyncio.run(futures.ask(question, timeout_s=280))] == [Unknown.NO_PACE_YET]
    with pytest.raises(TimeoutError):
        asyncio.run(futures.ask(question, timeout_s=0.001))
    assert [each.start for each in futures.play(question, 0.0, 0.0)] == [Unknown.NOT_YET], "its time was over at once"
