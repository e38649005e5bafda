"""The inputs go away while tasks wait: for a moment with their filesystem, or for good by somebody's hand."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from argus_ray.core import actions, paths, taskspec
from argus_ray.core.errors import FieldError
from argus_ray.core.lifecycle import End
from argus_ray.core.model import Task
from argus_ray.core.reasons import Code, Reason, words
from argus_ray.core.states import Outcome, TaskState
from argus_ray.disk.checkpoints import Checkpoint
from argus_ray.disk.inputs import Findings, Preflight
from argus_ray.disk.threads import BoundedThreads
from argus_ray.scheduler.tick import Dispatcher
from tests.support.builders import World, make_inputs, make_service
from tests.support.sanity import sanity_check
from tests.support.simray import SimRay, make_dispatcher, settle

#: Of the simulated policy, in seconds.
RETRY_S = 60
GONE = Findings(errors=(FieldError("train_file", "does not exist"),))


@dataclass
class Looks:
    """Looks at real files, and remembers when it looked at which task."""

    world: World
    at: dict[str, list[float]] = field(default_factory=dict)

    async def check(self, task: Task) -> Findings:
        self.at.setdefault(task.task_id, []).append(self.world.clock.now)
        root = self.world.shared_root
        threads = BoundedThreads("inputs-away-test", 4)  # of this loop
        return await Preflight(threads, 600, root).look(taskspec.parse(task.spec_yaml, shared_root=root))

    async def find_checkpoint(self, task: Task) -> Checkpoint | None:
        return None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_service(tmp_path.resolve())
    make_inputs(made.shared_root)
    yield made
    made.close()


def pass_time(dispatcher: Dispatcher, world: World, seconds: int) -> None:
    for _ in range(seconds):
        asyncio.run(settle(dispatcher))
        world.clock.advance(1)


def move_away(common: Path) -> Callable[[], None]:
    away = common.rename(common.with_name("away"))
    return lambda: Path(away).rename(common).touch()


def leave_a_bare_mount_point(common: Path) -> Callable[[], None]:
    bring_back = move_away(common)
    common.mkdir()

    def mount() -> None:
        common.rmdir()
        bring_back()

    return mount


def unmount_a_part(common: Path) -> Callable[[], None]:
    """The root of the inputs itself is as alive as ever."""
    return leave_a_bare_mount_point(common / "datasets")


@pytest.mark.parametrize("go_away", [move_away, leave_a_bare_mount_point, unmount_a_part])
@pytest.mark.parametrize("gpus", [20, 3])
def test_a_blip_of_the_inputs_fails_nobody(
    world: World, gpus: int, go_away: Callable[[Path], Callable[[], None]]
) -> None:
    ada = world.user("ada")
    tasks = [world.submit(ada, n_gpus_per_node=1) for _ in range(20)]
    ray = SimRay(random.Random(0), {"n1": gpus})
    looks = Looks(world)
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    dispatcher.examiner.inputs = looks
    bring_back = go_away(Path(paths.common_dir(world.shared_root)))

    pass_time(dispatcher, world, 90)
    now = [world.task(task.task_id) for task in tasks]
    assert {task.state for task in now} == {TaskState.PENDING_RESOURCES}
    assert ray.jobs == {} and all(isinstance(task.reason, Reason) for task in now)
    for times in looks.at.values():
        assert all(later - earlier >= RETRY_S for earlier, later in itertools.pairwise(times))

    bring_back()
    for _ in range(20):
        pass_time(dispatcher, world, RETRY_S)
        for job in list(ray.jobs):
            while ray.jobs[job].is_alive:
                ray.step()
    pass_time(dispatcher, world, 2)
    assert all(world.task(task.task_id).attempts for task in tasks), "all go on when it is back"
    sanity_check(world.store)


def one_that_waits(world: World) -> tuple[Task, Dispatcher, Path]:
    """With the scheduler that looks at its inputs, and their root."""
    task = world.submit(world.user("ada"))
    dispatcher = make_dispatcher(world, SimRay(random.Random(0), {"n1": 8}), random.Random(0))
    dispatcher.examiner.inputs = Looks(world)
    common = Path(paths.common_dir(world.shared_root))
    return task, dispatcher, common


def test_a_task_that_waits_for_the_inputs_root_says_so_and_tells_it_once(world: World) -> None:
    task, dispatcher, common = one_that_waits(world)
    bring_back = leave_a_bare_mount_point(common)
    pass_time(dispatcher, world, 200)
    reason = world.task(task.task_id).reason
    assert isinstance(reason, Reason) and reason.code is Code.INPUTS_UNKNOWN
    assert f"{common} is empty: is its filesystem mounted?" in words(reason)
    with world.store.transaction() as db:
        told = db.execute("SELECT count(*) FROM events WHERE message LIKE '%is empty%'").fetchone()[0]
    assert told == 1, "each further look that finds the same is no news"
    bring_back()
    pass_time(dispatcher, world, RETRY_S)
    assert world.task(task.task_id).attempts


def test_the_time_without_the_root_is_no_look_that_found_a_file_missing(world: World) -> None:
    """Deleted while the root was away: it is held once more, for somebody may just be putting it back."""
    task, dispatcher, common = one_that_waits(world)
    bring_back = move_away(common)
    pass_time(dispatcher, world, 2 * RETRY_S)
    bring_back()
    (common / "datasets" / "gsm8k" / "train.parquet").unlink()
    pass_time(dispatcher, world, RETRY_S)
    held = world.task(task.task_id)
    assert held.state is TaskState.PENDING_RESOURCES
    assert isinstance(held.reason, Reason) and held.reason.code is Code.BAD_INPUTS
    pass_time(dispatcher, world, RETRY_S)
    assert world.task(task.task_id).state is TaskState.FAILED, "a task that can never start does not wait for ever"


def codes(world: World) -> set[Code | None]:
    return {task.reason.code if isinstance(task.reason, Reason) else None for task in world.waiting()}


@pytest.mark.parametrize(
    ("bad", "sound", "fails"), [(1, 0, 1), (2, 0, 0), (2, 1, 0), (2, 2, 2), (3, 4, 3), (30, 29, 0)]
)
def test_nobody_fails_where_most_of_a_pass_would(world: World, bad: int, sound: int, fails: int) -> None:
    """All are held at first; at the second look `bad` of them are as bad as before."""
    ada = world.user("ada")
    tasks = [world.submit(ada, n_gpus_per_node=1) for _ in range(bad + sound)]
    ray = SimRay(random.Random(0), {"n1": 64})
    ray.findings = {task.task_id: GONE for task in tasks}
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    asyncio.run(settle(dispatcher))
    assert codes(world) == {Code.BAD_INPUTS}
    world.clock.advance(RETRY_S)
    ray.findings = {task.task_id: GONE for task in tasks[:bad]}
    asyncio.run(settle(dispatcher))
    states = [world.task(task.task_id).state for task in tasks[:bad]]
    assert states.count(TaskState.FAILED) == fails
    assert states.count(TaskState.PENDING_RESOURCES) == bad - fails
    if not fails:
        assert "none of them fails yet" in words(world.task(tasks[0].task_id).reason or "")
    assert all(world.task(task.task_id).attempts for task in tasks[bad:])


def test_exports_of_deleted_checkpoints_fail_and_keep_no_other_task_from_it(world: World) -> None:
    """Each is told by its own job root, and none says anything of the filesystems below `common`."""
    ada = world.user("ada")
    old = world.submit(ada, n_gpus_per_node=1)
    admit = world.admission(old)
    assert all(world.service.apply([admit, End(admit.submission_id, Outcome.SUCCEEDED, "")]))
    wish = actions.ExportTask(old.task_id, wanted_step=10, step=10, job_root=admit.job_root)
    exports = [world.task(world.service.handle(ada, wish).submitted.task_id) for _ in range(3)]
    bad = world.submit(ada, n_gpus_per_node=1)
    ray = SimRay(random.Random(0), {"n1": 64})
    ray.findings = {task.task_id: GONE for task in [*exports, bad]}
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    asyncio.run(settle(dispatcher))
    assert codes(world) == {Code.BAD_INPUTS}, "held at first"
    world.clock.advance(RETRY_S)
    asyncio.run(settle(dispatcher))
    assert {world.task(task.task_id).state for task in [*exports, bad]} == {TaskState.FAILED}


def test_nobody_fails_where_each_of_many_is_looked_at_alone(world: World) -> None:
    """One GPU is free, so each pass looks at one of them."""
    ada = world.user("ada")
    tasks = [world.submit(ada, n_gpus_per_node=1) for _ in range(9)]
    ray = SimRay(random.Random(0), {"n1": 1})
    ray.findings = {task.task_id: GONE for task in tasks}
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    pass_time(dispatcher, world, 5 * RETRY_S)
    assert {world.task(task.task_id).state for task in tasks} == {TaskState.PENDING_RESOURCES}


def test_looks_that_came_to_nothing_are_no_proof_that_most_are_sound(world: World) -> None:
    ada = world.user("ada")
    bad = [world.submit(ada, n_gpus_per_node=1) for _ in range(2)]
    unknown = [world.submit(ada, n_gpus_per_node=1) for _ in range(5)]
    ray = SimRay(random.Random(0), {"n1": 64})
    ray.findings = {task.task_id: GONE for task in bad}
    ray.findings |= {task.task_id: Findings(unknown="the root of inputs is away") for task in unknown}
    dispatcher = make_dispatcher(world, ray, random.Random(0))
    pass_time(dispatcher, world, 2 * RETRY_S)
    assert codes(world) == {Code.BAD_INPUTS, Code.INPUTS_UNKNOWN}
    assert {world.task(task.task_id).state for task in bad} == {TaskState.PENDING_RESOURCES}
