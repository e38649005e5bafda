"""One odd row, of another version or by somebody's hand, is shown as far as it can be, and hides no other."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.errors import FieldError
from argus_ray.core.lifecycle import Advance, End, Hold
from argus_ray.core.model import Task
from argus_ray.core.reasons import Code, because
from argus_ray.core.retention import Chore
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.core.verl.failures import Failure
from argus_ray.gateway.tasks.schemas import EventOut, ExplanationOut, QueueOut, TaskOut, TaskSummary
from argus_ray.store import columns
from tests.support.builders import ADMIN, World, make_service, memory_folder
from tests.support.simray import SimRay, make_dispatcher, settle

FAILURE = Failure("killed", "a line", "a hint")


@pytest.fixture
def world() -> Iterator[World]:
    # Without the check of the whole database at the end: its rows are odd.
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        world = make_service(Path(folder).resolve())
        yield world
        world.close()


def write(world: World, statement: str, *values: object) -> None:
    """By somebody's hand, past every rule."""
    with world.store.transaction() as db:
        db.execute("DROP TRIGGER IF EXISTS ended_is_ended")
        db.execute("DROP TRIGGER IF EXISTS events_are_not_changed")
        db.execute("DROP TRIGGER IF EXISTS identity_of_a_task")
        db.execute("PRAGMA ignore_check_constraints = ON")
        assert db.execute(statement, values).rowcount > 0
        db.execute("PRAGMA ignore_check_constraints = OFF")


def failed(world: World, task: Task) -> str:
    admit = world.admission(task)
    end = End(admit.submission_id, Outcome.INFRASTRUCTURE, "lost", 137, FAILURE)
    assert world.service.apply([admit, end]) == [True, True]
    return admit.submission_id


def read_everything(world: World, task: Task) -> str:
    """Whatever anybody may ask, as it goes out; and the scheduler starts and ticks."""
    ask = world.service.handle
    out = []
    for each in (page := ask(ADMIN, actions.ListTasks())).tasks:
        out.append(TaskSummary.of(each, None, None).model_dump_json())
    assert len(page.tasks) == len(world.all_tasks())
    out.append(QueueOut.of(ask(ADMIN, actions.ShowQueue(everyone=True)), {}).model_dump_json())
    out.append(TaskOut.of_view(ask(ADMIN, actions.GetTask(task.task_id)), None).model_dump_json())
    out.append(ExplanationOut.of(ask(ADMIN, actions.ExplainTask(task.task_id)), None).model_dump_json())
    events = ask(ADMIN, actions.TaskEvents(task.task_id))
    out += [EventOut.of(event).model_dump_json() for event in events]
    for chore in Chore:
        world.service.chores(chore)
    everybody = {each.task_id for each in (*world.waiting(), *world.active())}
    assert {row.task_id for row in world.service.queue_changes("", 0).rows} == everybody
    return "\n".join(out)


