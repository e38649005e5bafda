"""Rows of `cordons` and the one of `pool_orders`. Each function works in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from argus_ray.core.model import Cordon, Maintenance, PoolOrders

#: Everything else of the row stays.
_NEXT_VERSION = "UPDATE pool_orders SET version = version + 1"


def read(db: sqlite3.Connection) -> PoolOrders:
    # At once, since the scheduler's answer should take few statements. The one row of orders is always there.
    rows = db.execute("SELECT * FROM pool_orders LEFT JOIN cordons ORDER BY machine").fetchall()
    first = rows[0]
    since = first["maintenance_since"]
    on = None if since is None else Maintenance(first["maintenance_by"], float(since), first["maintenance_reason"])
    return PoolOrders(first["version"], tuple(_cordon(row) for row in rows if row["machine"] is not None), on)


def version(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT version FROM pool_orders").fetchone()[0])


def maintenance_since(db: sqlite3.Connection) -> float | None:
    """None: it is off."""
    since = db.execute("SELECT maintenance_since FROM pool_orders").fetchone()[0]
    return None if since is None else float(since)


def put(db: sqlite3.Connection, cordon: Cordon) -> None:
    """In the place of what was ordered about this machine before."""
    db.execute(
        "INSERT OR REPLACE INTO cordons (machine, ordered_by, since, reason, drain, deadline, cleared_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            cordon.machine,
            cordon.by,
            cordon.since,
            cordon.reason,
            int(cordon.drain),
            cordon.deadline,
            cordon.cleared_at,
        ),
    )
    _next_version(db)


def clear(db: sqlite3.Connection, machines: Iterable[str], at: float) -> None:
    """Those of them that are cordoned."""
    for machine in machines:
        db.execute("UPDATE cordons SET cleared_at = ? WHERE machine = ? AND cleared_at IS NULL", (at, machine))
    _next_version(db)


def set_maintenance(db: sqlite3.Connection, maintenance: Maintenance | None) -> None:
    by, since, reason = (
        (None, None, "") if maintenance is None else (maintenance.by, maintenance.since, maintenance.reason)
    )
    db.execute(
        f"{_NEXT_VERSION}, maintenance_by = ?, maintenance_since = ?, maintenance_reason = ?",
        (by, since, reason),
    )


def stand_still(db: sqlite3.Connection, since: float, until: float) -> None:
    """The overtaking clocks of all that wait have not run between these times."""
    db.execute(
        "UPDATE tasks INDEXED BY tasks_in_line"
        " SET overtaken_since = overtaken_since + (:until - max(overtaken_since, :since))"
        " WHERE state IN ('QUEUED', 'PENDING_RESOURCES') AND overtaken_since < :until",
        {"since": since, "until": until},
    )


def follow_clock(db: sqlite3.Connection, step_s: float) -> int:
    """The wall clock was set forward by `step_s` seconds. The deadlines of drains that are to come go along. So does
    the time from which maintenance counts, as the overtaking clocks do that stand still for it."""
    moved = db.execute(
        "UPDATE cordons SET deadline = deadline + ? WHERE deadline IS NOT NULL AND cleared_at IS NULL", (step_s,)
    ).rowcount
    moved += db.execute(
        f"{_NEXT_VERSION}, maintenance_since = maintenance_since + ? WHERE maintenance_since IS NOT NULL", (step_s,)
    ).rowcount
    if moved:
        _next_version(db)
    return moved


def _next_version(db: sqlite3.Connection) -> None:
    db.execute(_NEXT_VERSION)


def _cordon(row: sqlite3.Row) -> Cordon:
    return Cordon(
        machine=row["machine"],
        by=row["ordered_by"],
        since=row["since"],
        reason=row["reason"],
        drain=bool(row["drain"]),
        deadline=row["deadline"],
        cleared_at=row["cleared_at"],
    )
