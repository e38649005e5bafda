"""What the scheduler reports, applied by expectation: late news is dropped, never forced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.errors import StaleWriter
from argus_ray.core.lifecycle import Admit, Advance, Change, End, Hold, Note, Reject, Stall
from argus_ray.core.model import Event, Task
from argus_ray.core.reasons import Code, because, words
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.core.verl.failures import Failure
from tests.support.builders import World
from tests.support.sanity import checked_service


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    scheduling = {"max_losses": 2, "retry_interval_s": 60, "max_retry_interval_s": 200}
    yield from checked_service(tmp_path, settings={"scheduling": scheduling})


@pytest.fixture
def task(world: World) -> Task:
    return world.submit(world.user("alice"))


def events(world: World, task: Task) -> list[tuple[str, str]]:
    with world.store.transaction() as db:
        rows = db.execute("SELECT * FROM events WHERE task_id = ? ORDER BY event_id", (task.task_id,)).fetchall()
    return [(row["kind"], row["message"]) for row in rows]


def admit(world: World, task: Task) -> str:
    change = world.admission(world.task(task.task_id))
    assert world.service.apply([change]) == [True]
    return change.submission_id


BUSY = because(Code.POOL_BUSY, nodes=1, gpus=4, cpus=12.0)
BROKEN = because(Code.BAD_INPUTS, what="train_file does not exist")


def test_hold_moves_once_and_tells_each_new_reason_once(world: World, task: Task) -> None:
    seen = because(Code.NODES_BUSY, nodes=1, gpus=4, cpus=12.0, now=0)
    hold = Hold(task.task_id, BUSY, seen=seen)
    assert world.service.apply([hold, hold]) == [True, True]
    held = world.task(task.task_id)
    assert (held.state, held.reason) == (TaskState.PENDING_RESOURCES, BUSY)
    assert (held.not_before, held.overtaken_since) == (None, None)
    world.clock.advance(5)
    later = replace(hold, not_before=1_800_000_120.0, overtaken_since=1_800_000_001.0)
    assert world.service.apply([later]) == [True]
    assert world.task(task.task_id) == replace(held, not_before=later.not_before, overtaken_since=later.overtaken_since)
    assert world.service.apply([replace(later, reason=BROKEN)]) == [True]
    assert events(world, task)[1:] == [("move", words(seen)), ("reason", words(BROKEN))]
    assert words(seen) == "needs 1 node with 4 GPUs and 12 CPUs free; none has now"
    assert world.task(task.task_id).updated_at == world.clock.now
    world.reopen()
    assert world.task(task.task_id).reason == BROKEN


def test_a_hold_that_says_nothing_new_writes_nothing(world: World, task: Task) -> None:
    hold = Hold(task.task_id, BUSY)
    world.service.apply([hold])
    with world.store.transaction() as db:
        before = db.total_changes
    assert world.service.apply([hold, replace(hold, reason=None)] * 5) == [True] * 10
    assert db.total_changes == before


def test_that_it_waits_for_its_turn_or_for_room_is_no_news_to_its_user(world: World, task: Task) -> None:
    world.service.apply([Hold(task.task_id, BUSY)])
    before = events(world, task)
    behind = because(Code.BEHIND_OLDER)
    for reason in (behind, BUSY, replace(BUSY, facts=()), behind):
        assert world.service.apply([Hold(task.task_id, reason)]) == [True]
        assert world.task(task.task_id).reason == reason
    assert events(world, task) == before
    assert world.service.apply([Hold(task.task_id, because(Code.NO_WORKER))]) == [True]
    assert len(events(world, task)) == len(before) + 1


def test_a_held_task_without_a_reason_keeps_the_one_that_it_has(world: World, task: Task) -> None:
    name = admit(world, task)
    world.service.apply([End(name, Outcome.INFRASTRUCTURE, "node died")])
    assert world.service.apply([Hold(task.task_id, None, 1_800_000_060.0)]) == [True]
    held = world.task(task.task_id)
    assert (held.state, held.reason, held.not_before) == (TaskState.PENDING_RESOURCES, "node died", 1_800_000_060.0)


def test_the_next_look_is_told_from_the_settings(world: World, task: Task) -> None:
    """The behaviour of v2.0: not enough resources, PENDING_RESOURCES, another look after the interval."""
    who = world.issue("alice")[0]

    def next_look() -> float | None:
        view = world.service.handle(who, actions.GetTask(task.task_id))
        assert isinstance(view, actions.TaskView)
        (entry,) = world.service.handle(who, actions.ShowQueue())
        page = world.service.handle(who, actions.ListTasks())
        explained = world.service.handle(who, actions.ExplainTask(task.task_id))
        assert isinstance(page, actions.TaskPage) and isinstance(explained, actions.Explanation)
        found = {each.next_retry_at for each in (view.task, entry.task, *page.tasks, explained.task)}
        assert len(found) == 1
        return found.pop()

    assert next_look() is None, "nobody has looked at it yet"
    start = world.clock.now
    world.service.apply([Hold(task.task_id, BUSY)])
    assert next_look() == start + 60
    world.clock.advance(59)
    assert next_look() == start + 60
    world.clock.advance(2)
    assert next_look() == start + 120
    world.service.apply([Hold(task.task_id, BUSY, start + 230)])
    assert next_look() == start + 230, "a time of its own"
    assert world.task(task.task_id).next_retry_at is None, "which is not stored"
    admit(world, task)
    assert next_look() is None


def test_admit_stores_the_attempt_before_ray_is_called(world: World, task: Task) -> None:
    world.service.apply([Hold(task.task_id, BUSY, 1.0, 2.0)])
    change = world.admission(task)
    assert world.service.apply([change]) == [True]
    admitted = world.task(task.task_id)
    assert (admitted.state, admitted.reason) == (TaskState.SUBMITTING, None)
    assert (admitted.not_before, admitted.next_retry_at, admitted.overtaken_since) == (None, None, None)
    (attempt,) = admitted.attempts
    assert (attempt.submission_id, attempt.number) == (f"{task.task_id}--a01", 1)
    assert attempt.state is AttemptState.SUBMITTING
    assert attempt.job_root == f"{world.shared_root}/users/alice/jobs/{task.task_id}--a01"
    assert (attempt.command, attempt.env) == (change.command, change.env)
    assert world.active() == (admitted,)
    assert world.service.apply([change, Hold(task.task_id, BUSY)]) == [False, False]


@pytest.mark.parametrize("number", [0, 2, -1])
def test_admit_of_another_number_is_stale(world: World, task: Task, number: int) -> None:
    assert world.service.apply([replace(world.admission(task), number=number)]) == [False]
    assert world.task(task.task_id).state is TaskState.QUEUED


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("job_root", "/private/users/bob/jobs/x"),
        ("job_root", ""),
        ("submission_id", "argus-x--a01"),
        ("submission_id", "../../etc"),
    ],
)
def test_a_job_root_or_id_that_is_not_derived_is_refused_and_logged(
    world: World, task: Task, field: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = world.admission(world.submit(world.user("bob")))
    change = world.admission(task)
    bad = replace(change, job_root=value) if field == "job_root" else replace(change, submission_id=value)
    assert world.service.apply([bad, good]) == [False, True]
    assert "is impossible" in caplog.text
    assert world.task(task.task_id).attempts == ()


def test_advance_goes_forward_only_and_keeps_facts(world: World, task: Task) -> None:
    name = admit(world, task)
    world.clock.advance(1)
    assert world.service.apply([Advance(name, running=False, session="s1")]) == [True]
    assert world.task(task.task_id).state is TaskState.SUBMITTED
    world.clock.advance(1)
    assert world.service.apply([Advance(name, running=True, ray_job_id="01", node_ip="10.0.0.7")]) == [True]
    running = world.task(task.task_id)
    assert (running.state, running.started_at) == (TaskState.RUNNING, world.clock.now)
    world.clock.advance(1)
    late = [
        Advance(name, running=False),
        Advance(name, running=True),
        Advance(name, running=True, node_id="n1"),
    ]
    assert world.service.apply(late) == [True, True, True]
    (attempt,) = world.task(task.task_id).attempts
    assert attempt.state is AttemptState.RUNNING
    facts = (attempt.session, attempt.ray_job_id, attempt.node_ip, attempt.node_id)
    assert facts == (
        "s1",
        "01",
        "10.0.0.7",
        "n1",
    )
    assert attempt.started_at == running.started_at
    assert [kind for kind, _ in events(world, task)] == ["move"] * 4
    assert "runs on 10.0.0.7" in events(world, task)[-1][1]


def test_a_driver_that_was_never_seen_pending(world: World, task: Task) -> None:
    name = admit(world, task)
    assert world.service.apply([Advance(name, running=True)]) == [True]
    assert world.task(task.task_id).state is TaskState.RUNNING


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.SUCCEEDED, TaskState.SUCCEEDED),
        (Outcome.APPLICATION, TaskState.FAILED),
        (Outcome.CANCELED, TaskState.CANCELED),
    ],
)
def test_ends_that_are_final(world: World, task: Task, outcome: Outcome, state: TaskState) -> None:
    name = admit(world, task)
    world.clock.advance(9)
    assert world.service.apply([End(name, outcome, "exit code 1: boom", 1)]) == [True]
    ended = world.task(task.task_id)
    assert (ended.state, ended.ended_at) == (state, world.clock.now)
    (attempt,) = ended.attempts
    assert (attempt.state, attempt.outcome, attempt.exit_code) == (AttemptState.ENDED, outcome, 1)
    late: list[Change] = [
        End(name, Outcome.SUCCEEDED, ""), Advance(name, running=True), world.admission(ended),
        Hold(task.task_id, BUSY),
    ]  # fmt: skip
    assert world.service.apply(late) == [False] * 4
    assert world.task(task.task_id) == ended


def test_losses_go_back_to_the_old_place_until_the_budget_is_spent(world: World, task: Task) -> None:
    younger = world.submit(world.user("bob"))
    for loss in (1, 2):
        name = admit(world, task)
        assert name.endswith(f"--a{loss:02d}")
        assert world.service.apply([End(name, Outcome.INFRASTRUCTURE, "node died")]) == [True]
        back = world.task(task.task_id)
        assert (back.state, back.losses, back.reason) == (TaskState.QUEUED, loss, "node died")
        assert [one.task_id for one in world.waiting()] == [task.task_id, younger.task_id]
        assert f"(loss {loss} of 2;" in events(world, task)[-1][1]
    assert world.service.apply([End(admit(world, task), Outcome.INFRASTRUCTURE, "node died")]) == [True]
    failed = world.task(task.task_id)
    assert (failed.state, failed.losses, len(failed.attempts)) == (TaskState.FAILED, 3, 3)
    assert "budget is 2" in words(failed.reason or "")


def test_refusals_wait_longer_each_time(world: World, task: Task) -> None:
    for wait in (60, 120, 200, 200):
        name = admit(world, task)
        assert world.service.apply([End(name, Outcome.INSUFFICIENT_RESOURCES, "4 > 2", 1)]) == [True]
        held = world.task(task.task_id)
        assert (held.state, held.losses) == (TaskState.PENDING_RESOURCES, 0)
        assert wait <= (held.not_before or 0) - world.clock.now <= wait * 1.2
        world.clock.advance(300)


def test_refusals_have_an_end_and_the_events_count_them(world: World, task: Task) -> None:
    world.reopen(settings={"scheduling": {"max_refusals": 1}})
    why = Failure("insufficient_resources", "4 > 2", "Nothing to do: the task is back in the queue.")
    end = End(admit(world, task), Outcome.INSUFFICIENT_RESOURCES, "4 > 2", 1, why)
    assert world.service.apply([end]) == [True]
    assert events(world, task)[-1][1].endswith("(refusal 1 of 1 in a row; the task is back at its place in the queue)")
    assert world.task(task.task_id).attempts[-1].failure == why
    end = End(admit(world, task), Outcome.INSUFFICIENT_RESOURCES, "4 > 2", 1, why)
    assert world.service.apply([end]) == [True]
    failed = world.task(task.task_id)
    assert (failed.state, failed.losses, len(failed.attempts), failed.not_before) == (TaskState.FAILED, 0, 2, None)
    assert "budget is 1" in words(failed.reason or "")
    assert events(world, task)[-1][1].endswith("(refusal 2 in a row, and 1 are allowed: the task has failed)")
    failure = failed.attempts[-1].failure
    assert failure is not None and "Nothing to do" not in failure.hint


def test_why_an_attempt_failed_is_kept_with_it(world: World, task: Task) -> None:
    why = Failure("disk_full", "OSError: [Errno 28] No space left on device", "Free space.")
    end = End(admit(world, task), Outcome.APPLICATION, "the reason", 1, why)
    assert world.service.apply([end]) == [True]
    world.reopen()
    assert world.task(task.task_id).attempts[0].failure == why


def test_a_rejected_task_fails_without_an_attempt(world: World, task: Task) -> None:
    reject = Reject(task.task_id, "train_file does not exist")
    assert world.service.apply([reject, reject]) == [True, False]
    failed = world.task(task.task_id)
    assert (failed.state, failed.reason, failed.attempts) == (TaskState.FAILED, reject.reason, ())
    assert events(world, task)[-1] == ("move", reject.reason)


def test_a_task_that_may_be_running_is_not_rejected(world: World, task: Task) -> None:
    admit(world, task)
    assert world.service.apply([Reject(task.task_id, "train_file does not exist")]) == [False]
    assert world.task(task.task_id).state is TaskState.SUBMITTING


def test_a_note_changes_nothing_but_the_events(world: World, task: Task) -> None:
    before = world.task(task.task_id)
    notes = [Note(task.task_id, "resuming from step 40", "x"), Note("argus-none", "x")]
    assert world.service.apply(notes) == [
        True, False,
    ]  # fmt: skip
    assert world.task(task.task_id) == before
    assert events(world, task)[-1] == ("note", "resuming from step 40")


def test_a_whole_life_in_one_batch(world: World, task: Task) -> None:
    first = world.admission(task)
    second = Admit(task.task_id, 2, f"{task.task_id}--a02", first.job_root[:-1] + "2", (), ())
    changes: list[Change] = [
        first,
        Advance(first.submission_id, running=False),
        Advance(first.submission_id, running=True),
        End(first.submission_id, Outcome.INFRASTRUCTURE, "lost"),
        second,
        End(first.submission_id, Outcome.SUCCEEDED, "of the wrong attempt"),
        End(second.submission_id, Outcome.SUCCEEDED, ""),
    ]
    assert world.service.apply(changes) == [True, True, True, True, True, False, True]
    assert world.task(task.task_id).state is TaskState.SUCCEEDED


@pytest.mark.parametrize(
    "change",
    [
        Hold("argus-none", BUSY),
        Advance("argus-none--a01", running=True),
        Advance("nonsense", running=True),
        End("argus-none--a01", Outcome.SUCCEEDED, ""),
        End("", Outcome.SUCCEEDED, ""),
    ],
)
def test_changes_about_what_is_not_there(world: World, change: Change) -> None:
    assert world.service.apply([change]) == [False]


def test_an_attempt_number_that_does_not_exist(world: World, task: Task) -> None:
    admit(world, task)
    late: list[Change] = [
        Advance(f"{task.task_id}--a02", running=True),
        End(f"{task.task_id}--a02", Outcome.SUCCEEDED, ""),
    ]
    assert world.service.apply(late) == [False, False]


def test_the_messages_are_for_people(world: World, task: Task) -> None:
    name = admit(world, task)
    world.service.apply([Advance(name, running=True), End(name, Outcome.APPLICATION, "exit code 1: no such file", 1)])
    assert [message for _, message in events(world, task)] == [
        "accepted: sft on 1 x 4 GPUs",
        "admitted: attempt a01 starts",
        "attempt a01 runs",
        "attempt a01 has ended: the program failed: exit code 1: no such file",
    ]


def test_a_fenced_service_applies_and_answers_nothing(world: World, task: Task) -> None:
    note = Path(f"{world.database}.owner")
    claim = note.read_bytes()
    note.write_bytes(b"another")
    with pytest.raises(StaleWriter):
        world.service.apply([world.admission(task)])
    with pytest.raises(StaleWriter):
        world.service.handle_many([(actions.Credential(actions.Role.ADMIN), actions.WhoAmI())] * 2)
    with pytest.raises(StaleWriter):
        world.service.ping()
    note.write_bytes(claim)
    assert world.task(task.task_id).state is TaskState.QUEUED


@pytest.fixture
def big(tmp_path: Path) -> Iterator[World]:
    numbers = iter(range(2**31))  # task ids that do not collide
    limits = {"waiting_tasks": 5000, "waiting_tasks_per_user": 5000}
    yield from checked_service(
        tmp_path,
        settings={"limits": limits},
        entropy=lambda n: (next(numbers).to_bytes(8, "little") * 4)[:n],
    )


def test_a_long_line_takes_few_statements(big: World) -> None:
    service = big.service
    alice = big.user("alice")
    for _ in range(10):
        big.clock.advance(1)
        answers = service.handle_many([(alice, big.submission(big.spec()))] * 500)
        assert all(isinstance(answer, actions.Submitted) for answer in answers)
    statements: list[str] = []
    with big.store.transaction() as db:
        db.set_trace_callback(statements.append)

    def count() -> int:
        # A trigger shows up as the statement that fired it, once more.
        n = sum(text != before for text, before in zip(statements, ["", *statements], strict=False))
        statements.clear()
        return n

    count()
    line = service.queue_changes("", 0).rows
    assert len(line) == 5000
    assert count() <= 6
    assert service.handle(alice, actions.ListTasks(limit=500))
    assert count() <= 10
    assert len(service.handle(alice, actions.ShowQueue())) == 5000
    assert count() <= 10
    view = service.handle(alice, actions.ExplainTask(line[-1].task_id))
    assert isinstance(view, actions.Explanation)
    assert (view.position, len(view.own_ahead)) == (5000, 4999)
    assert count() <= 12
    holds = [Hold(task.task_id, BUSY) for task in line]
    assert all(service.apply(holds))
    # A savepoint and its release, the row, its event.
    assert count() <= 4 * 5000 + 10
    assert all(service.apply(holds))
    assert count() <= 2 * 5000 + 10
    db.set_trace_callback(None)


def test_events_are_told_to_the_owner(world: World, task: Task) -> None:
    who = world.issue("alice")[0]
    told = world.service.handle(who, actions.TaskEvents(task.task_id))
    assert isinstance(told, tuple)
    assert [event.message for event in told if isinstance(event, Event)] == ["accepted: sft on 1 x 4 GPUs"]


def test_a_stall_is_told_once_and_its_end_once(world: World, task: Task) -> None:
    name = admit(world, task)
    stall = Stall(name, world.clock.now - 600, "why")
    assert world.service.apply([stall]) == [False], "it does not run yet"
    assert world.service.apply([Advance(name, running=True)]) == [True]
    before = events(world, task)
    assert world.service.apply([stall, stall, replace(stall, why="another")]) == [True] * 3
    (attempt,) = world.task(task.task_id).attempts
    assert (attempt.state, attempt.stalled_since, attempt.stalled_why) == (AttemptState.RUNNING, stall.since, "another")
    assert world.service.apply([Stall(name), Stall(name)]) == [True] * 2
    (attempt,) = world.task(task.task_id).attempts
    assert (attempt.stalled_since, attempt.stalled_why) == (None, None)
    assert events(world, task)[len(before) :] == [
        ("attempt", "attempt a01 has made no new step for 600 s: why"),
        ("attempt", "attempt a01 makes steps again"),
    ]
    assert world.task(task.task_id).state is TaskState.RUNNING


def test_a_stall_that_is_stopped_keeps_its_reason(world: World, task: Task) -> None:
    name = admit(world, task)
    assert world.service.apply([Advance(name, running=True)]) == [True]
    stop = Stall(name, world.clock.now - 600, "why", "no new step for 600 s: why")
    assert world.service.apply([stop, replace(stop, stop_reason="later")]) == [True] * 2
    assert events(world, task)[-1][1] == "attempt a01 has made no new step for 600 s: why; it is being stopped"
    assert world.service.apply([Stall(name)]) == [True]
    (attempt,) = world.task(task.task_id).attempts
    assert attempt.stop_reason == "no new step for 600 s: why"
    assert world.service.apply([End(name, Outcome.APPLICATION, attempt.stop_reason)]) == [True]
    failed = world.task(task.task_id)
    assert (failed.state, failed.reason, failed.losses) == (TaskState.FAILED, stop.stop_reason, 0)
    assert world.service.apply([stop]) == [False]
