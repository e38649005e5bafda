"""Rows of estimates, of what came of them, and of the runs that they are made from. Each function works in the caller's
transaction. What is kept has a bound, but for one row of each task that had to wait."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from argus_ray.core.estimates import Basis, Estimate, Range, Unknown, Verdict
from argus_ray.core.forecast.model import History, Kind, Nature, Odds, RunSeen

#: Runs that are kept, of all kinds; those of which others are foretold; those that tell the odds of a workload.
MAX_RUNS = 20_000
MAX_OF_KIND = 20
MAX_OF_WORKLOAD = 200
#: Verdicts of a user that are kept one by one.
LAST = 50


def put(db: sqlite3.Connection, task_id: str, start: Range | Unknown, now: float) -> Range | None:
    """What is told now of a task that waits. The range, if it is the first one of this wait."""
    told = start if isinstance(start, Range) else None
    columns = (None, None, None) if told is None else (told.earliest, told.latest, told.basis.value)
    before = db.execute("SELECT first_at, verdict FROM start_estimates WHERE task_id = ?", (task_id,)).fetchone()
    is_first = told is not None and (before is None or before["first_at"] is None or before["verdict"] is not None)
    db.execute(
        "INSERT INTO start_estimates (task_id, at, earliest, latest, basis, unknown) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (task_id) DO UPDATE SET at = excluded.at, earliest = excluded.earliest,"
        " latest = excluded.latest, basis = excluded.basis, unknown = excluded.unknown",
        (task_id, now, *columns, start.value if isinstance(start, Unknown) else None),
    )
    if is_first or (before is not None and before["verdict"] is not None):
        # A task that came back to the queue waits anew.
        db.execute(
            "UPDATE start_estimates SET verdict = NULL, first_at = ?, first_earliest = ?, first_latest = ?,"
            " first_basis = ? WHERE task_id = ?",
            (None if told is None else now, *columns, task_id),
        )
    return told if is_first else None


def of_tasks(db: sqlite3.Connection, task_ids: Iterable[str]) -> dict[str, Estimate]:
    rows = db.execute(
        "SELECT start_estimates.* FROM json_each(?) AS wanted"
        " CROSS JOIN start_estimates ON start_estimates.task_id = wanted.value",
        (json.dumps(list(task_ids)),),
    )
    return {row["task_id"]: _estimate(row) for row in rows}


def _estimate(row: sqlite3.Row) -> Estimate:
    first = None
    if row["first_at"] is not None:
        first = Range(row["first_earliest"], row["first_latest"], Basis(row["first_basis"]))
    start: Range | Unknown
    if row["unknown"] is None:
        start = Range(row["earliest"], row["latest"], Basis(row["basis"]))
    else:
        try:
            start = Unknown(row["unknown"])
        except ValueError:  # of another version of Argus
            start = Unknown.NOT_YET
    return Estimate(start, row["at"], first, row["first_at"])


def is_judged(db: sqlite3.Connection, task_id: str) -> bool:
    row = db.execute("SELECT verdict FROM start_estimates WHERE task_id = ?", (task_id,)).fetchone()
    return row is not None and row["verdict"] is not None


def count(db: sqlite3.Connection, task_id: str, user_id: str, verdict: Verdict) -> None:
    """Once for each wait."""
    db.execute("UPDATE start_estimates SET verdict = ? WHERE task_id = ?", (verdict.value, task_id))
    db.execute(
        "INSERT INTO estimate_counts (user_id, verdict, n) VALUES (?, ?, 1)"
        " ON CONFLICT (user_id, verdict) DO UPDATE SET n = n + 1",
        (user_id, verdict.value),
    )
    if verdict is Verdict.NONE:
        return
    db.execute("INSERT INTO estimate_verdicts (user_id, verdict) VALUES (?, ?)", (user_id, verdict.value))
    db.execute(
        "DELETE FROM estimate_verdicts WHERE user_id = ? AND id <="
        " (SELECT id FROM estimate_verdicts WHERE user_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (user_id, user_id, LAST),
    )


def counts(db: sqlite3.Connection, user_id: str | None) -> dict[Verdict, int]:
    """`user_id` None: of all users."""
    rows = db.execute(
        "SELECT verdict, sum(n) AS n FROM estimate_counts WHERE ?1 IS NULL OR user_id = ?1 GROUP BY verdict", (user_id,)
    )
    return {Verdict(row["verdict"]): row["n"] for row in rows}


def last(db: sqlite3.Connection, user_id: str | None) -> tuple[int, int]:
    """Of the newest verdicts about ranges how many were right, and how many there are. `user_id`: as above."""
    where = "" if user_id is None else "WHERE user_id = :user_id"
    query = f"SELECT verdict FROM estimate_verdicts {where} ORDER BY id DESC LIMIT :last"  # noqa: S608 - constants
    found = [row["verdict"] for row in db.execute(query, {"user_id": user_id, "last": LAST})]
    return found.count(Verdict.INSIDE.value), len(found)


def add_run(db: sqlite3.Connection, submission_id: str, run: RunSeen) -> None:
    """Idempotent."""
    kind = run.nature.kind
    db.execute(
        "INSERT INTO runs_seen (submission_id, user_id, workload, model, nnodes, gpus_per_node, recipe, steps, seconds,"
        " done, ratio) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (submission_id) DO NOTHING",
        (submission_id, kind.user_id, kind.workload, kind.model, kind.nnodes, kind.gpus_per_node, run.nature.recipe,
         run.steps, run.seconds, run.done, run.ratio),
    )  # fmt: skip
    db.execute("DELETE FROM runs_seen WHERE id <= (SELECT max(id) FROM runs_seen) - ?", (MAX_RUNS,))


def history(db: sqlite3.Connection, kinds: Iterable[Kind], workloads: Iterable[str]) -> History:
    return History({kind: _runs(db, kind) for kind in kinds}, {name: _odds(db, name) for name in workloads})


def _runs(db: sqlite3.Connection, kind: Kind) -> tuple[RunSeen, ...]:
    rows = db.execute(
        "SELECT recipe, steps, seconds FROM runs_seen WHERE user_id = ? AND workload = ? AND model = ? AND nnodes = ?"
        " AND gpus_per_node = ? AND done = 1 ORDER BY id DESC LIMIT ?",
        (kind.user_id, kind.workload, kind.model, kind.nnodes, kind.gpus_per_node, MAX_OF_KIND),
    )
    return tuple(RunSeen(Nature(kind, row["recipe"], None), row["seconds"], 1.0, row["steps"]) for row in rows)


def _odds(db: sqlite3.Connection, workload: str) -> Odds:
    rows = db.execute(
        "SELECT done, ratio FROM runs_seen WHERE workload = ? ORDER BY id DESC LIMIT ?", (workload, MAX_OF_WORKLOAD)
    ).fetchall()
    return Odds(tuple(row["ratio"] for row in rows if row["ratio"] is not None), tuple(row["done"] for row in rows))
