"""A disk that is full or fails: nothing half written, a clear error, and work goes on when there is room."""

from __future__ import annotations

import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Action, Credential
from argus_ray.core.errors import ArgusError, Unavailable
from argus_ray.core.model import User, UserState
from argus_ray.store import Store, users
from argus_ray.store.store import savepoint
from tests.support.builders import ADMIN, FakeClock, make_service
from tests.support.sanity import sanity_check


def add(db: sqlite3.Connection, name: str) -> None:
    users.add(db, User(name, "", UserState.ACTIVE, 0))


def names(store: Store) -> list[str]:
    with store.transaction() as db:
        return [user.user_id for user in users.all_but(db, "internal")]


@contextmanager
def no_file_may_grow_beyond(size: int) -> Iterator[None]:
    """The kernel refuses writes past `size` bytes, as it does on a full disk. Python ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_kernel_refuses_is_rolled_back_and_the_store_lives_on(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        add(db, "first")
    wal = Path(f"{store.path}-wal")
    for room in (0, 100, 4096, 5000):
        with (
            no_file_may_grow_beyond(wal.stat().st_size + room),
            pytest.raises(Unavailable, match="cannot be used now"),
            store.transaction() as db,
        ):
            for number in range(200):
                add(db, f"lost-{number}")
            db.execute("INSERT INTO users VALUES (?, ?, 'ACTIVE', 0)", ("pad", "x" * 128))
            db.execute("CREATE TABLE pad AS SELECT randomblob(100000) AS bytes")
        assert names(store) == ["first"]
    with store.transaction() as db:
        add(db, "second")
    store.close()
    store = Store.open(tmp_path / "argus.db")
    assert names(store) == ["first", "second"]
    store.close()


def test_a_full_database_is_unavailable_until_there_is_room(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="full"), store.transaction() as db:
        for number in range(10_000):
            add(db, f"u{number}")
    assert names(store) == []
    with store.transaction() as db:
        db.execute("PRAGMA max_page_count = 1000000")
        add(db, "later")
    assert names(store) == ["later"]
    store.close()


def test_reads_are_answered_when_writes_cannot_be(tmp_path: Path) -> None:
    world = make_service(tmp_path.resolve(), clock=FakeClock())
    alice = world.user("alice")
    task = world.submit(alice)
    world.clock.advance(3600)  # so that the last use would be due
    calls: list[tuple[Credential, Action[Any]]] = [
        (alice, actions.GetTask(task.task_id)),
        (alice, world.submission(world.spec())),
        (ADMIN, actions.CreateUser("bob", "")),
        (ADMIN, actions.GetUser("bob")),
        (alice, actions.WhoAmI()),
    ]
    with no_file_may_grow_beyond(Path(f"{world.database}-wal").stat().st_size):
        answers = world.service.handle_many(calls)
        codes = [answer.code if isinstance(answer, ArgusError) else None for answer in answers]
        assert codes == [None, "unavailable", "unavailable", "user_not_found", None]
        with pytest.raises(Unavailable):
            world.service.apply([world.admission(task)])
    answers = world.service.handle_many(calls)
    assert not [answer for answer in answers if isinstance(answer, ArgusError)]
    assert world.service.apply([world.admission(task)]) == [True]
    sanity_check(world.store)
    world.close()


def test_an_exception_in_the_block_rolls_back(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "argus.db")
    with pytest.raises(KeyError), store.transaction() as db:
        add(db, "ghost")
        raise KeyError
    with pytest.raises(sqlite3.IntegrityError), store.transaction() as db:
        add(db, "ghost")
        add(db, "NOT ALLOWED")
    assert names(store) == []
    store.close()


def test_a_savepoint_fails_alone(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "argus.db")
    with store.transaction() as db:
        add(db, "one")
        with pytest.raises(KeyError), savepoint(db):
            add(db, "two")
            raise KeyError
        with savepoint(db):
            add(db, "three")
    assert names(store) == ["one", "three"]
    store.close()


def test_threads_take_turns(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "argus.db")

    def work(number: int) -> None:
        for round_ in range(10):
            with store.transaction() as db:
                add(db, f"u{number}-{round_}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(store)) == 40
    store.close()
