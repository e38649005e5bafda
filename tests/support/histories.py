"""The scheduler's process and the operator of a random history, each with what must hold of it at every moment."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from dataclasses import dataclass, field, replace

from argus_ray.core import actions
from argus_ray.core.orders import Machine, NodeOrder
from argus_ray.core.reasons import Reason
from argus_ray.core.states import AttemptState
from argus_ray.scheduler.tick import Next
from argus_ray.store import orders
from tests.support.builders import ADMIN, World
from tests.support.simray import Crash, NoAnswer, SimRay, SimState, check_view, machine_of, make_dispatcher


class Actor:
    """The scheduler's process of a history: it lives on from tick to tick, and is made anew where it crashed."""

    def __init__(self, world: World, ray: SimRay, rng: random.Random) -> None:
        self.world, self.ray, self.rng = world, ray, rng
        self.dispatcher = make_dispatcher(world, ray, rng)
        #: How long each task that waits has been overtaken, by its wait.
        self.ages: dict[tuple[str, int], float] = {}
        #: Since when attempts have run, by the clock that nobody sets.
        self.ran_from: dict[str, float] = {}
        #: How many schedulers there have been before this one.
        self.generation = 0
        #: What the last tick said; None: it did not come to its end.
        self.upcoming: Next | None = None

    def tick(self, crashiness: float = 0.0) -> None:
        state = self.dispatcher.state = self.dispatcher.queue.state = SimState(self.world, self.rng, crashiness)
        self.upcoming = None
        try:
            with contextlib.suppress(NoAnswer):
                self.upcoming = asyncio.run(self.dispatcher.tick())
        except Crash:
            self.dispatcher = make_dispatcher(self.world, self.ray, self.rng)
            self.generation += 1
        state.crashiness = 0.0
        assert state.calls["queue_changes"] <= 1 and state.calls["apply"] <= 1, "all is read once, and stored at once"
        # A copy: what the check learns must not be hidden from the next tick.
        mine = self.dispatcher.queue
        waiting = self.dispatcher.policy.no_tasks()
        waiting.add_all(mine.tasks)
        check_view(self.world, replace(mine, tasks=waiting, live=dict(mine.live)))
        self._check_clocks()

    def set_clock(self, seconds: float, *, is_seen: bool) -> None:
        """`is_seen`: by a state actor that is there; else it is down, and a new one comes up."""
        self.world.clock.jump(seconds)
        if is_seen:
            self.world.service.queue_changes("", 0)
        else:
            self.world.reopen()
            self.ages.clear()  # what was stored by a clock that nobody has seen change is worth no more

    def _check_clocks(self) -> None:
        """An overtaking clock never goes back, nobody waits for longer than the policy can mean, and no run is stopped
        before it has had its time, however the wall clock was set."""
        now, scheduling = self.world.clock.now, self.world.settings.scheduling
        waiting = {(task.task_id, len(task.attempts)): task for task in self.world.waiting()}
        with self.world.store.transaction() as db:
            maintenance = orders.read(db).maintenance
        # In maintenance the clocks stand still.
        until = now if maintenance is None else min(now, maintenance.since)
        since = {key: task.overtaken_since for key, task in waiting.items() if task.overtaken_since is not None}
        ages = {key: max(0.0, until - at) for key, at in since.items()}
        # For a quota it stands, and the reason says where.
        ages |= {
            key: float(dict(task.reason.facts)["passed"])
            for key, task in waiting.items()
            if key in ages and isinstance(task.reason, Reason) and "passed" in dict(task.reason.facts)
        }
        for key, age in self.ages.items():
            assert key not in waiting or ages.get(key, -math.inf) >= age, f"the overtaking clock of {key} went back"
        assert all(age >= 0 for age in ages.values())
        self.ages = ages
        latest = now + scheduling.retry_policy().longest_wait_s
        assert all(task.not_before is None or task.not_before <= latest for task in waiting.values())
        for task in self.world.active():
            attempt = task.attempts[-1]
            if attempt.state is AttemptState.RUNNING:
                began = self.ran_from.setdefault(attempt.submission_id, self.world.clock.since_boot)
                if (attempt.stop_reason or "").startswith("no new step"):
                    assert self.world.clock.since_boot - began >= scheduling.stall_after_s


@dataclass
class Operator:
    """Cordons, drains, and turns maintenance on. What is alive at that moment may go on; nothing new may come."""

    world: World
    rng: random.Random
    machines: list[str]
    cordoned: dict[str, set[str]] = field(default_factory=dict)
    in_maintenance: set[str] | None = None
    #: Drains with a deadline: when it is over, by the clock that nobody sets.
    due: dict[str, float] = field(default_factory=dict)

    def speak(self) -> None:
        if self.rng.random() < 0.3:
            self._maintain(on=self.in_maintenance is None)
            return
        name = self.rng.choice(self.machines)
        order = self.rng.choice([NodeOrder.CORDON, NodeOrder.DRAIN, NodeOrder.UNCORDON, NodeOrder.UNCORDON])
        self.order(name, order, self.rng.choice([None, 0.0, 50.0]) if order is NodeOrder.DRAIN else None)

    def take_back(self) -> None:
        for name in list(self.cordoned):
            self.order(name, NodeOrder.UNCORDON)
        if self.in_maintenance is not None:
            self._maintain(on=False)

    def check(self) -> None:
        alive = self._alive()
        for name, before in self.cordoned.items():
            assert {key for key, machines in alive.items() if name in machines} <= before, name
        assert self.in_maintenance is None or alive.keys() <= self.in_maintenance

    def order(self, name: str, order: NodeOrder, deadline_s: float | None = None) -> None:
        self.world.service.handle(ADMIN, actions.OrderNode(Machine(name, (name,)), order, deadline_s=deadline_s))
        self.cordoned.pop(name, None)
        if order is not NodeOrder.UNCORDON:
            self.cordoned[name] = {key for key, machines in self._alive().items() if name in machines}
        self.due.pop(name, None)
        if deadline_s is not None:
            self.due[name] = self.world.clock.since_boot + deadline_s

    def _maintain(self, *, on: bool) -> None:
        self.world.service.handle(ADMIN, actions.SetMaintenance(on))
        self.in_maintenance = set(self._alive()) if on else None

    def _alive(self) -> dict[str, tuple[str, ...]]:
        """Attempts, with the machines of each."""
        live = [task.live_attempt for task in self.world.active()]
        return {attempt.submission_id: tuple(map(machine_of, attempt.nodes)) for attempt in live if attempt is not None}
