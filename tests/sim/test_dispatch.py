"""The dispatcher over a real service, through thousands of seeded histories of a simulated Ray.

`ARGUS_SIM_SEED` repeats one history; `ARGUS_SIM_RUNS` sets how many are tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path

import pytest
from builders import World, make_service
from sanity import sanity_check
from simworld import Crash, NoAnswer, SimRay, make_dispatcher

from argus_ray.core import actions
from argus_ray.core.actions import Credential
from argus_ray.core.errors import ArgusError
from argus_ray.core.model import Task
from argus_ray.core.observation import JobStatus
from argus_ray.core.states import TaskState

RUNS = int(os.environ.get("ARGUS_SIM_RUNS", "25"))
SEED = os.environ.get("ARGUS_SIM_SEED")
#: Two nodes of four GPUs, and tasks that need a part, a node, or both.
SHAPES = [(1, 1), (1, 2), (1, 4), (2, 4)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_service(tmp_path.resolve(), settings={"scheduling": {"max_losses": 1000}})


def tick(world: World, ray: SimRay, rng: random.Random | None = None, crashiness: float = 0.0) -> None:
    """One tick of a new dispatcher: it remembers nothing that matters."""
    dispatcher = make_dispatcher(world, ray, rng or random.Random(0), crashiness)
    with contextlib.suppress(Crash, NoAnswer):
        asyncio.run(dispatcher.tick())


def sim(nodes: dict[str, int] | None = None, seed: int = 0) -> SimRay:
    return SimRay(random.Random(seed), nodes or {"n1": 4, "n2": 4})


def run_to_end(world: World, ray: SimRay, limit: int = 3000) -> None:
    for _ in range(limit):
        world.clock.advance(30)
        tick(world, ray)
        for _ in range(5):
            ray.step()
        if not world.service.waiting() and not world.service.active():
            return
    raise AssertionError("some tasks are stuck")


def test_a_task_runs_once_to_its_end(world: World) -> None:
    task = world.submit(world.user("ada"))
    ray = sim()
    run_to_end(world, ray)
    assert world.task(task.task_id).state.is_final
    assert sum(ray.started.values()) == len(world.task(task.task_id).attempts)


def test_the_attempt_is_on_disk_before_ray_is_called(world: World) -> None:
    task = world.submit(world.user("ada"))
    ray = sim()
    ray.flakiness = 1.0
    dispatcher = make_dispatcher(world, ray, random.Random(0))

    async def view_answers() -> object:
        ray.flakiness = 0.0
        view = await ray.view()
        ray.flakiness = 1.0
        return view

    dispatcher.look_at_cluster = view_answers  # type: ignore[assignment]
    asyncio.run(dispatcher.tick())
    assert world.task(task.task_id).state is TaskState.SUBMITTING
    assert ray.jobs == {}, "Ray did not take it"
    ray.flakiness = 0.0
    world.clock.advance(10)
    tick(world, ray)
    assert list(ray.jobs) == [f"{task.task_id}--a01"], "the same id is submitted again"


def test_a_submission_that_arrived_without_an_answer_is_adopted(world: World) -> None:
    task = world.submit(world.user("ada"))
    ray = sim()

    async def arrives_silently(task: Task, attempt: object) -> None:
        await SimRay.submit(ray, task, attempt)  # type: ignore[arg-type]
        raise NoAnswer

    ray.submit = arrives_silently  # type: ignore[method-assign]
    tick(world, ray)
    assert world.task(task.task_id).state is TaskState.SUBMITTING
    tick(world, ray)
    assert world.task(task.task_id).state is TaskState.SUBMITTED
    assert len(ray.jobs) == 1


@pytest.mark.parametrize("until", list(TaskState))
def test_cancel_in_every_state_and_it_never_runs_later(world: World, until: TaskState) -> None:
    ada = world.user("ada")
    task = world.submit(ada)
    ray = sim()
    if until is TaskState.PENDING_RESOURCES:
        ray.nodes = {"n1": 1}
        tick(world, ray)
        ray.nodes = {"n1": 4, "n2": 4}
    elif until is TaskState.SUBMITTING:
        ray.submit = lambda *_: asyncio.sleep(0)  # type: ignore[method-assign]
        (waiting,) = world.service.waiting()
        world.service.apply([world.admission(waiting)])
        del ray.submit
    elif until in (TaskState.SUBMITTED, TaskState.RUNNING):
        tick(world, ray)
        if until is TaskState.RUNNING:
            ray.step()
            tick(world, ray)
    elif until.is_final:
        if until is TaskState.CANCELED:
            world.service.handle(ada, actions.CancelTask(task.task_id))
        else:
            tick(world, ray)
            job = ray.jobs[f"{task.task_id}--a01"]
            ray.step()
            ray._finish(
                f"{task.task_id}--a01",
                JobStatus.SUCCEEDED if until is TaskState.SUCCEEDED else JobStatus.FAILED,
                0 if until is TaskState.SUCCEEDED else 1,
            )
            del job
            tick(world, ray)
    assert world.task(task.task_id).state is until
    started = sum(ray.started.values())
    world.service.handle(ada, actions.CancelTask(task.task_id))
    for _ in range(50):
        world.clock.advance(100)
        tick(world, ray)
        ray.step()
    expected = until if until.is_final else TaskState.CANCELED
    assert world.task(task.task_id).state is expected
    assert sum(ray.started.values()) == started, "it started after it was canceled"
    assert world.service.active() == (), "its attempt is closed"
    assert not any(job.is_alive for job in ray.jobs.values())


def test_a_late_submission_of_a_canceled_task_does_not_start(world: World) -> None:
    """The scheduler dies with a submission on its way; the task is canceled; then the submission arrives."""
    ada = world.user("ada")
    task = world.submit(ada)
    ray = sim()
    (waiting,) = world.service.waiting()
    world.service.apply([world.admission(waiting)])
    attempt = world.task(task.task_id).attempts[0]
    world.service.handle(ada, actions.CancelTask(task.task_id))
    tick(world, ray)
    assert world.service.active() == ()
    asyncio.run(ray.submit(task, attempt))
    ray.step()
    assert ray.started[attempt.job_root] == 0


def test_a_lost_attempt_goes_back_to_its_old_place(world: World) -> None:
    ada = world.user("ada")
    first, second = world.submit(ada), world.submit(ada)
    ray = sim({"n1": 4})
    tick(world, ray)
    ray.step()
    ray.step()
    tick(world, ray)
    assert world.task(first.task_id).state is TaskState.RUNNING
    ray.lose_session()
    ray.nodes = {}
    tick(world, ray)
    assert [t.task_id for t in world.service.waiting()] == [first.task_id, second.task_id]
    ray.nodes = {"n1": 4}
    tick(world, ray)
    assert list(ray.jobs) == [f"{first.task_id}--a02"]


def test_an_empty_answer_of_ray_ends_nothing(world: World) -> None:
    world.submit(world.user("ada"))
    ray = sim()
    tick(world, ray)
    ray.step()
    tick(world, ray)
    ray.flakiness = 1.0
    for _ in range(20):
        world.clock.advance(1000)
        tick(world, ray)
    (task,) = world.service.active()
    assert task.state is TaskState.RUNNING and len(task.attempts) == 1


def test_a_refused_submission_ends_as_a_loss_within_a_budget(tmp_path: Path) -> None:
    from argus_ray.dispatch import SubmissionRefused

    world = make_service(tmp_path.resolve(), settings={"scheduling": {"max_losses": 1}})
    task = world.submit(world.user("ada"))
    ray = sim()

    async def refuse(*_: object) -> None:
        raise SubmissionRefused("no")

    ray.submit = refuse  # type: ignore[method-assign,assignment]
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    for _ in range(40):
        asyncio.run(dispatcher.tick())
        world.clock.advance(100)
    assert world.task(task.task_id).state is TaskState.FAILED
    assert "Ray refused the job" in (world.task(task.task_id).reason or "")
    assert len(world.task(task.task_id).attempts) == 2
    world.close()


def test_a_task_that_cannot_be_prepared_stops_nobody(world: World) -> None:
    ada = world.user("ada")
    poison, healthy = world.submit(ada), world.submit(ada)
    ray = sim({"n1": 4})
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    prepare = dispatcher.prepare

    def picky(task: Task, submission_id: str, job_root: str) -> object:
        if task.task_id == poison.task_id:
            raise ValueError("the shared root has moved")
        return prepare(task, submission_id, job_root)

    dispatcher.prepare = picky  # type: ignore[assignment]
    asyncio.run(dispatcher.tick())
    assert list(ray.jobs) == [f"{healthy.task_id}--a01"]
    held = world.task(poison.task_id)
    assert held.state is TaskState.PENDING_RESOURCES and "the shared root has moved" in (held.reason or "")


def test_a_full_disk_does_not_keep_a_canceled_job_running(world: World) -> None:
    ada = world.user("ada")
    task = world.submit(ada)
    ray = sim()
    tick(world, ray)
    ray.step()
    tick(world, ray)
    world.service.handle(ada, actions.CancelTask(task.task_id))

    async def full(_: str) -> None:
        raise OSError(28, "No space left on device")

    ray.forbid_start = full  # type: ignore[method-assign,assignment]
    tick(world, ray)
    assert ray.jobs[f"{task.task_id}--a01"].stop_asked
    ray.step()
    tick(world, ray)
    assert world.service.active() == (), "Ray said that it has stopped, which is enough"


def test_a_job_whose_end_was_not_stored_is_not_forgotten(world: World) -> None:
    task = world.submit(world.user("ada"))
    ray = sim()
    tick(world, ray)
    ray.step()
    ray._finish(f"{task.task_id}--a01", JobStatus.SUCCEEDED, 0)
    dispatcher = make_dispatcher(world, ray, random.Random(0))

    async def drop(changes: object) -> list[bool]:
        return [False]

    dispatcher.state.apply = drop  # type: ignore[method-assign]
    asyncio.run(dispatcher.tick())
    assert f"{task.task_id}--a01" in ray.jobs
    tick(world, ray)
    assert world.task(task.task_id).state is TaskState.SUCCEEDED


@pytest.mark.parametrize("seed", [int(SEED)] if SEED else range(RUNS))
def test_random_histories(tmp_path: Path, seed: int) -> None:
    """Submissions, cancels, crashes, silence, lost nodes and lost sessions in random order; then calm. Every task
    ends, none runs twice at once, none starts after its cancel, and every gang finds its room."""
    rng = random.Random(seed)
    world = make_service(tmp_path.resolve(), settings={"scheduling": {"max_losses": 1000}})
    users = [world.user("ada"), world.user("bob")]
    ray = sim(seed=seed)
    canceled: dict[str, int] = {}
    for _ in range(150):
        world.clock.advance(rng.choice([0.1, 1, 10, 100]))
        _one_thing_happens(rng, world, ray, users, canceled)
        assert ray.violations == [], f"seed {seed}"
    ray.flakiness, ray.nodes = 0.0, dict(ray.full_nodes)
    run_to_end(world, ray)
    sanity_check(world.store)
    assert ray.violations == [], f"seed {seed}"
    assert all(count <= 1 for count in ray.started.values()), "a submission id ran twice"
    for task_id, started_then in canceled.items():
        task = world.task(task_id)
        assert task.state is TaskState.CANCELED
        assert sum(ray.started[a.job_root] for a in task.attempts) <= started_then + _racing(task)
    world.close()


def _racing(task: Task) -> int:
    """An attempt that Ray was just starting when the cancel came may start before it hears of it."""
    return 1 if any(attempt.outcome and attempt.outcome.value == "CANCELED" for attempt in task.attempts) else 0


def _one_thing_happens(
    rng: random.Random, world: World, ray: SimRay, users: list[Credential], canceled: dict[str, int]
) -> None:
    what = rng.random()
    if what < 0.2:
        nnodes, gpus = rng.choice(SHAPES)
        world.submit(rng.choice(users), nnodes=nnodes, n_gpus_per_node=gpus)
    elif what < 0.25:
        alive = [task for task in (*world.service.waiting(), *world.service.active()) if not task.state.is_final]
        if alive:
            task = rng.choice(alive)
            for who in users:
                try:
                    world.service.handle(who, actions.CancelTask(task.task_id))
                except ArgusError:
                    continue
            canceled[task.task_id] = sum(ray.started[a.job_root] for a in task.attempts)
    elif what < 0.55:
        tick(world, ray, rng, crashiness=rng.choice([0.0, 0.0, 0.1]))
    elif what < 0.57:
        ray.lose_session()
    elif what < 0.59:
        ray.lose_node()
    elif what < 0.61:
        ray.nodes = dict(ray.full_nodes)
    elif what < 0.65:
        ray.flakiness = rng.choice([0.0, 0.0, 0.2])
    else:
        ray.step()
