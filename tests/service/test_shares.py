"""Limits of each user, and the account of what each has used, in the service."""

from __future__ import annotations

from pathlib import Path

import pytest

from argus_ray.core import actions, ids
from argus_ray.core.actions import Credential, Explanation
from argus_ray.core.errors import InvalidSpec, QueueFull
from argus_ray.core.lifecycle import Advance, End, Hold
from argus_ray.core.model import Task
from argus_ray.core.monitoring import ReadMonitoring
from argus_ray.core.reasons import Code, because
from argus_ray.core.shares import shares_of, use_of_run
from argus_ray.core.states import Outcome, TaskState
from argus_ray.core.usage import ShowMe
from argus_ray.core.watching import GATEWAY
from tests.support.builders import World
from tests.support.sanity import checked_service

HOUR = 3600.0


def start(world: World, task: Task, *, running: bool = True) -> str:
    admit = world.admission(world.task(task.task_id))
    assert world.service.apply([admit, Advance(admit.submission_id, running)]) == [True, True]
    return admit.submission_id


def explain(world: World, who: Credential, task: Task) -> Explanation:
    found = world.service.handle(who, actions.ExplainTask(task.task_id))
    assert isinstance(found, Explanation)
    return found


def test_limits_of_one_user_go_before_those_of_all(tmp_path: Path) -> None:
    limits = {"waiting_tasks_per_user": 2, "users": {"alice": {"waiting_tasks": 3}, "eve": {"running_gpus": 64}}}
    for world in checked_service(tmp_path, settings={"limits": limits}):
        for name, most in (("alice", 3), ("bob", 2), ("eve", 2)):
            who = world.user(name)
            for _ in range(most):
                world.submit(who)
            with pytest.raises(QueueFull, match=f"you have {most} waiting tasks"):
                world.submit(who)


def test_a_task_that_could_never_start_for_its_quota_is_refused_and_the_rule_named(tmp_path: Path) -> None:
    limits = {"running_gpus_per_user": 4, "users": {"bob": {"running_gpus": 16}, "eve": {"running_gpus": 0}}}
    for world in checked_service(tmp_path, settings={"limits": limits}):
        alice, bob, eve = (world.user(name) for name in ("alice", "bob", "eve"))
        first = world.submit(alice, "key", nnodes=1, n_gpus_per_node=4)
        with pytest.raises(InvalidSpec) as caught:
            world.submit(alice, nnodes=2, n_gpus_per_node=4)
        (field,) = caught.value.fields
        assert field.field == "nnodes, n_gpus_per_node"
        assert field.rule == "2 x 4 GPUs are 8, and 4 is the most that you may hold at a time"
        world.submit(bob, nnodes=2, n_gpus_per_node=8)
        world.submit(eve, nnodes=8, n_gpus_per_node=8)
        world.service.handle(alice, actions.CancelTask(first.task_id))
        world.reopen(settings={"limits": {"running_gpus_per_user": 1}})
        with pytest.raises(InvalidSpec):
            world.service.handle(alice, actions.ResubmitTask(first.task_id, False, None))
        with pytest.raises(InvalidSpec):
            world.service.handle(alice, actions.ReadResubmission(actions.ResubmitTask(first.task_id, False, None)))
        answer = world.service.handle(alice, world.submission(world.spec(nnodes=1, n_gpus_per_node=4), "key"))
        assert answer.task_id == first.task_id, "a repeated call gets its answer, whatever the quota is by now"


def test_an_attempt_above_the_quota_is_not_made(tmp_path: Path) -> None:
    """Whatever a scheduler believed that knew less."""
    for world in checked_service(tmp_path, settings={"limits": {"running_gpus_per_user": 8}}):
        alice, bob = world.user("alice"), world.user("bob")
        tasks = [world.submit(alice) for _ in range(3)]
        changes = [world.admission(task) for task in [*tasks, world.submit(bob)]]
        assert world.service.apply(changes) == [True, True, False, True]
        assert world.task(tasks[2].task_id).state is TaskState.QUEUED
        canceled = changes[0].submission_id
        world.service.handle(alice, actions.CancelTask(tasks[0].task_id))
        assert world.service.apply([changes[2]]) == [False], "one that is being stopped holds its GPUs still"
        assert world.service.apply([End(canceled, Outcome.CANCELED, ""), changes[2]]) == [True, True]


