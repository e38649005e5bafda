"""Whole passes over a real service and real folders: what goes and what is told, crashes in between, hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from argus_ray.actors import scheduler
from argus_ray.config import Retention, Settings
from argus_ray.core import actions
from argus_ray.core.lifecycle import Advance, Change, Deleted, End, FilesMeasured, Trashed
from argus_ray.core.model import Event, FilesAt, Task
from argus_ray.core.retention import DAY_S, Chore, Chores
from argus_ray.core.states import Outcome
from argus_ray.disk import secrets
from argus_ray.disk import trash as tidy
from argus_ray.disk.threads import BoundedThreads
from argus_ray.scheduler import housekeeping
from argus_ray.scheduler.housekeeping import Housekeeper
from tests.disk.test_trash import save, steps_in
from tests.support.builders import World, make_service
from tests.support.sanity import sanity_check

InThread = Callable[[Callable[[], Change | None]], Awaitable[Change | None]]


class Crash(BaseException):
    """The scheduler's process dies here."""


class House:
    def __init__(self, root: Path, **retention: Any) -> None:
        self.world: World = make_service(root.resolve(), settings={"retention": retention})
        self.ada = self.world.user("ada")
        self.crash_at: int | None = None
        self.users = {"ada": self.ada}
        #: What becomes of a root that is away.
        self.prove_root: Callable[[], object] = lambda: None
        #: Each look at it, which is one for each entry of a folder, is a second.
        self.seconds = 0.0
        self.pass_s, self.task_s = 1e6, 1e6
        #: In the order in which it was done.
        self.done: list[Change] = []
        self.transactions = 0

    # The state actor, as the pass sees it.

    async def chores(self, chore: Chore, begun: float | None = None) -> Chores:
        return self.world.service.chores(chore, begun)

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        if self.crash_at is not None:
            self.crash_at -= 1
            if self.crash_at < 0:
                raise Crash
        self.done += changes
        self.transactions += 1
        return self.world.service.apply(changes)

    async def _here(self, call: Callable[[], Change | None]) -> Change | None:
        return call()

    def _clock(self) -> float:
        self.seconds += 1
        return self.seconds

    def keeper(self, in_thread: InThread | None = None) -> Housekeeper:
        return Housekeeper(
            state=self,
            in_thread=in_thread or self._here,
            prove_root=lambda: self.prove_root(),
            shared_root=self.world.shared_root,
            policy=self.world.settings.retention.policy(),
            pass_s=self.pass_s,
            task_s=self.task_s,
            rest_s=0,
            clock=self._clock,
        )

    def tidy_up(self) -> bool:
        self.done = []
        return asyncio.run(self.keeper().once())

    # What happens to tasks.

    def run(self, task: Task | None = None) -> tuple[Task, Path]:
        """A new attempt runs, with a log and two checkpoints."""
        task = task or self.world.submit(self.ada, n_gpus_per_node=2)
        admit = self.world.admission(self.world.task(task.task_id))
        assert all(self.world.service.apply([admit, Advance(admit.submission_id, running=True)]))
        root = Path(admit.job_root)
        for step in (10 * admit.number, 10 * admit.number + 5):
            save(root, step)
        (root / "logs").mkdir()
        (root / "logs" / "driver.log").write_text("x" * 100_000)
        return self.task(task), root

    def small(self, who: str = "ada", files: int = 1) -> Task:
        """A task that runs, with so many files in its job root."""
        self.users[who] = self.users.get(who) or self.world.user(who)
        task = self.world.submit(self.users[who])
        admit = self.world.admission(task)
        assert all(self.world.service.apply([admit, Advance(admit.submission_id, running=True)]))
        Path(admit.job_root).mkdir(parents=True)
        for number in range(files):
            (Path(admit.job_root) / str(number)).touch()
        return task

    def ended(self, who: str = "ada", files: int = 1) -> Task:
        task = self.small(who, files)
        self.end(task)
        return task

    def is_measured(self, task: Task) -> bool:
        return self.task(task).attempts[-1].disk_bytes is not None

    def end(self, task: Task, outcome: Outcome = Outcome.APPLICATION) -> None:
        name = self.task(task).attempts[-1].submission_id
        assert self.world.service.apply([End(name, outcome, "why")]) == [True]

    def task(self, task: Task) -> Task:
        return self.world.task(task.task_id)

    def notes(self, task: Task) -> list[str]:
        events = self.world.service.handle(self.ada, actions.TaskEvents(task.task_id))
        assert isinstance(events, tuple)
        return [event.message for event in events if isinstance(event, Event) and event.kind == "note"]

    def days(self, days: float) -> None:
        self.world.clock.advance(days * DAY_S)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, trash_after_days=10, delete_after_days=5, keep_checkpoints=1)
    yield made
    sanity_check(made.world.store)
    made.world.close()


