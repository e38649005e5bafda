"""The dispatcher over a real service, through thousands of seeded histories of a simulated Ray.

`ARGUS_SIM_SEED` repeats one history; `ARGUS_SIM_RUNS` sets how many are tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions, admission
from argus_ray.core.actions import Credential
from argus_ray.core.decision import Decision
from argus_ray.core.errors import ArgusError, FieldError
from argus_ray.core.lifecycle import Change, End
from argus_ray.core.model import Event, Task
from argus_ray.core.observation import FailureKind, JobStatus
from argus_ray.core.reasons import Code, Reason, words
from argus_ray.core.states import Outcome, TaskState
from argus_ray.disk.inputs import Findings
from argus_ray.scheduler.tick import MAX_LOOKS, Next
from tests.support.builders import World, make_service
from tests.support.histories import Actor, Operator
from tests.support.sanity import sanity_check
from tests.support.simray import AGAIN, Crash, NoAnswer, SimRay, make_dispatcher, settle

RUNS = int(os.environ.get("ARGUS_SIM_RUNS", "25"))
SEED = os.environ.get("ARGUS_SIM_SEED")
#: Two nodes of four GPUs, and tasks that need a part, a node, or both.
SHAPES = [(1, 1), (1, 2), (1, 4), (2, 4)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_service(tmp_path.resolve(), settings={"scheduling": {"max_losses": 1000}})


def tick(world: World, ray: SimRay, rng: random.Random | None = None, crashiness: float = 0.0) -> None:
    """A tick of a new dispatcher, which remembers nothing that matters; again while it comes back at once."""
    for _ in range(50):
        dispatcher = make_dispatcher(world, ray, rng or random.Random(0), crashiness)
        with contextlib.suppress(Crash, NoAnswer):
            if asyncio.run(dispatcher.tick()) not in AGAIN:
                return


def sim(nodes: dict[str, int] | None = None, seed: int = 0) -> SimRay:
    return SimRay(random.Random(seed), nodes or {"n1": 4, "n2": 4})


def run_to_end(world: World, ray: SimRay, actor: Actor | None = None, limit: int = 3000) -> None:
    """With one scheduler, or with a new one for each tick."""
    for _ in range(limit):
        world.clock.advance(30)
        actor.tick(0.0) if actor else tick(world, ray)
        for _ in range(5):
            ray.step()
        if not world.waiting() and not world.active():
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

    dispatcher.cluster.look = view_answers  # type: ignore[method-assign,assignment]
    asyncio.run(settle(dispatcher))
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
    asyncio.run(make_dispatcher(world, ray, random.Random(0)).tick())
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
        (waiting,) = world.waiting()
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
    assert world.active() == (), "its attempt is closed"
    assert not any(job.is_alive for job in ray.jobs.values())


def test_a_late_submission_of_a_canceled_task_does_not_start(world: World) -> None:
    """The scheduler dies with a submission on its way; the task is canceled; then the submission arrives."""
    ada = world.user("ada")
    task = world.submit(ada)
    ray = sim()
    (waiting,) = world.waiting()
    world.service.apply([world.admission(waiting)])
    attempt = world.task(task.task_id).attempts[0]
    world.service.handle(ada, actions.CancelTask(task.task_id))
    tick(world, ray)
    assert world.active() == ()
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
    assert [t.task_id for t in world.waiting()] == [first.task_id, second.task_id]
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
    (task,) = world.active()
    assert task.state is TaskState.RUNNING and len(task.attempts) == 1


def test_a_refused_submission_ends_as_a_loss_within_a_budget(tmp_path: Path) -> None:
    from argus_ray.scheduler.ports import SubmissionRefused

    world = make_service(tmp_path.resolve(), settings={"scheduling": {"max_losses": 1}})
    task = world.submit(world.user("ada"))
    ray = sim()

    async def refuse(*_: object) -> None:
        raise SubmissionRefused("no")

    ray.submit = refuse  # type: ignore[method-assign,assignment]
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    for _ in range(40):
        asyncio.run(settle(dispatcher))
        world.clock.advance(100)
    assert world.task(task.task_id).state is TaskState.FAILED
    assert "Ray refused the job" in words(world.task(task.task_id).reason or "")
    assert len(world.task(task.task_id).attempts) == 2
    world.close()


def test_a_task_that_cannot_be_prepared_stops_nobody(world: World) -> None:
    ada = world.user("ada")
    poison, healthy = world.submit(ada), world.submit(ada)
    ray = sim({"n1": 4})
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    prepare = dispatcher.examiner.prepare

    def picky(task: Task, *where: Any) -> object:
        if task.task_id == poison.task_id:
            raise ValueError("the shared root has moved")
        return prepare(task, *where)

    dispatcher.examiner.prepare = picky  # type: ignore[assignment]
    asyncio.run(settle(dispatcher))
    assert list(ray.jobs) == [f"{healthy.task_id}--a01"]
    held = world.task(poison.task_id)
    assert held.state is TaskState.PENDING_RESOURCES and "the shared root has moved" in words(held.reason or "")


GONE = Findings(errors=(FieldError("train_file", "does not exist"), FieldError("val_file", "is empty")))


def test_a_task_whose_input_was_deleted_is_held_and_then_fails_without_a_driver(world: World) -> None:
    who = world.user("ada")
    broken, sound = world.submit(who), world.submit(who)
    ray = sim({"n1": 8})
    ray.findings[broken.task_id] = GONE
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    asyncio.run(settle(dispatcher))
    held = world.task(broken.task_id)
    assert held.state is TaskState.PENDING_RESOURCES
    assert held.reason is not None and "train_file does not exist; val_file is empty" in words(held.reason)
    assert held.not_before == world.clock.now + 60
    assert world.task(sound.task_id).attempts, "it takes no room from others"
    world.clock.advance(59)
    asyncio.run(settle(dispatcher))
    assert world.task(broken.task_id) == held
    world.clock.advance(1)
    asyncio.run(settle(dispatcher))
    failed = world.task(broken.task_id)
    assert (failed.state, failed.attempts, failed.ended_at) == (TaskState.FAILED, (), world.clock.now)
    assert failed.reason == "its inputs cannot be used: train_file does not exist; val_file is empty"
    found = world.service.handle(who, actions.TaskEvents(broken.task_id))
    assert isinstance(found, tuple)
    assert [event.cause for event in found if isinstance(event, Event)][-1] == "invalid_inputs"
    sanity_check(world.store)


def test_an_input_that_comes_back_in_time_lets_the_task_start(world: World) -> None:
    task = world.submit(world.user("ada"))
    ray = sim()
    ray.findings[task.task_id] = GONE
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    asyncio.run(settle(dispatcher))
    world.clock.advance(300)  # nobody has looked meanwhile
    ray.findings[task.task_id] = Findings(warnings=GONE.errors)
    asyncio.run(settle(dispatcher))
    assert world.task(task.task_id).attempts


def test_inputs_are_looked_at_only_when_the_task_may_start(world: World) -> None:
    task = world.submit(world.user("ada"))
    ray = sim({"n1": 1})
    ray.findings[task.task_id] = GONE
    tick(world, ray)
    reason = world.task(task.task_id).reason
    assert reason is not None and "GPUs" in words(reason) and "inputs" not in words(reason)


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
    assert world.active() == (), "Ray said that it has stopped, which is enough"


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
    asyncio.run(settle(dispatcher))
    assert f"{task.task_id}--a01" in ray.jobs
    tick(world, ray)
    assert world.task(task.task_id).state is TaskState.SUCCEEDED


def lost(world: World, ray: SimRay, task: Task, saved: int | None = None) -> None:
    """The task's live attempt runs, saves a checkpoint and is lost with its supervisor."""
    attempt = world.task(task.task_id).attempts[-1]
    if saved is not None:
        ray.saved[attempt.job_root] = saved
    job = ray.jobs[attempt.submission_id]
    ray.started[attempt.job_root] = 1
    job.status, job.failure, job.held = JobStatus.FAILED, FailureKind.SUPERVISOR, {}


