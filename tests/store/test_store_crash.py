"""The process dies at any moment: what was answered is there, and nothing is there by halves."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import Action, Credential
from argus_ray.core.lifecycle import Advance, Change, End, Hold, Note
from argus_ray.core.reasons import Code, because
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.store import Store
from tests.support.builders import ADMIN, FakeClock, World, bearer, make_service, memory_folder
from tests.support.sanity import sanity_check

TOKEN = "argus_u_" + "5" * 64
ALICE = bearer(TOKEN)

Say = Callable[[str], None]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: a killed process leaves its writes with the kernel, not the disk."""
    with tempfile.TemporaryDirectory(dir=memory_folder() or tmp_path) as name:
        yield Path(name).resolve()


def make_alice(world: World) -> None:
    world.service.handle(ADMIN, actions.CreateUser("alice", "Alice"))
    issued = world.service.handle(ADMIN, actions.IssueToken("alice"))
    assert issued
    with world.store.transaction() as db:  # a token that all processes of a test know
        db.execute("UPDATE tokens SET digest = ?", (ALICE.digest,))


def step(world: World, dice: random.Random) -> None:
    """One batch of calls, then one batch of changes: a day of the service in small."""
    world.clock.advance(1)
    known = [task.task_id for task in world.waiting(20) + world.active()]
    calls: list[tuple[Credential, Action[Any]]] = [
        (ALICE, world.submission(world.spec(), f"{dice.getrandbits(64):x}")) for _ in range(dice.randint(1, 3))
    ]
    if known and dice.random() < 0.4:
        calls.append((ALICE, actions.CancelTask(dice.choice(known))))
    calls.append((ALICE, actions.GetTask("argus-none")))
    world.service.handle_many(calls)
    changes: list[Change] = []
    for task in world.waiting(4):
        changes.append(Hold(task.task_id, because(Code.BAD_INPUTS, what=f"reason {dice.randint(0, 3)}")))
        if dice.random() < 0.7:
            changes.append(world.admission(task))
    for task in world.active():
        attempt = task.attempts[-1]
        if attempt.state is AttemptState.SUBMITTING:
            changes.append(Advance(attempt.submission_id, dice.random() < 0.5, session="s"))
        if dice.random() < 0.6:
            changes.append(End(attempt.submission_id, dice.choice(list(Outcome)), "why", 1))
        changes.append(Note(task.task_id, "a note"))
    world.service.apply(changes)


def fingerprint(store: Store, up_to: int | None = None) -> str:
    """`<last event id> <hash of all events up to it>`; with the sanity check, it pins the tasks' states."""
    with store.transaction() as db:
        found = db.execute(
            "SELECT * FROM events WHERE event_id <= ? ORDER BY event_id", (2**62 if up_to is None else up_to,)
        )
        rows = found.fetchall()
    digest = hashlib.sha256("\n".join(repr(tuple(row)) for row in rows).encode()).hexdigest()
    return f"{rows[-1]['event_id'] if rows else 0} {digest}"


def check_survivor(root: Path, acknowledged: str | None) -> str:
    """Open what a crash has left: it is sound, and all that was acknowledged is there. Its fingerprint."""
    world = make_service(root)
    try:
        sanity_check(world.store)
        if acknowledged is not None:
            assert fingerprint(world.store, int(acknowledged.split()[0])) == acknowledged
        return fingerprint(world.store)
    finally:
        world.close()


