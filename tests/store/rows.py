"""Rows as a submission makes them, without the service."""

from __future__ import annotations

import sqlite3
from typing import Any

from argus_ray.core.model import Gang
from argus_ray.store import tasks


def add_task(db: sqlite3.Connection, task_id: str, **more: Any) -> int | None:
    """Alice's, on one GPU; None if there is one of this id. `more`: of `tasks.add`."""
    return tasks.add(
        db,
        task_id=task_id,
        user_id="alice",
        workload="sft",
        gang=Gang(1, 1, 1.0),
        spec_yaml="a: b",
        idempotency_key=None,
        now=1.0,
        message="accepted",
        **more,
    )
