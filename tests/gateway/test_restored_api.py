"""Places that a client holds from before a database was restored: what it goes on with is told, never missed or told
twice under one number."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from argus_ray.admin import app as admin
from argus_ray.core import paths
from argus_ray.discovery import head_json, sentinel
from argus_ray.store import backup
from tests.gateway.test_changes_api import PATH, after, begin, data, serving, submit, until
from tests.support.gateway import ADMIN, Api, Headers, make_api
from tests.support.stream import Stream, run

AUDIT = "/api/v2/audit"
#: Of numbers that a reader in JavaScript still tells apart.
MOST = 2**53


class Pool:
    """With a backup, after which more was done."""

    def __init__(self, root: Path) -> None:
        self.folder = head_json.folder(str(root), "argus")
        sentinel.begin(self.folder)
        self.root, self.api = root, make_api(root)
        sentinel.note(self.folder, sentinel.DATABASE)
        self.alice = self.api.user("alice")
        self.kept = self.api.submit(self.alice)
        self.made = backup.make(
            self.api.world.store,
            Path(paths.backup_dir(str(root), "argus")),
            check_root=lambda: None,
            stop=lambda seconds: False,
            clock=self.api.world.clock,
        )
        self.kept_ids = set(self.audit_ids())
        self.api.world.clock.advance(60)
        self.lost = [self.api.submit(self.alice) for _ in range(3)]

    def restore(self) -> None:
        self.api.world.close()
        code = admin.main(["--shared-root", str(self.root), "restore", self.made.path.name], {})
        assert code == 0
        self.api = self.api.restart()

    def audit_ids(self) -> list[int]:
        return [entry["audit_id"] for entry in self.api.get(f"{AUDIT}?limit=500", ADMIN)["entries"]]

    def event_ids(self, task_id: str) -> list[int]:
        found = self.api.get(f"/api/v2/tasks/{task_id}/events", self.alice)["events"]
        return [event["event_id"] for event in found]


@pytest.fixture
def pool(tmp_path: Path) -> Any:
    made = Pool(tmp_path.resolve())
    yield made
    made.api.world.close()


def test_no_number_is_given_twice_also_after_a_second_restore_of_the_same_backup(pool: Pool) -> None:
    audit_ids, event_ids = set(pool.audit_ids()), {one for task in pool.lost for one in pool.event_ids(task)}
    for _ in range(3):
        pool.restore()
        made = [pool.api.submit(pool.alice) for _ in range(3)]
        news = [one for task in made for one in pool.event_ids(task)]
        assert not event_ids & set(news) and max(event_ids) < min(news) and max(news) < MOST
        event_ids |= set(news)
        new = set(pool.audit_ids()) - pool.kept_ids
        assert len(new) == 4 and not audit_ids & new and max(new) < MOST
        audit_ids |= new
        pool.api.world.clock.advance(1)


def test_a_lost_database_that_nobody_can_read_gives_its_numbers_to_nobody(pool: Pool) -> None:
    before = max(pool.audit_ids())
    pool.api.world.close()
    pool.api.world.database.write_bytes(b"no database")
    pool.restore()
    assert max(pool.audit_ids()) > before + 1000
    assert max(pool.event_ids(pool.api.submit(pool.alice))) > 1000


def test_who_follows_the_audit_is_told_at_once_that_entries_are_gone(pool: Pool) -> None:
    place = max(pool.audit_ids())
    pool.restore()

    async def scenario() -> None:
        async with Stream(pool.api.app, f"{AUDIT}/stream", ADMIN | {"Last-Event-ID": str(place)}) as stream:
            _, gap = await stream.until("gap")
            assert json.loads(gap["data"])["from"] == place + 1
            entry = json.loads((await stream.until("entry"))[1]["data"])
            assert (entry["action"], entry["actor"], entry["target"]) == (
                "database.restore", "admin", pool.made.path.name,
            )  # fmt: skip
            last = await asyncio.to_thread(pool.api.submit, pool.alice)
            assert json.loads((await stream.until("entry"))[1]["data"])["target"] == last

    run(scenario)


def test_who_follows_changes_is_told_to_begin_anew(pool: Pool) -> None:
    async def place_of(api: Api, who: Headers) -> dict[str, str]:
        async with serving(api) as (app, _), Stream(app, PATH, who) as stream:
            await begin(stream)
            await submit(api, who)
            return await until(stream, "task")

    old: list[dict[str, str]] = []

    async def before() -> None:
        old.append(await place_of(pool.api, pool.alice))

    async def later() -> None:
        api = pool.api
        async with serving(api) as (app, _), Stream(app, PATH, after(pool.alice, old[0])) as stream:
            _, resync, counts = await begin(stream)
            assert (resync["event"], data(counts)["total"]) == ("resync", 1)
            last = await submit(api, pool.alice)
            assert data(await until(stream, "task"))["task_id"] == last

    run(before)
    pool.restore()
    run(later)


def test_a_page_of_events_goes_on_after_a_place_from_before(pool: Pool) -> None:
    pool.api.admit(pool.kept)
    page = pool.api.get(f"/api/v2/tasks/{pool.kept}/events?limit=2", pool.alice)
    cursor = page["next_cursor"]
    assert cursor is not None
    pool.restore()
    url = f"/api/v2/tasks/{pool.kept}/events?limit=2&cursor={cursor}"
    assert pool.api.get(url, pool.alice)["events"] == []
    pool.api.admit(pool.kept)
    [event] = pool.api.get(url, pool.alice)["events"]
    assert event["new_state"] == "SUBMITTING"
