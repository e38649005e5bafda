"""Submitting, looking, canceling; and that no user learns anything of another."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import (
    Action,
    Credential,
    Explanation,
    QueueEntry,
    Role,
    Submitted,
    TaskPage,
    TaskView,
)
from argus_ray.core.errors import (
    ArgusError,
    BodyTooLarge,
    FieldError,
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    InvalidSpec,
    LogNotFound,
    QueueFull,
    TaskNotFound,
    Unauthenticated,
    Unavailable,
)
from argus_ray.core.estimates import Estimate, Unknown
from argus_ray.core.lifecycle import Advance, End
from argus_ray.core.model import Attempt, Event, Task
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.core.task_filter import TaskFilter
from argus_ray.store import tasks as task_rows
from tests.support.builders import ADMIN, INTERNAL, World
from tests.support.sanity import checked_service


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from checked_service(tmp_path)


def queue(world: World, who: actions.Credential, *, everyone: bool = False) -> list[tuple[str, int | None]]:
    found = world.service.handle(who, actions.ShowQueue(everyone))
    assert isinstance(found, tuple)
    return [(entry.task.task_id, entry.position) for entry in found if isinstance(entry, QueueEntry)]


def view(world: World, who: actions.Credential, task: Task) -> TaskView:
    found = world.service.handle(who, actions.GetTask(task.task_id))
    assert isinstance(found, TaskView)
    return found


def page(world: World, who: actions.Credential, action: actions.ListTasks) -> TaskPage:
    found = world.service.handle(who, action)
    assert isinstance(found, TaskPage)
    return found


def start(world: World, task: Task, *, running: bool = True) -> str:
    assert world.service.apply([world.admission(world.task(task.task_id))]) == [True]
    submission_id = world.task(task.task_id).attempts[-1].submission_id
    if running:
        assert world.service.apply([Advance(submission_id, running=True, session="s1")]) == [True]
    return submission_id


# --- submit ---


def test_an_accepted_task(world: World) -> None:
    alice = world.user("alice")
    text = world.spec(nnodes=2, n_gpus_per_node=4)
    answer = world.service.handle(alice, world.submission(text))
    assert answer.created
    task = world.task(answer.task_id)
    assert answer == Submitted.of(task, created=True)
    assert task.task_id.startswith("argus-alice-sft-20270115-080000-")
    assert (task.user_id, task.state, task.seq, task.spec_yaml) == ("alice", TaskState.QUEUED, 1, text)
    assert (task.gang.nnodes, task.gang.gpus_per_node) == (2, 4)
    assert task == world.waiting()[0]
    (event,) = world.service.handle(alice, actions.TaskEvents(task.task_id))
    assert isinstance(event, Event)
    assert (event.kind, event.cause, event.old_state, event.new_state) == (
        "move", "accepted", None, TaskState.QUEUED,
    )  # fmt: skip


def test_the_order_of_acceptance_is_the_line(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    first, second = world.submit(bob), world.submit(alice)
    world.clock.jump(-1000)  # a clock that is set back does not change places
    third = world.submit(bob)
    assert [task.task_id for task in world.waiting()] == [
        first.task_id,
        second.task_id,
        third.task_id,
    ]
    assert [task.seq for task in world.waiting()] == [1, 2, 3]


def test_a_bad_spec_is_refused_and_leaves_nothing(world: World) -> None:
    alice = world.user("alice")
    with pytest.raises(InvalidSpec) as caught:
        world.submit(alice, train_file="/etc/passwd", nnodes=0)
    assert {error.field for error in caught.value.fields} == {"train_file", "nnodes"}
    with pytest.raises(BodyTooLarge):
        world.submission("#" * 9_000)
    # Texts that the gateway lets by no means through: the service is not to break of them either.
    good = world.submission(world.spec())
    for text in ("a: \udcff", "\udcff"):
        with pytest.raises(InvalidRequest):
            world.service.handle(alice, replace(good, spec_yaml=text))
    for text in ("a: \udcff", "\udcff", "a\0b", ""):
        with pytest.raises((InvalidSpec, UnicodeEncodeError)):
            world.submission(text)
    assert world.waiting() == ()


def test_finding_a_submission_knows_the_key_and_changes_nothing(tmp_path: Path) -> None:
    for world in checked_service(tmp_path, settings={"limits": {"waiting_tasks_per_user": 1}}):
        alice = world.user("alice")

        def find(who: Credential, text: str, key: str | None) -> Submitted | None:
            return world.service.handle(who, actions.FindSubmission(text, key))  # noqa: B023

        assert find(alice, "not even YAML: [", None) is None
        assert find(alice, world.spec(), "k") is None
        assert world.waiting() == ()
        with pytest.raises(InvalidRequest, match="owns no tasks"):
            find(ADMIN, world.spec(), None)
        with pytest.raises(InvalidRequest, match="Idempotency-Key"):
            find(alice, world.spec(), "\n")
        with pytest.raises(Unauthenticated):
            find(Credential(Role.USER, "0" * 64), world.spec(), None)
        task = world.submit(alice, "k")
        assert find(alice, world.spec(), "k") == Submitted.of(task, created=False)
        with pytest.raises(IdempotencyConflict):
            find(alice, world.spec(nnodes=2), "k")
        assert find(alice, world.spec(nnodes=2), "another") is None
        assert len(world.waiting()) == 1


def test_warnings_stay_with_the_task_and_are_told_as_events(world: World) -> None:
    alice = world.user("alice")
    warnings = (FieldError("model_id", "is not in the shared cache"), FieldError("code_path", "holds no verl"))
    answer = world.service.handle(alice, world.submission(world.spec(), "k", warnings))
    assert answer.warnings == warnings
    before = world.task(answer.task_id)
    world.reopen()
    assert world.task(answer.task_id) == before and before.warnings == warnings
    assert world.service.handle(alice, world.submission(world.spec(), "k")) == replace(answer, created=False)
    found = world.service.handle(alice, actions.TaskEvents(answer.task_id))
    assert isinstance(found, tuple)
    notes = [event.message for event in found if isinstance(event, Event) and event.kind == "note"]
    assert notes == ["model_id: is not in the shared cache", "code_path: holds no verl"]


def test_the_same_key_returns_the_first_task_for_ever(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    task = world.submit(alice, "key 1")
    assert world.submit(bob, "key 1").task_id != task.task_id, "a key belongs to its user"
    with pytest.raises(IdempotencyConflict):
        world.submit(alice, "key 1", nnodes=2)
    with pytest.raises(IdempotencyConflict):
        world.service.handle(alice, actions.FindSubmission(world.spec(workload="not even valid"), "key 1"))
    world.service.handle(alice, actions.CancelTask(task.task_id))
    world.reopen()
    answer = world.service.handle(alice, world.submission(world.spec(), "key 1"))
    assert answer == Submitted.of(world.task(task.task_id), created=False)
    assert len(world.waiting()) == 1


def test_the_key_decides_before_the_limits(tmp_path: Path) -> None:
    for world in checked_service(tmp_path, settings={"limits": {"waiting_tasks_per_user": 1}}):
        alice = world.user("alice")
        task = world.submit(alice, "k")
        answer = world.service.handle(alice, world.submission(world.spec(), "k"))
        assert answer == Submitted.of(task, created=False)
        with pytest.raises(QueueFull):
            world.submit(alice)


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\nb", "\0", "\x7f", "\udcff"])
def test_bad_keys(world: World, key: str) -> None:
    alice = world.user("alice")
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        world.submit(alice, key)


def test_within_one_batch_the_same_key_makes_one_task(world: World) -> None:
    alice = world.user("alice")
    answers = world.service.handle_many([(alice, world.submission(world.spec(), "k"))] * 3)
    assert [answer.created for answer in answers if isinstance(answer, Submitted)] == [True, False, False]
    assert len(world.waiting()) == 1


def test_limits_of_the_line(tmp_path: Path) -> None:
    limits = {"waiting_tasks": 3, "waiting_tasks_per_user": 2}
    for world in checked_service(tmp_path, settings={"limits": limits}):
        alice, bob = world.user("alice"), world.user("bob")
        first = world.submit(alice)
        world.submit(alice)
        with pytest.raises(QueueFull, match="you have 2"):
            world.submit(alice)
        world.submit(bob)
        with pytest.raises(QueueFull, match="3 tasks wait"):
            world.submit(bob)
        start(world, first)
        world.submit(bob)
        with pytest.raises(QueueFull):
            world.submit(alice)
        world.service.handle(bob, actions.CancelTask(world.waiting()[-1].task_id))
        world.submit(alice)
        answers = world.service.handle_many([(bob, world.submission(world.spec()))] * 2)
        assert [getattr(answer, "code", None) for answer in answers] == ["queue_full"] * 2


def test_a_taken_task_id_is_drawn_again_and_not_for_ever(tmp_path: Path) -> None:
    drawn = iter([b"\0" * 32, b"\0" * 8, b"\1\1", b"\1\1", b"\1\1", b"\2\2"])
    for world in checked_service(tmp_path, entropy=lambda n: next(drawn, b"\3" * 32)[:n]):
        alice = world.user("alice")
        assert world.submit(alice).task_id.endswith("-0101")
        assert world.submit(alice).task_id.endswith("-0202")
        assert world.submit(alice).task_id.endswith("-0303")
        with pytest.raises(Unavailable, match="one second"):
            world.submit(alice)
        world.clock.advance(1)
        world.submit(alice)


def test_who_owns_what(world: World) -> None:
    with pytest.raises(InvalidRequest, match="owns no tasks"):
        world.submit(ADMIN)
    task = world.submit(INTERNAL)
    assert task.user_id == "internal"
    assert queue(world, INTERNAL) == [(task.task_id, 1)]
    assert queue(world, ADMIN) == []


# --- isolation ---


def about(task_id: str) -> list[Action[Any]]:
    return [
        actions.GetTask(task_id),
        actions.ExplainTask(task_id),
        actions.CancelTask(task_id),
        actions.TaskEvents(task_id),
        actions.FindAttempt(task_id),
        actions.FindAttempt(task_id, 1),
        actions.FindAttempt(task_id, 99),
        actions.TaskEvents(task_id, after=-1, limit=0),
    ]


def test_another_user_s_task_is_as_one_that_does_not_exist(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    task = world.submit(alice)
    start(world, task)
    strange = ["argus-none", "", "x" * 100_000, task.task_id + "\0", task.task_id.upper(), task.task_id[:-1]]
    for name in strange:
        for theirs, missing in zip(about(task.task_id), about(name), strict=True):
            with pytest.raises(TaskNotFound) as first:
                world.service.handle(bob, theirs)
            with pytest.raises(TaskNotFound) as second:
                world.service.handle(bob, missing)
            assert (first.value.detail, first.value.fields) == (second.value.detail, second.value.fields)
    assert world.task(task.task_id).state is TaskState.RUNNING
    assert queue(world, bob) == []
    assert page(world, bob, actions.ListTasks()).tasks == ()
    for who in (ADMIN, INTERNAL):
        assert view(world, who, task).task.user_id == "alice"


def test_lists_of_each_role(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    hers, his, old = world.submit(alice), world.submit(bob), world.submit(INTERNAL)

    def ids(who: actions.Credential, user_id: str | None = None) -> list[str]:
        return [task.task_id for task in page(world, who, actions.ListTasks(TaskFilter(user_id=user_id))).tasks]

    assert ids(alice) == ids(alice, "alice") == [hers.task_id]
    assert ids(ADMIN) == [old.task_id, his.task_id, hers.task_id]
    assert ids(ADMIN, "bob") == ids(INTERNAL, "bob") == [his.task_id]
    assert ids(INTERNAL) == ids(ADMIN, "internal") == [old.task_id]
    said = set()
    for user_id in ("bob", "nobody", "internal", "\0", ""):
        with pytest.raises(Forbidden) as caught:
            ids(alice, user_id)
        said.add(str(caught.value))
    assert len(said) == 1


# --- look ---


def test_pages_are_newest_first_and_meet_without_gap_or_overlap(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    tasks = [world.submit(alice if number % 3 else bob) for number in range(20)]
    for task in tasks[::4]:
        world.service.handle(ADMIN, actions.CancelTask(task.task_id))
    for who, states in (
        (ADMIN, ()),
        (alice, ()),
        (alice, (TaskState.CANCELED,)),
        (ADMIN, (TaskState.QUEUED,)),
    ):
        wanted = [
            task.task_id for task in reversed(tasks)
            if (who is ADMIN or task.user_id == "alice")
            and (not states or world.task(task.task_id).state in states)
        ]  # fmt: skip
        for limit in (1, 3, 500):
            found: list[str] = []
            cursor: int | None = None
            while True:
                part = page(world, who, actions.ListTasks(TaskFilter(states=states), limit=limit, cursor=cursor))
                found += [task.task_id for task in part.tasks]
                if part.next_cursor is None:
                    break
                assert len(part.tasks) == limit
                cursor = part.next_cursor
            assert found == wanted


@pytest.mark.parametrize(
    "action",
    [
        actions.ListTasks(limit=0), actions.ListTasks(limit=501), actions.ListTasks(limit=2**70),
        actions.ListTasks(cursor=-1), actions.ListTasks(cursor=2**63),
    ],
)  # fmt: skip
def test_ranges_of_pages(world: World, action: Action[Any]) -> None:
    with pytest.raises(InvalidRequest):
        world.service.handle(ADMIN, action)


def test_events_come_in_order_and_in_parts(world: World) -> None:
    alice = world.user("alice")
    task = world.submit(alice)
    start(world, task)
    found = world.service.handle(alice, actions.TaskEvents(task.task_id))
    events = [event for event in found if isinstance(event, Event)]
    assert [event.new_state for event in events] == [
        TaskState.QUEUED,
        TaskState.SUBMITTING,
        TaskState.RUNNING,
    ]
    assert events[1].submission_id == f"{task.task_id}--a01"
    rest = world.service.handle(alice, actions.TaskEvents(task.task_id, after=events[0].event_id, limit=1))
    assert rest == (events[1],)
    for bad in (actions.TaskEvents(task.task_id, after=-1), actions.TaskEvents(task.task_id, limit=2000)):
        with pytest.raises(InvalidRequest):
            world.service.handle(alice, bad)


def test_positions_queue_and_explanation(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    first, his, second, third = (world.submit(who) for who in (alice, bob, alice, alice))
    start(world, first)
    assert view(world, alice, first).position is None
    assert view(world, alice, third).position == 3
    assert queue(world, alice) == [(first.task_id, None), (second.task_id, 2), (third.task_id, 3)]
    assert queue(world, bob) == [(his.task_id, 1)]
    everyone = [(first.task_id, None), (his.task_id, 1), (second.task_id, 2), (third.task_id, 3)]
    assert queue(world, ADMIN, everyone=True) == queue(world, INTERNAL, everyone=True) == everyone
    explained = world.service.handle(alice, actions.ExplainTask(third.task_id))
    now = world.clock()
    task = replace(world.task(third.task_id), estimate=Estimate(start=Unknown.NOT_YET, at=now))
    assert explained == Explanation(task, 3, (second.task_id,), 1, 1, gpus_held=4, now=now)
    assert world.service.handle(ADMIN, actions.ExplainTask(third.task_id)) == explained
    running = world.service.handle(alice, actions.ExplainTask(first.task_id))
    assert running == Explanation(world.task(first.task_id), None, (), 0, 1, gpus_held=4, now=now)


def test_find_attempt(world: World) -> None:
    alice = world.user("alice")
    task = world.submit(alice)

    def find(number: int | None = None) -> tuple[TaskState, str | None]:
        found = world.service.handle(alice, actions.FindAttempt(task.task_id, number))
        assert isinstance(found, tuple)
        state, attempt = found
        assert isinstance(state, TaskState)
        assert attempt is None or isinstance(attempt, Attempt)
        return state, None if attempt is None else attempt.submission_id

    assert find() == (TaskState.QUEUED, None)
    with pytest.raises(LogNotFound):
        find(1)
    first = start(world, task)
    world.service.apply([End(first, Outcome.INFRASTRUCTURE, "gone")])
    second = start(world, task, running=False)
    assert find() == find(2) == (TaskState.SUBMITTING, second)
    assert find(1) == (TaskState.SUBMITTING, first)
    for number in (0, 3, -1, 2**70):
        with pytest.raises(LogNotFound):
            find(number)


# --- cancel ---


def test_cancel_in_the_line(world: World) -> None:
    alice = world.user("alice")
    first, second = world.submit(alice), world.submit(alice)
    for _ in range(2):
        canceled = world.service.handle(alice, actions.CancelTask(first.task_id))
        assert isinstance(canceled, TaskView)
        assert (canceled.task.state, canceled.position) == (TaskState.CANCELED, None)
        assert canceled.task.reason == "canceled by its user"
        assert canceled.task.ended_at == 1_800_000_000.0
        world.clock.advance(5)
    assert view(world, alice, second).position == 1
    assert world.service.apply([world.admission(first)]) == [False], "a canceled task never runs later"
    assert world.active() == ()


@pytest.mark.parametrize("state", ["SUBMITTING", "SUBMITTED", "RUNNING"])
@pytest.mark.parametrize("late", Outcome)
def test_cancel_of_an_active_task_is_final_at_once(world: World, state: str, late: Outcome) -> None:
    alice = world.user("alice")
    task = world.submit(alice)
    submission_id = start(world, task, running=state == "RUNNING")
    if state == "SUBMITTED":
        world.service.apply([Advance(submission_id, running=False)])
    canceled = world.service.handle(ADMIN, actions.CancelTask(task.task_id))
    assert isinstance(canceled, TaskView)
    assert (canceled.task.state, canceled.task.reason) == (TaskState.CANCELED, "canceled by an admin")
    assert canceled.task.attempts[0].state is AttemptState.STOPPING
    (active,) = world.active()
    assert active == canceled.task
    # Late news: facts are kept, states are not.
    assert world.service.apply([Advance(submission_id, running=True, node_ip="10.0.0.1")]) == [True]
    (attempt,) = world.task(task.task_id).attempts
    assert (attempt.state, attempt.node_ip) == (AttemptState.STOPPING, "10.0.0.1")
    assert world.service.apply([End(submission_id, late, "late news", 3)]) == [True]
    ended = world.task(task.task_id)
    assert (ended.state, ended.losses) == (TaskState.CANCELED, 0)
    (attempt,) = ended.attempts
    assert (attempt.state, attempt.outcome, attempt.exit_code) == (AttemptState.ENDED, Outcome.CANCELED, 3)
    assert "late news" in (attempt.reason or "")
    assert world.active() == ()
    assert world.service.apply([End(submission_id, late, "again"), world.admission(ended)]) == [False, False]
    assert world.service.handle(alice, actions.CancelTask(task.task_id)) == TaskView(ended, None)


def test_cancel_of_what_has_ended_changes_nothing(world: World) -> None:
    alice = world.user("alice")
    task = world.submit(alice)
    world.service.apply([End(start(world, task), Outcome.SUCCEEDED, "", 0)])
    before = world.task(task.task_id)
    assert world.service.handle(alice, actions.CancelTask(task.task_id)) == TaskView(before, None)
    assert world.task(task.task_id) == before


# --- batches ---


def test_one_bad_call_spoils_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alice = world.user("alice")

    add = task_rows.add

    def explode(db: sqlite3.Connection, **values: Any) -> int | None:
        if values["gang"].nnodes == 13:
            raise ZeroDivisionError("a bug")
        seq: int | None = add(db, **values)
        return seq

    monkeypatch.setattr(task_rows, "add", explode)
    answers = world.service.handle_many(
        [
            (alice, world.submission(world.spec())),
            (alice, world.submission(world.spec(nnodes=13))),
            (alice, replace(world.submission(world.spec()), idempotency_key="\n")),
            (alice, actions.GetTask("argus-none")),
            (actions.Credential(actions.Role.USER, "f" * 64), actions.WhoAmI()),
            (alice, world.submission(world.spec())),
        ]
    )
    codes = [answer.code if isinstance(answer, ArgusError) else None for answer in answers]
    assert codes == [None, "internal", "invalid_request", "task_not_found", "unauthenticated", None]
    assert str(answers[1]) == "Something in Argus failed.", "no detail of a bug goes out"
    assert "ZeroDivisionError" in caplog.text
    assert "SubmitTask failed" in caplog.text
    assert [task.seq for task in world.waiting()] == [1, 2]


def test_an_empty_batch(world: World) -> None:
    assert world.service.handle_many([]) == []
    assert world.service.apply([]) == []


def test_ping(world: World) -> None:
    alice = world.user("alice")
    assert world.service.ping() == {"epoch": 1, "tasks": {}, "maintenance_since": None}
    task = world.submit(alice)
    world.submit(alice)
    start(world, task)
    assert world.service.ping() == {"epoch": 1, "tasks": {"QUEUED": 1, "RUNNING": 1}, "maintenance_since": None}


def test_lists_move_no_specs_and_no_commands(world: World) -> None:
    """But the command of what runs, which tells how many steps it was given."""
    alice = world.user("alice")
    tasks = [world.submit(alice) for _ in range(20)]
    for task in tasks[:10]:
        admit = replace(world.admission(task), command=("python3", "trainer.total_training_steps=7", "x" * 5000))
        assert world.service.apply([admit]) == [True]
        if task is not tasks[0]:
            end = End(admit.submission_id, Outcome.APPLICATION, "why")
            assert world.service.apply([end]) == [True]
    listed = page(world, alice, actions.ListTasks()).tasks
    queued = world.service.handle(alice, actions.ShowQueue())
    assert isinstance(queued, tuple) and (len(listed), len(queued)) == (20, 11)
    assert len(pickle.dumps([task for task in listed if not task.state.is_active])) < 20 * 800
    assert len(pickle.dumps(queued)) < 20 * 800 + 6000
    (active,) = [task for task in listed if task.state.is_active]
    assert active.attempts[-1].command == world.task(tasks[0].task_id).attempts[-1].command
