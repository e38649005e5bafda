"""Rows as a submission makes them, without the service."""

from __future__ import annotations

import sqlite3
from typing import Any

from argus_ray.core.model import Gang
from argus_ray.store import tasks


def add_task(db: sqlite3.Connection, task_id: str, user_id: str = "alice", **more: Any) -> int | None:
    """On one GPU; None if there is one of this id. `more`: of `tasks.add`."""
    return tasks.add(
        db,
        task_id=task_id,
        user_id=user_id,
        workload="sft",
        gang=Gang(1, 1, 1.0),
        spec_yaml="a: b",
        idempotency_key=None,
        now=1.0,
        message="accepted",
        **more,
    )
