"""A writer that was taken over must not write, whatever it believes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from argus_ray.core.errors import StaleWriter, Unavailable
from argus_ray.core.model import User, UserState
from argus_ray.store import Store, users
from argus_ray.store.fence import Fence
from tests.support.noflock import lacking_flock


def add(store: Store, name: str) -> None:
    with store.transaction() as db:
        users.add(db, User(name, "", UserState.ACTIVE, 0))


def names(store: Store) -> list[str]:
    with store.transaction() as db:
        return [user.user_id for user in users.all_but(db, "")]


#: Opens the database as the next writer, adds a user and ends without closing: as a host that lives on.
TAKE_OVER = """
import os, sys
from argus_ray.core.model import User, UserState
from argus_ray.store import Store, users
store = Store.open(sys.argv[1], lock_timeout_s=2)
with store.transaction() as db:
    users.add(db, User("successor", "", UserState.ACTIVE, 0))
print(store.epoch, flush=True)
os._exit(0)
"""


LOOK = """
import sys
from argus_ray.store import Store, users
store = Store.open(sys.argv[1], lock_timeout_s=2)
with store.transaction() as db:
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    print(*[user.user_id for user in users.all_but(db, "")])
store.close()
"""


def in_another_process(code: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def names_seen_by_another_process(path: Path) -> list[str]:
    return in_another_process(LOOK, path).split()


def lose_all_locks(store: Store) -> None:
    """What a filesystem does to a host that was silent for too long. The lock file: a new inode. SQLite's own
    locks: POSIX drops all of a process's locks on a file when any of its descriptors is closed."""
    Path(f"{store.path}.lock").unlink()
    store.path.open("rb").close()


def test_a_paused_writer_that_lost_its_lock_does_not_write(tmp_path: Path) -> None:
    old = Store.open(tmp_path / "argus.db")
    add(old, "before")
    lose_all_locks(old)
    assert in_another_process(TAKE_OVER, old.path) == "2"
    # In exclusive mode the old writer's cache still shows its own epoch; only the note beside the file tells.
    with pytest.raises(StaleWriter, match="taken over by process"):
        add(old, "ghost")
    with pytest.raises(StaleWriter):
        names(old)
    # Nor does it by closing, when SQLite would copy its old log over the database.
    old.close()
    assert names_seen_by_another_process(old.path) == ["before", "successor"]


def test_a_writer_that_pauses_within_a_transaction_does_not_commit(tmp_path: Path) -> None:
    old = Store.open(tmp_path / "argus.db")
    with pytest.raises(StaleWriter), old.transaction() as db:
        users.add(db, User("ghost", "", UserState.ACTIVE, 0))
        lose_all_locks(old)
        usurper = Fence.take(old.path, "0" * 32, time.time(), 1.0)
    old.close()
    usurper.release()
    assert names_seen_by_another_process(old.path) == []


@pytest.mark.parametrize("change", ["epoch = epoch + 1", "writer_id = replace(hex(zeroblob(16)), '0', 'f')"])
def test_a_stale_epoch_or_writer_in_the_database_is_refused(tmp_path: Path, change: str) -> None:
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        db.execute(f"UPDATE writer SET {change}")  # noqa: S608
    with pytest.raises(StaleWriter, match="epoch 1"):
        add(store, "ghost")
    store.close()


def test_without_its_claim_nothing_is_written(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "argus.db")
    note = Path(f"{store.path}.owner")
    claim = note.read_bytes()
    note.unlink()
    with pytest.raises(StaleWriter, match="gone"):
        add(store, "ghost")
    note.mkdir()
    with pytest.raises(Unavailable, match="cannot be read"):
        add(store, "ghost")
    note.rmdir()
    note.write_bytes(claim)
    store.close()
    after = Store.open(tmp_path / "argus.db")
    assert names(after) == []
    after.close()


@pytest.mark.parametrize("note_text", ["{}", "[" * 60_000])
def test_a_holder_that_left_no_readable_note(tmp_path: Path, note_text: str) -> None:
    store = Store.open(tmp_path / "argus.db")
    note = Path(f"{store.path}.owner")
    claim = note.read_bytes()
    note.write_text(note_text)
    with pytest.raises(Unavailable, match="another writer"):
        Store.open(tmp_path / "argus.db", lock_timeout_s=0.05)
    note.write_bytes(claim)
    store.close()


def test_without_flock_no_database_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lacking_flock(monkeypatch):
        path = tmp_path / "argus.db"
        with pytest.raises(Unavailable, match="lacks flock"):
            Store.open(path, lock_timeout_s=0.1)
        assert not path.exists() and not Path(f"{path}.owner").exists()
