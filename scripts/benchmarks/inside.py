"""Argus without Ray and HTTP, in this process: a service on a real database, and the real scheduler over it.

It stands on the world that the tests use, and with cluster.py it is all that knows Argus's inner names.
"""

from __future__ import annotations

import asyncio
import pickle
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from argus_ray.core import actions
from argus_ray.core.actions import Credential
from argus_ray.core.model import ClusterView, NodeView
from tests.support.builders import ADMIN, World, bearer, make_service
from tests.support.simray import SimRay, make_dispatcher, settle

__all__ = ["ADMIN", "World", "actions", "bearer"]

#: Few enough that each has a whole page of tasks where there are a thousand.
USERS = 16
_SETTINGS = {
    "limits": {"waiting_tasks": 10_000, "waiting_tasks_per_user": 10_000},
    "retention": {"trash_after_days": 30, "delete_after_days": 7, "keep_checkpoints": 1},
}


@contextmanager
def world(folder: Path | None = None) -> Iterator[World]:
    """With an empty database, in memory where nothing else is said: then a commit costs no disk."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
    where = Path(tempfile.mkdtemp(prefix="argus-bench-", dir=folder or (memory if memory.is_dir() else None)))
    made = open_world(where)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(where, ignore_errors=True)


def open_world(where: Path) -> World:
    """With the database in this folder, which is made if it is not there."""
    return make_service(where, settings=_SETTINGS)


def fill(world: World, who: Credential, count: int, **fields: Any) -> None:
    """So many tasks more that wait, of gangs that the pools here do not have."""
    for number in range(count):
        # A second has some ten thousand ids.
        if number % 1000 == 0:
            world.clock.advance(1)
        world.submit(who, **{"nnodes": 4, "n_gpus_per_node": 4, **fields})


def count_events(world: World) -> int:
    with world.store.transaction() as db:
        return int(db.execute("SELECT count(*) FROM events").fetchone()[0])


class Moved:
    """The state actor as the scheduler calls it, with what a call would move through Ray: both ways, pickled."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self.bytes = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._port, name)

        async def counted(*args: Any, **options: Any) -> Any:
            answer = await call(*args, **options)
            self.bytes += len(pickle.dumps((args, options))) + len(pickle.dumps(answer))
            return answer

        return counted


class Pool:
    """Ray's view of four nodes of eight GPUs, of which so many are free on each: others hold the rest."""

    def __init__(self, free: int = 3) -> None:
        self.free = [free] * 4

    def shuffle(self, rng: random.Random) -> None:
        """Never four nodes with four GPUs: what `fill` asks for."""
        self.free = [rng.randrange(9) for _ in self.free]
        self.free[rng.randrange(len(self.free))] = rng.randrange(4)

    async def look(self) -> ClusterView | None:
        nodes = (NodeView(f"n{i}", f"n{i}", False, 8, 64, free, 64, 100, 100) for i, free in enumerate(self.free))
        return ClusterView("session-1", tuple(nodes))

    async def answers(self, node: NodeView) -> bool:
        return True


def scheduler(world: World, pool: Pool) -> tuple[Callable[[], None], Moved]:
    """Ticks until there is nothing more to do at once, and what they move."""
    rng = random.Random(0)
    dispatcher = make_dispatcher(world, SimRay(rng, {}), rng)
    moved = Moved(dispatcher.state)
    dispatcher.state = dispatcher.queue.state = moved
    dispatcher.cluster = pool

    def tick() -> None:
        asyncio.run(settle(dispatcher))

    return tick, moved


# --- many tasks of the past ---


def grow(world: World, rows: int) -> str:
    """So many tasks that have ended, copies of one that ran through, by SQL; the id of one of them. Each has one
    attempt and two events."""
    seed = _run_one(world, world.user("seed"))
    for number in range(USERS):
        world.user(f"user-{number}")
    path, where = world.database, world.root
    world.close()
    db = sqlite3.connect(path)
    try:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -200000")
        with db:
            _multiply(db, seed, rows)
        one = str(db.execute("SELECT task_id FROM tasks WHERE user_id = 'user-7' LIMIT 1").fetchone()[0])
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()
    new = open_world(where)
    world.service, world.store = new.service, new.store
    return one


def _multiply(db: sqlite3.Connection, seed: str, rows: int) -> None:
    # As a real id: user, workload, a time, four hex digits; a thousand a second.
    name = (
        "'argus-user-' || (n % :users) || '-sft-' || strftime('%Y%m%d-%H%M%S', 1700000000 + n / 1000, 'unixepoch')"
        " || printf('-%04x', n % 1000)"
    )
    numbers = "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < :rows) SELECT n FROM c)"
    root = f"'/bench/users/user-' || (n % :users) || '/jobs/' || {name} || '--a01'"
    changes = {
        "seq": "1000 + n",
        "task_id": name,
        "user_id": "'user-' || (n % :users)",
        "submission_id": f"CASE WHEN submission_id IS NULL THEN NULL ELSE {name} || '--a01' END",
        "job_root": root,
        "event_id": "NULL",
        "changed": "NULL",
    }
    few = "event_id IN ((SELECT min(event_id) FROM events), (SELECT max(event_id) FROM events WHERE kind = 'move'))"
    for table, only in (("tasks", ""), ("attempts", ""), ("events", f"AND {few}")):
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        values = ", ".join(changes.get(column, column) for column in columns)
        db.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {numbers} CROSS JOIN {table}"  # noqa: S608
            f" WHERE task_id = :seed {only}",
            {"users": USERS, "rows": rows, "seed": seed},
        )


def _run_one(world: World, who: Credential) -> str:
    """A task that has SUCCEEDED on the simulated Ray."""
    rng = random.Random(0)
    ray = SimRay(rng, {"n1": 8})
    dispatcher = make_dispatcher(world, ray, rng)
    task = world.submit(who, n_gpus_per_node=1)
    for _ in range(1000):
        asyncio.run(dispatcher.tick())
        world.clock.advance(1)
        ray.step()
        state = world.task(task.task_id).state
        if state.is_final:
            if state.value == "SUCCEEDED":
                return task.task_id
            task = world.submit(who, n_gpus_per_node=1)
    raise RuntimeError("no simulated task has succeeded")