def remarks(world: World, who: Credential, task: Task) -> list[str]:
    events = world.service.handle(who, actions.TaskEvents(task.task_id))
    assert isinstance(events, tuple)
    return [event.message for event in events if isinstance(event, Event) and event.kind == "note"]


def test_a_lost_task_resumes_from_the_newest_checkpoint_of_its_attempts(world: World) -> None:
    ada = world.user("ada")
    task, ray = world.submit(ada), sim()
    tick(world, ray)
    lost(world, ray, task, saved=70)
    tick(world, ray)
    lost(world, ray, task)
    tick(world, ray)
    first, second, third = world.task(task.task_id).attempts
    folder = f"{first.job_root}/checkpoints/global_step_70"
    assert [attempt.command[2:] for attempt in (first, second, third)] == [(), (folder,), (folder,)]
    assert third.env == (("ROOT", third.job_root),), "it writes to a job root of its own"
    assert remarks(world, ada, task) == ["a02 resumes from step 70 of a01", "a03 resumes from step 70 of a01"]


def test_a_task_without_a_checkpoint_says_that_it_starts_from_the_beginning(world: World) -> None:
    ada = world.user("ada")
    task, ray = world.submit(ada), sim()
    tick(world, ray)
    assert remarks(world, ada, task) == []
    for _ in range(2):
        lost(world, ray, task)
        tick(world, ray)
    assert remarks(world, ada, task) == [
        "a02 starts from the beginning: a01 left no complete checkpoint",
        "a03 starts from the beginning: a01 and a02 left no complete checkpoint",
    ]
    assert [len(attempt.command) for attempt in world.task(task.task_id).attempts] == [2, 2, 2]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), TimeoutError()])
