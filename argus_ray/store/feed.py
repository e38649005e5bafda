"""What the scheduler follows: the slim rows of tasks that wait or live, whole or as what has changed since a number.

The numbers are of this connection, that is, of this writer: triggers note each change in a table in memory, within the
transaction that makes it. So no write of ours can be forgotten, none is made twice on the disk, and another writer
begins again: its numbers say so by its name. Each function but `follow` works in the caller's transaction.
"""

from __future__ import annotations

import sqlite3

from argus_ray.core.model import Gang, QueueChanges, SlimAttempt, SlimTask
from argus_ray.core.reasons import Reason
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.store import columns, orders
from argus_ray.store.queue import WAITING
from argus_ray.store.tasks import read_reason

#: Noted changes that nobody has asked for. Beyond them a whole answer is the shorter one.
_MAX_NOTED = 20_000
#: Now and then, since a transaction that has only read costs less.
_REMOVED_AT_ONCE = 1_000

_NOTE = "DELETE FROM changed_tasks WHERE seq = {seq}; INSERT INTO changed_tasks (seq) VALUES ({seq})"
#: In the place of a task's: what operators have ordered.
_ORDERS = -1
_SEQ_OF_TASK = "(SELECT seq FROM tasks WHERE task_id = NEW.task_id)"
_FOLLOW = (
    # Of each task its newest change; AUTOINCREMENT: a number is never used again, whatever is removed.
    "CREATE TEMP TABLE changed_tasks (version INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL UNIQUE)",
    "CREATE TEMP TABLE changes_removed (up_to INTEGER NOT NULL)",
    "INSERT INTO changes_removed VALUES (0)",
    # Nothing is ever noted of it yet.
    "CREATE TEMP TRIGGER note_new_task AFTER INSERT ON main.tasks"
    " BEGIN INSERT INTO changed_tasks (seq) VALUES (NEW.seq); END",
    "CREATE TEMP TRIGGER note_changed_task"
    " AFTER UPDATE OF state, reason, reason_code, not_before, overtaken_since ON main.tasks"
    f" BEGIN {_NOTE.format(seq='NEW.seq')}; END",
    f"CREATE TEMP TRIGGER note_new_attempt AFTER INSERT ON main.attempts BEGIN {_NOTE.format(seq=_SEQ_OF_TASK)}; END",
    "CREATE TEMP TRIGGER note_changed_attempt AFTER UPDATE ON main.attempts"
    f" BEGIN {_NOTE.format(seq=_SEQ_OF_TASK)}; END",
    f"CREATE TEMP TRIGGER note_orders AFTER UPDATE ON main.pool_orders BEGIN {_NOTE.format(seq=_ORDERS)}; END",
)

_ROWS = """
    SELECT tasks.seq, tasks.task_id, user_id, tasks.state, nnodes, gpus_per_node, cpus_per_node,
           reason_code, CASE WHEN reason_code IS NOT NULL THEN tasks.reason END AS reason, not_before, overtaken_since,
           live.submission_id, live.number, live.state AS live_state, live.created_at, live.job_root, live.session,
           live.ray_job_id, live.node_id, live.node_ip, live.started_at, live.counts_from,
           live.stalled_since, live.stalled_why,
           live.stop_reason, live.stop_outcome, live.nodes
    FROM ({wanted}) AS wanted CROSS JOIN tasks USING (seq)
    LEFT JOIN attempts AS live ON live.task_id = tasks.task_id AND live.state <> 'ENDED'
    ORDER BY tasks.seq
"""
_ALL = _ROWS.format(
    wanted=f"SELECT seq FROM {WAITING} UNION ALL"  # noqa: S608 - constants
    " SELECT seq FROM attempts CROSS JOIN tasks USING (task_id) WHERE attempts.state <> 'ENDED'"
)
_CHANGED = _ROWS.format(wanted="SELECT seq FROM changed_tasks WHERE version > ?")


def follow(db: sqlite3.Connection) -> None:
    """Note what changes from here on. Once for each connection."""
    for statement in _FOLLOW:
        db.execute(statement)


def whole(db: sqlite3.Connection, writer: str) -> QueueChanges:
    """All tasks that wait or live."""
    return QueueChanges(writer, _newest(db), True, _read(db.execute(_ALL))[0], orders=orders.read(db))


def since(db: sqlite3.Connection, writer: str, version: int) -> QueueChanges:
    """What is new after `version`, which the caller has: nobody needs what came before. The whole if it is too much,
    or if that version is none of which all that follows is known."""
    removed = int(db.execute("SELECT up_to FROM changes_removed").fetchone()[0])
    count, ordered = db.execute(
        "SELECT count(*), coalesce(sum(seq = ?), 0) FROM changed_tasks WHERE version > ?", (_ORDERS, version)
    ).fetchone()
    newest = _newest(db)
    if not removed <= version <= newest or count > _MAX_NOTED:
        _remove(db, newest)
        return whole(db, writer)
    if version - removed >= _REMOVED_AT_ONCE:
        _remove(db, version)
    rows, gone = _read(db.execute(_CHANGED, (version,)))
    return QueueChanges(writer, newest, False, rows, gone, orders.read(db) if ordered else None)


def _newest(db: sqlite3.Connection) -> int:
    found = db.execute("SELECT seq FROM temp.sqlite_sequence WHERE name = 'changed_tasks'").fetchone()
    return 0 if found is None else int(found[0])


def _remove(db: sqlite3.Connection, up_to: int) -> None:
    if db.execute("DELETE FROM changed_tasks WHERE version <= ?", (up_to,)).rowcount:
        db.execute("UPDATE changes_removed SET up_to = ?", (up_to,))


def _read(cursor: sqlite3.Cursor) -> tuple[tuple[SlimTask, ...], tuple[int, ...]]:
    rows: list[SlimTask] = []
    gone: list[int] = []
    # Thousands of tasks have few users, shapes and reasons: one object for each keeps the answer small on its way.
    users: dict[str, str] = {}
    gangs: dict[Gang, Gang] = {}
    reasons: dict[Reason, Reason] = {}
    for row in cursor:
        state = TaskState(row["state"])
        live = None if row["submission_id"] is None else _live(row)
        if live is None and not state.is_waiting:
            gone.append(row["seq"])
            continue
        gang = Gang(row["nnodes"], row["gpus_per_node"], row["cpus_per_node"])
        reason = read_reason(row["reason"], row["reason_code"])
        rows.append(
            SlimTask(
                task_id=row["task_id"],
                user_id=users.setdefault(row["user_id"], row["user_id"]),
                seq=row["seq"],
                state=state,
                gang=gangs.setdefault(gang, gang),
                reason=reasons.setdefault(reason, reason) if isinstance(reason, Reason) else None,
                not_before=row["not_before"],
                overtaken_since=row["overtaken_since"],
                live=live,
            )
        )
    return tuple(rows), tuple(gone)


def _live(row: sqlite3.Row) -> SlimAttempt:
    return SlimAttempt(
        submission_id=row["submission_id"],
        task_id=row["task_id"],
        number=row["number"],
        state=AttemptState(row["live_state"]),
        created_at=row["created_at"],
        job_root=row["job_root"],
        session=row["session"],
        ray_job_id=row["ray_job_id"],
        node_id=row["node_id"],
        node_ip=row["node_ip"],
        started_at=row["started_at"],
        stalled_since=row["stalled_since"],
        stalled_why=row["stalled_why"],
        stop_reason=row["stop_reason"],
        stop_outcome=Outcome(row["stop_outcome"]),
        nodes=columns.texts(row["nodes"]),
        counts_from=row["counts_from"],
    )
