"""The stored times that somebody waits for, kept right when the wall clock is set. History stays as it was told.

Each function works in the caller's transaction, and says how many rows it has changed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

# ruff: noqa: S608 - statements of constants
_WAITING = "state IN ('QUEUED', 'PENDING_RESOURCES')"
_ACTIVE = "state IN ('SUBMITTING', 'SUBMITTED', 'RUNNING')"
_MOVE = (
    "UPDATE tasks INDEXED BY tasks_in_line"
    " SET not_before = not_before + :step_s, overtaken_since = overtaken_since + :step_s"
    f" WHERE {_WAITING} AND (not_before IS NOT NULL OR overtaken_since IS NOT NULL)",
    "UPDATE attempts INDEXED BY one_live_attempt SET stalled_since = stalled_since + :step_s"
    " WHERE state <> 'ENDED' AND stalled_since IS NOT NULL",
    "UPDATE attempts INDEXED BY one_live_attempt SET counts_from = counts_from + :step_s"
    " WHERE state <> 'ENDED' AND counts_from IS NOT NULL",
    f"UPDATE tasks INDEXED BY tasks_by_state SET look_after = look_after + :step_s WHERE {_ACTIVE} AND look_after > 0",
    "UPDATE gpu_use SET at = at + :step_s",
)
#: The latest that a time of its own may be. A wait that began in the future, by the clock of now, begins anew.
_LATEST = """
    :now + CASE WHEN reason_code IN (SELECT value FROM json_each(:short)) THEN :short_s
                WHEN updated_at > :future THEN max(0, min(:long_s, not_before - updated_at))
                ELSE :long_s END
"""
_BRING_BACK = (
    f"UPDATE tasks INDEXED BY tasks_in_line SET not_before = {_LATEST} WHERE {_WAITING} AND not_before > {_LATEST}",
    f"UPDATE tasks INDEXED BY tasks_in_line SET overtaken_since = :now WHERE {_WAITING} AND overtaken_since > :now",
    "UPDATE attempts INDEXED BY one_live_attempt SET stalled_since = :now"
    " WHERE state <> 'ENDED' AND stalled_since > :now",
    "UPDATE attempts INDEXED BY one_live_attempt SET counts_from = :now WHERE state <> 'ENDED' AND counts_from > :now",
    f"UPDATE tasks INDEXED BY tasks_by_state SET look_after = :now WHERE {_ACTIVE} AND look_after > :live_by",
    "UPDATE gpu_use SET at = :now WHERE at > :now",
    "UPDATE pool_orders SET version = version + 1, maintenance_since = :now WHERE maintenance_since > :now",
    # What has ended is looked at ever more seldom: a look that comes later by the step is none the worse.
    "UPDATE tasks SET trashed_at = :now, look_after = :now WHERE seq IN (SELECT there.seq FROM users CROSS JOIN"
    " tasks AS there INDEXED BY tasks_by_look ON there.user_id = users.user_id WHERE there.files_at = 'TRASH'"
    " AND there.look_after > :now AND there.trashed_at > :now AND there.ended_at IS NOT NULL"
    " AND there.files_at <> 'DELETED')",
)


def move(db: sqlite3.Connection, step_s: int) -> int:
    """The clock was set forward by `step_s` (negative: back) while this process lived: what was to come in a minute
    still comes in a minute."""
    return sum(db.execute(statement, {"step_s": step_s}).rowcount for statement in _MOVE)


def bring_back(
    db: sqlite3.Connection,
    now: float,
    *,
    future: float,
    short: Collection[str],
    short_s: float,
    long_s: float,
    live_by: float,
) -> int:
    """The clock may have been set back while nobody looked: no time lies further ahead than it can have been meant.
    `future`: what was written later than that is from a clock that was wrong. `short`: codes of reasons for which a
    task waits `short_s` at most; all others `long_s`. `live_by`: the latest next look at the files of a
    task that is active."""
    values = {
        "now": now,
        "future": future,
        "short": json.dumps(sorted(short)),
        "short_s": short_s,
        "long_s": long_s,
        "live_by": live_by,
    }
    return sum(db.execute(statement, values).rowcount for statement in _BRING_BACK)