def test_while_the_disk_does_not_answer_a_lost_task_waits_and_others_start(world: World, error: Exception) -> None:
    ada = world.user("ada")
    task, ray = world.submit(ada), sim({"n1": 4})
    tick(world, ray)
    lost(world, ray, task, saved=70)
    other = world.submit(ada)
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    find, asked = dispatcher.examiner.inputs.find_checkpoint, 0

    async def fails(_: Task) -> None:
        nonlocal asked
        asked += 1
        raise error

    dispatcher.examiner.inputs.find_checkpoint = fails  # type: ignore[method-assign,assignment]
    reasons = set()
    for _ in range(5):
        asyncio.run(settle(dispatcher))
        held = world.task(task.task_id)
        assert held.state is TaskState.PENDING_RESOURCES and len(held.attempts) == 1, "not from zero"
        reasons.add(words(held.reason or ""))
        world.clock.advance(10)
        if other.task_id in {each.task_id for each in world.active()}:
            ray._finish(f"{other.task_id}--a01", JobStatus.SUCCEEDED, 0)
    (reason,) = reasons
    assert reason and reason.startswith("waits to learn whether an earlier attempt has left a checkpoint: ")
    assert "Input/output error" in reason or "the shared filesystem does not answer" in reason
    assert world.task(other.task_id).attempts, "the room was not kept for the one that waits"
    assert asked == (1 if isinstance(error, TimeoutError) else 5), "a hang holds up everybody, so it is not repeated"
    dispatcher.examiner.inputs.find_checkpoint = find  # type: ignore[method-assign]
    world.clock.advance(60)
    asyncio.run(settle(dispatcher))
    assert remarks(world, ada, task) == ["a02 resumes from step 70 of a01"]