def test_the_life_of_a_job_root(house: House) -> None:
    task, root = house.run()
    house.tidy_up()
    (attempt,) = house.task(task).attempts
    assert attempt.disk_bytes is not None and 100_000 < attempt.disk_bytes < 1_000_000
    assert steps_in(root) == ["10", "15"], "it runs"
    house.end(task)
    house.days(1)
    house.tidy_up()
    assert steps_in(root) == ["15"]
    assert house.notes(task) == ["removed checkpoints (the newest one is kept): step 10 of a01"]
    smaller = house.task(task).attempts[0].disk_bytes
    assert smaller is not None and smaller < attempt.disk_bytes
    house.days(9)
    house.tidy_up()
    trash = root.parent.parent / "trash" / root.name
    assert not root.exists() and (trash / "logs" / "driver.log").exists()
    assert house.notes(task)[1:] == [f"moved to the trash, {trash.parent}/: {root.name}; deleted after 5 days"]
    house.days(5)
    house.tidy_up()
    assert list(trash.parent.iterdir()) == list(root.parent.iterdir()) == []
    assert house.notes(task)[2:] == [f"deleted from the trash: {root.name}"]
    assert (house.task(task).files_at, house.task(task).attempts[0].disk_bytes) == (FilesAt.DELETED, 0)
    house.days(100)
    house.tidy_up()
    assert len(house.notes(task)) == 3


def test_all_attempts_of_a_task_go_together(house: House) -> None:
    task, first = house.run()
    house.end(task, Outcome.INFRASTRUCTURE)
    house.days(20)
    house.tidy_up()
    assert steps_in(first) == ["10", "15"], "it waits, and will resume from there"
    _, second = house.run(task)
    house.days(20)
    house.tidy_up()
    assert steps_in(first, second) == ["10", "15", "20", "25"], "its live attempt may be reading there"
    house.end(task)
    house.days(1)
    house.tidy_up()
    assert steps_in(first, second) == ["25"]
    assert house.notes(task)[-1].endswith("step 20 of a02, step 15 of a01, step 10 of a01")
    house.days(10)
    house.tidy_up()
    assert not first.exists() and not second.exists()
    assert f"{first.name}, {second.name}" in house.notes(task)[-1]


def test_a_key_that_no_run_has_taken_does_not_stay(house: House) -> None:
    """Its runner would have taken it away, but has died with its machine."""
    task, first = house.run()
    secrets.hand_over(str(first), "wandb", "k" * 40)
    house.tidy_up()
    assert (first / "secrets" / "wandb").exists(), "its run may not have read it yet"
    house.end(task, Outcome.INFRASTRUCTURE)
    _, second = house.run(task)
    secrets.hand_over(str(second), "wandb", "k" * 40)
    house.tidy_up()
    assert not (first / "secrets").exists() and (second / "secrets" / "wandb").exists()
    house.end(task)
    house.tidy_up()
    assert not (second / "secrets").exists()
    secrets.hand_over(str(second), "wandb", "k" * 40)  # by a submission that was on its way
    house.days(20)
    house.tidy_up()
    assert (second.parent.parent / "trash" / second.name).exists()
    assert list((second.parent.parent / "trash").rglob("secrets")) == []


def test_what_an_export_that_was_killed_has_left_goes(house: House) -> None:
    """Its links to the checkpoint would hold the bytes of a deleted one, and keep it from being downloaded."""
    old, root = house.run()
    house.end(old)
    answer = house.world.service.handle(
        house.ada, actions.ExportTask(old.task_id, step=15, job_root=str(root), wanted_step=15)
    )
    new = house.world.task(answer.submitted.task_id)
    roots = []
    for outcome in (Outcome.INFRASTRUCTURE, Outcome.SUCCEEDED):
        _, made_in = house.run(new)
        for name in ("export", "export.source", "export.part"):
            (made_in / name / "huggingface").mkdir(parents=True)
            (made_in / name / "huggingface" / "config.json").touch()
        roots.append(made_in)
        house.tidy_up()
        assert (made_in / "export.source").exists(), "it is at work"
        house.end(new, outcome)
    house.days(1)
    house.tidy_up()
    for made_in in roots:
        assert {path.name for path in made_in.iterdir()} >= {"export", "logs"}
        assert not (made_in / "export.source").exists() and not (made_in / "export.part").exists()
    (root / "export.part").mkdir()  # a run may call its own folders what it likes
    house.days(1)
    house.tidy_up()
    assert (root / "export.part").exists()


