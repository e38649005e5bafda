"""What monitoring reads: totals, which triggers keep (0017_totals.sql), and what waits and lives now. No statement here
reads a task that has ended. Each function works in the caller's transaction."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from dataclasses import dataclass

from argus_ray.core.monitoring import NEW, RETRY, Histogram
from argus_ray.core.reasons import Code
from argus_ray.store.queue import WAITING

#: What `add` adds to; triggers keep the other metrics.
REFUSED = "refused"

_WAITING_GROUPS = f"""
    SELECT reason_code, reason IS NOT NULL AS has_reason, count(*) AS n, min(created_at) AS oldest,
           sum(nnodes * gpus_per_node) AS gpus
    FROM {WAITING} GROUP BY 1, 2
"""  # noqa: S608 - a constant
# CROSS JOIN: from the few attempts that live, by their index.
_LIVE = """
    SELECT user_id, nnodes * gpus_per_node AS gpus, coalesce(counts_from, attempts.started_at) AS since,
           stalled_since IS NOT NULL AS is_stalled
    FROM attempts INDEXED BY one_live_attempt CROSS JOIN tasks USING (task_id) WHERE attempts.state <> 'ENDED'
"""
_CODES = frozenset(code.value for code in Code)


@dataclass(frozen=True)
class Waiting:
    #: By reason.
    reasons: dict[str, int]
    #: Unix time of the oldest acceptance; None: none waits.
    oldest: float | None
    #: By reason.
    gpus: dict[str, int]


@dataclass(frozen=True)
class Live:
    """Of attempts that are not over."""

    gpus: dict[str, int]
    #: GPU-seconds so far, by user, of those that have started.
    gpu_seconds: dict[str, float]
    stalled: int


def add(db: sqlite3.Connection, metric: str, label: str, n: float = 1) -> None:
    db.execute(
        "INSERT INTO totals (metric, label, n) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
        (metric, label, n),
    )


def read(db: sqlite3.Connection) -> dict[str, dict[str, float]]:
    """Metric -> label -> value."""
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for row in db.execute("SELECT * FROM totals"):
        found[row["metric"]][row["label"]] = row["n"]
    return dict(found)


def queue_waits(db: sqlite3.Connection) -> Histogram:
    rows = db.execute("SELECT * FROM queue_waits ORDER BY le").fetchall()
    bounds = tuple(row["le"] for row in rows if row["le"] < math.inf)
    return Histogram(bounds, tuple(row["n"] for row in rows), math.fsum(row["seconds"] for row in rows))


def waiting(db: sqlite3.Connection) -> Waiting:
    reasons: defaultdict[str, int] = defaultdict(int)
    oldest: float | None = None
    gpus: defaultdict[str, int] = defaultdict(int)
    for row in db.execute(_WAITING_GROUPS):
        reason = _reason(row["reason_code"], row["has_reason"])
        reasons[reason] += row["n"]
        oldest = row["oldest"] if oldest is None else min(oldest, row["oldest"])
        gpus[reason] += row["gpus"]
    return Waiting(dict(reasons), oldest, dict(gpus))


def _reason(code: str | None, has_reason: bool) -> str:
    if code is None:
        return RETRY if has_reason else NEW
    return code if code in _CODES else RETRY  # of another version of Argus


def tasks(db: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """(workload, state) -> all tasks there ever were."""
    rows = db.execute("SELECT kind, state, sum(n) AS n FROM kind_counts GROUP BY kind, state")
    return {(row["kind"], row["state"]): row["n"] for row in rows}


def live(db: sqlite3.Connection, now: float) -> Live:
    gpus: defaultdict[str, int] = defaultdict(int)
    seconds: defaultdict[str, float] = defaultdict(float)
    stalled = 0
    for row in db.execute(_LIVE):
        gpus[row["user_id"]] += row["gpus"]
        stalled += row["is_stalled"]
        if row["since"] is not None:
            seconds[row["user_id"]] += row["gpus"] * max(0.0, now - row["since"])
    return Live(dict(gpus), dict(seconds), stalled)


def of_users(db: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """(user, state) -> tasks that wait or are active; users without one are left out."""
    rows = db.execute(
        "SELECT user_id, state, n FROM task_counts WHERE state IN ('QUEUED', 'PENDING_RESOURCES') AND n > 0 UNION ALL"
        " SELECT user_id, state, n FROM task_counts WHERE state IN ('SUBMITTING', 'SUBMITTED', 'RUNNING') AND n > 0"
    )
    return {(row["user_id"], row["state"]): row["n"] for row in rows}


def size(db: sqlite3.Connection) -> int:
    """Of the database, in bytes, without asking the disk."""
    return int(db.execute("PRAGMA page_count").fetchone()[0]) * int(db.execute("PRAGMA page_size").fetchone()[0])
