"""What must be true of the database at every moment. Tests ask after each walk and each crash."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from argus_ray.core import ids
from argus_ray.core.states import ACTIVE, FINAL, WAITING, Cause, TaskState, check_move
from argus_ray.store import Store
from tests.support.builders import World, make_service

#: Failures of attempts that were lost and cost their task nothing.
_NO_LOSS = ('"code": "not_started"', '"code": "drained"')
#: In the event of a lost attempt.
_LOSS = re.compile(r"\(loss (\d+)[ ,]")


def checked_service(tmp_path: Path, **options: Any) -> Iterator[World]:
    """For a fixture: a service, and `sanity_check` when the test is over."""
    world = make_service(tmp_path.resolve(), **options)
    yield world
    try:
        sanity_check(world.store)
    finally:
        world.close()


def sanity_check(store: Store, *, whole: bool = True) -> None:
    """`whole`: also the pages of the file, which a test that asks after each step need not read each time."""
    with store.transaction() as db:
        if whole:
            assert [row[0] for row in db.execute("PRAGMA integrity_check")] == ["ok"]
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        tasks = db.execute("SELECT * FROM tasks ORDER BY seq").fetchall()
        attempts = _by_task(db.execute("SELECT * FROM attempts ORDER BY task_id, number"))
        events = _by_task(db.execute("SELECT * FROM events ORDER BY event_id"))
        counts = Counter({(row["state"], row["user_id"]): row["n"] for row in db.execute("SELECT * FROM task_counts")})
    for task in tasks:
        _check_events(task, events[task["task_id"]])
        _check_losses(task, attempts.get(task["task_id"], []), events[task["task_id"]])
        _check_attempts(task, attempts.get(task["task_id"], []))
    assert set(attempts) <= {task["task_id"] for task in tasks}
    assert +counts == Counter((task["state"], task["user_id"]) for task in tasks)
    firsts = [events[task["task_id"]][0]["event_id"] for task in tasks]
    assert firsts == sorted(firsts), "the line is not in the order of acceptance"


def _check_events(task: sqlite3.Row, events: list[sqlite3.Row]) -> None:
    moves = [event for event in events if event["kind"] == "move"]
    assert (moves[0]["old_state"], moves[0]["new_state"]) == (None, "QUEUED")
    assert moves[0]["cause"] == "accepted"
    assert moves[0] is events[0]
    state = TaskState.QUEUED
    for move in moves[1:]:
        assert move["old_state"] == state.value
        check_move(state, TaskState(move["new_state"]), Cause(move["cause"]))
        state = TaskState(move["new_state"])
    assert state.value == task["state"]
    if state in FINAL:
        assert task["ended_at"] == moves[-1]["at"]
    for before, after in pairwise(events):
        is_same = (before["kind"], before["message"]) == (after["kind"], after["message"])
        assert not (is_same and after["kind"] == "reason"), f"told twice: {after['message']}"


def _check_attempts(task: sqlite3.Row, attempts: list[sqlite3.Row]) -> None:
    state = TaskState(task["state"])
    assert [attempt["number"] for attempt in attempts] == list(range(1, len(attempts) + 1))
    for attempt in attempts:
        assert attempt["submission_id"] == ids.submission_id(task["task_id"], attempt["number"])
        assert attempt["job_root"].endswith(f"/users/{task['user_id']}/jobs/{attempt['submission_id']}")
    assert all(attempt["state"] == "ENDED" for attempt in attempts[:-1])
    live = attempts[-1]["state"] if attempts and attempts[-1]["state"] != "ENDED" else None
    last = attempts[-1]["outcome"] if attempts else None
    if state in ACTIVE:
        assert live == state.value
    if state in WAITING:
        assert live is None
        assert last in (None, "INFRASTRUCTURE", "INSUFFICIENT_RESOURCES")
    if state is TaskState.CANCELED:
        assert live in (None, "STOPPING")
    elif state in FINAL:
        assert live is None
        assert (last == "SUCCEEDED") == (state is TaskState.SUCCEEDED)


def _check_losses(task: sqlite3.Row, attempts: list[sqlite3.Row], events: list[sqlite3.Row]) -> None:
    """Each lost attempt is counted once, from the last progress on, and its event tells the count."""
    lost = {
        attempt["submission_id"]
        for attempt in attempts
        if attempt["outcome"] == "INFRASTRUCTURE" and not any(code in (attempt["failure"] or "") for code in _NO_LOSS)
    }
    told = [event for event in events if event["kind"] == "move" and event["submission_id"] in lost]
    ends = [event for event in told if event["cause"] in ("infrastructure_loss", "attempts_exhausted")]
    assert sorted(lost) == sorted(event["submission_id"] for event in ends)
    losses = 0
    for event in ends:
        count = _LOSS.search(event["message"])
        assert count, event["message"]
        expected = {1} if "counted anew since" in event["message"] else {losses + 1}
        if "made progress is not known" in event["message"]:
            expected.add(losses)  # it does not go beyond the budget
        assert int(count[1]) in expected, (losses, event["message"])
        losses = int(count[1])
    assert task["losses"] == losses


def _by_task(rows: sqlite3.Cursor) -> dict[str, list[sqlite3.Row]]:
    found: dict[str, list[sqlite3.Row]] = {}
    for row in rows:
        found.setdefault(row["task_id"], []).append(row)
    return found
