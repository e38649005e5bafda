"""What thousands of waiting tasks cost: in bytes that cross to the state actor, in rows that are written."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Credential
from argus_ray.core.errors import Unavailable
from argus_ray.core.lifecycle import Change
from argus_ray.core.observation import JobStatus
from argus_ray.core.states import TaskState
from argus_ray.scheduler.tick import MAX_HOLDS, Dispatcher, Next
from tests.support.builders import World, make_service, memory_folder
from tests.support.simray import SimRay, SimState, make_dispatcher, settle


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    numbers = itertools.count()  # task ids that do not collide
    with tempfile.TemporaryDirectory(dir=memory_folder() or tmp_path) as folder:
        made = make_service(
            Path(folder).resolve(),
            settings={"limits": {"waiting_tasks": 10_000, "waiting_tasks_per_user": 10_000}},
            entropy=lambda n: (next(numbers).to_bytes(8, "little") * 4)[:n],
        )
        yield made
        made.close()


def submit_many(world: World, who: Credential, count: int, **overrides: object) -> None:
    submission = world.submission(world.spec(**overrides))
    for begin in range(0, count, 500):
        world.clock.advance(1)
        answers = world.service.handle_many([(who, submission)] * min(500, count - begin))
        assert all(isinstance(answer, actions.Submitted) for answer in answers)


def crossed_by(dispatcher: Dispatcher, ticks: int = 1) -> int:
    """Bytes between the scheduler and the state actor."""
    state = dispatcher.state
    assert isinstance(state, SimState)
    state.crossed = 0
    for _ in range(ticks):
        asyncio.run(dispatcher.tick())
    return state.crossed


def test_a_pass_over_ten_thousand_waiting_tasks_moves_little(world: World) -> None:
    ada = world.user("ada")
    submit_many(world, ada, 9_999, nnodes=2, n_gpus_per_node=8)
    ray = SimRay(random.Random(0), {"n1": 8})
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    assert crossed_by(dispatcher) < 3_000_000, "the first pass of a new scheduler"
    asyncio.run(settle(dispatcher))
    assert {task.state for task in world.waiting(10)} == {TaskState.PENDING_RESOURCES}
    asyncio.run(dispatcher.tick())  # it sees what it has written last

    assert crossed_by(dispatcher, ticks=10) < 10 * 500, "an idle tick asks what is new, and nothing is"

    fits = world.submit(ada, nnodes=1, n_gpus_per_node=8)
    assert crossed_by(dispatcher) < 20_000, "one new submission, whose spec and command are all that is fetched"
    assert world.task(fits.task_id).state is TaskState.SUBMITTING

    ray.step()
    ray._finish(f"{fits.task_id}--a01", JobStatus.SUCCEEDED, 0)
    assert crossed_by(dispatcher, ticks=2) < 20_000, "one end, and the pass that it lets through"


def test_an_idle_scheduler_makes_no_pass_over_the_queue(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    submit_many(world, world.user("ada"), 1_000, nnodes=2, n_gpus_per_node=8)
    ray = SimRay(random.Random(0), {"n1": 8})
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    asyncio.run(settle(dispatcher))
    monkeypatch.setattr("argus_ray.core.admission.decide", None)
    for _ in range(100):
        world.clock.advance(5)
        assert asyncio.run(dispatcher.tick()) is Next.SOON


def test_the_first_holds_of_a_long_queue_are_written_in_bounded_parts(world: World) -> None:
    submit_many(world, world.user("ada"), 2 * MAX_HOLDS + 1, nnodes=2, n_gpus_per_node=8)
    ray = SimRay(random.Random(0), {"n1": 8})
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    held = []
    for _ in range(3):
        upcoming = asyncio.run(dispatcher.tick())
        held.append(sum(task.state is TaskState.PENDING_RESOURCES for task in world.waiting()))
    assert held == [MAX_HOLDS, 2 * MAX_HOLDS, 2 * MAX_HOLDS + 1]
    assert upcoming is not Next.AT_ONCE
    assert [task.seq for task in world.waiting() if task.state is not TaskState.PENDING_RESOURCES] == []


def test_holds_that_could_not_be_written_are_written_later(world: World) -> None:
    submit_many(world, world.user("ada"), 2 * MAX_HOLDS + 1, nnodes=2, n_gpus_per_node=8)
    dispatcher = make_dispatcher(world, SimRay(random.Random(0), {"n1": 8}), random.Random(0))
    apply, calls = world.service.apply, itertools.count()

    def fails_at_times(changes: Sequence[Change]) -> list[bool]:
        if changes and next(calls) % 2:
            raise Unavailable("the disk is full")
        return apply(changes)

    world.service.apply = fails_at_times  # type: ignore[method-assign]
    for _ in range(12):
        with contextlib.suppress(Unavailable):
            asyncio.run(dispatcher.tick())
    assert {task.state for task in world.waiting()} == {TaskState.PENDING_RESOURCES}


@pytest.mark.parametrize("seed", range(3))
def test_ten_minutes_with_free_gpus_that_change_write_nothing_about_tasks_that_do_not_move(
    world: World, seed: int
) -> None:
    """500 wait, of all sizes; each second some job goes on, so that GPUs are claimed and given back all the time. The
    bound of overtaking is reached within, too."""
    rng = random.Random(seed)
    ada, bob = world.user("ada"), world.user("bob")
    for _ in range(250):
        for who in (ada, bob):
            nnodes, gpus = rng.choice([(1, 1), (1, 2), (1, 4), (2, 4), (2, 8), (3, 8), (9, 8)])
            world.submit(who, nnodes=nnodes, n_gpus_per_node=gpus)
    ray = SimRay(rng, {f"n{i}": 8 for i in range(4)})
    dispatcher = make_dispatcher(world, ray, rng)
    asyncio.run(settle(dispatcher))
    free_seen = set()
    for _ in range(600):
        world.clock.advance(1)
        if rng.random() < 0.3:
            ray.step()
        asyncio.run(settle(dispatcher))
        assert dispatcher.view is not None
        free_seen.add(tuple(node.gpus_free for node in dispatcher.view.nodes))
    started = [task for task in world.all_tasks() if task.attempts]
    assert len(free_seen) > 20 and len(started) > 20, "the pool was busy all the time"
    assert ray.violations == []
    with world.store.transaction() as db:
        rows = db.execute("SELECT task_id, kind FROM events").fetchall()
    assert Counter(row["kind"] for row in rows)["reason"] == 0
    moved = {task.task_id for task in started}
    still = Counter(row["task_id"] for row in rows if row["task_id"] not in moved)
    assert len(still) == 500 - len(moved) and set(still.values()) == {2}, "accepted, and told once why it waits"
