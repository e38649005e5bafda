"""Random histories of whole pools: several kinds of nodes, and all that goes wrong with them, with the rules of
`tests/support/oracles.py` after each step. Then calm, in which somebody else keeps a part of the pool; every task ends.

`ARGUS_SIM_SEED` repeats one history; `ARGUS_SIM_RUNS` sets how many are tried.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.errors import ArgusError, FieldError
from argus_ray.core.orders import NodeOrder
from argus_ray.core.states import TaskState
from argus_ray.disk.inputs import Findings
from tests.support.builders import World, make_service, memory_folder
from tests.support.histories import Actor, Operator
from tests.support.oracles import Oracles
from tests.support.sanity import sanity_check
from tests.support.simray import SimRay

RUNS = int(os.environ.get("ARGUS_SIM_RUNS", "25"))
SEED = os.environ.get("ARGUS_SIM_SEED")
STEPS = 120

POOLS = [
    {"n1": 4, "n2": 4, "n3": 4},
    {"big1": 8, "big2": 8, "small1": 1, "small2": 1, "small3": 1},
    {"big1": 8, "n1": 4, "n2": 4, "small1": 2},
    {"n1": 2, "n2": 2, "n3": 2, "n4": 2, "n5": 2, "n6": 2},
]
GONE = Findings(errors=(FieldError("train_file", "does not exist \ud800"),))


@dataclass
class History:
    seed: int
    root: Path
    canceled: dict[str, int] = field(default_factory=dict)
    #: Tasks whose inputs are gone for good, or were for a while.
    spoiled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        rng = self.rng = random.Random(self.seed)
        scheduling = {
            "max_losses": rng.choice([1, 1000]),
            "max_refusals": 3,
            "max_failed_starts": 1000,
            "max_overtake_s": rng.choice([100, 600]),
            "claim_after_s": 100,
            "stall_after_s": 500,
            "stop_stalled": self.seed % 4 == 1,
            "fair_share": self.seed % 5 == 3,
        }
        limits = {"running_gpus_per_user": 6, "users": {"bob": {"running_gpus": 9}}} if self.seed % 3 == 2 else {}
        settings: dict[str, Any] = {"scheduling": scheduling, "limits": limits}
        self.world: World = make_service(self.root, settings=settings)
        self.users = [self.world.user("ada"), self.world.user("bob")]
        pool = POOLS[self.seed % len(POOLS)]
        self.ray = SimRay(random.Random(self.seed), dict(pool))
        self.ray.restlessness, self.ray.patience = rng.choice([0.0, 0.3]), rng.choice([0.0, 0.9])
        self.ray.last_words = "RuntimeError: \ud800 was read\n"
        self.actor = Actor(self.world, self.ray, rng)
        self.operator = Operator(self.world, rng, sorted(pool))
        self.oracles = Oracles(self.world, self.ray, self.actor, self.operator)
        self.oracles.watch_looks()
        sizes = sorted(set(pool.values()))
        self.shapes = [(1, 1), (1, 1), *((1, gpus) for gpus in sizes), (2, sizes[-1]), (2, sizes[0])]

    def run(self) -> None:
        for _ in range(STEPS):
            self.world.clock.advance(self.rng.choice([0.1, 1, 10, 50]))
            self._what()()
            self.oracles.after_step()
        self._calm_down()
        self._check_cancels()
        sanity_check(self.world.store)
        self.world.close()

    def _what(self) -> Callable[[], object]:
        found: Callable[[], object] = self.rng.choices(*zip(*self._events(), strict=True))[0]
        return found

    def _events(self) -> list[tuple[Callable[[], object], float]]:
        ray = self.ray
        return [
            (self._submit, 20),
            (self._cancel, 2),
            (self._resubmit, 1),
            (lambda: self.tick(0.1 if self.rng.random() < 0.1 else 0.0), 30),
            (ray.step, 28),
            (self._go_on, 4),
            (ray.lose_session, 0.5),
            (ray.lose_node, 1.5),
            (ray.lose_node_unseen, 1.5),
            (ray.notice, 3),
            (ray.rejoin, 3),
            (self._flake, 2),
            (self._hush, 2),
            (self._spoil_a_node, 2),
            (self._heal, 1),
            (self.world.reopen, 0.5),
            (self._set_clock, 1),
            (self._spoil_inputs, 2),
            (self._lose_root, 2),
            (self._take, 3),
            (self._intrude, 1.5),
            (self._order, 2),
        ]

    def tick(self, crashiness: float = 0.0) -> None:
        before = self.actor.generation
        self.actor.tick(crashiness)
        if self.actor.generation != before:
            self.oracles.watch_looks()
        self.oracles.after_tick()

    def _submit(self) -> None:
        nnodes, gpus = self.rng.choice(self.shapes)
        with contextlib.suppress(ArgusError):  # larger than its user's quota
            task = self.world.submit(self.rng.choice(self.users), nnodes=nnodes, n_gpus_per_node=gpus)
            self.oracles.accepted.add(task.task_id)
            kind = self.rng.random()
            if kind < 0.08:
                self.ray.picky.add(task.task_id)
            elif kind < 0.2 and self.world.settings.scheduling.max_losses < 10:
                self.ray.poison.add(task.task_id)

    def _cancel(self) -> None:
        alive = [task for task in (*self.world.waiting(), *self.world.active()) if not task.state.is_final]
        if alive:
            task = self.rng.choice(alive)
            self._as_somebody(actions.CancelTask(task.task_id))
            self.canceled[task.task_id] = sum(self.ray.started[a.job_root] for a in task.attempts)

    def _resubmit(self) -> None:
        ended = [task for task in self.world.all_tasks() if task.state.is_final]
        if ended:
            self._as_somebody(actions.ResubmitTask(self.rng.choice(ended).task_id, self.rng.random() < 0.7))

    def _as_somebody(self, action: actions.Action[Any]) -> None:
        for who in self.users:
            with contextlib.suppress(ArgusError):
                self.world.service.handle(who, action)

    def _flake(self) -> None:
        self.ray.flakiness = self.rng.choice([0.0, 0.0, 0.2])

    def _hush(self) -> None:
        """The disk does not say what a lost attempt has left."""
        self.ray.is_silent = not self.ray.is_silent

    def _go_on(self) -> None:
        """For a while nothing happens but what was to come."""
        for _ in range(4):
            self.world.clock.advance(self.rng.choice([1, 10]))
            for _ in range(4):
                self.ray.step()
            self.tick()

    def _spoil_a_node(self) -> None:
        """And what waits is drawn to it, since what starts there ends at once."""
        if self.ray.nodes:
            self.rng.choice([self.ray.bad, self.ray.bad, self.ray.clogged]).add(self.rng.choice(sorted(self.ray.nodes)))
            for _ in range(2):
                self._submit()
                self._go_on()

    def _heal(self) -> None:
        self.ray.bad, self.ray.clogged = set(), set()

    def _set_clock(self) -> None:
        is_seen = self.rng.random() < 0.8
        self.actor.set_clock(self.rng.choice([-86_400, -3600, -90, 5.25, 90, 3600, 86_400]), is_seen=is_seen)
        if not is_seen:
            self.operator.due.clear()  # they are stored by a clock that nobody has seen change

    def _spoil_inputs(self) -> None:
        waiting = self.world.waiting()
        if waiting:
            for task in self.rng.choice([waiting, waiting[:1], waiting[-1:]]):
                self.ray.findings[task.task_id] = self.rng.choice([GONE, Findings()])
                self.spoiled.add(task.task_id)

    def _lose_root(self) -> None:
        self.ray.is_root_away = not self.ray.is_root_away and self.rng.random() < 0.5

    def _take(self) -> None:
        """Somebody else takes what is free of a node, or a part of it, or gives it back."""
        if not self.ray.nodes:
            return
        node = self.rng.choice(sorted(self.ray.nodes))
        held = sum(job.held.get(node, 0) for job in self.ray.jobs.values())
        free = self.ray.nodes[node] - held
        self.ray.taken[node] = self.rng.choice([0.0, 0.0, float(free), min(1.0, free), 0.5 if free else 0.0])

    def _intrude(self) -> None:
        """Somebody else takes what a gang was assigned and does not hold yet, and keeps it."""
        coming = [job for job in self.ray.jobs.values() if job.is_alive and not job.held]
        if not coming:
            return
        node = self.rng.choice(coming).task.attempts[-1].nodes[0]
        held = sum(job.held.get(node, 0) for job in self.ray.jobs.values())
        self.ray.taken[node] = float(max(0, self.ray.nodes.get(node, 0) - held))
        self.ray.flakiness, self.ray.is_root_away = 0.0, False
        for _ in range(8):
            self.world.clock.advance(30)
            self.ray.step()
            self.tick()

    def _order(self) -> None:
        self.operator.speak()
        self.oracles.forget()

    def _drain_one(self) -> None:
        """Of the machines on which something runs; what runs there has no time left."""
        live = [attempt for task in self.world.active() if (attempt := task.live_attempt) is not None]
        machines = sorted({node.partition(".")[0] for attempt in live for node in attempt.nodes})
        for name in machines[:1]:
            self.operator.order(name, NodeOrder.DRAIN, 0.0)
            self.oracles.forget()
            for _ in range(4):
                self.world.clock.advance(5)
                self.tick()
                self.ray.step()

    def _calm_down(self) -> None:
        ray = self.ray
        ray.notice()
        ray.rejoin()
        ray.flakiness, ray.patience, ray.is_silent, ray.is_root_away = 0.0, 0.0, False, False
        ray.bad, ray.clogged = set(), set()
        ray.findings.clear()
        self._drain_one()
        self.operator.take_back()
        self.oracles.forget()
        # Whoever works beside Argus stays where another machine can do as well.
        for machine, gpus in ray.full_nodes.items():
            if list(ray.full_nodes.values()).count(gpus) < 3 or machine != "n1":
                for node in ray.nodes:
                    if node.partition(".")[0] == machine:
                        ray.taken[node] = 0.0
        for task in self.world.waiting():
            if sum(gpus >= task.gang.gpus_per_node for gpus in ray.full_nodes.values()) < task.gang.nnodes:
                self._as_somebody(actions.CancelTask(task.task_id))  # it waits for a pool that is another one
        for _ in range(400):
            self.world.clock.advance(30)
            self.tick()
            for _ in range(5):
                ray.step()
            ray.rejoin()  # what poison has taken down
            self.oracles.after_step()
            if not self.world.waiting() and not self.world.active():
                return
        left = [(task.state.value, task.gang, task.reason) for task in (*self.world.waiting(), *self.world.active())]
        raise AssertionError(f"some tasks are stuck: {left}")

    def _check_cancels(self) -> None:
        for task_id, started_then in self.canceled.items():
            task = self.world.task(task_id)
            assert task.state is TaskState.CANCELED
            is_racing = any(attempt.outcome and attempt.outcome.value == "CANCELED" for attempt in task.attempts)
            assert sum(self.ray.started[a.job_root] for a in task.attempts) <= started_then + is_racing
        assert all(count <= 1 for count in self.ray.started.values()), "a submission id ran twice"
        for task in self.world.all_tasks():
            if task.state is TaskState.FAILED and not task.attempts:
                assert task.task_id in self.spoiled, "its inputs were there"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory: a history is about what is written, and not about when it is on disk."""
    memory = memory_folder()
    if memory is None:
        yield tmp_path.resolve()
        return
    with TemporaryDirectory(dir=memory) as made:
        yield Path(made).resolve()


@pytest.mark.parametrize("seed", [int(SEED)] if SEED else range(RUNS))
def test_random_histories_of_pools(folder: Path, seed: int) -> None:
    History(seed, folder).run()