def test_a_hang_of_the_disk_is_waited_for_once_a_pass(world: World) -> None:
    """The line holds more lost tasks than fit; each one that is held lets the next one in."""
    ada = world.user("ada")
    tasks, ray = [world.submit(ada) for _ in range(2)], sim()
    tick(world, ray)
    for task in tasks:
        lost(world, ray, task, saved=1)
    ray.nodes = {"n1": 4}
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    asked = []

    async def hangs(task: Task) -> None:
        asked.append(task.task_id)
        raise asyncio.TimeoutError

    dispatcher.examiner.inputs.find_checkpoint = hangs  # type: ignore[method-assign]
    asyncio.run(settle(dispatcher))
    assert asked == [tasks[0].task_id]
    assert {world.task(task.task_id).state for task in tasks} == {TaskState.PENDING_RESOURCES}


def test_the_cluster_is_looked_at_once_a_tick_and_all_is_stored_at_once(world: World) -> None:
    ada = world.user("ada")
    for _ in range(3):
        world.submit(ada)
    ray = sim()
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    for _ in range(12):
        before = (dispatcher.cluster.looks, dispatcher.state.calls["apply"])  # type: ignore[attr-defined]
        asyncio.run(dispatcher.tick())
        after = (dispatcher.cluster.looks, dispatcher.state.calls["apply"])  # type: ignore[attr-defined]
        assert (after[0] - before[0], after[1] - before[1]) in ((1, 0), (1, 1))
        ray.step()
        ray.step()


def test_the_room_of_an_ended_attempt_is_given_away_by_the_next_tick_which_comes_at_once(world: World) -> None:
    """The view of the tick that finds the end may be older than the end, and show what the attempt was just taking."""
    ada = world.user("ada")
    first, second = world.submit(ada), world.submit(ada)
    ray = sim({"n1": 4})
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    asyncio.run(settle(dispatcher))
    ray.step()
    ray._finish(f"{first.task_id}--a01", JobStatus.SUCCEEDED, 0)
    assert asyncio.run(dispatcher.tick()) is Next.AT_ONCE
    assert world.task(first.task_id).state is TaskState.SUCCEEDED
    assert world.task(second.task_id).attempts == ()
    asyncio.run(dispatcher.tick())
    assert len(world.task(second.task_id).attempts) == 1


def test_nothing_younger_takes_the_turn_of_a_task_that_comes_back(world: World) -> None:
    """In the tick that finds the loss the task is not in the queue yet, and other room has come free."""
    ada = world.user("ada")
    first = world.submit(ada)
    ray = sim({"n1": 4})
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    asyncio.run(settle(dispatcher))
    younger = world.submit(ada)
    lost(world, ray, first)
    ray.nodes = {"n2": 4}
    assert asyncio.run(dispatcher.tick()) is Next.AT_ONCE
    assert world.task(younger.task_id).attempts == ()
    asyncio.run(settle(dispatcher))
    assert len(world.task(first.task_id).attempts) == 2
    assert world.task(younger.task_id).attempts == ()


def test_an_end_that_cannot_be_stored_keeps_nobody_waiting(world: World) -> None:
    ada = world.user("ada")
    first = world.submit(ada)
    ray = sim({"n1": 4, "n2": 4})
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    asyncio.run(settle(dispatcher))
    lost(world, ray, first)
    apply = world.service.apply

    def drop_ends(changes: Sequence[Change]) -> list[bool]:
        kept = iter(apply([change for change in changes if not isinstance(change, End)]))
        return [not isinstance(change, End) and next(kept) for change in changes]

    world.service.apply = drop_ends  # type: ignore[method-assign]
    younger = world.submit(ada)
    asyncio.run(settle(dispatcher))
    assert world.task(first.task_id).state.is_active and len(world.task(younger.task_id).attempts) == 1