#: Statements that make one row odd: of the task `odd`, and of its attempt, which has ended.
ODD = {
    "failure: a key that is not known": (
        "UPDATE attempts SET failure = ?",
        json.dumps({"code": "killed", "line": "a line", "hint": "a hint", "severity": 3}),
    ),
    "failure: keys that are missing": ("UPDATE attempts SET failure = ?", '{"code": "killed"}'),
    "failure: another type": ("UPDATE attempts SET failure = ?", '{"code": "killed", "line": ["x"], "hint": null}'),
    "failure: half a character": (
        "UPDATE attempts SET failure = ?",
        r'{"code": "killed", "line": "\ud800", "hint": ""}',
    ),
    "failure: a list": ("UPDATE attempts SET failure = ?", "[]"),
    "failure: no JSON": ("UPDATE attempts SET failure = ?", "{"),
    "command: no texts": ("UPDATE attempts SET command = ?", '[1, {"a": 2}]'),
    "command: half a character": ("UPDATE attempts SET command = ?", r'["\udfff"]'),
    "command: no JSON": ("UPDATE attempts SET command = ?", "python3 -m verl"),
    "env: no pairs": ("UPDATE attempts SET env = ?", '[["A"]]'),
    "env: an object": ("UPDATE attempts SET env = ?", '{"A": "b"}'),
    "warnings: a key that is not known": (
        "UPDATE tasks SET warnings = ? WHERE seq = 1",
        '[{"field": "model_id", "rule": "r", "level": 2}]',
    ),
    "warnings: no objects": ("UPDATE tasks SET warnings = ? WHERE seq = 1", r'["\ud800", 3, null]'),
    "warnings: no list": ("UPDATE tasks SET warnings = ? WHERE seq = 1", '"x"'),
    "resume roots: no texts": ("UPDATE tasks SET resume_roots = ? WHERE seq = 1", "[3]"),
    "resume roots: no job roots": ("UPDATE tasks SET resume_roots = ? WHERE seq = 1", '["/elsewhere"]'),
    "reason: facts that are missing": (
        "UPDATE tasks SET reason = ?, reason_code = 'pool_busy' WHERE seq = 1",
        '{"nodes": 1}',
    ),
    "reason: facts of another type": (
        "UPDATE tasks SET reason = ?, reason_code = 'pool_busy' WHERE seq = 1",
        '{"nodes": [1], "gpus": {}, "cpus": null}',
    ),
    "reason: words for numbers": (
        "UPDATE tasks SET reason = ?, reason_code = 'too_few_cpus' WHERE seq = 1",
        '{"cpus": "many", "total": "few"}',
    ),
    "reason: a fact with the name of the code": (
        "UPDATE tasks SET reason = ?, reason_code = 'not_yet' WHERE seq = 1",
        '{"code": "x"}',
    ),
    "reason: a list": ("UPDATE tasks SET reason = ?, reason_code = 'not_yet' WHERE seq = 1", "[1]"),
    "event: a state that is not known": (
        "UPDATE events SET old_state = ?, new_state = 'PAUSED' WHERE kind = 'move'",
        "X",
    ),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_row_hides_no_other_and_the_scheduler_starts(world: World, odd: str) -> None:
    ada = world.user("ada")
    task, other = world.submit(ada), world.submit(ada)
    failed(world, task)
    busy = because(Code.POOL_BUSY, nodes=1, gpus=4, cpus=12.0)
    assert world.service.apply([Hold(task.task_id, busy), Hold(other.task_id, busy)]) == [True, True]
    statement, value = ODD[odd]
    write(world, statement, value)
    read_everything(world, task)
    # A scheduler that starts now, and an attempt of each.
    ray = SimRay(random.Random(1), {"n1": 4, "n2": 4})
    asyncio.run(settle(make_dispatcher(world, ray, random.Random(1))))
    assert {world.task(each.task_id).state for each in (task, other)} == {TaskState.SUBMITTED}
    read_everything(world, other)


def test_what_is_understood_of_an_odd_failure_is_shown(world: World) -> None:
    task = world.submit(world.user("ada"))
    failed(world, task)
    more = {"code": "killed", "line": "a line", "hint": "a hint", "severity": 3}
    write(world, "UPDATE attempts SET failure = ?", json.dumps(more))
    assert world.task(task.task_id).attempts[0].failure == FAILURE
    write(world, "UPDATE attempts SET failure = ?", "broken")
    shown = world.task(task.task_id).attempts[0].failure
    assert shown is not None and (shown.code, shown.line) == ("unknown", "broken")


@pytest.mark.parametrize("column", ["command", "env"])
def test_an_attempt_whose_command_cannot_be_read_is_not_run_with_another(world: World, column: str) -> None:
    task = world.submit(world.user("ada"))
    assert world.service.apply([world.admission(task)]) == [True]
    write(world, f"UPDATE attempts SET {column} = ?", '[{"odd": 1}]')  # noqa: S608 - one of two names
    ray = SimRay(random.Random(1), {"n1": 4, "n2": 4})
    dispatcher = make_dispatcher(world, ray, random.Random(1))
    for _ in range(20):
        asyncio.run(settle(dispatcher))
        world.clock.advance(61)
    first, *later = world.task(task.task_id).attempts
    assert (first.state, first.outcome) == (AttemptState.ENDED, Outcome.INFRASTRUCTURE)
    assert first.reason is not None and "cannot be read" in first.reason
    assert first.submission_id not in ray.jobs
    assert [attempt.number for attempt in later][:1] == [2], "the next attempt brings a command of its own"
    assert later[0].submission_id in ray.jobs


def test_a_live_attempt_beside_an_odd_one_is_followed(world: World) -> None:
    ada = world.user("ada")
    task, other = world.submit(ada), world.submit(ada)
    for each in (task, other):
        admit = world.admission(each)
        assert world.service.apply([admit, Advance(admit.submission_id, running=True)]) == [True, True]
    write(world, "UPDATE attempts SET command = '[1]', env = '[2]' WHERE task_id = ?", task.task_id)
    for each in (task, other):
        name = world.task(each.task_id).attempts[0].submission_id
        assert world.service.apply([End(name, Outcome.SUCCEEDED, "")]) == [True]
        assert world.task(each.task_id).state is TaskState.SUCCEEDED


def test_columns() -> None:
    assert columns.warnings('[{"field": "f", "rule": "r"}]') == (FieldError("f", "r"),)
    assert columns.warnings("[7]") == (FieldError("(document)", "7"),)
    assert columns.texts('["a", "b"]') == ("a", "b")
    assert columns.pairs('[["a", "b"]]') == (("a", "b"),)
    assert columns.pairs("[]") == () and columns.pairs('[["a", 1]]') is None
    deep = "[" * 100_000
    assert columns.texts(deep) == () and columns.pairs(deep) is None and len(columns.warnings(deep)) == 1
