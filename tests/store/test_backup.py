"""Backups: whole or not at all, consistent while others write, and what a damaged database says."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.errors import ArgusError, DatabaseDamaged, StaleWriter, Unavailable
from argus_ray.store import Store, backup, health
from argus_ray.store.backup import Backup
from argus_ray.store.restore import restore
from tests.store.test_store_crash import ALICE, fingerprint, make_alice, step
from tests.support.builders import World, make_service, memory_folder
from tests.support.sanity import sanity_check

NOON = 1_795_000_000.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_service(tmp_path.resolve())
    make_alice(made)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "ray" / "backup" / "argus"


def go_on(seconds: float) -> bool:
    return False


def make(store: Store, folder: Path, at: float = NOON, stop: Callable[[float], bool] = go_on) -> Backup:
    return backup.make(store, folder, check_root=lambda: None, stop=stop, clock=lambda: at)


def work(world: World, seed: int, steps: int) -> None:
    dice = random.Random(seed)
    for _ in range(steps):
        step(world, dice)


def test_one_has_its_name_its_mode_and_all_that_was_accepted(world: World, folder: Path) -> None:
    work(world, 1, 30)
    made = make(world.store, folder)
    assert made.path.parent == folder and made == backup.named(made.path)
    assert (made.at, made.epoch, made.when) == (NOON, world.store.epoch, "2026-11-18T11:06:40Z")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert [entry.name for entry in folder.iterdir()] == [made.path.name]
    assert not list(world.database.parent.glob(".*")), "nothing is left beside the database"
    backup.verify(made)
    before = fingerprint(world.store)
    work(world, 2, 5)
    assert fingerprint(world.store) != before
    world.close()
    done = restore(world.database, made, now=NOON + 60)
    assert done.epoch > made.epoch
    world.reopen()
    sanity_check(world.store)
    assert fingerprint(world.store) == before
    assert world.store.epoch == done.epoch + 1


def test_a_backup_while_others_write_is_consistent(world: World, folder: Path) -> None:
    """With writes between the steps, with rollbacks, and with another thread at the same connection."""
    work(world, 3, 60)
    acked = list[str]()
    steps = 0

    def between(seconds: float) -> bool:
        nonlocal steps
        steps += 1
        if steps <= 40:
            work(world, 100 + steps, 1)
            acked.append(fingerprint(world.store))
        if steps in (5, 11):
            with pytest.raises(ZeroDivisionError), world.store.transaction() as db:
                db.execute("UPDATE tasks SET losses = losses + 1")
                raise ZeroDivisionError
        return False

    ended = threading.Event()
    errors = list[BaseException]()

    def others() -> None:
        try:
            while not ended.is_set():
                world.service.handle(ALICE, actions.ListTasks())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=others)
    thread.start()
    try:
        made = backup_in_small_steps(world.store, folder, between)
    finally:
        ended.set()
        thread.join(60)
    assert not errors and steps > 20
    last = fingerprint(world.store)
    world.close()
    restore(world.database, made, now=NOON)
    world.reopen()
    sanity_check(world.store)
    assert fingerprint(world.store) == last == acked[-1]


def backup_in_small_steps(store: Store, folder: Path, stop: Callable[[float], bool]) -> Backup:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backup, "_PAGES_AT_ONCE", 4)
        return make(store, folder, stop=stop)


def test_the_writer_is_free_between_two_steps(world: World, folder: Path) -> None:
    work(world, 4, 20)
    seen = list[str]()

    def between(seconds: float) -> bool:
        def ask() -> None:
            seen.append(str(world.service.ping()["epoch"]))

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(30)
        return False

    backup_in_small_steps(world.store, folder, between)
    assert len(seen) > 10


def test_one_that_is_given_up_leaves_nothing(world: World, folder: Path) -> None:
    work(world, 5, 20)
    with pytest.raises(Unavailable, match="given up"):
        backup_in_small_steps(world.store, folder, lambda seconds: True)
    assert not folder.exists() and not list(world.database.parent.glob(".*"))
    work(world, 6, 2)  # the writer has not noticed


def test_a_writer_that_closes_does_not_wait_for_the_whole(world: World, folder: Path) -> None:
    work(world, 7, 20)
    closing = threading.Thread(target=world.store.close)

    def between(seconds: float) -> bool:
        if closing.ident is None:
            closing.start()
        while not world.store._closing:
            pass
        return False

    with pytest.raises(Unavailable, match="closed"):
        backup_in_small_steps(world.store, folder, between)
    closing.join(30)
    assert not closing.is_alive() and not folder.exists()
    world.reopen()
    sanity_check(world.store)


def test_a_writer_that_was_taken_over_publishes_nothing(world: World, folder: Path) -> None:
    note = Path(f"{world.database}.owner")

    def between(seconds: float) -> bool:
        note.write_text("another")
        return False

    with pytest.raises(StaleWriter):
        backup_in_small_steps(world.store, folder, between)
    assert not folder.exists()


def test_on_a_root_that_went_away_nothing_is_made(world: World, folder: Path) -> None:
    def gone() -> None:
        raise OSError("no root")

    with pytest.raises(OSError, match="no root"):
        backup.make(world.store, folder, check_root=gone, stop=go_on)
    assert not folder.exists()


def test_without_room_none_is_made(world: World, folder: Path) -> None:
    with pytest.raises(Unavailable, match="no room"):
        backup.make(world.store, folder, check_root=lambda: None, stop=go_on, spare_bytes=2**62)
    assert not folder.exists() and not list(world.database.parent.glob(".*"))


def test_backups_may_lie_on_another_filesystem(world: World, folder: Path) -> None:
    if not os.access("/dev/shm", os.W_OK) or Path("/dev/shm").stat().st_dev == world.root.stat().st_dev:
        pytest.skip("there is no other filesystem here")
    other = Path("/dev/shm") / f"argus-backup-{os.getpid()}"
    other.mkdir()
    try:
        folder.parent.mkdir(parents=True)
        folder.symlink_to(other)
        made = make(world.store, folder)
        backup.verify(made)
        assert [entry.name for entry in other.iterdir()] == [made.path.name]
        assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    finally:
        shutil.rmtree(other)


# --- how long they stay ---


def test_the_newest_stay_and_one_of_each_day() -> None:
    hour, day = 3600.0, 86_400.0
    midnight = NOON // day * day
    made = [Backup(Path(str(n)), midnight - n * 6 * hour, 1, f"{n:016x}") for n in range(100)]
    going = backup.superfluous(made, 8, 14, midnight + hour)
    kept = [each for each in made if each not in going]
    assert kept[:8] == made[:8]
    days = {each.at // day for each in kept}
    assert days == {midnight // day - n for n in range(14)} | {each.at // day for each in made[:8]}
    assert len(kept) == 8 + len({each.at // day for each in kept[8:]})
    for each in kept[8:]:  # the last one of its day
        assert each.at == max(other.at for other in made if other.at // day == each.at // day)
    assert backup.superfluous(made[:1], 0, 0, midnight + 1000 * day) == ()
    assert backup.superfluous(made, 1, 0, midnight + 1000 * day) == tuple(made[1:])


def test_the_newest_is_the_last_writers_whatever_its_clock_said(folder: Path) -> None:
    """The head before had a clock that was hours ahead."""
    folder.mkdir(parents=True)
    names = ("20261127T150000Z-e1", "20261127T120000Z-e2", "20261127T120500Z-e2")
    for name in names:
        (folder / f"argus-{name}-0123456789abcdef.db").touch()
    found = backup.list_in(folder)
    assert [each.path.name[6:25] for each in found] == [names[2], names[1], names[0]]
    assert backup.superfluous(found, 1, 0, found[0].at) == found[1:]


def test_thinning_deletes_those_and_leftovers_and_nothing_else(world: World, folder: Path) -> None:
    made = [make(world.store, folder, NOON + n) for n in range(4)]
    (folder / f".{made[0].path.name}.0123").write_bytes(b"left")
    (folder / "note.txt").write_text("the operator's")
    assert backup.thin(folder, 2, 0, NOON) == 2
    assert {entry.name for entry in folder.iterdir()} == {"note.txt", made[3].path.name, made[2].path.name}
    assert backup.list_in(folder) == (made[3], made[2])


def test_the_newest_good_one_is_found_past_damaged_ones(world: World, folder: Path) -> None:
    made = [make(world.store, folder, NOON + n) for n in range(3)]
    assert backup.newest_good(folder) == made[2]
    flip(made[2].path, made[2].path.stat().st_size - 5)
    made[1].path.write_bytes(made[1].path.read_bytes()[:-4096])
    with pytest.raises(DatabaseDamaged, match="SHA-256"):
        backup.verify(made[2])
    assert backup.newest_good(folder) == made[0]
    assert backup.newest_good(folder / "none") is None


# --- damage ---


def flip(path: Path, at: int, count: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(count)
        file.seek(at)
        file.write(bytes(byte ^ 0xFF for byte in old))


def pages_of(path: Path, name: str) -> list[int]:
    """Numbers from 1, of a table or an index."""
    db = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        return [row[0] for row in db.execute("SELECT pageno FROM dbstat WHERE name = ? ORDER BY pageno", (name,))]
    finally:
        db.close()


def opening(path: Path) -> Exception | None:
    try:
        Store.open(path).close()
    except ArgusError as error:
        return error
    return None


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_found_by_the_check_and_refused_at_the_start(world: World, tmp_path: Path, seed: int) -> None:
    """In the headers of pages of all kinds. Bytes within a row or in what is free are nobody's to find: SQLite keeps no
    checksums, and for a backup its name has one."""
    work(world, 8, 40)
    world.close()
    whole, dice = world.database, random.Random(seed)
    kinds = ("sqlite_schema", "tasks", "tasks_by_state", "events", "events_by_task", "attempts", "writer")
    for kind in kinds:
        page = dice.choice(pages_of(whole, kind))
        hurt = tmp_path / "hurt.db"
        shutil.copyfile(whole, hurt)
        flip(hurt, (page - 1) * 4096 + (100 if page == 1 else 0), 8)
        with pytest.raises((DatabaseDamaged, health.SchemaError)), health.reading(hurt) as db:
            health.check_sound(db, hurt)
        error = opening(hurt)
        if kind in ("sqlite_schema", "writer"):
            assert isinstance(error, DatabaseDamaged) and "damaged" in str(error) and str(hurt) in str(error)
        else:  # or later, by the call that reads it
            assert error is None or isinstance(error, DatabaseDamaged)
            hurt.unlink()
            Path(f"{hurt}.owner").unlink()
    hurt = tmp_path / "header.db"
    shutil.copyfile(whole, hurt)
    flip(hurt, 0, 16)
    assert isinstance(opening(hurt), DatabaseDamaged)
    hurt.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert isinstance(opening(hurt), DatabaseDamaged), "cut off"


def test_a_call_that_meets_damage_says_so(world: World) -> None:
    work(world, 9, 40)
    world.close()
    for page in pages_of(world.database, "events_by_task"):
        flip(world.database, (page - 1) * 4096, 8)
    store = Store.open(world.database)
    try:
        with pytest.raises(DatabaseDamaged, match="damaged"), store.transaction() as db:
            db.execute("SELECT * FROM events WHERE task_id > 'a' ORDER BY task_id").fetchall()
        with pytest.raises(DatabaseDamaged):
            make(store, world.root / "backups")
    finally:
        store.close()
    assert not (world.root / "backups").exists(), "a copy of it is no backup"


def test_any_byte_of_a_backup_counts(world: World, folder: Path) -> None:
    work(world, 10, 10)
    made = make(world.store, folder)
    size, dice = made.path.stat().st_size, random.Random(0)
    for at in [0, 17, 60, 99, size - 1, *(dice.randrange(size) for _ in range(60))]:
        flip(made.path, at)
        with pytest.raises(DatabaseDamaged):
            backup.verify(made)
        flip(made.path, at)
    backup.verify(made)


def test_a_damaged_log_is_cut_where_it_is_damaged(world: World, tmp_path: Path) -> None:
    """SQLite's log has checksums: what comes after the damage is lost, and what is left is sound."""
    work(world, 11, 5)
    there = tmp_path / "there"
    shutil.copytree(world.database.parent, there)
    log = there / "argus.db-wal"
    assert log.stat().st_size > 100_000
    flip(log, log.stat().st_size // 2, 64)
    store = Store.open(there / "argus.db")
    sanity_check(store)
    store.close()


# --- restoring ---


def test_restoring_keeps_the_old_one_aside_with_its_log(world: World, folder: Path) -> None:
    work(world, 12, 5)
    made = make(world.store, folder)
    with world.store.transaction() as db:
        key = bytes(db.execute("SELECT key FROM change_clock").fetchone()[0])
    work(world, 13, 5)
    last = fingerprint(world.store)
    crashed = world.root / "crashed"
    shutil.copytree(world.database.parent, crashed)
    database = crashed / "argus.db"
    assert Path(f"{database}-wal").stat().st_size
    done = restore(database, made, now=NOON)
    assert done.aside is not None and done.aside.name == "argus.db.replaced-20261118T110640Z"
    assert not Path(f"{database}-wal").exists(), "a log beside another database would be copied into it"
    store = Store.open(database)
    sanity_check(store)
    with store.transaction() as db:
        assert bytes(db.execute("SELECT key FROM change_clock").fetchone()[0]) != key
    store.close()
    aside = Store.open(done.aside)
    assert fingerprint(aside) == last, "nothing of it is lost"
    aside.close()
    again = restore(database, made, now=NOON)
    assert again.aside is not None and again.aside.name.endswith("-2") and again.epoch > done.epoch
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


def test_restoring_refuses_while_a_writer_lives_and_what_is_not_good(world: World, folder: Path) -> None:
    made = make(world.store, folder)
    before = fingerprint(world.store)
    with pytest.raises(Unavailable, match="in use by process"):
        restore(world.database, made, now=NOON)
    work(world, 14, 1)
    assert fingerprint(world.store) != before, "the writer was not fenced off"
    world.close()
    flip(made.path, 5000)
    with pytest.raises(DatabaseDamaged):
        restore(world.database, made, now=NOON)
    world.reopen()


def test_a_writer_from_before_is_fenced_off(world: World, folder: Path) -> None:
    """Its lock was given away while it was paused."""
    made = make(world.store, folder)
    world.store._fence.release()
    restore(world.database, made, now=NOON)
    with pytest.raises(StaleWriter), world.store.transaction():
        pass


@pytest.mark.parametrize("place", ["_take_over", "_set_aside", "after"])
def test_a_restoring_that_is_killed_leaves_the_old_one_or_none(
    world: World, folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from argus_ray.store import restore as module

    work(world, 15, 3)
    made = make(world.store, folder)
    want = fingerprint(world.store)
    world.close()

    class Killed(BaseException):
        pass

    real = getattr(module, place, None)

    def killed(*arguments: object) -> object:
        if real is not None and place == "_take_over":
            real(*arguments)
        raise Killed

    if place == "after":
        monkeypatch.setattr(Path, "rename", _renames_once(Killed))
    else:
        monkeypatch.setattr(module, place, killed)
    with pytest.raises(Killed):
        restore(world.database, made, now=NOON)
    monkeypatch.undo()
    assert world.database.exists() == (place != "after")
    restore(world.database, made, now=NOON)
    world.reopen()
    assert fingerprint(world.store) == want


def _renames_once(error: type[BaseException]) -> Callable[[Path, Path], Path]:
    """The database goes aside, and then comes the end."""
    renamed = list[Path]()
    real = os.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name != "argus.db":
            return _refuse(error)
        real(path, target)
        renamed.append(path)
        return Path(target)

    return rename


def _refuse(error: type[BaseException]) -> Path:
    raise error


# --- killed ---


def test_killed_at_any_moment_there_is_never_a_torn_one_under_a_good_name(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=memory_folder() or tmp_path) as name:
        _kill_again_and_again(Path(name).resolve())


def _kill_again_and_again(root: Path) -> None:
    world = make_service(root)
    make_alice(world)
    work(world, 16, 30)
    world.close()
    folder = root / "ray" / "backup" / "argus"
    dice, names = random.Random(17), set[str]()
    for run in range(6):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _back_up_for_ever(root, folder, writer, run)
        os.close(writer)
        for _ in range(dice.randint(1, 200)):
            if not os.read(reader, 1):
                break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        for made in backup.list_in(folder):
            if made.path.name not in names:
                backup.verify(made)
                names.add(made.path.name)
    assert len(names) > 2
    world = make_service(root)
    make(world.store, folder)
    assert not list(world.database.parent.glob(".*")), "what the killed ones have left is gone"
    sanity_check(world.store)
    world.close()


def _back_up_for_ever(root: Path, folder: Path, writer: int, run: int) -> None:
    try:
        world = make_service(root)
        dice, made = random.Random(run), 0

        def between(seconds: float) -> bool:
            os.write(writer, b".")
            if dice.random() < 0.05:
                step(world, dice)
            return False

        while True:
            made += 1
            backup._PAGES_AT_ONCE = 16
            make(world.store, folder, NOON + 1000 * run + made, between)
    finally:
        os._exit(1)