def test_a_thousand_bad_inputs_lead_to_one_further_decision_and_a_bounded_number_of_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_service(tmp_path.resolve(), settings={"limits": {"waiting_tasks_per_user": 2000}})
    ada = world.user("ada")
    broken = [world.submit(ada, n_gpus_per_node=1) for _ in range(300)]
    sound = world.submit(ada, n_gpus_per_node=1)
    ray = sim({f"n{i}": 8 for i in range(50)})
    ray.findings = {task.task_id: GONE for task in broken}
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    looked: list[str] = []
    decided: list[int] = []
    check, decide = dispatcher.examiner.inputs.check, admission.decide

    async def count_looks(task: Task) -> Findings:
        looked.append(task.task_id)
        return await check(task)

    def count_decisions(queue: Any, *rest: Any, **named: Any) -> Decision:
        decided.append(1)
        return decide(queue, *rest, **named)

    dispatcher.examiner.inputs.check = count_looks  # type: ignore[method-assign]
    monkeypatch.setattr(admission, "decide", count_decisions)
    for _ in range(20):
        before = (len(looked), len(decided))
        upcoming = asyncio.run(dispatcher.tick())
        assert len(looked) - before[0] <= MAX_LOOKS
        assert len(decided) - before[1] <= 2
        if upcoming not in AGAIN:
            break
    assert world.task(sound.task_id).attempts, "they take no room from others"
    assert sorted(looked) == sorted(task.task_id for task in (*broken, sound)), "each is looked at once"
    world.clock.advance(59)
    asyncio.run(settle(dispatcher))
    assert len(looked) == 301, "not before its time"
    assert asyncio.run(make_dispatcher(world, ray, random.Random(0)).tick()) and len(looked) == 301
    world.clock.advance(1)
    asyncio.run(settle(dispatcher))
    assert len(looked) == 601
    assert {world.task(task.task_id).not_before for task in broken} == {world.clock.now + 60}
    world.close()


def test_the_room_of_two_with_bad_inputs_goes_to_the_third_at_once(world: World) -> None:
    ada = world.user("ada")
    first, second, third = (world.submit(ada) for _ in range(3))
    ray = sim({"n1": 4})
    ray.findings = {first.task_id: GONE, second.task_id: GONE}
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    assert asyncio.run(dispatcher.tick()) is Next.AT_ONCE
    assert world.task(third.task_id).attempts == (), "one tick decides twice, not more often"
    asyncio.run(dispatcher.tick())
    assert len(world.task(third.task_id).attempts) == 1


def test_who_comes_after_the_bound_of_overtaking_is_told_that_an_older_task_goes_first(world: World) -> None:
    ada = world.user("ada")
    ray = sim({"n1": 4, "n2": 4})
    dispatcher = make_dispatcher(world, ray, random.Random(0))

    def come(nnodes: int, gpus: int) -> Task:
        task = world.submit(ada, nnodes=nnodes, n_gpus_per_node=gpus)
        asyncio.run(settle(dispatcher))
        return world.task(task.task_id)

    def code(task: Task) -> Code | None:
        return task.reason.code if isinstance(task.reason, Reason) else None

    assert come(1, 1).attempts
    assert code(come(2, 4)) is Code.POOL_BUSY
    assert come(1, 1).attempts, "it overtakes the gang, whose clock starts"
    world.clock.advance(599)
    assert code(come(2, 4)) is Code.POOL_BUSY
    world.clock.advance(1)
    assert code(come(2, 4)) is Code.POOL_BUSY, "for it there is no room anyway"
    assert code(come(1, 1)) is Code.BEHIND_OLDER, "though there is room"
    assert code(come(1, 1)) is Code.BEHIND_OLDER


def test_a_new_scheduler_does_not_look_again_before_the_time(world: World) -> None:
    task = world.submit(world.user("ada"))
    ray = sim()
    ray.findings[task.task_id] = GONE
    tick(world, ray)
    held = world.task(task.task_id)
    ray.findings.clear()
    world.clock.advance(59)
    tick(world, ray)
    assert world.task(task.task_id) == held
    world.clock.advance(1)
    ray.findings[task.task_id] = GONE
    tick(world, ray)
    assert world.task(task.task_id).state is TaskState.FAILED, "it was bad at both looks, whoever looked"


