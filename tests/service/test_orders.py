"""Orders about the pool: stored, told by their newest, kept over restarts, and given by admins only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.core import actions
from argus_ray.core.actions import OrdersView
from argus_ray.core.errors import Forbidden, InvalidRequest
from argus_ray.core.lifecycle import Advance, End, Halt, Hold
from argus_ray.core.model import Cordon, Maintenance, PoolOrders
from argus_ray.core.orders import Machine, NodeOrder
from argus_ray.core.reasons import Code, because
from argus_ray.core.states import Outcome, TaskState
from argus_ray.core.verl import failures
from tests.support.builders import ADMIN, INTERNAL, World
from tests.support.sanity import checked_service

M1 = Machine("worker-1", ("worker-1", "10.0.0.1"), ("n1",))
BUSY = because(Code.POOL_BUSY, nodes=1, gpus=4, cpus=12.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from checked_service(tmp_path)


def order(world: World, order: NodeOrder, machine: Machine = M1, **options: object) -> OrdersView:
    found = world.service.handle(ADMIN, actions.OrderNode(machine, order, **options))  # type: ignore[arg-type]
    assert isinstance(found, OrdersView)
    return found


def shown(world: World) -> PoolOrders:
    found = world.service.handle(ADMIN, actions.ShowOrders())
    assert isinstance(found, OrdersView)
    return found.orders


def test_the_newest_order_about_a_machine_counts_and_outlives_restarts(world: World) -> None:
    now = world.clock()
    assert shown(world) == PoolOrders(0, (), None)
    order(world, NodeOrder.DRAIN, reason="a fan", deadline_s=60.0)
    expected = Cordon("worker-1", "admin", now, "a fan", drain=True, deadline=now + 60)
    assert shown(world).cordons == (expected,)
    world.reopen()
    assert shown(world).cordons == (expected,)
    versions = [shown(world).version]
    world.clock.advance(5)
    order(world, NodeOrder.CORDON)
    versions.append(shown(world).version)
    assert shown(world).cordons == (Cordon("worker-1", "admin", now + 5),), "without the deadline"
    order(world, NodeOrder.UNCORDON, reason="repaired")
    versions.append(shown(world).version)
    assert shown(world).cordons == (Cordon("worker-1", "admin", now + 5, "repaired", cleared_at=now + 5),)
    assert versions == sorted(set(versions)) and versions[0] > 0


def test_an_order_under_one_name_ends_those_under_the_others(world: World) -> None:
    order(world, NodeOrder.CORDON, Machine("10.0.0.1", ("10.0.0.1",)))
    order(world, NodeOrder.CORDON, Machine("10.0.0.2", ("10.0.0.2",)))
    order(world, NodeOrder.UNCORDON)
    assert [each.machine for each in shown(world).cordons if each.cleared_at is None] == ["10.0.0.2"]


def test_who_gave_an_order_is_in_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    order(world, NodeOrder.DRAIN, reason="a fan", deadline_s=60.0)
    world.service.handle(INTERNAL, actions.SetMaintenance(True))
    assert "admin orders: drain worker-1 within 60 s (a fan)" in caplog.text
    assert "internal orders: maintenance on (no reason given)" in caplog.text


@pytest.mark.parametrize(
    "action",
    [actions.ShowOrders(), actions.OrderNode(M1, NodeOrder.CORDON), actions.SetMaintenance(True)],
    ids=lambda action: type(action).__name__,
)
def test_orders_are_for_admins(world: World, action: actions.Action[object]) -> None:
    ada = world.user("ada")
    with pytest.raises(Forbidden):
        world.service.handle(ada, action)
    assert shown(world) == PoolOrders()


@pytest.mark.parametrize(
    "action",
    [
        actions.OrderNode(M1, NodeOrder.CORDON, deadline_s=5.0),
        actions.OrderNode(M1, NodeOrder.DRAIN, deadline_s=-1.0),
        actions.OrderNode(M1, NodeOrder.DRAIN, deadline_s=float("nan")),
        actions.OrderNode(M1, NodeOrder.DRAIN, "a\nb"),
        actions.OrderNode(M1, NodeOrder.DRAIN, "x" * 501),
        actions.SetMaintenance(True, "\0"),
    ],
)
def test_odd_orders_are_refused(world: World, action: actions.Action[object]) -> None:
    with pytest.raises(InvalidRequest):
        world.service.handle(ADMIN, action)
    assert shown(world) == PoolOrders()


def test_what_runs_is_told_with_its_nodes_while_a_cordon_holds(world: World) -> None:
    ada = world.user("ada")
    task, old = world.submit(ada), world.submit(ada)
    world.service.apply([replace(world.admission(task), nodes=("n1", "n2")), world.admission(old)])
    world.service.apply([Advance(world.task(old.task_id).attempts[0].submission_id, running=True, node_id="n3")])
    found = world.service.handle(ADMIN, actions.ShowOrders())
    assert isinstance(found, OrdersView) and found.running == {}
    assert order(world, NodeOrder.CORDON).running == {task.task_id: ("n1", "n2"), old.task_id: ("n3",)}


def test_an_admission_of_older_orders_is_not_made(world: World) -> None:
    ada = world.user("ada")
    task = world.submit(ada)
    version = world.service.queue_changes("", 0).orders
    assert version is not None
    late = replace(world.admission(task), orders=version.version)
    world.service.handle(ADMIN, actions.SetMaintenance(True))
    assert world.service.apply([late]) == [False]
    assert world.task(task.task_id).state is TaskState.QUEUED
    world.service.handle(ADMIN, actions.SetMaintenance(False))
    assert world.service.apply([replace(late, orders=shown(world).version)]) == [True]


def test_a_drained_attempt_is_no_loss_and_its_budget_is_as_before(world: World) -> None:
    ada = world.user("ada")
    task = world.submit(ada)
    for number in range(1, 20):
        change = world.admission(world.task(task.task_id))
        halt = Halt(change.submission_id, "its node is drained", Outcome.INFRASTRUCTURE)
        end = End(change.submission_id, Outcome.INFRASTRUCTURE, "its node is drained", 143, failures.drained("x"))
        assert world.service.apply([change, halt, end]) == [True] * 3
        after = world.task(task.task_id)
        assert (after.state, after.losses, after.not_before, len(after.attempts)) == (TaskState.QUEUED, 0, None, number)


def test_maintenance_is_kept_told_and_turned_off(world: World) -> None:
    ada, now = world.user("ada"), world.clock()
    task = world.submit(ada)
    on = Maintenance("admin", now, "switches")
    assert world.service.handle(ADMIN, actions.SetMaintenance(True, "switches")) == on
    world.reopen()
    world.clock.advance(60)
    explained = world.service.handle(ada, actions.ExplainTask(task.task_id))
    assert isinstance(explained, actions.Explanation) and explained.maintenance == on
    assert world.service.ping()["maintenance_since"] == now
    again = world.service.handle(INTERNAL, actions.SetMaintenance(True, "still"))
    assert again == Maintenance("internal", now, "still"), "since when does not change"
    assert world.service.handle(ADMIN, actions.SetMaintenance(False)) is None
    version = shown(world).version
    assert world.service.handle(ADMIN, actions.SetMaintenance(False)) is None
    assert shown(world) == PoolOrders(version)
    assert world.service.ping()["maintenance_since"] is None


def test_clocks_of_overtaking_stand_still_while_it_is_on(world: World) -> None:
    ada = world.user("ada")
    before, within, none = world.submit(ada), world.submit(ada), world.submit(ada)
    now = world.clock()
    world.service.apply([Hold(before.task_id, BUSY, None, now - 100)])
    world.service.handle(ADMIN, actions.SetMaintenance(True))
    world.service.apply([Hold(within.task_id, BUSY, None, now + 20), Hold(none.task_id, BUSY)])
    world.clock.advance(86_400)
    world.service.handle(ADMIN, actions.SetMaintenance(True))
    world.service.handle(ADMIN, actions.SetMaintenance(False))
    clocks = [world.task(task.task_id).overtaken_since for task in (before, within, none)]
    assert clocks == [now + 86_400 - 100, now + 86_400, None]


def test_a_clock_that_was_set_back_turns_no_clock_of_overtaking_on(world: World) -> None:
    ada = world.user("ada")
    task = world.submit(ada)
    now = world.clock()
    world.service.apply([Hold(task.task_id, BUSY, None, now - 100)])
    world.service.handle(ADMIN, actions.SetMaintenance(True))
    world.clock.advance(-3600)
    world.service.handle(ADMIN, actions.SetMaintenance(False))
    assert world.task(task.task_id).overtaken_since == now - 100


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
@pytest.mark.parametrize("is_seen", [True, False])
def test_clocks_of_overtaking_stand_still_where_the_wall_clock_is_set_meanwhile(
    world: World, step_s: float, is_seen: bool
) -> None:
    """`is_seen`: by the scheduler's calls, before maintenance is turned off."""
    ada = world.user("ada")
    task = world.submit(ada)
    world.service.apply([Hold(task.task_id, BUSY, None, world.clock() - 100)])
    world.service.handle(ADMIN, actions.SetMaintenance(True))
    world.clock.advance(50)
    world.clock.jump(step_s)
    if is_seen:
        world.service.queue_changes("", 0)
    world.service.handle(ADMIN, actions.SetMaintenance(False))
    world.service.queue_changes("", 0)
    since = world.task(task.task_id).overtaken_since
    assert since is not None and world.clock() - since == pytest.approx(100, abs=2)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_deadline_is_by_time_that_passes_and_not_by_a_clock_that_is_set(world: World, step_s: float) -> None:
    world.clock.jump(step_s)
    order(world, NodeOrder.DRAIN, deadline_s=600.0)
    world.service.queue_changes("", 0)
    world.clock.jump(step_s)
    world.service.queue_changes("", 0)
    (cordon,) = shown(world).cordons
    assert cordon.deadline is not None and cordon.deadline - world.clock() == pytest.approx(600, abs=2)


def test_the_scheduler_is_told_of_orders_once(world: World) -> None:
    first = world.service.queue_changes("", 0)
    assert first.orders == PoolOrders()
    order(world, NodeOrder.CORDON)
    second = world.service.queue_changes(first.writer, first.version)
    assert not second.is_whole and second.orders == shown(world) and second.rows == () and second.gone == ()
    third = world.service.queue_changes(second.writer, second.version)
    assert third.orders is None and not third.is_whole
