"""The state actor makes backups beside its work, and says what to do when its database is damaged."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.actors import backups
from argus_ray.actors.state import StateActor
from argus_ray.config import Settings
from argus_ray.core import actions, paths
from argus_ray.core.errors import DatabaseDamaged, Unavailable
from argus_ray.discovery import head_json, sentinel
from argus_ray.gateway.actors import ActorHandles
from argus_ray.store import Store, backup
from argus_ray.store.restore import restore
from tests.store.test_backup import pages_of
from tests.support.builders import ADMIN


class Root:
    def __init__(self, path: Path) -> None:
        self.path = path / "private"
        self.path.mkdir()
        self.folder = Path(paths.backup_dir(str(self.path), "argus"))
        self.database = Path(paths.database_path(str(self.path), "argus"))
        self.actors: list[StateActor] = []
        sentinel.begin(head_json.folder(str(self.path), "argus"))

    def actor(self, **more: Any) -> StateActor:
        # Else a disk of this machine that is nearly full would decide.
        settings = Settings.model_validate({"shared_root": str(self.path), "limits": {"reserve_bytes": 0}, **more})
        self.actors.append(StateActor(settings.model_dump(mode="json"), "f"))
        return self.actors[-1]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Root]:
    monkeypatch.setattr(backups, "_NAME_WITHIN_S", 60.0)
    made = Root(tmp_path.resolve())
    yield made
    for actor in made.actors:
        actor.close()


def ask(actor: StateActor, action: actions.Action[Any]) -> Any:
    [answer] = pickle.loads(actor.batch(pickle.dumps([(ADMIN, action)]), "f"))
    return answer


def until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def made_in(root: Root) -> tuple[backup.Backup, ...]:
    return backup.list_in(root.folder)


def test_one_is_made_at_the_first_start_and_not_at_the_next_one(root: Root) -> None:
    actor = root.actor()
    assert ask(actor, actions.CreateUser("alice", "")).user_id == "alice"
    until(lambda: actor.ping()["backup"]["newest_at"], "a backup")
    [made] = made_in(root)
    backup.verify(made)
    assert actor.ping()["backup"] == {"newest_at": made.at, "trouble": ""}
    actor.close()
    again = root.actor()
    until(lambda: again.ping()["backup"]["newest_at"] == made.at, "the one that is there")
    assert made_in(root) == (made,)


def test_a_new_one_comes_when_the_last_one_is_old(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_795_000_000.0
    monkeypatch.setattr(backups, "_LOOK_EVERY_S", 0.01)
    keeper = backups.BackupKeeper(
        Settings.model_validate(
            {"shared_root": str(root.path), "limits": {"reserve_bytes": 0}, "backup": {"keep": 1, "keep_days": 0}}
        ),
        lambda: None,
        clock=lambda: now,
    )
    store = Store.open(root.database)
    try:
        keeper.begin(store)
        until(lambda: keeper.status()["newest_at"] == now, "the first one")
        now += 21_599
        assert keeper.status()["newest_at"] != now
        now += 2
        until(lambda: keeper.status()["newest_at"] == now, "the second one")
        until(lambda: len(made_in(root)) == 1, "the first one is gone")
        assert store.backup_at == now
    finally:
        keeper.end()
        store.close()


def test_off_is_off(root: Root) -> None:
    actor = root.actor(backup={"every_s": 0})
    assert ask(actor, actions.ListUsers()) == ()
    assert actor.ping()["backup"] == {"newest_at": None, "trouble": ""}
    assert actor._backups._round is None
    assert not root.folder.exists()


def test_a_disk_that_hangs_holds_no_call(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, goes_on = threading.Event(), threading.Event()
    real = backup._publish

    def hung(*arguments: Any) -> None:
        hangs.set()
        assert goes_on.wait(60)
        real(*arguments)

    monkeypatch.setattr(backup, "_publish", hung)
    actor = root.actor()
    try:
        assert ask(actor, actions.ListUsers()) == ()
        assert hangs.wait(60)
        assert ask(actor, actions.CreateUser("alice", "")).user_id == "alice"
        assert actor.ping()["backup"]["newest_at"] is None
    finally:
        goes_on.set()
    until(lambda: actor.ping()["backup"]["newest_at"], "a backup")


def test_on_a_bare_mount_point_none_is_made_and_it_is_told(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "_TRY_AGAIN_S", 0.01)
    is_there = False

    def check() -> None:
        if not is_there:
            raise Unavailable("the shared root cannot be used")

    settings = Settings.model_validate({"shared_root": str(root.path), "limits": {"reserve_bytes": 0}})
    keeper = backups.BackupKeeper(settings, check)
    store = Store.open(root.database)
    try:
        keeper.begin(store)
        until(lambda: "shared root cannot be used" in keeper.status()["trouble"], "it is told")
        assert not root.folder.parent.exists()
        is_there = True
        until(lambda: keeper.status()["newest_at"] and not keeper.status()["trouble"], "a backup")
    finally:
        keeper.end()
        store.close()


def test_a_look_that_failed_at_the_start_is_no_trouble_once_a_young_backup_is_found(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = root.actor()
    until(lambda: actor.ping()["backup"]["newest_at"], "a backup")
    actor.close()
    monkeypatch.setattr(backups, "_TRY_AGAIN_S", 0.01)
    is_there = False

    def check() -> None:
        if not is_there:
            raise Unavailable("the shared root cannot be used")

    settings = Settings.model_validate({"shared_root": str(root.path), "limits": {"reserve_bytes": 0}})
    keeper = backups.BackupKeeper(settings, check)
    store = Store.open(root.database)
    try:
        keeper.begin(store)
        until(lambda: "shared root cannot be used" in keeper.status()["trouble"], "it is told")
        is_there = True
        until(lambda: keeper.status()["newest_at"] and not keeper.status()["trouble"], "it is well")
        assert len(made_in(root)) == 1
    finally:
        keeper.end()
        store.close()


def damage(path: Path) -> None:
    """The root page of the schema."""
    content = bytearray(path.read_bytes())
    content[100:108] = bytes(byte ^ 0xFF for byte in content[100:108])
    path.write_bytes(content)


def test_a_damaged_database_is_refused_with_the_way_out(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    before = root.actor(backup={"every_s": 0})
    assert ask(before, actions.CreateUser("alice", "")).user_id == "alice"
    before.close()
    actor = root.actor()
    until(lambda: actor.ping()["backup"]["newest_at"], "a backup")
    actor.close()
    [made] = made_in(root)
    damage(root.database)
    actor = root.actor()
    answer = ask(actor, actions.ListUsers())
    assert isinstance(answer, DatabaseDamaged)
    words = str(answer)
    assert f"{root.database} is damaged" in words and made.when in words
    assert f"`argus-admin restore {made.path.name}`" in words
    with pytest.raises(DatabaseDamaged) as raised:
        actor.ping()
    assert str(raised.value) == words
    assert words in caplog.text
    assert sum(words in line for line in caplog.messages) == 1, "told once in the log"
    assert restore(root.database, made, now=made.at + 1).aside
    assert [user.user_id for user in ask(actor, actions.ListUsers())] == ["alice"]


def test_damage_that_only_the_first_reading_meets_is_told_each_time(root: Root) -> None:
    actor = root.actor(backup={"every_s": 0})
    assert ask(actor, actions.CreateUser("alice", "")).user_id == "alice"
    actor.close()
    content = bytearray(root.database.read_bytes())
    for page in pages_of(root.database, "users"):
        content[(page - 1) * 4096 : (page - 1) * 4096 + 8] = bytes(8)
    root.database.write_bytes(content)
    for _ in range(2):
        answer = ask(actor, actions.ListUsers())
        assert isinstance(answer, DatabaseDamaged) and "there is no good backup in" in str(answer)


def test_without_a_good_backup_it_says_so(root: Root) -> None:
    actor = root.actor()
    until(lambda: actor.ping()["backup"]["newest_at"], "a backup")
    actor.close()
    [made] = made_in(root)
    damage(root.database)
    damage(made.path)
    answer = ask(root.actor(), actions.ListUsers())
    assert isinstance(answer, DatabaseDamaged) and "there is no good backup in" in str(answer)


def test_backups_that_hang_do_not_hold_the_words(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = root.actor(backup={"every_s": 0})
    assert ask(actor, actions.ListUsers()) == ()
    actor.close()
    damage(root.database)
    goes_on = threading.Event()
    monkeypatch.setattr(backups, "_NAME_WITHIN_S", 0.05)
    monkeypatch.setattr(backup, "newest_good", lambda folder: goes_on.wait(60) and None)
    actor = root.actor(backup={"every_s": 0})
    try:
        for _ in range(3):
            answer = ask(actor, actions.ListUsers())
            assert isinstance(answer, DatabaseDamaged) and "`argus-admin backup-list`" in str(answer)
    finally:
        goes_on.set()


# --- readiness ---


class Wrapped(Exception):
    """As Ray wraps what an actor raises."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a long traceback")
        self.cause = cause


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        ({"maintenance_since": None, "backup": {"newest_at": 1.0, "trouble": ""}}, {"state": "ok"}),
        ({"maintenance_since": None}, {"state": "ok"}),  # one of an earlier version
        ({"backup": {"newest_at": None, "trouble": "no room"}}, {"state": "ok", "backup": "no room"}),
        (Wrapped(DatabaseDamaged("damaged: restore it so")), {"state": "damaged: restore it so"}),
        (DatabaseDamaged("damaged: restore it so"), {"state": "damaged: restore it so"}),
        (Wrapped(Unavailable("a path")), {"state": "Wrapped"}),
    ],
)
def test_readiness_tells_of_backups_and_of_damage(said: Any, parts: dict[str, str]) -> None:
    handles = ActorHandles(Settings(), "v")

    async def call(name: str, method: str, *_: object) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    handles._call = call  # type: ignore[method-assign]
    assert asyncio.run(handles._state_readiness()) == parts
