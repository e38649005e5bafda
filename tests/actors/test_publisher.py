"""The publisher's thread and the state actor's guard, on a real folder, without a Ray cluster."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from argus_ray.actors import leaving
from argus_ray.actors.publisher import HeadPublisher
from argus_ray.actors.state import StateActor, head_guard
from argus_ray.config import Settings
from argus_ray.core.errors import StaleWriter, Unavailable
from argus_ray.core.model import User, UserState
from argus_ray.discovery import epoch, head_json, sentinel
from argus_ray.discovery.epoch import HeadClaim
from argus_ray.discovery.head_json import HeadRecord
from argus_ray.disk import atomic
from argus_ray.node.processes import wait_until
from argus_ray.store import Store, users
from tests.support.noflock import lacking_flock

TTL_S = 0.3
RECORD = HeadRecord("argus", "10.0.0.1", 6379, 8265, "http://10.0.0.1:8000", 0, "s1", "2.60.0", "3.11.7", 0.0, 0.0)
HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


class World:
    """A shared root, and the publishers that a test has started on it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(shared_root=str(root), cluster_name="argus")
        self.folder = head_json.folder(str(root), "argus")
        self.path = head_json.head_file(str(root), "argus")
        self._monkeypatch = monkeypatch
        self._started: list[HeadPublisher] = []

    def claim(self, host: str = "here") -> int:
        return epoch.take(self.folder, HeadClaim(0, host, "10.0.0.1", 6379)).epoch

    def publisher(self, of_epoch: int | None) -> HeadPublisher:
        """None: of a head that was started by hand."""
        if of_epoch is None:
            self._monkeypatch.delenv(epoch.VARIABLE, raising=False)
        else:
            self._monkeypatch.setenv(epoch.VARIABLE, str(of_epoch))
        made = HeadPublisher(self.settings.model_dump(mode="json"), "f", end=lambda: None)
        self._started.append(made)
        return made

    def record(self) -> HeadRecord | None:
        try:
            return head_json.parse(atomic.read_small(self.path), "argus").record
        except OSError:
            return None

    def close(self) -> None:
        for each in self._started:
            assert each.stop(60)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("ARGUS_HEAD_TTL_S", str(TTL_S))
    monkeypatch.setattr(leaving, "END_AFTER_S", 3600.0)  # or those that were stopped speak up in later tests
    monkeypatch.setattr(HeadPublisher, "_record", lambda _: RECORD)
    made = World(tmp_path / "shared", monkeypatch)
    made.folder.mkdir(parents=True)
    sentinel.begin(made.folder)
    yield made
    made.close()


def eventually(condition: Callable[[], object], words: str) -> None:
    assert wait_until(lambda: bool(condition()), 30, poll_s=0.01), words


def says(publisher: HeadPublisher, word: str) -> dict[str, Any]:
    """Wait until its status has this word."""
    eventually(lambda: word in publisher.status()["status"], f"{word!r} in {publisher.status()}")
    return publisher.status()


def test_it_writes_what_it_knows_and_renews_it_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = world.publisher(world.claim())
    pauses: list[float] = []
    wait = publisher._stopping.wait

    def counted(seconds: float) -> bool:
        pauses.append(seconds)
        return wait(seconds)

    monkeypatch.setattr(publisher._stopping, "wait", counted)
    status = says(publisher, "ok")
    assert status["epoch"] == 1 and status["age_s"] is not None
    seen = set()

    def is_renewed() -> bool:
        record = world.record()
        assert record is not None, "it is replaced, never away and never half"
        seen.add(record.updated_at)
        return len(seen) >= 4 and len(pauses) >= 4

    eventually(is_renewed, "it is written again and again")
    # Three times within the ttl: one write may fail, and the file is still good.
    assert all(0.25 * TTL_S < pause <= TTL_S / 3 for pause in pauses), pauses
    record = world.record()
    assert record is not None
    assert record.epoch == 1 and record.ttl_s == pytest.approx(TTL_S, abs=0.002)
    assert (record.head_ip, record.session) == ("10.0.0.1", "s1")
    assert world.path.stat().st_mode & 0o777 == 0o644
    assert publisher.fingerprint() == "f" and publisher.pid() == os.getpid()


def test_after_stop_nothing_is_written(world: World) -> None:
    publisher = world.publisher(world.claim())
    says(publisher, "ok")
    assert publisher.stop(60)
    world.path.unlink()
    assert not wait_until(world.path.exists, 2 * TTL_S, poll_s=0.02)


