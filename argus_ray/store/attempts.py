"""Rows of `attempts`. Each function works in the caller's transaction; updates name the state that they
expect."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict

from argus_ray.core.lifecycle import Advance, End, Halt, Stall
from argus_ray.core.model import Attempt, OnNodes, PlacedNode
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.store import columns


def add(db: sqlite3.Connection, attempt: Attempt) -> None:
    db.execute(
        "INSERT INTO attempts (submission_id, task_id, number, state, created_at, job_root, command, env, nodes,"
        " placement) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            attempt.submission_id,
            attempt.task_id,
            attempt.number,
            attempt.state.value,
            attempt.created_at,
            attempt.job_root,
            json.dumps(attempt.command),
            json.dumps(attempt.env),
            json.dumps(attempt.nodes),
            _stored(attempt.placement),
        ),
    )


def _stored(placement: tuple[PlacedNode, ...] | None) -> str | None:
    return None if placement is None else json.dumps([asdict(node) for node in placement])


def of_tasks(db: sqlite3.Connection, task_ids: Iterable[str]) -> dict[str, tuple[Attempt, ...]]:
    """All attempts of these tasks in one statement, by task id; the first attempt first."""
    rows = db.execute(
        "SELECT attempts.*, disk_use.bytes AS disk_bytes"
        " FROM json_each(?) AS wanted CROSS JOIN attempts ON attempts.task_id = wanted.value"
        " LEFT JOIN disk_use USING (submission_id)"
        " ORDER BY attempts.task_id, attempts.number",
        (json.dumps(list(task_ids)),),
    )
    found: dict[str, list[Attempt]] = {}
    for row in rows:
        found.setdefault(row["task_id"], []).append(_attempt(row))
    return {task_id: tuple(attempts) for task_id, attempts in found.items()}


def count_live(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM attempts WHERE state <> 'ENDED'").fetchone()[0])


def on_nodes(db: sqlite3.Connection) -> tuple[OnNodes, ...]:
    """What is on the nodes: of each task with an attempt that is not over."""
    rows = db.execute(
        "SELECT task_id, user_id, gpus_per_node, nodes, node_id FROM attempts CROSS JOIN tasks USING (task_id)"
        " WHERE attempts.state <> 'ENDED' ORDER BY tasks.seq"
    )
    return tuple(OnNodes(row["task_id"], row["user_id"], row["gpus_per_node"], _nodes(row)) for row in rows)


def _nodes(row: sqlite3.Row) -> tuple[str, ...]:
    return columns.texts(row["nodes"]) or ((row["node_id"],) if row["node_id"] else ())


def nodes_in_use(db: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """Of each task with an attempt that is not over the Ray ids of its nodes."""
    rows = db.execute("SELECT task_id, nodes, node_id FROM attempts WHERE state <> 'ENDED' ORDER BY task_id")
    return {row["task_id"]: _nodes(row) for row in rows}


def advance(
    db: sqlite3.Connection, old: AttemptState, new: AttemptState, facts: Advance, started_at: float | None
) -> bool:
    """Store the facts that are known, and the new state. False: the attempt is no longer in state `old`."""
    nodes = None if facts.nodes is None else json.dumps(facts.nodes)
    cursor = db.execute(
        "UPDATE attempts SET state = ?, session = coalesce(?, session),"
        " ray_job_id = coalesce(?, ray_job_id), node_id = coalesce(?, node_id),"
        " node_ip = coalesce(?, node_ip), placement = iif(? IS NULL, placement, ?), nodes = coalesce(?, nodes),"
        " started_at = coalesce(started_at, ?), counts_from = coalesce(counts_from, ?)"
        " WHERE submission_id = ? AND state = ?",
        (
            new.value,
            facts.session,
            facts.ray_job_id,
            facts.node_id,
            facts.node_ip,
            nodes,
            _stored(facts.placement),
            nodes,
            started_at,
            started_at,
            facts.submission_id,
            old.value,
        ),
    )
    return cursor.rowcount == 1


def mark_stalled(db: sqlite3.Connection, facts: Stall) -> bool:
    """False: the attempt does not run."""
    cursor = db.execute(
        "UPDATE attempts SET stalled_since = ?, stalled_why = ?, stop_reason = coalesce(stop_reason, ?)"
        " WHERE submission_id = ? AND state = 'RUNNING'",
        (facts.since, facts.why, facts.stop_reason, facts.submission_id),
    )
    return cursor.rowcount == 1


def halt(db: sqlite3.Connection, facts: Halt) -> bool:
    """False: it has ended, or is being stopped already."""
    cursor = db.execute(
        "UPDATE attempts SET stop_reason = ?, stop_outcome = ?"
        " WHERE submission_id = ? AND stop_reason IS NULL AND state NOT IN ('STOPPING', 'ENDED')",
        (facts.reason, facts.outcome.value, facts.submission_id),
    )
    return cursor.rowcount == 1


def stop(db: sqlite3.Connection, submission_id: str) -> bool:
    """The task was canceled: the live attempt waits for its end."""
    cursor = db.execute(
        "UPDATE attempts SET state = 'STOPPING' WHERE submission_id = ? AND state NOT IN ('STOPPING', 'ENDED')",
        (submission_id,),
    )
    return cursor.rowcount == 1


def end(db: sqlite3.Connection, old: AttemptState, facts: End, outcome: Outcome, reason: str, now: float) -> bool:
    """False: the attempt is no longer in state `old`."""
    failure = None if facts.failure is None else json.dumps(asdict(facts.failure))
    cursor = db.execute(
        "UPDATE attempts SET state = 'ENDED', ended_at = ?, outcome = ?, exit_code = ?, reason = ?, failure = ?"
        " WHERE submission_id = ? AND state = ?",
        (now, outcome.value, facts.exit_code, reason, failure, facts.submission_id, old.value),
    )
    return cursor.rowcount == 1


def _attempt(row: sqlite3.Row) -> Attempt:
    # Without its environment a command is another one: it is not shown as what ran, and above all not run.
    command, env = columns.texts(row["command"]), columns.pairs(row["env"])
    return Attempt(
        submission_id=row["submission_id"],
        task_id=row["task_id"],
        number=row["number"],
        state=AttemptState(row["state"]),
        created_at=row["created_at"],
        job_root=row["job_root"],
        session=row["session"],
        ray_job_id=row["ray_job_id"],
        node_id=row["node_id"],
        node_ip=row["node_ip"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
        exit_code=row["exit_code"],
        reason=row["reason"],
        failure=None if row["failure"] is None else columns.failure(row["failure"]),
        command=command if env is not None else (),
        env=env or (),
        stalled_since=row["stalled_since"],
        stalled_why=row["stalled_why"],
        stop_reason=row["stop_reason"],
        stop_outcome=Outcome(row["stop_outcome"]),
        nodes=columns.texts(row["nodes"]),
        counts_from=row["counts_from"],
        disk_bytes=row["disk_bytes"],
        placement=None if row["placement"] is None else columns.placement(row["placement"]),
    )
