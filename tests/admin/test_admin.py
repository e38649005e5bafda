"""`argus-admin` on a real root: what it finds, what it refuses, and what a restored database is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from argus_ray.admin import app
from argus_ray.core import actions, paths
from argus_ray.core.lifecycle import Advance, End
from argus_ray.core.states import Outcome
from argus_ray.discovery import epoch, head_json, sentinel
from argus_ray.discovery.epoch import HeadClaim, Superseded
from argus_ray.discovery.head_json import HeadRecord
from argus_ray.disk.lock import KernelLock
from argus_ray.store import Store, backup
from tests.store.test_backup import flip, pages_of
from tests.store.test_store_crash import ALICE, make_alice
from tests.support.builders import make_service
from tests.support.sanity import sanity_check

OK, WRONG, BAD_SETTINGS = 0, 1, 2
NOON = 1_795_000_000.0


class Pool:
    """A stopped pool with a database of three tasks: one has run, one waits, one was canceled."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._capsys = root, capsys
        self.folder = head_json.folder(str(root), "argus")
        self.backups = Path(paths.backup_dir(str(root), "argus"))
        sentinel.begin(self.folder)
        self.world = make_service(root)
        sentinel.note(self.folder, sentinel.DATABASE)
        make_alice(self.world)
        self.ran, self.waits, canceled = (self.world.submit(ALICE) for _ in range(3))
        self.world.service.handle(ALICE, actions.CancelTask(canceled.task_id))
        admission = self.world.admission(self.ran)
        self.job_root = Path(admission.job_root)
        self.job_root.mkdir(parents=True)
        self.world.service.apply([admission])
        self.world.service.apply([Advance(admission.submission_id, True, session="s")])
        self.world.service.apply([End(admission.submission_id, Outcome.SUCCEEDED, "", 0)])
        self.database = self.world.database
        self.world.close()

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = app.main(["--shared-root", str(self.root), *arguments], {})
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def good(self, *arguments: str) -> str:
        code, out, err = self.run(*arguments)
        assert (code, err) == (OK, ""), (out, err)
        return out

    def refused(self, *arguments: str) -> str:
        code, out, err = self.run(*arguments)
        assert code == WRONG and err.startswith("argus-admin: ") and len(err.splitlines()) == 1, (code, out, err)
        return err

    def made(self, at: float = NOON) -> backup.Backup:
        """As a head does it."""
        store = Store.open(self.database)
        try:
            return backup.make(
                store, self.backups, check_root=lambda: None, stop=lambda seconds: False, clock=lambda: at
            )
        finally:
            store.close()


@pytest.fixture
def pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Pool]:
    made = Pool(tmp_path.resolve(), capsys)
    yield made
    made.world.close()


def test_backup_list_and_check(pool: Pool) -> None:
    assert "there are no backups" in pool.good("backup-list")
    assert "made " in pool.good("backup")
    [made] = backup.list_in(pool.backups)
    listed = pool.good("backup-list")
    assert made.path.name in listed and made.when in listed
    assert pool.good("backup-list", "--verify").rstrip().endswith("good")
    for which in ([], [made.path.name], [str(made.path)]):
        said = pool.good("check", *which)
        for line in ("integrity: ok", "references: ok", "job roots without a task: none"):
            assert line in said
        assert "attempts that ran and have no job root: none" in said
    flip(made.path, 20_000)
    code, said, _ = pool.run("backup-list", "--verify")
    assert code == WRONG and "BAD" in said
    assert "SHA-256" in pool.refused("check", made.path.name)


def test_check_finds_orphans_on_both_sides(pool: Pool) -> None:
    stray = pool.root / "users" / "alice" / "jobs" / "argus-alice-sft-20260101-000000-0000--a01"
    of_another = pool.root / "users" / "bob" / "jobs" / pool.job_root.name
    for folder in (stray, of_another):
        folder.mkdir(parents=True)
    (pool.root / "users" / "note.txt").write_text("no folder")
    code, said, _ = pool.run("check")
    assert code == WRONG
    assert f"job roots without a task: {stray}" in said and f"job roots without a task: {of_another}" in said
    assert "job roots without a task: 2" in said
    # As after a restore: its task waits, and was started since.
    since = pool.job_root.with_name(f"{pool.waits.task_id}--a01")
    since.mkdir()
    (pool.job_root.parent / "notes").mkdir()
    said = pool.run("check")[1]
    assert f"of tasks that it knows: {since}" in said and "of tasks that it knows: 1" in said
    assert "job roots without a task: 3" in said
    pool.job_root.rmdir()
    code, said, _ = pool.run("check")
    assert code == WRONG and f"no job root: {pool.job_root.name}" in said
    in_trash = pool.root / "users" / "alice" / "trash" / pool.job_root.name
    in_trash.mkdir(parents=True)
    assert "attempts that ran and have no job root: none" in pool.run("check")[1]


def test_a_disk_that_cannot_be_looked_at_has_lost_nothing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    lstat = os.lstat

    def stale(path: Any, **options: Any) -> os.stat_result:
        if str(path) == str(pool.job_root):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return lstat(path, **options)

    monkeypatch.setattr("argus_ray.admin.check.os.lstat", stale)
    assert "Stale" in pool.refused("check")


def test_check_finds_damage_that_opening_does_not_meet(pool: Pool) -> None:
    page = pages_of(pool.database, "events_by_task")[-1]
    flip(pool.database, page * 4096 - 40, 30)  # keys of an index, which no row has
    Store.open(pool.database).close()
    code, said, err = pool.run("check")
    assert code == WRONG and ("events_by_task" in said or "malformed" in said + err)
    assert "integrity: ok" not in said