def test_under_a_higher_epoch_it_writes_no_more(world: World) -> None:
    publisher = world.publisher(world.claim())
    says(publisher, "ok")
    world.claim("other")
    before = world.path.read_bytes()
    status = says(publisher, "superseded: epoch 1 is over: other (10.0.0.1) is the head with epoch 2")
    assert status["epoch"] == 1
    before = world.path.read_bytes()
    assert not wait_until(lambda: world.path.read_bytes() != before, 2 * TTL_S, poll_s=0.02)


def test_of_two_publishers_the_one_with_the_higher_epoch_stays(world: World) -> None:
    old, new = world.publisher(world.claim()), world.publisher(world.claim())
    says(old, "superseded")
    says(new, "ok")
    record = world.record()
    assert record is not None and record.epoch == 2


def test_a_damaged_epoch_stops_it_until_it_is_mended(world: World) -> None:
    publisher = world.publisher(world.claim())
    says(publisher, "ok")
    content = epoch.path_in(world.folder).read_bytes()
    epoch.path_in(world.folder).write_bytes(b"{")
    says(publisher, "cannot be written")
    epoch.path_in(world.folder).write_bytes(content)
    says(publisher, "ok")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_disk_that_refuses_is_told_and_it_recovers(
    world: World, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    publisher = world.publisher(world.claim())
    says(publisher, "ok")

    def refuse(*_: object) -> int:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        status = says(publisher, str(error.strerror))
        assert status["age_s"] is not None, "the age of what still stands"
        assert world.record() is not None
        eventually(lambda: publisher.status()["age_s"] > TTL_S, "the age grows")
    says(publisher, "ok")
    assert publisher.stop(60)
    assert not list(world.folder.glob(".*"))


def test_a_folder_that_is_gone_or_a_file_is_told_and_it_recovers(world: World) -> None:
    publisher = world.publisher(world.claim())
    says(publisher, "ok")
    aside = world.folder.rename(world.folder.with_name("aside"))
    world.folder.write_bytes(b"")
    says(publisher, "cannot be written")
    world.folder.unlink()
    aside.rename(world.folder)
    says(publisher, "ok")


def hanging_writes(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """From now on each write hangs until this is set."""
    write, is_free = atomic.write_atomically, threading.Event()

    def hang(*arguments: Any, **named: Any) -> None:
        assert is_free.wait(60)
        write(*arguments, **named)

    monkeypatch.setattr(atomic, "write_atomically", hang)
    return is_free


def test_a_write_that_hangs_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = world.publisher(world.claim())
    says(publisher, "ok")
    is_seen, told, say = threading.Event(), list[str](), publisher._say

    def listened(status: str) -> None:
        if status != "ok":
            assert is_seen.wait(60)  # the words before last until they were seen
        told.append(status)
        say(status)

    monkeypatch.setattr(publisher, "_say", listened)
    is_free = hanging_writes(monkeypatch)
    says(publisher, "has hung for")
    is_seen.set()
    eventually(lambda: any("no answer within" in each for each in told), "it is told")
    is_free.set()
    says(publisher, "ok")


def test_it_has_not_stopped_while_a_write_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = world.publisher(world.claim())
    says(publisher, "ok")
    is_free = hanging_writes(monkeypatch)
    says(publisher, "an earlier call has not come back")  # its loop waits for the write no more
    assert not publisher.stop(2)
    is_free.set()
    assert publisher.stop(60)


def test_a_ray_that_does_not_answer_is_told_and_it_recovers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ray(_: HeadPublisher) -> HeadRecord:
        raise RuntimeError("it is just starting")

    with monkeypatch.context() as patch:
        patch.setattr(HeadPublisher, "_record", no_ray)
        publisher = world.publisher(world.claim())
        says(publisher, "Ray does not say where the head is: RuntimeError: it is just starting")
        assert not world.path.exists()
    says(publisher, "ok")


# A head that was started by hand.


def is_free(path: Path) -> bool:
    lock = FileLock(path)
    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False


def test_by_hand_it_takes_the_lock_and_an_epoch_and_gives_the_lock_back(world: World) -> None:
    publisher = world.publisher(None)
    assert says(publisher, "ok")["epoch"] == 1
    claim = epoch.current(world.folder)
    assert claim is not None
    assert (claim.epoch, claim.head_ip, claim.gcs_port, claim.gcs_dir) == (1, "10.0.0.1", 6379, "")
    lock = world.folder / "head.lock"
    assert not is_free(lock)
    assert publisher.stop(60)
    assert is_free(lock)
    assert epoch.current(world.folder) == claim, "one epoch for its whole life"


def test_by_hand_it_gives_the_lock_back_even_if_the_epoch_came_late(world: World) -> None:
    epoch.path_in(world.folder).write_bytes(b"{")
    publisher = world.publisher(None)
    says(publisher, "cannot be used")
    since = time.monotonic()
    eventually(lambda: time.monotonic() - since > TTL_S, "it has tried again a few times")
    epoch.path_in(world.folder).unlink()
    says(publisher, "ok")
    assert publisher.stop(60)
    assert is_free(world.folder / "head.lock")


def test_by_hand_it_never_writes_beside_a_launcher(world: World) -> None:
    world.claim("launcher")
    lock = world.folder / "head.lock"
    launcher = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE)
    try:
        assert launcher.stdout is not None and launcher.stdout.readline() == b"held\n"
        publisher = world.publisher(None)
        says(publisher, "superseded: another head holds the lock")
        assert not wait_until(world.path.exists, 2 * TTL_S, poll_s=0.02)
        assert publisher.status()["epoch"] == 0
    finally:
        launcher.kill()
        launcher.communicate(timeout=60)
    assert says(publisher, "ok")["epoch"] == 2, "the launcher has gone"


# The state actor's guard.


def add(store: Store, name: str) -> None:
    with store.transaction() as db:
        users.add(db, User(name, "", UserState.ACTIVE, 0))


def names(store: Store) -> list[str]:
    with store.transaction() as db:
        return [user.user_id for user in users.all_but(db, "internal")]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "db").mkdir()
    return tmp_path / "db" / "argus.db"


