"""The table of usage in parts: whatever they are cut by it is the same table, and a part costs what it shows."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core.usage import ShowUsage, Usage, UsageRow, UsageTable, day_of, merged, milliseconds, order_of
from argus_ray.service import usage
from tests.service.test_usage import start
from tests.support.builders import ADMIN, World, make_service

WORKLOADS = ("export", "grpo", "sft")
GROUPS = [by for n in range(4) for by in itertools.combinations(("user", "workload", "day"), n)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_service(tmp_path)
    yield made
    made.close()


def fill(world: World, users: int, days: int, every: int = 1) -> None:
    """Of each of these users, rows of the last days; one in `every`."""
    today = day_of(milliseconds(world.clock.now))
    with world.store.transaction() as db:
        db.executemany(
            "INSERT INTO users VALUES (?, '', 'ACTIVE', 0) ON CONFLICT DO NOTHING",
            ((f"u{n:05d}",) for n in range(users)),
        )
        rows = itertools.product(range(users), range(days), WORKLOADS)
        db.executemany(
            "INSERT INTO usage (user_id, day, workload, gpu_ms, tasks) VALUES (?, ?, ?, ?, 1) ON CONFLICT DO NOTHING",
            (
                (f"u{n:05d}", today - day, workload, 7 * n + 3 * day)
                for at, (n, day, workload) in enumerate(rows)
                if at % every == 0
            ),
        )


def parts(world: World, by: tuple[str, ...], limit: int) -> list[UsageTable]:
    found: list[UsageTable] = []
    asked = ShowUsage(by, limit=limit)
    while not found or asked.after is not None:
        found.append(world.service.handle(ADMIN, asked))
        asked = ShowUsage(by, limit=limit, after=found[-1].next_place)
        assert len(found) < 1000
    return found


def reference(world: World, by: tuple[str, ...]) -> list[UsageRow]:
    """From all rows, one by one; what runs now was put among them."""
    today = day_of(milliseconds(world.clock.now))
    sums: dict[tuple[str | None, str | None, int | None], Usage] = {}
    with world.store.transaction() as db:
        rows = db.execute("SELECT * FROM usage WHERE day BETWEEN ? AND ?", (today - usage.LATELY, today)).fetchall()
        alive = db.execute(
            "SELECT user_id, 4 AS gpus, counts_from FROM attempts JOIN tasks USING (task_id) WHERE counts_from > 0"
        ).fetchall()
    each = [
        (row["user_id"], row["workload"], row["day"], Usage(row["gpu_ms"], row["tasks"], row["succeeded"]))
        for row in rows
    ]
    each += [
        (row["user_id"], "sft", today, Usage(row["gpus"] * milliseconds(world.clock.now - row["counts_from"])))
        for row in alive
    ]
    for user_id, workload, day, used in each:
        key = (
            user_id if "user" in by else None,
            workload if "workload" in by else None,
            day if "day" in by else None,
        )
        sums[key] = sums.get(key, Usage()) + used
    found = [UsageRow(*key, sums[key]) for key in sums if sums[key] != Usage()]
    return sorted(found, key=lambda row: (row.user_id or "", *order_of(row)))


@pytest.mark.parametrize("by", GROUPS, ids="+".join)
@pytest.mark.parametrize(("read", "users"), [(20_000, 1_000), (10, 3)])
def test_parts_make_one_table_whatever_they_are_cut_by(
    world: World, monkeypatch: pytest.MonkeyPatch, by: tuple[str, ...], read: int, users: int
) -> None:
    monkeypatch.setattr(usage, "_MAX_READ", read)
    monkeypatch.setattr(usage, "_MAX_USERS", users)
    fill(world, 7, 33, every=2)
    start(world, world.submit(world.user("u00002-runs")))
    world.user("zz-has-nothing")
    world.clock.advance(60)
    expected = reference(world, by)
    draw = random.Random(0)
    for limit in (1000, draw.randrange(1, 40), 1):
        found = parts(world, by, limit)
        if "user" in by:
            assert all(len(part.rows) <= limit for part in found)
            assert [row for part in found for row in part.rows] == expected
        else:
            assert merged(found) == expected
        if limit == 1 and len(expected) > 100:
            assert len(found) >= len(expected) or "user" not in by


def steps(world: World, asked: ShowUsage) -> int:
    """Of SQLite's virtual machine, in hundreds."""
    count = [0]

    def note() -> int:
        count[0] += 1
        return 0

    with world.store.transaction() as db:
        connection: sqlite3.Connection = db
    connection.set_progress_handler(note, 100)
    try:
        world.service.handle(ADMIN, asked)
    finally:
        connection.set_progress_handler(None, 0)
    return count[0]


@pytest.mark.parametrize("by", GROUPS, ids="+".join)
def test_a_part_costs_the_same_with_many_rows(
    world: World, monkeypatch: pytest.MonkeyPatch, by: tuple[str, ...]
) -> None:
    monkeypatch.setattr(usage, "_MAX_READ", 2_000)
    asked = ShowUsage(by, limit=50)
    fill(world, 30, 30)
    few = steps(world, asked)
    fill(world, 300, 30)
    many = steps(world, asked)
    assert many <= few * 1.3 + 5, (few, many)
