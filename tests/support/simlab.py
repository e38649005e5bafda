"""One scheduler over the simulated Ray, told step by step what happens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from argus_ray.core import actions
from argus_ray.core.model import Event, Task
from argus_ray.core.observation import FailureKind, JobStatus
from argus_ray.core.orders import Machine, NodeOrder
from tests.support.builders import ADMIN, World, make_service
from tests.support.sanity import sanity_check
from tests.support.simray import Job, SimRay, make_dispatcher, settle

_L = TypeVar("_L", bound="Lab")


class Lab:
    """One scheduler over a pool whose programs do as the test says, and no more."""

    def __init__(self, root: Path, nodes: dict[str, int]) -> None:
        self.world: World = make_service(root.resolve())
        self.ada = self.world.user("ada")
        self.ray = SimRay(random.Random(0), nodes)
        self.dispatcher = make_dispatcher(self.world, self.ray, random.Random(0))

    def tick(self, seconds: float = 0.0) -> None:
        self.world.clock.advance(seconds)
        asyncio.run(settle(self.dispatcher))

    def begin(self) -> list[str]:
        """Every job that Ray holds starts and claims its gang; the names of those that have just done so."""
        new = [name for name, job in self.ray.jobs.items() if job.is_alive and not job.held]
        for name in new:
            self.ray._start(name)
            self.ray._claim(self.ray.jobs[name])
        self.tick()
        return [name for name in new if name in self.ray.jobs and self.ray.jobs[name].held]

    def fail(self, name: str, log: str) -> None:
        """The program prints this and exits with 1."""
        self.ray.logs[self.ray.job_root(name)] = log
        self.ray._finish(name, JobStatus.FAILED, 1)

    def lose(self, *names: str) -> None:
        """Their node dies, and another one takes its place."""
        for name in names:
            job: Job = self.ray.jobs[name]
            job.held, job.status, job.failure = {}, JobStatus.FAILED, FailureKind.SUPERVISOR

    def order(self, order: NodeOrder, *names: str, reason: str = "", deadline_s: float | None = None) -> None:
        """By the admin, about nodes of the simulation, each a machine of its own."""
        for name in names:
            self.world.service.handle(ADMIN, actions.OrderNode(Machine(name, (name,)), order, reason, deadline_s))

    def maintenance(self, on: bool) -> None:
        self.world.service.handle(ADMIN, actions.SetMaintenance(on, "new switches" if on else ""))

    def task(self, task: Task) -> Task:
        return self.world.task(task.task_id)

    def told(self, task: Task) -> list[str]:
        found = self.world.service.handle(self.ada, actions.TaskEvents(task.task_id, limit=1000))
        assert isinstance(found, tuple)
        return [event.message for event in found if isinstance(event, Event)]


def checked_lab(root: Path) -> Iterator[Lab]:
    """For a fixture: two nodes of four GPUs."""
    yield from checked(Lab(root, {"n1": 4, "n2": 4}))


def checked(made: _L) -> Iterator[_L]:
    """For a fixture: what must be true when the test is over."""
    yield made
    assert made.ray.violations == []
    sanity_check(made.world.store)
    made.world.close()
