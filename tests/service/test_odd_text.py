"""Text that is no Unicode, and changes that cannot be stored: no task sticks for ever, and nothing is swallowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.lifecycle import (
    Advance,
    Change,
    Deleted,
    End,
    FilesMeasured,
    Hold,
    Note,
    Reject,
    Stall,
    Trashed,
)
from argus_ray.core.model import FilesAt, Task
from argus_ray.core.reasons import Code, because, words
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.core.verl import failures
from argus_ray.core.verl.failures import Failure
from argus_ray.gateway.tasks.schemas import TaskOut
from tests.support.builders import ADMIN, World
from tests.support.sanity import checked_service

ODD = "model-\ud800.safetensors"
KEPT = "model-?.safetensors"
#: Of each text the first character is the end for SQLite.
NUL = "\0 at the beginning"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from checked_service(tmp_path)


@pytest.fixture
def task(world: World) -> Task:
    return world.submit(world.user("ada"))


def messages(world: World, task: Task) -> list[str]:
    with world.store.transaction() as db:
        rows = db.execute("SELECT message FROM events WHERE task_id = ? ORDER BY event_id", (task.task_id,)).fetchall()
    return [row["message"] for row in rows]


def run(world: World, task: Task) -> str:
    admit = world.admission(task)
    assert world.service.apply([admit, Advance(admit.submission_id, running=True, session="s")]) == [True, True]
    return admit.submission_id


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_end_with_odd_text_is_stored(world: World, task: Task, outcome: Outcome) -> None:
    name = run(world, task)
    failure = Failure("unknown", ODD, "Read the end of the log.")
    assert world.service.apply([End(name, outcome, f"it said {ODD}", 1, failure)]) == [True]
    ended = world.task(task.task_id)
    (attempt,) = ended.attempts
    assert (attempt.state, attempt.outcome, attempt.reason) == (AttemptState.ENDED, outcome, f"it said {KEPT}")
    assert attempt.failure == replace(failure, line=KEPT)
    TaskOut.of_view(world.service.handle(ADMIN, actions.GetTask(task.task_id)), None).model_dump_json()


@pytest.mark.parametrize("text", [ODD, NUL])
def test_a_waiting_task_is_held_and_rejected_with_its_own_reason(world: World, task: Task, text: str) -> None:
    kept = text.replace("\ud800", "?").replace("\0", "?")
    assert world.service.apply([Hold(task.task_id, because(Code.BAD_INPUTS, what=text))]) == [True]
    held = world.task(task.task_id)
    assert held.reason is not None and kept in words(held.reason)
    assert world.service.apply([Reject(task.task_id, text)]) == [True]
    rejected = world.task(task.task_id)
    assert (rejected.state, rejected.reason) == (TaskState.FAILED, kept)


@pytest.mark.parametrize("text", [ODD, NUL])
def test_every_other_change_with_odd_text_is_stored(world: World, task: Task, text: str) -> None:
    kept = text.replace("\ud800", "?").replace("\0", "?")
    admit = replace(world.admission(task), note=text)
    name = admit.submission_id
    changes: list[Change] = [
        admit,
        Advance(name, running=True, session=text, ray_job_id=text, node_id=text, node_ip=text),
        Note(task.task_id, text),
        Stall(name, since=world.clock.now, why=text, stop_reason=text),
        FilesMeasured(task.task_id, message=text),
        End(name, Outcome.APPLICATION, text),
    ]
    assert world.service.apply(changes) == [True] * len(changes)
    attempt = world.task(task.task_id).attempts[0]
    assert {attempt.session, attempt.ray_job_id, attempt.node_id, attempt.node_ip, attempt.stop_reason} == {kept}
    for old, change in ((FilesAt.LEAVING, Trashed(task.task_id, text)), (FilesAt.TRASH, Deleted(task.task_id, text))):
        with world.store.transaction() as db:
            db.execute("UPDATE tasks SET files_at = ?", (old.value,)) if old is FilesAt.LEAVING else None
        assert world.service.apply([change]) == [True]
    assert sum(message == kept for message in messages(world, task)) == 5


def test_a_log_line_with_half_a_character_can_be_shown() -> None:
    # Ray's own words come as JSON, which can name one.
    lines = failures.lines_of("\ud800RuntimeError: \udfffboom\n")
    found = failures.explain(lines, 1)
    assert "boom" in found.line
    "\n".join([*lines, found.line]).encode()


@pytest.mark.parametrize(
    "odd",
    [
        lambda name, task: Note(task.task_id, ""),
        lambda name, task: End(name, Outcome.APPLICATION, "it failed", exit_code=2**70),
        lambda name, task: FilesMeasured(task.task_id, sizes=((name, -1),)),
    ],
    ids=["an empty note", "an exit code beyond 64 bits", "a size below zero"],
)
def test_a_change_that_cannot_be_stored_is_told_once_and_spoils_no_other(world: World, task: Task, odd: object) -> None:
    name = run(world, task)
    assert callable(odd)
    change = odd(name, task)
    before = messages(world, task)
    for _ in range(3):
        assert world.service.apply([change, Note(task.task_id, "the next one")]) == [False, True]
    new = messages(world, task)[len(before) :]
    told = [message for message in new if message != "the next one"]
    assert len(told) == 1, told
    assert told[0].startswith(f"{type(change).__name__} was seen and cannot be stored: ")
    assert new.count("the next one") == 3
    assert world.task(task.task_id).state is TaskState.RUNNING