def test_inputs_that_came_back_are_forgiven_though_the_task_does_not_start_yet(world: World) -> None:
    """In the tick of its second look another one is found bad, and makes room for one that is older than it."""
    ada = world.user("ada")
    bad, wide, sound = (world.submit(ada, n_gpus_per_node=gpus) for gpus in (1, 4, 1))
    ray = sim({"n1": 3})
    ray.findings = {bad.task_id: GONE, sound.task_id: GONE}
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    asyncio.run(settle(dispatcher))
    codes = {task.task_id: task.reason.code for task in world.waiting() if isinstance(task.reason, Reason)}
    assert codes == {
        bad.task_id: Code.BAD_INPUTS, wide.task_id: Code.NODE_TOO_SMALL, sound.task_id: Code.BAD_INPUTS,
    }  # fmt: skip
    world.clock.advance(60)
    ray.nodes = {"n1": 4}
    del ray.findings[sound.task_id]
    asyncio.run(settle(dispatcher))
    assert world.task(bad.task_id).state is TaskState.FAILED and len(world.task(wide.task_id).attempts) == 1
    reason = world.task(sound.task_id).reason
    assert isinstance(reason, Reason) and reason.code is Code.POOL_BUSY


def failed(world: World, ray: SimRay, task: Task, saved: int | None = None) -> None:
    """The program of the task's live attempt fails, after it has saved a checkpoint."""
    attempt = world.task(task.task_id).attempts[-1]
    if saved is not None:
        ray.saved[attempt.job_root] = saved
    ray.started[attempt.job_root] = 1
    ray._finish(attempt.submission_id, JobStatus.FAILED, 1)
    tick(world, ray)
    assert world.task(task.task_id).state is TaskState.FAILED


def resubmit(world: World, who: Credential, task: Task, resume: bool = True) -> Task:
    answer = world.service.handle(who, actions.ResubmitTask(task.task_id, resume))
    assert isinstance(answer, actions.Submitted)
    return world.task(answer.task_id)


def test_a_resubmitted_task_resumes_from_the_newest_checkpoint_of_the_old_one(world: World) -> None:
    ada = world.user("ada")
    old, ray = world.submit(ada), sim()
    tick(world, ray)
    failed(world, ray, old, saved=70)
    (first,) = world.task(old.task_id).attempts
    folder = f"{first.job_root}/checkpoints/global_step_70"
    new = resubmit(world, ada, old)
    tick(world, ray)
    assert remarks(world, ada, new) == [f"a01 resumes from step 70 of {old.task_id}--a01"]
    # What it saves itself is newer; what it loses before that is resumed from the old task's.
    lost(world, ray, new)
    tick(world, ray)
    lost(world, ray, new, saved=80)
    tick(world, ray)
    own = world.task(new.task_id).attempts
    newer = f"{own[1].job_root}/checkpoints/global_step_80"
    assert [attempt.command[2:] for attempt in own] == [(folder,), (folder,), (newer,)]
    assert remarks(world, ada, new)[2] == "a03 resumes from step 80 of a02"
    failed(world, ray, new)
    newest = resubmit(world, ada, new)
    tick(world, ray)
    assert world.task(newest.task_id).attempts[0].command[2:] == (newer,)
    failed(world, ray, newest)
    anew = resubmit(world, ada, newest, resume=False)
    tick(world, ray)
    assert world.task(anew.task_id).attempts[0].command[2:] == ()
    assert remarks(world, ada, anew) == [], "nobody asked for it"


