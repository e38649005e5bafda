"""The decision skips what it may skip: it says what the plain rules say (reference.py), and costs what it has to look
at. Costs are counted, not timed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from argus_ray.core.admission import AdmissionPolicy, decide
from argus_ray.core.model import Gang, NodeView, SlimTask
from argus_ray.core.quotas import Quotas
from argus_ray.core.reasons import Code, Reason, because
from argus_ray.core.shares import Shares
from argus_ray.core.states import TaskState
from argus_ray.core.waiting import WaitingTasks
from tests.core.reference import all_of, decide_plainly, holds_plainly

NOW = 1000.0
USERS = ["ada", "bob", "eve", "joe"]
REASONS = [
    None,
    None,
    because(Code.POOL_BUSY, nodes=1, gpus=2, cpus=6.0),
    because(Code.BEHIND_OLDER),
    because(Code.OVER_QUOTA, limit=8),
    because(Code.OVER_QUOTA, limit=8, passed=30.0),
    because(Code.OVER_QUOTA, limit=16, passed=650.0),
    because(Code.QUOTA_TOO_SMALL, limit=8, gpus=16, passed=40.0),
    because(Code.BAD_INPUTS, what="x"),
    because(Code.POOL_TOO_SMALL, nodes=2, gpus=8, cpus=24.0, able=1),
]


def gang(nnodes: int, gpus: int) -> Gang:
    return Gang(nnodes, gpus, 3.0 * gpus or 2.0)  # an export has CPUs alone


def worker(rng: random.Random, name: str) -> NodeView:
    gpus = rng.choice([2, 4, 8, 8])
    free = rng.choice([0, 0, 1, gpus / 2, gpus - 0.5, gpus])
    cpus = rng.choice([3 * gpus, 32, 32])
    return NodeView(
        name, f"10.0.0.{name}", False, gpus, cpus, free, cpus - 3 * (gpus - free), rng.choice([0, 1, 9, 9]), 9,
        troubles=rng.choice([0, 0, 1]), is_cordoned=rng.random() < 0.1,
    )  # fmt: skip


def any_task(rng: random.Random, seq: int) -> SlimTask:
    user = rng.choice(USERS)
    # One object for many, as the store reads them, or one of its own.
    reason: Reason | None = rng.choice(REASONS)
    return SlimTask(
        f"argus-{user}-grpo-20260101-000000-{seq:04x}",
        user,
        seq,
        rng.choice([TaskState.QUEUED, TaskState.PENDING_RESOURCES, TaskState.PENDING_RESOURCES]),
        gang(rng.choice([1, 1, 2, 3, 9]), rng.choice([0, 1, 2, 4, 8, 16])),
        reason=reason if rng.random() < 0.8 or reason is None else replace(reason),
        not_before=rng.choice([None, None, None, None, None, NOW - 5, NOW + 3, NOW + 30]),
        overtaken_since=rng.choice([None, None, None, NOW - 100, NOW - 601, NOW - 599.5, NOW - 5000]),
    )


def any_policy(rng: random.Random) -> AdmissionPolicy:
    quotas = Quotas(
        rng.choice([None, None, 1, 8, 16]), {u: rng.choice([None, 0, 4, 9, 40]) for u in rng.sample(USERS, 2)}
    )
    return AdmissionPolicy(
        max_overtake_s=rng.choice([0.0, 600.0, 600.0, 100.0]),
        retry_interval_s=60,
        quotas=quotas if rng.random() < 0.6 else Quotas(),
        half_life_s=rng.choice([None, 86_400.0]),
    )


def any_shares(rng: random.Random, policy: AdmissionPolicy) -> Shares:
    return Shares(
        {user: rng.randint(0, 12) for user in USERS if rng.random() < 0.5},
        use=None if policy.half_life_s is None else {user: rng.choice([0.0, 1.0, 1.0, 5.5]) for user in USERS[:3]},
    )


def check(
    rng: random.Random, waiting: WaitingTasks | list[SlimTask], now: float, policy: AdmissionPolicy, before: int | None
) -> None:
    nodes = [worker(rng, f"{i:02}") for i in range(rng.randint(0, 8))]
    reserved = [worker(rng, f"r{i}") for i in range(rng.choice([0, 0, 1, 2]))]
    shares = any_shares(rng, policy)
    queue = [task for task in waiting if before is None or task.seq < before]
    quick = decide(waiting, nodes, now, policy, shares=shares, reserved=reserved, before=before)
    plain = decide_plainly(queue, nodes, now, policy, shares, reserved)
    if before is not None:
        plain.due = quick.due
    assert all_of(quick) == all_of(plain)
    started = [task for task in quick.admitted if rng.random() < 0.7]
    assert list(quick.holds(started)) == holds_plainly(plain, started, now)


@pytest.mark.parametrize("seed", range(20))
def test_it_decides_as_the_plain_rules_say(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        queue = [any_task(rng, seq) for seq in range(rng.choice([3, 10, 40]))]
        rng.shuffle(queue)
        check(rng, queue, NOW, any_policy(rng), rng.choice([None, None, 5]))


@pytest.mark.parametrize("seed", range(10))
def test_tasks_that_come_go_and_change_are_decided_over_as_if_they_were_read_anew(seed: int) -> None:
    """While clocks run on or are set, too."""
    rng = random.Random(seed)
    policy = any_policy(rng)
    waiting, now = policy.no_tasks(), NOW - 700
    held = []
    for _ in range(50):
        match rng.choice(["come", "come", "go", "change", "many", "time", "time", "set"]):
            case "come":
                waiting.put(any_task(rng, 1 + max(waiting.by_seq, default=0)))
            case "many":
                waiting.add_all([any_task(rng, seq) for seq in range(1000, 1030) if seq not in waiting.by_seq])
            case "go" if waiting.by_seq:
                waiting.remove(rng.choice(list(waiting.by_seq)))
            case "change" if waiting.by_seq:
                waiting.put(any_task(rng, rng.choice(list(waiting.by_seq))))
            case "time":
                now += rng.choice([0.5, 2.0, 40.0, 300.0])
            case "set":
                now -= rng.choice([0.0, 1.0, 500.0])
            case _:
                continue
        check(rng, waiting, now, policy, rng.choice([None, None, None, 20]))
        decision = decide(waiting, [], now, policy, shares=any_shares(rng, policy))
        held.append((decision, list(decision.waits), decision.holds([]), list(decision.holds([]))))
        names = set(waiting.by_seq)
        with waiting.as_if(
            rng.sample(sorted(names), len(names) // 3), [any_task(rng, seq) for seq in sorted(names)[:5]]
        ):
            check(rng, waiting, now, policy, None)
        assert set(waiting.by_seq) == names
    check(rng, waiting, now, policy, None)
    for decision, waits, later, at_once in held:
        del decision.__dict__["_waits"]
        assert decision.waits == waits and list(later) == at_once, "what was decided knows nothing of later changes"
    assert sum(len(group.tasks) for group in waiting.groups.values()) == len(waiting)
    assert all(group.tasks and group.seqs == [t.seq for t in group.tasks] for group in waiting.groups.values())


# --- what it costs ------------------------------------------------------------------------------------------------


def full(count: int = 4) -> list[NodeView]:
    """One GPU is free on each."""
    return [NodeView(f"n{i}", f"10.0.0.{i}", False, 8, 32, 1, 11, 9, 9) for i in range(count)]


def queue_of(count: int, *shapes: Gang, since: float | None = None) -> list[SlimTask]:
    tasks = [
        SlimTask(f"t{i}", USERS[i % 3], i, TaskState.PENDING_RESOURCES, shapes[i % len(shapes)], overtaken_since=since)
        for i in range(count)
    ]
    busy = because(Code.POOL_BUSY, nodes=1, gpus=2, cpus=6.0)
    return [replace(task, reason=busy) for task in tasks]


@pytest.mark.parametrize("use", [None, {"ada": 3.0, "bob": 1.0}])
def test_the_cost_does_not_grow_with_those_whose_user_is_at_the_quota(use: dict[str, float] | None) -> None:
    policy = AdmissionPolicy(600, 60, Quotas(8), None if use is None else 60.0)
    shares = Shares({"ada": 8, "bob": 5, "eve": 0}, use=use)
    looks = {n: decide(queue_of(n, gang(1, 1)), full(), NOW, policy, shares=shares).looks for n in (60, 600, 6000)}
    assert len(set(looks.values())) == 1 and looks[60] < 30


@pytest.mark.parametrize("since", [None, NOW - 100, NOW - 60_000])
@pytest.mark.parametrize("quotas", [Quotas(), Quotas(9)])
def test_the_cost_does_not_grow_with_those_of_a_shape_that_is_refused(quotas: Quotas, since: float | None) -> None:
    """Those that were overtaken for long, too, once all is reserved that they could use."""
    policy = AdmissionPolicy(600, 60, quotas)
    shapes = gang(1, 2), gang(2, 4), gang(1, 8), gang(1, 16)
    looks = {n: decide(queue_of(n, *shapes, since=since), full(), NOW, policy).looks for n in (60, 600, 6000)}
    assert len(set(looks.values())) == 1 and looks[60] < 40


def test_nothing_new_is_told_without_a_look_at_each() -> None:
    """Else a pass would cost what waits after all."""
    busy = {shape: because(Code.POOL_BUSY, nodes=1, gpus=shape, cpus=3.0 * shape) for shape in (2, 4)}
    queue = [replace(t, reason=busy[t.gang.gpus_per_node]) for t in queue_of(6000, gang(1, 2), gang(1, 4))]
    decision = decide(queue, full(), NOW, AdmissionPolicy(600, 60))
    assert [part.end_of_news(None) - part.begin for part in decision.parts] == [0, 0]
    assert list(decision.holds([])) == [] and decision.looks == 2


def test_the_cost_does_not_grow_with_an_own_time_that_has_not_come() -> None:
    queue = [replace(task, not_before=NOW + 9) for task in queue_of(6000, gang(1, 1))]
    decision = decide(queue, full(), NOW, AdmissionPolicy(600, 60))
    assert decision.looks == 0 and decision.due == NOW + 9


def test_a_change_costs_its_own_group_and_no_other() -> None:
    waiting = AdmissionPolicy(600, 60).no_tasks()
    waiting.add_all(queue_of(6000, gang(1, 2), gang(1, 4)))
    nodes = full()
    first = decide(waiting, nodes, NOW, AdmissionPolicy(600, 60))
    waiting.remove(4)
    second = decide(waiting, nodes, NOW, AdmissionPolicy(600, 60))
    lists = [[id(part.section.tasks) for part in decision.parts] for decision in (first, second)]
    assert [old == new for old, new in zip(*lists, strict=True)].count(True) == 1
