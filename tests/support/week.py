"""Some days of a busy pool: users with habits, runs that take as long as runs do, failures, cancels, losses. The real
dispatcher, service, database and forecaster, on a clock that is told what time it is.

Nothing here uses what the forecast uses to foretell: lengths come from steps with validations, checkpoints, a start and
an end, each with its own chance.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from argus_ray.core import actions
from argus_ray.core.actions import Credential
from argus_ray.core.estimates import Basis, Range, Unknown
from argus_ray.core.forecast.model import Question, Told
from argus_ray.core.forecast.pace import StepsSeen
from argus_ray.core.forecast.ranges import foretell
from argus_ray.core.observation import FailureKind, JobStatus
from argus_ray.scheduler.forecaster import Forecaster
from argus_ray.scheduler.runs import Runs
from tests.support.builders import World, make_service, memory_folder
from tests.support.sanity import sanity_check
from tests.support.simray import SimRay, SimState, make_dispatcher, settle

HOUR, DAY = 3600.0, 86_400.0
POOL = {f"n{number}": 8 for number in range(4)}
#: Between two forecasts while something waits, which is each half minute in the service.
EVERY_S = 2400.0
#: A user of whom so many wait submits no more for now.
PATIENCE = 8
#: Behind so many a forecast costs seconds: of fewer futures, as in the service, whose time is bounded (it plays 20 at
#: least), and not one for each that comes.
MANY, DRAWS_OF_MANY, EVERY_OF_MANY_S = 20, 40, 600.0


@dataclass(frozen=True)
class Habit:
    """What a user runs again and again."""

    workload: str
    model: str
    nnodes: int
    gpus: int
    steps: tuple[int, ...]
    step_s: float
    #: Seconds of a validation and of a checkpoint, and after how many steps each comes.
    test_s: float
    test_freq: int
    save_s: float
    save_freq: int
    #: The TaskSpec tells how many steps there are.
    tells: bool
    weight: float


@dataclass
class Trip:
    """One run as it will be."""

    start_s: float
    step_s: float
    habit: Habit
    steps: int
    end_s: float
    #: It fails then; None: it does not.
    fails_at: float | None
    began: float = 0.0

    def at_step(self, step: int) -> float:
        habit = self.habit
        extra = step // habit.test_freq * habit.test_s + step // habit.save_freq * habit.save_s
        return self.start_s + step * self.step_s + extra

    @property
    def seconds(self) -> float:
        whole = self.at_step(self.steps) + self.end_s
        return whole if self.fails_at is None else min(whole, self.fails_at)

    def seen(self, now: float, total: int | None) -> StepsSeen:
        passed, low, high = now - self.began, 0, self.steps
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.at_step(middle) <= passed else (low, middle - 1)
        if low == 0:
            return StepsSeen(total=total)
        # verl tells of its steps, and of validations, and not of the time between them.
        said = 1 / (self.step_s * 0.97) if self.habit.workload != "sft" else None
        return StepsSeen(low, self.began + self.at_step(low), said, total)


@dataclass
class Case:
    """A task that had to wait."""

    since: float
    first: tuple[float, Range] | None = None
    firm: list[tuple[float, Range]] = field(default_factory=list)
    why: Unknown | None = None
    started_at: float | None = None


@dataclass
class Table:
    waited: int = 0
    told: int = 0
    inside: int = 0
    early: int = 0
    late: int = 0
    firm: int = 0
    firm_late: list[str] = field(default_factory=list)
    why: Counter[str] = field(default_factory=Counter)
    widths: list[float] = field(default_factory=list)
    #: Of the same: from the moment of the telling to the start. Seconds.
    waits: list[float] = field(default_factory=list)
    #: One line for each that started outside its range.
    missed: list[str] = field(default_factory=list)

    @property
    def width_min(self) -> float:
        """Of the one in the middle. Minutes."""
        return median(self.widths) / 60 if self.widths else math.nan

    @property
    def wait_min(self) -> float:
        """The same."""
        return median(self.waits) / 60 if self.waits else math.nan

    def __str__(self) -> str:
        hit = self.inside / max(1, self.told)
        return (
            f"had to wait {self.waited}, told a range {self.told} ({self.told / max(1, self.waited):.1%}): "
            f"inside {self.inside} ({hit:.1%}), early {self.early}, late {self.late}; "
            f"median width {self.width_min:.0f} min, median wait {self.wait_min:.0f} min; "
            f"firm ranges {self.firm}, later than told {len(self.firm_late)}; no range: {dict(self.why)}"
        )


def _normal(rng: random.Random, middle: float, spread: float) -> float:
    return middle * math.exp(rng.gauss(0.0, spread))


class Week:
    def __init__(self, root: Path, seed: int, days: float, *, draws: int = 40, load: float = 0.8) -> None:
        self.rng = random.Random(seed)
        self.world: World = make_service(
            root.resolve(), settings={"scheduling": {"stall_after_s": 0, "claim_after_s": 0}}
        )
        self.ray = SimRay(random.Random(seed), dict(POOL))
        self.dispatcher = make_dispatcher(self.world, self.ray, random.Random(seed))
        state = SimState(self.world, random.Random(seed))
        self.forecaster = Forecaster(
            self.dispatcher, state, Runs(state, self._look), self._ask, self.world.clock, draws
        )
        self.chance = random.Random(seed + 1).random
        self.began = self.world.clock.now
        self.until = self.began + days * DAY
        self.names = ("ada", "bob", "cleo", "dan", "eve")
        self.users = [self.world.user(name) for name in self.names]
        self.habits = [self._some_habits() for _ in self.users]
        self.load = load
        self.trips: dict[str, Trip] = {}
        self.habit_of: dict[str, tuple[Habit, int]] = {}
        self.cases: dict[str, Case] = {}
        self.losses: list[float] = []
        self.forecasts = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._forecast_at = -math.inf
        #: Who came since the last forecast.
        self._untold: set[str] = set()
        self._tick_at = math.inf

    # --- the load ---

    def _some_habits(self) -> list[Habit]:
        rng, found = self.rng, []
        for number in range(rng.choice([2, 3, 4])):
            workload = rng.choice(["sft", "sft", "grpo", "ppo"])
            nnodes, gpus = rng.choice([(1, 1), (1, 2), (1, 4), (1, 4), (1, 8), (1, 8), (2, 8)])
            hours = rng.choice([0.2, 0.5, 1, 2, 4, 8])
            steps = rng.choice([50, 100, 200, 1000])
            found.append(
                Habit(
                    workload, f"org/model-{number}", nnodes, gpus,
                    (steps, steps, 2 * steps), hours * HOUR / steps,
                    rng.uniform(0.5, 5) * hours * HOUR / steps, rng.choice([5, 10, 20]),
                    rng.uniform(5, 60), rng.choice([10, 20, 50]),
                    rng.random() < 0.8, 1 / (nnodes * gpus * hours) ** 0.7,
                )
            )  # fmt: skip
        return found

    def _gap(self) -> float:
        """Until the next submission: more by day than by night."""
        costs = [
            (habit.weight, habit.nnodes * habit.gpus * habit.steps[0] * 1.3 * self._whole(habit))
            for habits in self.habits for habit in habits
        ]  # fmt: skip
        mean = sum(weight * cost for weight, cost in costs) / sum(weight for weight, _ in costs)
        a_second = self.load * sum(POOL.values()) / mean
        hour = (self.world.clock.now - self.began) / HOUR % 24
        day = 1.6 if 9 <= hour < 19 else 0.6
        return self.rng.expovariate(a_second * day)

    def _whole(self, habit: Habit) -> float:
        """Seconds a step, with all that belongs to it."""
        return habit.step_s + habit.test_s / habit.test_freq + habit.save_s / habit.save_freq

    def _submit(self) -> None:
        rng = self.rng
        pairs = [(who, habit) for who, habits in zip(self.users, self.habits, strict=True) for habit in habits]
        who, habit = rng.choices(pairs, [habit.weight for _, habit in pairs])[0]
        user = self.names[self.users.index(who)]
        waiting = sum(task.user_id == user for task in self.dispatcher.queue.waiting.values())
        for _ in range(rng.choice([1, 1, 1, 2, 4])):  # a sweep
            if waiting < PATIENCE:
                self._submit_one(who, habit)
            waiting += 1
        if rng.random() < 0.02:  # somebody turns to something new
            place = rng.randrange(len(self.users))
            self.habits[place] = self._some_habits()
        self.at(self.world.clock.now + self._gap(), self._submit)

    def _submit_one(self, who: Credential, habit: Habit) -> None:
        rng = self.rng
        steps = rng.choice(habit.steps)
        epochs = steps // habit.steps[0]
        task = self.world.submit(
            who, workload=habit.workload, model_id=habit.model, nnodes=habit.nnodes, n_gpus_per_node=habit.gpus,
            total_epochs=epochs, total_training_steps=steps if habit.tells else None,
            test_freq=habit.test_freq, save_freq=habit.save_freq,
        )  # fmt: skip
        self.habit_of[task.task_id] = (habit, steps)
        if rng.random() < 0.06:
            self.at(self.world.clock.now + rng.expovariate(1 / (2 * HOUR)), lambda: self._cancel(who, task.task_id))

    def _cancel(self, who: Credential, task_id: str) -> None:
        self.world.service.handle(who, actions.CancelTask(task_id))

    # --- what runs ---

    def _begin(self) -> None:
        now, rng = self.world.clock.now, self.rng
        for name, job in list(self.ray.jobs.items()):
            if not job.is_alive:
                continue
            if job.stop_asked or self.ray.job_root(name) in self.ray.markers:
                self.ray._finish(name, JobStatus.STOPPED, 143)
                continue
            if job.status is not JobStatus.PENDING:
                continue
            self.ray._start(name)
            self.ray._claim(job)
            habit, steps = self.habit_of[job.task.task_id]
            trip = Trip(
                _normal(rng, 90.0, 0.5),
                _normal(rng, habit.step_s, 0.08),
                habit,
                steps,
                _normal(rng, 45.0, 0.6),
                None,
                now,
            )
            if rng.random() < 0.1:
                whole = trip.seconds
                trip.fails_at = rng.uniform(30, 240) if rng.random() < 0.5 else rng.uniform(0, whole)
            self.trips[self.ray.job_root(name)] = trip
            self.at(now + trip.seconds, lambda name=name, trip=trip: self._end(name, trip))  # type: ignore[misc]

    def _end(self, name: str, trip: Trip) -> None:
        job = self.ray.jobs.get(name)
        if job is None or job.status is not JobStatus.RUNNING or not job.held:
            return
        if trip.fails_at is None:
            self.ray._finish(name, JobStatus.SUCCEEDED, 0)
        else:
            self.ray._finish(name, JobStatus.FAILED, 1)
            job.failure = FailureKind.DRIVER

    def _lose(self) -> None:
        """A machine dies, and is back some time later."""
        now = self.world.clock.now
        if self.ray.lose_node() is not None:
            self.losses.append(now)
        self.at(now + self.rng.uniform(600, 7200), self._rejoin)
        self.at(now + self.rng.expovariate(1 / (3 * DAY)), self._lose)

    def _rejoin(self) -> None:
        self.ray.rejoin()

    async def _look(self, job_root: str, wants_total: bool) -> StepsSeen:
        trip = self.trips.get(job_root)
        if trip is None:
            return StepsSeen()
        return trip.seen(self.world.clock.now, trip.steps if wants_total else None)

    # --- what is told ---

    async def _ask(self, question: Question) -> Sequence[Told]:
        now = self.world.clock.now
        if all((case := self.cases.get(run.task.task_id)) and case.first for run in question.waiting):
            # Who waits was told what is judged. Whether it is told a firm range now depends on nobody behind it.
            question = replace(question, waiting=question.waiting[:1], draws=1)
        if len(question.waiting) > MANY:
            question = replace(question, draws=min(question.draws, DRAWS_OF_MANY))
        self.forecasts += 1
        told = foretell(question, self.chance)
        for each in told:
            case = self.cases.get(each.task_id)
            if case is None:
                continue
            if isinstance(each.start, Unknown):
                case.why = case.why or each.start
                continue
            if case.first is None:
                case.first = (now, each.start)
            if each.start.basis is Basis.FIRM:
                case.firm.append((now, each.start))
        return told

    def _watch(self) -> None:
        now = self.world.clock.now
        waiting = {task.task_id for task in self.dispatcher.queue.waiting.values()}
        new = waiting - self.cases.keys()
        for name in new:
            self.cases[name] = Case(now)
        for name in self.cases.keys() - waiting:
            case = self.cases[name]
            if case.started_at is None:
                task = self.world.task(name)
                started = task.attempts[0].created_at if task.attempts else None
                case.started_at = math.inf if started is None else started
        self._untold = (self._untold | new) & waiting
        every_s = EVERY_OF_MANY_S if len(waiting) > MANY else 0.0
        every_s = every_s if self._untold else EVERY_S
        if waiting and now - self._forecast_at >= every_s:
            self._forecast_at, self._untold = now, set()
            asyncio.run(self.forecaster.once())

    # --- time ---

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))

    def run(self) -> Table:
        self.at(self.began + 1.0, self._submit)
        self.at(self.began + self.rng.expovariate(1 / (3 * DAY)), self._lose)
        while self._events and self._events[0][0] < self.until:
            when, _, what = heapq.heappop(self._events)
            self.world.clock.advance(max(0.0, when - self.world.clock.now))
            what()
            self._settle()
        return self.table()

    def _settle(self) -> None:
        for _ in range(3):
            asyncio.run(settle(self.dispatcher))
            self._begin()
        self._watch()
        decided, now = self.dispatcher._decided, self.world.clock.now
        if decided is not None and decided.due is not None and not now < self._tick_at <= decided.due:
            self._tick_at = max(now + 1.0, decided.due)
            self.at(self._tick_at, lambda: None)
        if self.dispatcher.queue.waiting and self._forecast_at > now - 1.0:
            self.at(now + EVERY_S, lambda: None)

    def _miss(self, name: str, at: float, told: Range, started: float) -> str:
        ends = f"{told.earliest - at:.0f} to {told.latest - at:.0f} s"
        losses = sum(at <= loss <= started for loss in self.losses)
        lost = f", {losses} machines lost meanwhile" if losses else ""
        words = f"{name} told at {at - self.began:.0f} s {ends}, {told.basis.value}"
        return f"{words}: started after {started - at:.0f} s{lost}"

    def table(self) -> Table:
        found = Table()
        for name, case in self.cases.items():
            started = case.started_at
            if started is None or started == math.inf:
                continue  # it waits on, or was canceled
            found.waited += 1
            for at, told in case.firm:
                found.firm += 1
                if started > told.latest and not any(at <= loss <= started for loss in self.losses):
                    late = f"{started - told.latest:.0f} s later than {told.latest - at:.0f} s"
                    found.firm_late.append(f"{name} told at {at - self.began:.0f} s: {late}")
            if case.first is None:
                found.why[case.why.value if case.why else "never asked"] += 1
                continue
            told = case.first[1]
            found.told += 1
            found.widths.append(told.latest - told.earliest)
            found.waits.append(started - case.first[0])
            if started < told.earliest - 1:
                found.early += 1
            elif started > told.latest + 1:
                found.late += 1
            else:
                found.inside += 1
                continue
            found.missed.append(self._miss(name, case.first[0], told, started))
        return found


def played(days: float, draws: int, seed: int) -> Table:
    with TemporaryDirectory(dir=memory_folder()) as folder:
        week = Week(Path(folder), seed, days, draws=draws)
        table = week.run()
        assert week.ray.violations == []
        sanity_check(week.world.store)
        week.world.close()
    return table