def test_a_resume_whose_checkpoint_is_gone_starts_from_the_beginning_and_says_so(world: World) -> None:
    ada = world.user("ada")
    old, ray = world.submit(ada), sim()
    tick(world, ray)
    failed(world, ray, old, saved=70)
    new = resubmit(world, ada, old)
    ray.saved.clear()
    tick(world, ray)
    assert world.task(new.task_id).attempts[0].command[2:] == ()
    lost(world, ray, new)
    tick(world, ray)
    assert remarks(world, ada, new) == [
        f"a01 starts from the beginning: no complete checkpoint of the task {old.task_id} is there",
        f"a02 starts from the beginning: no complete checkpoint of the task {old.task_id} and a01 is there",
    ]


def test_checkpoints_are_looked_for_only_when_a_lost_task_may_start(world: World) -> None:
    ada = world.user("ada")
    task, ray = world.submit(ada), sim({"n1": 4})
    asked: list[str] = []

    async def note(task: Task) -> None:
        asked.append(task.task_id)

    ray.find_checkpoint = note  # type: ignore[method-assign]
    tick(world, ray)
    lost(world, ray, task)
    ray.nodes = {}
    tick(world, ray)
    assert world.task(task.task_id).state is TaskState.PENDING_RESOURCES
    assert asked == [], "neither for a first attempt, nor for one that does not fit"
    ray.nodes = {"n1": 4}
    tick(world, ray)
    assert asked == [task.task_id]


def test_a_remark_about_an_admission_that_came_too_late_is_not_written(world: World) -> None:
    ada = world.user("ada")
    task = world.submit(ada)
    admission = replace(world.admission(task), note="a01 resumes from nowhere")
    world.service.handle(ada, actions.CancelTask(task.task_id))
    assert world.service.apply([admission]) == [False]
    assert remarks(world, ada, task) == []


@pytest.mark.parametrize("seed", [int(SEED)] if SEED else range(RUNS))
def test_random_histories(tmp_path: Path, seed: int) -> None:
    """Submissions, cancels, crashes, silence, lost sessions, nodes that are bad or lost, seen or not, and a clock that
    is set, in random order; then calm. Every task ends, none runs twice at once, none starts after its cancel, and
    every gang finds its room. After each tick the scheduler's copy of the queue is what the database holds."""
    rng = random.Random(seed)
    scheduling = {"max_losses": 1000, "max_failed_starts": 1000, "stall_after_s": 500, "stop_stalled": seed % 2 == 1}
    world = make_service(tmp_path.resolve(), settings={"scheduling": scheduling})
    users = [world.user("ada"), world.user("bob")]
    ray = sim(seed=seed)
    ray.restlessness = 0.3
    actor = Actor(world, ray, rng)
    canceled: dict[str, int] = {}
    operator = Operator(world, rng, sorted(ray.full_nodes))
    for _ in range(150):
        world.clock.advance(rng.choice([0.1, 1, 10, 100]))
        if rng.random() < 0.02:
            operator.speak()
        else:
            _one_thing_happens(rng, world, ray, actor, users, canceled)
        operator.check()
        assert ray.violations == [], f"seed {seed}"
    operator.take_back()
    ray.notice()
    ray.flakiness, ray.nodes, ray.bad, ray.clogged = 0.0, dict(ray.full_nodes), set(), set()
    ray.findings.clear()
    run_to_end(world, ray, actor)
    sanity_check(world.store)
    assert ray.violations == [], f"seed {seed}"
    assert all(count <= 1 for count in ray.started.values()), "a submission id ran twice"
    for task_id, started_then in canceled.items():
        task = world.task(task_id)
        assert task.state is TaskState.CANCELED
        assert sum(ray.started[a.job_root] for a in task.attempts) <= started_then + _racing(task)
    _check_resumed(world, ray)
    _check_losses(world, ray)
    world.close()


