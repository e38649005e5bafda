"""On a real filesystem of a few MiB: a print loop fills it up to the reserve, and the database goes on. Without a
reserve it fills up, and then nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.errors import ArgusError, Unavailable
from argus_ray.core.reasons import Code, Reason
from argus_ray.core.reserve import Space
from argus_ray.core.states import TaskState
from argus_ray.disk import space
from argus_ray.disk.threads import BoundedThreads
from argus_ray.payload import argus_reserve
from argus_ray.scheduler.reserve import ReserveWatch
from tests.support.builders import World, make_service
from tests.support.sanity import sanity_check
from tests.support.simray import SimRay, make_dispatcher, settle

MIB = 1024**2
#: The write-ahead log alone takes some MiB before SQLite begins it anew.
SIZE, RESERVE = 32 * MIB, 16 * MIB

#: As whoever writes a program's output to its log does: it asks before each write, and tells what it has left out. It
#: says when the log stops to grow and when it goes on, and ends when its own input does.
PRINT_LOOP = """
import os, select, subprocess, sys
import argus_reserve
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
reserve = argus_reserve.Reserve.of_job(os.path.dirname(sys.argv[1]))
left_out = 0
loop = subprocess.Popen(["yes", "the loss is nan"], stdout=subprocess.PIPE)
try:
    while not select.select([0], [], [], 0)[0]:
        data = os.read(loop.stdout.fileno(), 65536)
        if reserve.is_low(len(data)):
            if not left_out:
                print("low", flush=True)
            left_out += len(data)
            continue
        if left_out:
            print("room", flush=True)
            data, left_out = f"{left_out} bytes are missing here\\n".encode() + data, 0
        try:
            os.write(log, data)
        except OSError:
            pass
finally:
    loop.kill()
    loop.wait()
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount, for a filesystem of its own")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"a filesystem of its own cannot be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def world(small: Path) -> Iterator[World]:
    # As at a first start, with the log that it leaves: what still fits decides these tests.
    made = make_service(small.resolve(), migrates=True)
    yield made
    made.close()


def until(is_so: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def free(folder: Path) -> int:
    seen = os.statvfs(folder)
    return seen.f_bavail * seen.f_frsize


@contextlib.contextmanager
def print_loop(log: Path, reserve: int) -> Iterator[Callable[[], str]]:
    """It gives what the loop says next, which it waits for."""
    log.parent.mkdir(parents=True)
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(argus_reserve.__file__).parent),
        argus_reserve.VARIABLE: str(reserve),
    }
    running = subprocess.Popen(
        [sys.executable, "-c", PRINT_LOOP, str(log)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert running.stdin is not None and running.stdout is not None
    said = running.stdout
    hang = threading.Timer(240, running.kill)
    hang.start()
    try:
        yield lambda: said.readline().decode().strip()
    finally:
        hang.cancel()
        running.stdin.close()
        running.wait(30)
        said.close()


def watch(world: World, reserve: int) -> ReserveWatch:
    folders = space.folders(world.shared_root, "argus")

    async def look() -> Space | None:
        return await BoundedThreads("small", 1).run(lambda: space.least(folders), 10)

    return ReserveWatch(look, reserve, world.clock)


def test_a_print_loop_stops_at_the_reserve_and_the_database_goes_on(world: World, small: Path) -> None:
    ada = world.user("ada")
    first = world.submit(ada, n_gpus_per_node=1)
    reserve = watch(world, RESERVE)
    ray = SimRay(random.Random(0), {"n1": 4})
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    dispatcher.low_disk = lambda: reserve.low
    asyncio.run(reserve.once())
    asyncio.run(settle(dispatcher))
    assert reserve.low is None and len(ray.jobs) == 1
    log = small / "users" / "ada" / "jobs" / "x" / "driver.log"
    with print_loop(log, RESERVE) as says:
        assert says() == "low"
        at_the_gap = log.stat().st_size
        assert RESERVE - 2 * argus_reserve.EVERY_BYTES < free(small) < RESERVE
        assert asyncio.run(reserve.once()) and reserve.low is not None and reserve.low.space.free < RESERVE
        waiting = [world.submit(ada, n_gpus_per_node=1) for _ in range(200)]  # each is a commit
        asyncio.run(settle(dispatcher))
        assert len(ray.jobs) == 1 and log.stat().st_size == at_the_gap
        reason = world.task(waiting[-1].task_id).reason
        assert isinstance(reason, Reason) and reason.code is Code.LOW_DISK

        os.truncate(log, 0)  # somebody makes room
        assert says() == "room" and says() == "low"
        assert b" bytes are missing here\n" in log.read_bytes()[:100]

    log.unlink()
    assert asyncio.run(reserve.once()) and reserve.low is None
    asyncio.run(settle(dispatcher))
    assert len(ray.jobs) == 4, "all that fit start"
    assert world.task(first.task_id).state.is_active
    sanity_check(world.store)


def test_without_a_reserve_a_full_filesystem_is_said_in_words_and_loses_nothing(world: World, small: Path) -> None:
    ada = world.user("ada")
    accepted = [world.submit(ada)]
    log = small / "users" / "ada" / "jobs" / "x" / "driver.log"
    with print_loop(log, 0):
        until(lambda: free(small) == 0, "the filesystem is full")
        refused: list[ArgusError] = []
        for _ in range(2000):
            try:
                accepted.append(world.submit(ada))
            except ArgusError as error:
                refused.append(error)
                if len(refused) == 3:
                    break
        assert len(refused) == 3, "the write-ahead log had room for all"
        for each in refused:
            assert isinstance(each, Unavailable) and "is full" in each.detail and "nothing was changed" in each.detail
        found = world.service.handle(ada, actions.GetTask(accepted[0].task_id))  # reads go on
        assert found is not None
    assert {task.task_id for task in world.all_tasks()} == {task.task_id for task in accepted}
    with pytest.raises(Unavailable, match="is full"):
        world.reopen()  # a new process must write down that it is the writer
    log.unlink()
    world.reopen()
    assert {task.task_id for task in world.all_tasks()} == {task.task_id for task in accepted}
    assert world.submit(ada).state is TaskState.QUEUED
    sanity_check(world.store)
