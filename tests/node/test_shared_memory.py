"""Shared memory that an attempt has left on a node is removed, and nobody else's: real files in /dev/shm."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from argus_ray.node.leftovers import LOOK_EVERY_S, Leftovers
from argus_ray.node.shared_memory import GRACE_S, SharedMemory
from tests.support.segments import Segments

ADA = "argus-ada-grpo-20260101-000000-abcd--a01"
BOB = "argus-bob-grpo-20260101-000000-abcd--a01"


@pytest.fixture
def segments() -> Iterator[Segments]:
    made = Segments()
    yield made
    made.close()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return tmp_path / "users"


def marks(users: Path, name: str = ADA) -> dict[str, str]:
    root = users / name.split("-")[1] / "jobs" / name
    return {"ARGUS_JOB_ROOT": str(root), "ARGUS_SUBMISSION_ID": name}


def removed_after(memory: SharedMemory, now: float) -> list[str]:
    """What a look says that is late enough for all that has ended by now."""
    memory.look(now)
    return memory.look(now + GRACE_S)


@pytest.mark.parametrize(
    "pattern", ["psm_{}", "verl_weights_{0}{0}{0}{0}", "sem.mp-{}", "nccl-{:.6}", "torch_12_{}_0", "torch_12_{:.3}"]
)
def test_what_a_killed_attempt_leaves(pattern: str, segments: Segments, users: Path) -> None:
    path = segments.name(pattern.replace("torch_12_{}", f"torch_12_{secrets.randbelow(1 << 30)}"))
    if pattern == "torch_12_{:.3}":
        path = segments.name(f"torch_12_{secrets.randbelow(1 << 30)}")
    process = segments.hold(path, environ=marks(users))
    memory = SharedMemory(users, lambda: [process.pid])
    assert removed_after(memory, 0.0) == [] and path.exists(), "it lives"
    segments.kill(process)
    assert memory.look(100.0) == [] and path.exists(), "its last process was seen just now"
    assert memory.look(100.0 + GRACE_S) == [f"what {ADA} had left: shared memory {path.name} (8192 bytes)"]
    assert not path.exists()
    assert removed_after(memory, 200.0) == []


def test_nobody_elses(segments: Segments, users: Path, tmp_path: Path) -> None:
    ours, others_too, another_name = segments.name(), segments.name(), segments.name("dataset_{}")
    of_a_stranger, of_a_live_one, of_another_pool = segments.name(), segments.name(), segments.name()
    unseen = segments.name()
    segments.kill(segments.hold(unseen, environ=marks(users)))
    process = segments.hold(ours, others_too, another_name, environ=marks(users))
    segments.hold(others_too, of_a_stranger, environ={})
    live = segments.hold(of_a_live_one, environ=marks(users, BOB))
    strange = segments.hold(of_another_pool, environ=marks(tmp_path / "pool" / "users"))
    half = segments.hold(no_name := segments.name(), environ={**marks(users), "ARGUS_SUBMISSION_ID": "x"})
    memory = SharedMemory(users, lambda: [each.pid for each in (process, live, strange, half)])
    memory.look(0.0)
    for each in (process, strange, half):
        segments.kill(each)
    (said,) = removed_after(memory, 100.0)
    assert ours.name in said and not ours.exists()
    spared = {
        "another process has it": others_too,
        "no name of shared memory": another_name,
        "of a process without our mark": of_a_stranger,
        "of an attempt that lives": of_a_live_one,
        "of another pool": of_another_pool,
        "nobody was seen to use it": unseen,
        "the names of its process do not fit": no_name,
    }
    assert [why for why, path in spared.items() if not path.exists()] == []


def test_once_the_other_process_has_ended_too(segments: Segments, users: Path) -> None:
    path = segments.name()
    process = segments.hold(path, environ=marks(users))
    engine = segments.hold(path, environ={"ARGUS_JOB_ROOT": ""})  # has lost its environment
    memory = SharedMemory(users, lambda: [process.pid, engine.pid])
    memory.look(0.0)
    segments.kill(process)
    assert removed_after(memory, 100.0) == []
    segments.kill(engine)
    assert len(memory.look(200.0)) == 1


def test_a_name_that_is_somebody_elses_by_now(segments: Segments, users: Path) -> None:
    path = segments.name()
    process = segments.hold(path, environ=marks(users))
    memory = SharedMemory(users, lambda: [process.pid])
    memory.look(0.0)
    segments.kill(process)
    path.rename(aside := segments.name("aside_{}"))  # so that its inode number stays taken
    path.write_bytes(b"new")
    assert removed_after(memory, 100.0) == []
    assert path.read_bytes() == b"new" and aside.exists()


def test_a_link_of_such_a_name(segments: Segments, users: Path, tmp_path: Path) -> None:
    (target := tmp_path / "target").write_bytes(bytes(8192))
    (path := segments.name()).symlink_to(target)
    process = segments.hold(path, environ=marks(users))
    memory = SharedMemory(users, lambda: [process.pid])
    memory.look(0.0)
    segments.kill(process)
    assert removed_after(memory, 100.0) == []
    assert target.exists() and path.is_symlink()


def test_when_the_watchdog_ends_all(segments: Segments, users: Path) -> None:
    """Without a grace: it has just ended them itself, and nobody looks later."""
    path, others = segments.name(), segments.name()
    process, other = segments.hold(path, environ=marks(users)), segments.hold(others, environ=marks(users, BOB))
    memory = SharedMemory(users, lambda: [each.pid for each in (process, other) if each.poll() is None])
    memory.note()
    segments.kill(process)
    (said,) = memory.remove()
    assert path.name in said and not path.exists() and others.exists()


def test_the_watchdogs_looks_tell_of_it(segments: Segments, users: Path) -> None:
    path = segments.name()
    process = segments.hold(path, environ=marks(users))
    looks = Leftovers(users, lambda: [process.pid])
    assert looks.end(0.0) == []
    segments.kill(process)
    assert looks.end(LOOK_EVERY_S) == []
    assert looks.end(LOOK_EVERY_S + GRACE_S - 0.1) == []
    (line,) = looks.end(LOOK_EVERY_S * 3 + GRACE_S)
    assert line.startswith(f"what {ADA} had left: shared memory {path.name}")
    assert not path.exists()


def test_where_there_is_no_shared_memory(users: Path, tmp_path: Path) -> None:
    asked: list[int] = []
    ours: Callable[[], list[int]] = lambda: asked  # noqa: E731
    assert removed_after(SharedMemory(users, ours, tmp_path / "none"), 0.0) == []