@contextmanager
def child(work: Callable[[Say], None]) -> Iterator[tuple[int, int]]:
    """Run `work` in a fork: its process id, and the pipe that it says its lines into. Gone afterwards."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests do not concern this child
        pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            said = os.fdopen(os.dup(write), "w")
            work(lambda text: print(text, file=said, flush=True))
            os._exit(0)
        except BaseException as error:
            os.write(write, f"child failed: {error!r}\n".encode())
        finally:
            os._exit(1)
    os.close(write)
    try:
        yield pid, read
    finally:
        os.close(read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def lines_of(pipe: int) -> list[str]:
    """Everything until the child is gone. A last line that was cut short was not said."""
    data = b""
    while part := os.read(pipe, 65536):
        data += part
    *lines, _ = data.decode().split("\n")
    assert not [line for line in lines if line.startswith("child failed")], lines
    return lines


def test_kill_at_random_moments(place: Path) -> None:
    """The same database through many deaths."""
    root = place
    dice = random.Random(20260101)
    world = make_service(root)
    make_alice(world)
    world.close()
    seen = 0
    for round_ in range(15):

        def work(say: Say, seed: int = round_) -> None:
            world = make_service(root, clock=FakeClock(1.8e9 + 10_000 * seed))
            child_dice = random.Random(seed)
            while True:
                step(world, child_dice)
                say(fingerprint(world.store))

        with child(work) as (pid, pipe):
            acknowledged = os.read(pipe, 65536).decode()
            time.sleep(dice.random() * 0.02)
            os.kill(pid, signal.SIGKILL)
            lines = (acknowledged + "\n".join(lines_of(pipe)) + "\n").split("\n")
        said = [line for line in lines if len(line.split()) == 2 and len(line) > 64]
        assert said, lines
        left = check_survivor(root, said[-1])
        assert int(left.split()[0]) >= seen
        seen = int(left.split()[0])
    assert seen > 50


def test_kill_at_every_statement(place: Path) -> None:
    """A batch of calls and one of changes, killed at the 1st, 2nd, ... statement until it gets through."""
    base = place / "base"
    base.mkdir()
    world = make_service(base)
    make_alice(world)
    active, *_ = [world.submit(ALICE, f"base-{number}") for number in range(3)]
    world.service.apply([world.admission(active)])
    before = fingerprint(world.store)
    world.close()
    outcomes: set[str] = set()
    for kill_at in range(1, 1000):
        root = place / f"at-{kill_at}"
        shutil.copytree(base, root)
        done = False

        def work(say: Say, root: Path = root, kill_at: int = kill_at) -> None:
            world = make_service(root, clock=FakeClock(1.9e9))
            count = 0

            def count_down(statement: str) -> None:
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            with world.store.transaction() as db:
                pass
            db.set_trace_callback(count_down)
            one_step(world, say)
            db.set_trace_callback(None)
            say("through")

        with child(work) as (_, pipe):
            lines = lines_of(pipe)
        done = lines[-1:] == ["through"]
        acknowledged = [line for line in lines if line != "through"]
        left = check_survivor(root, acknowledged[-1] if acknowledged else before)
        outcomes.add(left)
        shutil.rmtree(root)
        if done:
            break
    else:
        pytest.fail("it never got through")
    assert kill_at > 40
    # Each of the two transactions as a whole or not at all: nothing between.
    assert len(outcomes) == 3, outcomes
    assert before in outcomes


def one_step(world: World, say: Say) -> None:
    first, second = world.waiting(2)
    (active, *_) = world.active()
    world.service.handle_many(
        [
            (ALICE, world.submission(world.spec(), "one")),
            (ALICE, world.submission(world.spec(), "\n")),
            (ALICE, actions.CancelTask(second.task_id)),
        ]
    )
    say(fingerprint(world.store))
    end = End(active.attempts[-1].submission_id, Outcome.INFRASTRUCTURE, "gone")
    world.service.apply([end, world.admission(first), Hold(active.task_id, because(Code.POOL_BUSY))])
    say(fingerprint(world.store))


def test_a_log_that_is_cut_anywhere_leaves_a_prefix_of_the_commits(place: Path) -> None:
    """Power loss: any part of the log behind the last commit that was synced may be missing or torn."""
    root = place / "live"
    root.mkdir()
    world = make_service(root)
    make_alice(world)
    dice = random.Random(3)
    log = Path(f"{world.database}-wal")
    commits = [(log.stat().st_size, fingerprint(world.store))]
    for _ in range(8):
        step(world, dice)
        commits.append((log.stat().st_size, fingerprint(world.store)))
    database, written = world.database.read_bytes(), log.read_bytes()
    world.close()
    assert len(written) < 4_000_000, "the log was folded into the database: the test needs it whole"
    relative = world.database.relative_to(root)
    for round_ in range(30):
        cut = dice.randint(commits[0][0], len(written))
        copy = place / f"cut-{round_}"
        (copy / relative).parent.mkdir(parents=True)
        (copy / relative).write_bytes(database)
        torn = dice.randbytes(len(written) - cut) if round_ % 2 else b""
        (copy / f"{relative}-wal").write_bytes(written[:cut] + torn)
        acknowledged = [mark for size, mark in commits if size <= cut][-1]
        left = check_survivor(copy, acknowledged)
        assert int(left.split()[0]) >= int(acknowledged.split()[0])
        shutil.rmtree(copy)


def test_after_a_crash_the_log_is_recovered_without_shared_memory(place: Path) -> None:
    root = place

    def work(say: Say) -> None:
        world = make_service(root)
        make_alice(world)
        world.submit(ALICE, "k")
        say("done")
        os.kill(os.getpid(), signal.SIGKILL)

    with child(work) as (_, pipe):
        assert lines_of(pipe) == ["done"]
    world = make_service(root)
    assert world.store.epoch == 2
    again = world.service.handle(ALICE, world.submission(world.spec(), "k"))
    assert isinstance(again, actions.Submitted)
    assert not again.created
    assert not list(world.database.parent.glob("*-shm"))
    world.close()
    db = sqlite3.connect(world.database)
    assert db.execute("SELECT count(*) FROM tasks").fetchone()[0] == 1
    db.close()