def test_a_writer_of_a_lower_epoch_is_stale_and_has_written_nothing(world: World, database: Path) -> None:
    store = Store.open(database, guard=head_guard(world.settings, {epoch.VARIABLE: str(world.claim())}))
    add(store, "before")
    world.claim("other")
    with pytest.raises(StaleWriter, match="epoch 1 is over"):
        add(store, "ghost")
    with pytest.raises(StaleWriter):
        names(store)
    store.close()
    # The stale one keeps the database locked until its process ends, so a copy is looked at.
    shutil.copytree(database.parent, database.parent.with_name("copy"))
    copy = Store.open(database.parent.with_name("copy") / database.name)
    assert names(copy) == ["before"]
    copy.close()


def test_a_stale_head_cannot_even_open(world: World, database: Path) -> None:
    guard = head_guard(world.settings, {epoch.VARIABLE: str(world.claim())})
    world.claim("other")
    with pytest.raises(StaleWriter):
        names(Store.open(database, guard=guard))


def test_an_epoch_that_cannot_be_read_makes_the_store_unavailable_and_not_stale(world: World, database: Path) -> None:
    store = Store.open(database, guard=head_guard(world.settings, {epoch.VARIABLE: str(world.claim())}))
    add(store, "before")
    content = epoch.path_in(world.folder).read_bytes()
    epoch.path_in(world.folder).write_bytes(b"{")
    with pytest.raises(Unavailable):
        add(store, "lost")
    epoch.path_in(world.folder).write_bytes(content)
    add(store, "after")
    assert sorted(names(store)) == ["after", "before"]
    store.close()


@pytest.mark.parametrize("environ", [{}, {epoch.VARIABLE: ""}, {epoch.VARIABLE: "0"}])
def test_a_head_that_was_started_by_hand_has_no_guard(world: World, environ: dict[str, str]) -> None:
    assert head_guard(world.settings, environ) is None


def test_a_fenced_actor_answers_and_then_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(epoch.VARIABLE, str(world.claim()))
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    actor = StateActor(world.settings.model_dump(mode="json"), "f")
    assert actor.scheduled("queue_changes", pickle.dumps(("", 0))).rows == ()
    world.claim("other")
    with pytest.raises(StaleWriter):
        actor.scheduled("queue_changes", pickle.dumps(("", 0)))
    eventually(lambda: ended == [1], "it ends its process")
    actor.close()


@pytest.mark.parametrize("by_hand", [True, False])
def test_without_flock_no_head_is_published_and_it_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch, by_hand: bool
) -> None:
    of_epoch = None if by_hand else world.claim()
    with lacking_flock(monkeypatch):
        publisher = world.publisher(of_epoch)
        status = says(publisher, "lacks flock")
        assert status["epoch"] == (of_epoch or 0) and not world.path.exists()
    says(publisher, "ok")