def test_a_task_that_resumes_from_another_keeps_it(house: House) -> None:
    old, root = house.run()
    house.end(old)
    new = house.world.service.handle(house.ada, actions.ResubmitTask(old.task_id, resume=True))
    assert isinstance(new, actions.Submitted)
    house.days(30)
    house.tidy_up()
    assert steps_in(root) == ["10", "15"]
    running, _ = house.run(house.world.task(new.task_id))
    house.days(30)
    house.tidy_up()
    assert steps_in(root) == ["10", "15"]
    house.end(running)
    house.tidy_up()
    assert not root.exists()
    assert house.task(running).files_at is FilesAt.JOB_ROOT


def test_a_resubmission_in_the_middle_of_a_pass(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the decision and the rename a user wants to resume: the new task does not count on what leaves."""
    old, root = house.run()
    house.end(old)
    house.days(10)
    resubmitted: list[Task] = []
    to_trash = tidy.to_trash

    def then(*where: str) -> bool:
        answer = house.world.service.handle(house.ada, actions.ResubmitTask(old.task_id, resume=True))
        assert isinstance(answer, actions.Submitted)
        resubmitted.append(house.world.task(answer.task_id))
        return to_trash(*where)

    monkeypatch.setattr(tidy, "to_trash", then)
    house.tidy_up()
    assert not root.exists()
    assert [task.resume_roots for task in resubmitted] == [()]


def test_pruning_in_the_middle_of_a_resubmission_keeps_the_newest(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, root = house.run()
    house.end(old)
    prune = tidy.prune

    def meanwhile(*args: Any) -> Any:
        house.world.service.handle(house.ada, actions.ResubmitTask(old.task_id, resume=True))
        return prune(*args)

    monkeypatch.setattr(tidy, "prune", meanwhile)
    house.tidy_up()
    assert steps_in(root) == ["15"], "which is where it resumes"


@pytest.mark.parametrize("crash_at", range(4))
def test_a_pass_that_dies_is_taken_up_by_the_next(house: House, crash_at: int) -> None:
    tasks = [house.run() for _ in range(2)]
    for task, _ in tasks:
        house.end(task)
    house.days(10)
    for _ in range(6):
        house.crash_at = crash_at
        try:
            house.tidy_up()
        except Crash:
            house.world.reopen()
        house.crash_at = None
        house.tidy_up()
        house.days(3)
    for task, root in tasks:
        assert not root.exists() and house.task(task).files_at is FilesAt.DELETED
        assert not list((root.parent.parent / "trash").iterdir())


def test_what_cannot_be_handled_stops_nobody(house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stuck, stuck_root = house.run()
    house.end(stuck)
    bob = house.world.user("bob")
    house.ada, ada = bob, house.ada
    other, other_root = house.run()
    house.end(other)
    house.ada = ada
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "users" / "ada" / "trash").symlink_to(tmp_path / "elsewhere")
    house.days(10)
    house.tidy_up()
    assert stuck_root.exists() and not other_root.exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert "NotADirectoryError" in caplog.text
    (tmp_path / "users" / "ada" / "trash").unlink()
    house.days(1)
    house.tidy_up()
    assert not stuck_root.exists()


def test_a_shared_root_that_has_moved_is_left_alone(house: House) -> None:
    task, root = house.run()
    house.end(task)
    with house.world.store.transaction() as db:
        db.execute("DROP TRIGGER ended_is_ended")
        db.execute("UPDATE attempts SET job_root = '/etc/users/ada/jobs/' || submission_id")
    house.days(20)
    house.tidy_up()
    assert root.exists() and house.task(task).files_at is FilesAt.LEAVING


def test_a_pass_has_a_budget_and_the_next_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [house.run()[0] for _ in range(6)]
    house.pass_s = 200  # each has some 25 entries, and a kind of work a quarter
    known = []
    for _ in range(4):
        house.tidy_up()
        known.append(sum(house.task(task).attempts[0].disk_bytes is not None for task in tasks))
    assert known == [2, 4, 6, 6]
    # One that is too large lets the others by.
    house.task_s = 60
    monkeypatch.setattr(housekeeping, "MAX_COUNTED", 10_000)
    large, root = house.run()
    for number in range(100):
        (root / str(number)).touch()
    house.end(large, Outcome.SUCCEEDED)
    after, _ = house.run()
    for _ in range(2):
        house.tidy_up()
    assert house.task(large).attempts[0].disk_bytes is None
    assert house.task(after).attempts[0].disk_bytes is not None


def test_what_is_alive_is_measured_first_and_each_hour_whatever_has_ended(house: House) -> None:
    past = [house.ended(files=20) for _ in range(60)]
    live = house.small()
    house.pass_s = 100
    for hour in range(3):
        assert house.tidy_up(), "there is more to do"
        assert house.done[0].task_id == live.task_id  # type: ignore[union-attr]
        assert 0 < sum(map(house.is_measured, past)) < 60, hour
        house.world.clock.advance(3600)


def test_what_ended_in_a_day_is_done_in_a_pass_if_there_is_time(house: House) -> None:
    tasks = [house.ended() for _ in range(230)]
    house.transactions = 0
    assert not house.tidy_up()
    assert all(map(house.is_measured, tasks))
    assert house.transactions <= 230 / 20 + 1, "a look is not worth a transaction"
    house.days(10)
    assert not house.tidy_up()
    assert {house.task(task).files_at for task in tasks} == {FilesAt.TRASH}
    house.days(5)
    assert not house.tidy_up()
    assert {house.task(task).files_at for task in tasks} == {FilesAt.DELETED}
    assert not list((house.world.root / "users" / "ada" / "trash").iterdir())


@pytest.mark.parametrize("is_alive", [True, False])
def test_files_without_number_of_one_user_do_not_hold_up_the_others(house: House, is_alive: bool) -> None:
    make = house.small if is_alive else house.ended
    many = [make("ada", files=100) for _ in range(25)]
    few = [make("bob") for _ in range(25)]
    house.pass_s = 4000 if is_alive else 1000
    assert house.tidy_up()
    assert all(map(house.is_measured, few))
    assert 1 < sum(map(house.is_measured, many)) < 25


def test_a_deletion_that_takes_long_goes_on_after_the_others(house: House) -> None:
    huge, small = house.ended("ada", files=300), house.ended("bob")
    for days in (10, 5):
        house.days(days)
        house.task_s = 100
        house.tidy_up()
    deleted = [change.task_id for change in house.done if isinstance(change, Deleted)]
    assert deleted == [small.task_id, huge.task_id]


def test_deleting_does_not_starve_what_only_measures(house: House) -> None:
    huge = house.ended(files=3000)
    house.days(10)
    house.tidy_up()
    house.days(5)
    new, house.pass_s, house.task_s = house.ended(), 1000, 100
    assert house.tidy_up()
    assert house.is_measured(new) and house.task(huge).files_at is FilesAt.TRASH
    for _ in range(20):
        if not house.tidy_up():
            break
    assert house.task(huge).files_at is FilesAt.DELETED


def test_files_that_hang_cost_their_user_this_pass_and_nobody_else(house: House) -> None:
    hung = [house.ended("ada") for _ in range(3)]
    others = [house.ended("bob") for _ in range(3)]
    house.days(10)
    tried = []

    async def in_thread(call: Callable[[], Change | None]) -> Change | None:
        change = call()
        assert isinstance(change, (Trashed, FilesMeasured))
        if "-ada-" in change.task_id:
            tried.append(change.task_id)
            raise asyncio.TimeoutError
        return change

    with pytest.raises(asyncio.TimeoutError, match="ada"):
        asyncio.run(house.keeper(in_thread).once())
    assert len(tried) == 1
    assert {house.task(task).files_at for task in others} == {FilesAt.TRASH}
    assert {house.task(task).files_at for task in hung} == {FilesAt.LEAVING}
    # The next pass begins with another one.
    with pytest.raises(asyncio.TimeoutError, match="ada"):
        asyncio.run(house.keeper(in_thread).once())
    assert len(set(tried)) == 2
    house.days(1)
    house.tidy_up()
    assert {house.task(task).files_at for task in hung} == {FilesAt.TRASH}


def test_a_disk_that_hangs_for_everybody_ends_the_pass(house: House) -> None:
    for number in range(6):
        house.ended(f"u{number}")
    tried: list[None] = []

    async def in_thread(_: Callable[[], Change | None]) -> Change | None:
        tried.append(None)
        raise asyncio.TimeoutError

    with pytest.raises(asyncio.TimeoutError, match="the disk hangs"):
        asyncio.run(house.keeper(in_thread).once())
    assert len(tried) == 3


@pytest.mark.parametrize("proofs", [0, 1])
def test_what_is_missing_while_the_root_is_away_is_not_gone(house: House, proofs: int) -> None:
    """A bare mount point has no job roots, and no trash: nothing follows from that."""
    gone, measured = house.ended(), house.small()
    house.days(10)
    house.tidy_up()
    house.days(5)
    leaves = house.ended()
    house.days(0.5)
    left = [proofs]

    def away() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("not mounted")

    house.prove_root = away
    before = [house.task(task) for task in (gone, leaves, measured)]
    users = house.world.root / "users"
    users.rename(house.world.root / "elsewhere")
    for _ in range(3):
        left[0] = proofs
        with pytest.raises(housekeeping.RootAway, match="not mounted"):
            house.tidy_up()
    assert [house.task(task) for task in (gone, leaves, measured)] == before
    (house.world.root / "elsewhere").rename(users)
    house.prove_root = lambda: None
    house.tidy_up()
    assert house.task(gone).files_at is FilesAt.DELETED and house.is_measured(leaves)


@pytest.mark.parametrize(
    ("took_s", "is_left", "pause_s"),
    [(1, False, 3599), (900, False, 2700), (3000, False, 3000), (900, True, 900), (4, True, 4)],
)
def test_the_pause_after_a_pass(took_s: float, is_left: bool, pause_s: float) -> None:
    assert housekeeping.pause_s(3600, took_s, is_left) == pause_s


def test_by_default_a_pass_only_measures(tmp_path: Path) -> None:
    house = House(tmp_path)
    task, root = house.run()
    house.end(task)
    for _ in range(3):
        house.days(1000)
        house.tidy_up()
    assert steps_in(root) == ["10", "15"] and house.notes(task) == []
    assert house.task(task).attempts[0].disk_bytes
    house.world.close()


def test_a_disk_that_hangs_ends_the_pass_and_what_hangs_does_nothing_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [house.run() for _ in range(2)]
    for task, _ in tasks:
        house.end(task)
    house.days(10)
    house.tidy_up()
    house.days(5)
    answered, woken = threading.Event(), threading.Event()
    delete = tidy.delete_from_trash

    def hangs(*args: Any) -> None:
        answered.wait(30)
        try:
            delete(*args)
        finally:
            woken.set()

    monkeypatch.setattr(tidy, "delete_from_trash", hangs)

    async def one_pass() -> None:
        threads = BoundedThreads("test", 1)
        keeper = house.keeper(lambda call: threads.run(call, 0.2))
        with pytest.raises(asyncio.TimeoutError):
            await keeper.once()
        answered.set()
        await asyncio.to_thread(woken.wait, 30)

    asyncio.run(one_pass())
    assert [house.task(task).files_at for task, _ in tasks] == [FilesAt.TRASH] * 2
    trash = tasks[0][1].parent.parent / "trash"
    assert len(list(trash.iterdir())) == 2


def test_the_scheduler_makes_a_pass_now_and_then_whatever_comes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, often = 0, asyncio.Event()

    class State:
        def __init__(self, _: object) -> None: ...

        async def chores(self, chore: Chore, begun: float | None = None) -> Chores:
            nonlocal asked
            asked += 1
            if asked == 2:
                raise RuntimeError("the state actor restarts")
            if asked > 3:
                often.set()
            return Chores(0.0, 1)

    monkeypatch.setattr(scheduler, "StateHandle", State)
    monkeypatch.setattr(scheduler, "_FIRST_PASS_S", 0.0)
    retention = Retention.model_construct(pass_every_s=0.01)  # less than the rule for people's settings
    actor = scheduler.SchedulerActor.__new__(scheduler.SchedulerActor)
    actor._settings = Settings(shared_root=str(tmp_path)).model_copy(update={"retention": retention})

    async def some_passes() -> None:
        keeping = asyncio.create_task(actor._keep_house())
        await asyncio.wait_for(often.wait(), 60)
        keeping.cancel()

    asyncio.run(some_passes())