def _check_losses(world: World, ray: SimRay) -> None:
    """What never began has lost its task nothing, and what began and was lost has."""
    with world.store.transaction() as db:
        names = [row[0] for row in db.execute("SELECT task_id FROM tasks").fetchall()]
    for attempt in itertools.chain(*(world.task(name).attempts for name in names)):
        if attempt.outcome is Outcome.INFRASTRUCTURE and attempt.failure is not None:
            assert not (attempt.never_began and ray.started[attempt.job_root]), attempt.submission_id
        elif attempt.outcome is Outcome.INFRASTRUCTURE:
            assert ray.started[attempt.job_root], f"{attempt.submission_id} never began: {attempt.reason}"


def _check_resumed(world: World, ray: SimRay) -> None:
    """Each attempt went on from the highest step that the ones before it had saved, or from the beginning."""
    with world.store.transaction() as db:
        names = [row[0] for row in db.execute("SELECT task_id FROM tasks").fetchall()]
    attempts = {name: world.task(name).attempts for name in names}
    for attempt in itertools.chain(*attempts.values()):
        earlier = [*(world.task(attempt.task_id).resume_roots or ())]
        earlier += [a.job_root for a in attempts[attempt.task_id] if a.number < attempt.number]
        steps = [ray.saved[root] for root in earlier if root in ray.saved]
        resumed = [int(word.rsplit("_", 1)[1]) for word in attempt.command[2:]]
        assert resumed == ([max(steps)] if steps else []), attempt.submission_id


def _resubmit_one(world: World, users: list[Credential], task_id: str, resume: bool) -> None:
    for who in users:
        with contextlib.suppress(ArgusError):
            world.service.handle(who, actions.ResubmitTask(task_id, resume))


def _racing(task: Task) -> int:
    """An attempt that Ray was just starting when the cancel came may start before it hears of it."""
    return 1 if any(attempt.outcome and attempt.outcome.value == "CANCELED" for attempt in task.attempts) else 0


def _one_thing_happens(
    rng: random.Random, world: World, ray: SimRay, actor: Actor, users: list[Credential], canceled: dict[str, int]
) -> None:
    what = rng.random()
    if what < 0.2:
        nnodes, gpus = rng.choice(SHAPES)
        world.submit(rng.choice(users), nnodes=nnodes, n_gpus_per_node=gpus)
    elif what < 0.22:
        with world.store.transaction() as db:
            ended = [row[0] for row in db.execute("SELECT task_id FROM tasks WHERE ended_at IS NOT NULL ORDER BY seq")]
        if ended:
            _resubmit_one(world, users, rng.choice(ended), resume=rng.random() < 0.7)
    elif what < 0.27:
        alive = [task for task in (*world.waiting(), *world.active()) if not task.state.is_final]
        if alive:
            task = rng.choice(alive)
            for who in users:
                try:
                    world.service.handle(who, actions.CancelTask(task.task_id))
                except ArgusError:
                    continue
            canceled[task.task_id] = sum(ray.started[a.job_root] for a in task.attempts)
    elif what < 0.55:
        actor.tick(crashiness=rng.choice([0.0, 0.0, 0.1]))
    elif what < 0.57:
        ray.lose_session()
    elif what < 0.59:
        rng.choice([ray.lose_node, ray.lose_node_unseen])()
    elif what < 0.61:
        ray.notice()
        ray.nodes = dict(ray.full_nodes)
        ray.bad, ray.clogged = set(), set()
    elif what < 0.65:
        ray.flakiness = rng.choice([0.0, 0.0, 0.2])
    elif what < 0.655:
        rng.choice([ray.bad, ray.clogged]).add(rng.choice(sorted(ray.full_nodes)))
    elif what < 0.66:
        world.reopen()
    elif what < 0.67:
        actor.set_clock(rng.choice([-86_400, -3600, -90, 5.25, 90, 3600, 86_400]), is_seen=rng.random() < 0.8)
    elif what < 0.69:
        waiting = world.waiting()
        if waiting:
            ray.findings[rng.choice(waiting).task_id] = rng.choice([GONE, Findings()])
    else:
        ray.step()