def test_check_finds_rows_that_name_nothing(pool: Pool) -> None:
    store = Store.open(pool.database)
    store._db.execute("PRAGMA foreign_keys = OFF")
    with store.transaction() as db:
        db.execute("UPDATE tokens SET user_id = 'nobody'")
    store.close()
    code, said, _ = pool.run("check")
    assert code == WRONG and "references: row" in said and "of tokens names one of users" in said


def test_restore_brings_back_what_was_accepted_until_then(pool: Pool) -> None:
    claim = epoch.take(pool.folder, HeadClaim(0, "here", "10.0.0.1", 6379, "/gcs"))
    older = pool.made()
    pool.world.reopen()
    late = pool.world.submit(ALICE)
    pool.world.close()
    newer = pool.made(NOON + 60)
    flip(pool.database, 100, 8)
    code, said, _ = pool.run("check")
    assert code == WRONG and "integrity: ok" not in said
    said = pool.good("restore")
    assert newer.path.name in said and "argus.db.replaced-" in said
    pool.world.reopen()
    sanity_check(pool.world.store)
    assert pool.world.task(late.task_id) and pool.world.task(pool.waits.task_id)
    pool.world.close()
    assert f"of {older.when}" in pool.good("restore", older.path.name)
    pool.world.reopen()
    assert pool.world.service.task(late.task_id) is None and pool.world.task(pool.ran.task_id)
    assert pool.world.service.handle(ALICE, actions.WhoAmI()).user_id == "alice"
    sanity_check(pool.world.store)
    now = epoch.current(pool.folder)
    assert now is not None and now.epoch == claim.epoch + 2 and (now.head_ip, now.gcs_dir) == ("10.0.0.1", "/gcs")
    with pytest.raises(Superseded):
        epoch.check(pool.folder, claim.epoch)
    assert len(list(pool.database.parent.glob("argus.db.replaced-*Z*"))) >= 2


def test_restore_takes_the_newest_good_one(pool: Pool) -> None:
    older = pool.made()
    newer = pool.made(NOON + 60)
    flip(newer.path, 9000)
    assert older.path.name in pool.good("restore")
    assert "SHA-256" in pool.refused("restore", newer.path.name)
    flip(older.path, 9000)
    assert "no good backup" in pool.refused("restore")


def test_what_is_backed_up_after_a_restore_is_newer_than_all_before(pool: Pool) -> None:
    """Also where an old backup is taken and nothing of the database is left that tells of later writers."""
    old = pool.made()
    made = [pool.made(NOON + n) for n in range(1, 4)]
    assert made[-1].epoch > old.epoch + 2
    pool.world.close()
    for each in pool.database.parent.glob("argus.db*"):
        each.unlink()
    pool.good("restore", old.path.name)
    since = pool.made(NOON + 10)
    assert backup.list_in(pool.backups)[0] == since
    backup.thin(pool.backups, 1, 0, NOON + 11)
    assert backup.list_in(pool.backups) == (since,)


def test_after_a_total_loss_of_the_database(pool: Pool) -> None:
    made = pool.made()
    for entry in pool.database.parent.iterdir():
        entry.unlink()
    pool.database.parent.rmdir()
    assert made.path.name in pool.good("restore")
    pool.world.reopen()
    assert pool.world.task(pool.waits.task_id)


@pytest.mark.parametrize("command", ["backup", "check", "restore"])
def test_while_a_head_runs_or_may_run_all_refuse(pool: Pool, command: str) -> None:
    pool.made()
    before = pool.database.read_bytes()
    lock = KernelLock(pool.folder / "head.lock")
    with lock.held(0):
        assert "a head runs" in pool.refused(command)
    pool.world.reopen()
    assert "writer has the database" in pool.refused(command)
    pool.world.close()
    after = pool.database.read_bytes()
    now = time.time()
    head = HeadRecord("argus", "10.0.0.1", 6379, 8265, "http://x:8000", 1, "s", "2.60.0", "3.11.7", now, now + 15)
    file = head_json.head_file(str(pool.root), "argus")
    file.write_bytes(head.to_json())
    assert "a head may run" in pool.refused(command)
    assert pool.database.read_bytes() == after and len(after) >= len(before)
    file.write_bytes(replace(head, updated_at=now - 60, expires_at=now - 45).to_json())
    pool.run(command)
    assert "a head may run" not in pool.run("backup-list")[2]
    assert not list(pool.database.parent.glob(".*"))


def test_on_a_bare_mount_point_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("backup", "backup-list", "check", "restore"):
        assert app.main(["--shared-root", str(tmp_path), command], {}) == WRONG
        assert "is not mounted" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_wrong_settings_and_names(pool: Pool) -> None:
    assert app.main(["--shared-root", "relative", "check"], {}) == BAD_SETTINGS
    assert app.main(["--cluster", "Not!", "check"], {}) == BAD_SETTINGS
    assert app.main([], {}) == BAD_SETTINGS
    assert "no name of a backup" in pool.refused("restore", "/etc/passwd")
    assert "not there" in pool.refused("check", "argus-20261127T034512Z-e12-0f1e2d3c4b5a6978.db")


def test_the_script_runs_without_ray(pool: Pool) -> None:
    code = "import sys, argus_ray.admin.app; print([m for m in ('ray', 'fastapi', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
    script = Path(app.__file__).parents[2] / "scripts" / "argus-admin"
    environ = {**os.environ, "ARGUS_SHARED_ROOT": str(pool.root)}
    done = subprocess.run([script, "backup-list"], capture_output=True, text=True, timeout=60, env=environ, check=True)
    assert "there are no backups" in done.stdout
