"""The scheduler's search for a checkpoint has a bound, however many tasks hang on the disk."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.actors.adapters import FilesOfAttempts, InputsOfTasks
from argus_ray.core.model import Attempt, SlimTask, Task
from argus_ray.core.states import AttemptState, TaskState
from argus_ray.discovery import head_json, sentinel
from argus_ray.discovery.sentinel import RootUnknown
from argus_ray.disk import checkpoints
from argus_ray.disk.checkpoints import Checkpoint
from argus_ray.disk.inputs import Preflight
from argus_ray.disk.threads import BoundedThreads
from tests.support.builders import make_service


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A task of four processes with two earlier attempts."""
    world = make_service(tmp_path.resolve())
    new = world.submit(world.user("ada"), nnodes=2, n_gpus_per_node=2)
    world.close()
    earlier = [Attempt(name, new.task_id, 1, AttemptState.ENDED, 0.0, f"{tmp_path}/{name}") for name in ("a01", "a02")]
    return replace(new, attempts=tuple(earlier))


def inputs(threads: BoundedThreads, timeout_s: float) -> InputsOfTasks:
    return InputsOfTasks(Preflight(threads, timeout_s, "/private"), threads, timeout_s)


def test_what_is_looked_for_follows_from_the_task(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "newest_complete", lambda *asked: asked)
    asked = asyncio.run(inputs(BoundedThreads("disk", 1), 60.0).find_checkpoint(task))
    own = [attempt.job_root for attempt in task.attempts]
    assert asked == (own, "sft", 4)  # type: ignore[comparison-overlap]
    # Those of the task that it was to resume from are the older ones.
    task = replace(task, resume_roots=("/older",))
    asked = asyncio.run(inputs(BoundedThreads("disk", 1), 60.0).find_checkpoint(task))
    assert asked == (["/older", *own], "sft", 4)  # type: ignore[comparison-overlap]


def test_that_there_is_none_is_seen_only_while_the_root_is_there(task: Task, tmp_path: Path) -> None:
    """Else a lost task would start from zero because its root was not mounted for a moment."""
    folder = head_json.folder(str(tmp_path), "argus")

    def search() -> Checkpoint | None:
        threads = BoundedThreads("disk", 1)
        proven = replace(inputs(threads, 60.0), prove_root=lambda: sentinel.read(folder))
        return asyncio.run(proven.find_checkpoint(task))

    with pytest.raises(RootUnknown):
        search()
    sentinel.begin(folder)
    assert search() is None, "it starts from the beginning"


def test_a_root_that_comes_back_during_the_search_is_searched(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Checkpoint("/r/checkpoints/global_step_3", 3, "/r")
    answers = iter([None, saved])
    monkeypatch.setattr(checkpoints, "newest_complete", lambda *_: next(answers))
    assert asyncio.run(inputs(BoundedThreads("disk", 1), 60.0).find_checkpoint(task)) == saved


def test_what_a_lost_attempt_has_saved_is_looked_for_in_its_own_job_root(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    slim = SlimTask(task.task_id, "ada", 1, TaskState.RUNNING, task.gang, live=task.attempts[1])
    files = FilesOfAttempts(BoundedThreads("disk", 1), 60.0)
    asked = []

    def newest(*looked_for: object) -> checkpoints.Checkpoint | None:
        asked.append(looked_for)
        return checkpoints.Checkpoint("/x", 40, "/j") if len(asked) == 1 else None

    monkeypatch.setattr(checkpoints, "newest_complete", newest)
    assert asyncio.run(files.saved_step(slim)) == 40
    assert asked == [([task.attempts[1].job_root], "sft", 4)]
    assert asyncio.run(files.saved_step(slim)) is None


def test_two_hundred_hanging_searches_take_no_longer_than_one(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(checkpoints, "newest_complete", lambda *_: answered.wait(60))

    async def search() -> list[object]:
        disk = BoundedThreads("disk", 2)
        searches = [inputs(disk, 1).find_checkpoint(task) for _ in range(200)]
        try:
            return await asyncio.gather(*searches, return_exceptions=True)
        finally:
            answered.set()

    begun = time.monotonic()
    results = asyncio.run(search())
    assert {type(result) for result in results} == {asyncio.TimeoutError}
    assert time.monotonic() - begun < 50, "a hundred rounds of two would take twice as long"