@pytest.mark.parametrize("fair_share", [False, True])
def test_what_is_used_is_counted_when_an_attempt_ends(tmp_path: Path, fair_share: bool) -> None:
    """Also while fair share is off: it can be switched on at any time."""
    half_life_s = 24 * HOUR
    for world in checked_service(tmp_path, settings={"scheduling": {"fair_share": fair_share}}):
        alice = world.user("alice")
        assert world.service.gpu_use() == {}
        lost, canceled, never, good = (world.submit(alice) for _ in range(4))
        names = [start(world, task) for task in (lost, canceled)]
        names.append(start(world, never, running=False))
        world.clock.advance(HOUR)
        world.service.handle(alice, actions.CancelTask(canceled.task_id))
        ends = [
            End(names[0], Outcome.INFRASTRUCTURE, "lost"),
            End(names[1], Outcome.CANCELED, ""),
            End(names[2], Outcome.APPLICATION, "it never ran"),
        ]
        assert world.service.apply(ends) == [True] * 3
        one = use_of_run(4, 0.0, HOUR, half_life_s)
        (use,) = world.service.gpu_use().values()
        assert use.gpu_s == pytest.approx(2 * one) and use.at == world.clock.now
        assert world.service.apply(ends) == [False] * 3, "an end counts once"
        world.clock.advance(half_life_s)
        name = start(world, good)
        world.clock.advance(HOUR)
        world.service.apply([End(name, Outcome.SUCCEEDED, "", 0)])
        (use,) = world.service.gpu_use().values()
        assert use.gpu_s == pytest.approx(one * 2 ** (-1 / 24) + one) and use.at == world.clock.now
        world.reopen()
        assert world.service.gpu_use() == {"alice": use}


def test_explain_tells_the_quota_what_is_held_and_what_was_used(tmp_path: Path) -> None:
    settings = {"limits": {"running_gpus_per_user": 8}, "scheduling": {"fair_share": True}}
    for world in checked_service(tmp_path, settings=settings):
        alice, bob = world.user("alice"), world.user("bob")
        runs, waits, his = world.submit(alice), world.submit(alice), world.submit(bob)
        start(world, runs)
        start(world, his)
        world.clock.advance(HOUR)
        world.service.apply([Hold(waits.task_id, because(Code.OVER_QUOTA, limit=8))])
        found = explain(world, alice, waits)
        assert (found.gpus_held, found.gpus_quota) == (4, 8)
        assert found.recent_use_s == pytest.approx(use_of_run(4, 0.0, HOUR, 86_400)), "her own, and nobody else's"
        admin = explain(world, actions.Credential(actions.Role.ADMIN), waits)
        assert admin == found, "an admin hears of the task's user"
        name = ids.submission_id(runs.task_id, 1)
        world.service.apply([End(name, Outcome.SUCCEEDED, "", 0)])
        after = explain(world, alice, waits)
        assert after.gpus_held == 0 and after.recent_use_s == pytest.approx(found.recent_use_s)
    for world in checked_service(tmp_path / "off"):
        alice = world.user("alice")
        found = explain(world, alice, world.submit(alice))
        assert (found.gpus_held, found.gpus_quota, found.recent_use_s) == (0, None, None)


@pytest.mark.parametrize("jump", [30 * 24 * HOUR, -2 * HOUR])
def test_a_clock_that_is_set_changes_no_share_and_all_accounts_agree(tmp_path: Path, jump: float) -> None:
    """What a run has used is told by fair share, usage and monitoring; each counts the time that has passed."""
    half_life_s = 24 * HOUR
    for world in checked_service(tmp_path, settings={"scheduling": {"fair_share": True}}):
        alice = world.user("alice")
        task = world.submit(alice)
        name = start(world, task)
        world.clock.advance(HOUR)
        world.clock.jump(jump)
        (row,) = world.service.queue_changes("", 0).rows
        one = use_of_run(4, 0.0, HOUR, half_life_s)
        assert dict(shares_of([row], world.clock.now, {}, half_life_s).use or {}) == {"alice": pytest.approx(one)}
        assert explain(world, alice, world.submit(alice)).recent_use_s == pytest.approx(one)
        world.clock.advance(HOUR)
        assert world.service.apply([End(name, Outcome.SUCCEEDED, "", 0)]) == [True]
        (use,) = world.service.gpu_use().values()
        assert use.gpu_s == pytest.approx(use_of_run(4, 0.0, 2 * HOUR, half_life_s))
        total = world.service.handle(alice, ShowMe()).total
        assert total is not None and total.gpu_ms == 4 * 2 * HOUR * 1000
        assert world.service.handle(GATEWAY, ReadMonitoring()).user_gpu_seconds == {"alice": pytest.approx(8 * HOUR)}
