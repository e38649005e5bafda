"""Quotas and fair share through the scheduler, a real service and the simulated Ray."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import actions
from argus_ray.core.model import Task
from argus_ray.core.observation import JobStatus
from argus_ray.core.reasons import Code, Reason
from argus_ray.core.states import TaskState
from tests.support.builders import make_service
from tests.support.sanity import sanity_check
from tests.support.simlab import Lab
from tests.support.simray import SimRay, SimState, check_view, make_dispatcher

HOUR = 3600.0


class Shared(Lab):
    """With settings, and a second user."""

    def __init__(self, root: Path, nodes: dict[str, int], settings: dict[str, Any]) -> None:
        self.world = make_service(root.resolve(), settings=settings)
        self.ada, self.bob = self.world.user("ada"), self.world.user("bob")
        self.ray = SimRay(random.Random(0), nodes)
        self.dispatcher = make_dispatcher(self.world, self.ray, random.Random(0))

    def finish(self, task: Task) -> None:
        self.ray._finish(self.task(task).attempts[-1].submission_id, JobStatus.SUCCEEDED, 0)

    def states(self, *tasks: Task) -> str:
        return " ".join("waits" if self.task(task).state.is_waiting else "has started" for task in tasks)

    def code(self, task: Task) -> Code | None:
        reason = self.task(task).reason
        return reason.code if isinstance(reason, Reason) else None

    @property
    def state(self) -> SimState:
        assert isinstance(self.dispatcher.state, SimState)
        return self.dispatcher.state


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shared]:
    made = Shared(tmp_path, {"n1": 8, "n2": 8}, request.param)
    yield made
    sanity_check(made.world.store)
    made.world.close()


QUOTA = {"limits": {"running_gpus_per_user": 8}}
FAIR = {"scheduling": {"fair_share": True}}


@pytest.mark.parametrize("lab", [QUOTA], indirect=True)
def test_a_user_at_the_quota_waits_says_so_and_starts_when_something_ends(lab: Shared) -> None:
    tasks = [lab.world.submit(lab.ada) for _ in range(3)]
    lab.tick()
    assert lab.states(*tasks) == "has started has started waits"
    assert lab.code(tasks[2]) is Code.OVER_QUOTA and lab.task(tasks[2]).overtaken_since is None
    assert any("may hold 8 GPUs at a time, and holds" in message for message in lab.told(tasks[2]))
    his = [lab.world.submit(lab.bob), lab.world.submit(lab.ada)]
    lab.tick(5)
    assert lab.states(*his) == "has started waits", "nobody else waits for it, and who comes behind it does"
    lab.begin()
    lab.finish(tasks[0])
    lab.tick(5)
    assert lab.states(tasks[2], his[1]) == "has started waits"
    assert lab.state.calls["gpu_use"] == 0, "nobody asks what was used while fair share is off"


@pytest.mark.parametrize("lab", [QUOTA], indirect=True)
def test_who_comes_to_a_quota_that_is_taken_is_decided_over_alone(lab: Shared) -> None:
    for _ in range(3):
        lab.world.submit(lab.ada)
    lab.tick()
    calls = lab.state.calls["tasks"]
    late = lab.world.submit(lab.ada, n_gpus_per_node=1)
    lab.tick()
    assert lab.code(late) is Code.OVER_QUOTA and lab.state.calls["tasks"] == calls
    lab.tick()
    check_view(lab.world, lab.dispatcher.queue)


@pytest.mark.parametrize("lab", [QUOTA], indirect=True)
def test_who_comes_last_leaves_the_quota_to_an_older_task_that_waits_for_room(lab: Shared) -> None:
    carl = lab.world.user("carl")
    for who in (lab.bob, carl, lab.bob):
        lab.world.submit(who)
    lab.tick()
    large = lab.world.submit(lab.ada, n_gpus_per_node=8)
    lab.tick()
    assert lab.code(large) is Code.POOL_BUSY
    small = lab.world.submit(lab.ada, n_gpus_per_node=1)
    lab.tick()
    assert lab.code(small) is Code.OVER_QUOTA and lab.task(large).overtaken_since is None


@pytest.mark.parametrize("lab", [QUOTA], indirect=True)
def test_a_canceled_run_holds_its_part_until_it_is_over(lab: Shared) -> None:
    tasks = [lab.world.submit(lab.ada) for _ in range(3)]
    lab.tick()
    lab.begin()
    lab.world.service.handle(lab.ada, actions.CancelTask(tasks[0].task_id))
    lab.tick(5)
    assert lab.states(tasks[2]) == "waits"
    name = lab.task(tasks[0]).attempts[-1].submission_id
    lab.ray._finish(name, JobStatus.STOPPED, 143)
    lab.tick(5)
    assert lab.states(tasks[2]) == "has started"


def test_a_quota_that_was_lowered_stops_nothing_and_says_what_waits_for_ever(tmp_path: Path) -> None:
    lab = Shared(tmp_path, {"n1": 8, "n2": 8}, {})
    runs, waits = lab.world.submit(lab.ada, nnodes=2, n_gpus_per_node=8), lab.world.submit(lab.ada)
    lab.tick()
    lab.begin()
    lab.world.reopen(settings={"limits": {"running_gpus_per_user": 2}})
    lab.dispatcher = make_dispatcher(lab.world, lab.ray, random.Random(0))
    lab.tick(5)
    assert lab.task(runs).state is TaskState.RUNNING and lab.code(waits) is Code.QUOTA_TOO_SMALL
    lab.finish(runs)
    lab.tick(5)
    assert lab.states(waits) == "waits"
    lab.world.reopen(settings={"limits": {"users": {"ada": {"running_gpus": 4}}}})
    lab.dispatcher = make_dispatcher(lab.world, lab.ray, random.Random(0))
    lab.tick(5)
    assert lab.states(waits) == "has started"
    lab.world.close()


def test_the_overtaking_clock_stands_for_the_quota_and_runs_on_from_there(tmp_path: Path) -> None:
    """Else it would hold back the whole pool after a day over the quota."""
    lab = Shared(tmp_path, {"n1": 8, "n2": 8}, {})
    runs = lab.world.submit(lab.ada)
    lab.world.submit(lab.bob, n_gpus_per_node=8)
    lab.tick()
    lab.begin()
    large, his = lab.world.submit(lab.ada, n_gpus_per_node=8), lab.world.submit(lab.bob)
    lab.tick()
    assert lab.states(large, his) == "waits has started"
    began = lab.task(large).overtaken_since
    assert began == lab.world.clock.now
    lab.begin()
    lab.world.clock.advance(300)
    lab.world.reopen(settings={"limits": {"users": {"ada": {"running_gpus": 8}}}})
    lab.dispatcher = make_dispatcher(lab.world, lab.ray, random.Random(0))
    for seconds in (0, *[HOUR] * 24):
        lab.tick(seconds)
        assert lab.code(large) is Code.OVER_QUOTA and lab.task(large).overtaken_since == began
    lab.finish(runs)
    lab.tick()
    young = lab.world.submit(lab.bob)
    lab.tick()
    assert lab.code(large) is Code.POOL_BUSY and lab.task(large).overtaken_since == lab.world.clock.now - 300
    assert lab.states(young) == "has started", "nothing is reserved yet"
    lab.world.close()


def test_the_account_of_use_follows_a_clock_that_is_set(tmp_path: Path) -> None:
    lab = Shared(tmp_path, {"n1": 8}, FAIR)
    task = lab.world.submit(lab.ada)
    lab.tick()
    lab.begin()
    lab.tick(HOUR)
    lab.finish(task)
    lab.tick()
    (before,) = lab.world.service.gpu_use().values()
    lab.world.clock.jump(10 * 86_400)
    lab.tick()
    (after,) = lab.world.service.gpu_use().values()
    assert after.gpu_s == before.gpu_s and after.at == before.at + 10 * 86_400
    lab.world.close()


@pytest.mark.parametrize("lab", [FAIR], indirect=True)
def test_who_has_used_the_least_goes_first(lab: Shared) -> None:
    full = [lab.world.submit(lab.ada, n_gpus_per_node=8) for _ in range(2)]
    lab.tick()
    lab.begin()
    hers, his = lab.world.submit(lab.ada, n_gpus_per_node=8), lab.world.submit(lab.bob, n_gpus_per_node=8)
    lab.tick(HOUR)
    lab.finish(full[0])
    lab.tick(5)
    assert lab.states(hers, his) == "waits has started", "what runs counts, too"
    assert lab.task(hers).overtaken_since is None, "his turn was first"
    more = lab.world.submit(lab.bob, n_gpus_per_node=8)
    lab.begin()
    lab.finish(full[1])
    lab.tick(5)
    assert lab.states(hers, more) == "waits has started"
    last = [lab.world.submit(lab.bob, n_gpus_per_node=8) for _ in range(2)]
    lab.begin()
    lab.tick(3 * HOUR)
    lab.finish(his)
    lab.tick(5)
    assert lab.states(hers, *last) == "has started waits waits", "by now he has used more than she"


@pytest.mark.parametrize("lab", [FAIR], indirect=True)
def test_a_task_that_comes_back_does_not_lose_its_turn_to_a_user_who_has_had_more(lab: Shared) -> None:
    """A node joins as her attempt is lost. What the tick decides that sees both must not go by the place."""
    full = [lab.world.submit(lab.bob, n_gpus_per_node=8) for _ in range(2)]
    lab.tick()
    lab.begin()
    old = lab.world.submit(lab.bob, n_gpus_per_node=8)
    lab.tick(HOUR)
    lab.finish(full[0])
    hers = lab.world.submit(lab.ada, n_gpus_per_node=8)
    lab.tick(5)
    assert lab.states(old, hers) == "waits has started"
    lab.begin()
    young = lab.world.submit(lab.ada, n_gpus_per_node=8)
    lab.ray.nodes["n3"] = 8
    lab.lose(lab.task(hers).attempts[-1].submission_id)
    lab.tick(5)
    assert lab.states(old, hers, young) == "waits has started has started"


def test_a_random_history_keeps_to_the_quotas_and_serves_all(tmp_path: Path) -> None:
    settings = {
        "limits": {"running_gpus_per_user": 8, "users": {"bob": {"running_gpus": 12}}},
        "scheduling": {"fair_share": True, "fair_share_half_life_s": 600},
    }
    rng = random.Random(11)
    lab = Shared(tmp_path, {"n1": 8, "n2": 8, "n3": 4}, settings)
    sent: list[Task] = []
    for step in range(400):
        if step < 250 and rng.random() < 0.3:
            size = rng.choice([(1, 1), (1, 2), (1, 4), (1, 8), (2, 4)])
            sent.append(lab.world.submit(rng.choice([lab.ada, lab.bob]), nnodes=size[0], n_gpus_per_node=size[1]))
        for _ in range(rng.randint(1, 4)):
            lab.ray.step()
        lab.tick(rng.choice([1.0, 20.0, 90.0]))
        held: Counter[str] = Counter()
        for task in lab.world.active():
            held[task.user_id] += task.gang.gpus
        assert held["ada"] <= 8 and held["bob"] <= 12
        assert not lab.ray.violations
    assert len(sent) > 50 and all(lab.task(task).state.is_final for task in sent)
    sanity_check(lab.world.store)
    lab.world.close()
