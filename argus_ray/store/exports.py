"""The columns of `tasks` that only exports have. Each function works in the caller's transaction."""

from __future__ import annotations

import json
import sqlite3

from argus_ray.core import paths
from argus_ray.core.exports import Export, ExportSeen, Part
from argus_ray.core.model import FilesAt, Task
from argus_ray.core.states import Outcome, TaskState

#: That are shown of one task.
_MAX_SHOWN = 50

_OF_TASK = """
    SELECT task_id, export_of, workload, export, state, files_at,
           (SELECT job_root FROM attempts WHERE attempts.task_id = tasks.task_id AND outcome = 'SUCCEEDED') AS made_in
    FROM tasks INDEXED BY exports_of_task WHERE export_of = ? ORDER BY seq DESC LIMIT ?
"""
_NOT_OVER = "SELECT count(*) FROM tasks INDEXED BY exports_not_over WHERE export_of IS NOT NULL AND ended_at IS NULL"


def stored(export: Export) -> str:
    """What stands beside `export_of` and `workload`."""
    return json.dumps(
        {
            "processes": export.processes,
            "step": export.step,
            "part": export.part.value,
            "job_root": export.job_root,
            "is_newest": export.is_newest,
            "trusts_code": export.trusts_code,
        }
    )


def read(of: str, workload: str, text: str) -> Export | None:
    """None for what another version of Argus, or somebody by hand, has written: one odd row hides no other."""
    try:
        raw = json.loads(text)
        return Export(
            of=of,
            workload=workload,
            processes=int(raw["processes"]),
            step=int(raw["step"]),
            part=Part(raw["part"]),
            job_root=str(raw["job_root"]),
            is_newest=raw["is_newest"] is True,
            trusts_code=raw["trusts_code"] is True,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def of_task(db: sqlite3.Connection, task_id: str) -> tuple[ExportSeen, ...]:
    """Of this task's checkpoints, the newest first; of very many the newest ones."""
    found = []
    for row in db.execute(_OF_TASK, (task_id, _MAX_SHOWN)):
        export = read(row["export_of"], row["workload"], row["export"])
        if export is not None:
            state, files_at = TaskState(row["state"]), FilesAt(row["files_at"])
            found.append(_seen(row["task_id"], export, state, files_at, row["made_in"]))
    return tuple(found)


def seen(task: Task) -> ExportSeen | None:
    """None: it is no export."""
    if task.export is None:
        return None
    good = (attempt.job_root for attempt in task.attempts if attempt.outcome is Outcome.SUCCEEDED)
    return _seen(task.task_id, task.export, task.state, task.files_at, next(good, None))


def count_not_over(db: sqlite3.Connection, user_id: str) -> int:
    """Exports of this user that wait or run."""
    return int(db.execute(f"{_NOT_OVER} AND user_id = ?", (user_id,)).fetchone()[0])


def _seen(task_id: str, export: Export, state: TaskState, files_at: FilesAt, made_in: str | None) -> ExportSeen:
    is_there = state is TaskState.SUCCEEDED and files_at is FilesAt.JOB_ROOT and made_in is not None
    path = paths.export_dir(made_in) if is_there and made_in is not None else None
    return ExportSeen(task_id, export.of, export.step, export.part, state, path)
