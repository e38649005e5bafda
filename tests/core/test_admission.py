"""The scheduling decision as tables: facts in, admissions and reasons out. No Ray, no clock."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus_ray.core.admission import AdmissionPolicy, Claim, Decision, decide
from argus_ray.core.model import Gang, NodeView, Task
from argus_ray.core.states import TaskState

POLICY = AdmissionPolicy(max_overtake_s=600, retry_interval_s=60)


def rl(nnodes: int, gpus: int) -> Gang:
    return Gang(nnodes, gpus, 3.0 * gpus, 3.0)


def task(seq: int, gang: Gang, state: TaskState = TaskState.QUEUED) -> Task:
    return Task(f"argus-u-grpo-20260101-000000-{seq:04x}", "u", seq, "grpo", state, gang, "", 0.0, 0.0)


def worker(name: str, gpus: float = 4, *, free: float | None = None, cpus: float = 24) -> NodeView:
    gpus_free = gpus if free is None else free
    cpus_free = cpus - 3 * (gpus - gpus_free)
    return NodeView(name, f"10.0.0.{name}", False, gpus, cpus, gpus_free, cpus_free, 100, 100)


HEAD = NodeView("head", "10.0.0.1", True, 0, 0, 0, 0, 0, 0)
TWO_WORKERS = [HEAD, worker("11"), worker("12")]


def run(queue: list[Task], nodes: list[NodeView], claims: list[Claim] | None = None, now: float = 0.0) -> Decision:
    return decide(queue, nodes, claims or [], now, POLICY)


def admitted(decision: Decision) -> list[int]:
    return [t.seq for t in decision.admitted]


def reason_of(decision: Decision, held: Task) -> str:
    return next(hold.reason for hold in decision.holds if hold.task_id == held.task_id)


def test_oldest_first_and_all_that_fits() -> None:
    queue = [task(3, rl(1, 4)), task(1, rl(1, 4)), task(2, rl(1, 4))]
    assert admitted(run(queue, TWO_WORKERS)) == [1, 2]


def test_the_sum_over_the_cluster_is_not_a_fit() -> None:
    wide = task(1, rl(1, 8))
    decision = run([wide], TWO_WORKERS)
    assert admitted(decision) == []
    assert "no node has 8 GPUs" in reason_of(decision, wide)


def test_an_impossible_task_never_holds_the_others_back() -> None:
    wide = replace(task(1, rl(1, 8)), overtaken_since=0.0)
    decision = run([wide, task(2, rl(1, 4))], TWO_WORKERS, now=10_000)
    assert admitted(decision) == [2]


def test_the_clock_of_an_impossible_task_does_not_run() -> None:
    """A wide node that joins busy would otherwise stop everybody at once."""
    wide = task(1, rl(1, 8))
    decision = run([wide, task(2, rl(1, 4))], TWO_WORKERS, now=100)
    assert admitted(decision) == [2]
    assert decision.holds[0].overtaken_since is None
    once_possible = replace(wide, overtaken_since=1.0)
    assert run([once_possible], TWO_WORKERS, now=100).holds[0].overtaken_since is None


def test_a_task_whose_own_time_has_not_come_holds_nobody_back() -> None:
    refused = replace(task(1, rl(1, 4)), not_before=9_999.0, overtaken_since=0.0)
    assert admitted(run([refused, task(2, rl(1, 4))], TWO_WORKERS, now=5_000)) == [2]


def test_a_gang_of_two_nodes_needs_two_nodes() -> None:
    big = task(1, rl(2, 4))
    assert admitted(run([big], TWO_WORKERS)) == [1]
    decision = run([big], [HEAD, worker("11"), worker("12", free=2)])
    assert reason_of(decision, big) == "needs 2 nodes with 4 GPUs and 12 CPUs free each; 1 has now"


def test_the_head_and_nodes_without_the_worker_resource_take_nothing() -> None:
    stranger = replace(worker("13"), worker_slots_total=0, worker_slots_free=0)
    big_head = replace(HEAD, gpus_total=8, gpus_free=8, cpus_total=64, cpus_free=64, worker_slots_total=100)
    one = task(1, rl(1, 1))
    assert reason_of(run([one], [big_head, stranger]), one) == "no worker has joined the pool"


def test_cpus_count_too() -> None:
    narrow = [HEAD, worker("11", cpus=8)]
    one = task(1, rl(1, 4))
    assert "even when it is empty" in reason_of(run([one], narrow), one)
    busy = [HEAD, replace(worker("11"), cpus_free=5)]
    assert "none has now" in reason_of(run([one], busy), one)


def test_cpus_of_the_small_actors_count_in_all() -> None:
    one = task(1, rl(1, 4))
    assert "needs 15 CPUs in all" in reason_of(run([one], [HEAD, worker("11", cpus=14)]), one)
    assert admitted(run([one], [HEAD, worker("11", cpus=15)])) == [1]


def test_what_was_admitted_and_is_not_seen_yet_is_not_given_twice() -> None:
    second = task(2, rl(1, 4))
    decision = run([second], [HEAD, worker("11")], [Claim(rl(1, 4), unseen_nodes=1)])
    assert admitted(decision) == []
    assert "CPUs in all" in reason_of(decision, second) or "just started" in reason_of(decision, second)


def test_an_unseen_part_may_land_on_any_node() -> None:
    """Ray could put the unseen 1x2 on the big node: the 1x8 must wait until it is seen, not hang inside verl."""
    nodes = [HEAD, worker("11", 8, cpus=100), worker("12", 4, cpus=100)]
    eight = task(2, rl(1, 8))
    decision = run([eight], nodes, [Claim(rl(1, 2), unseen_nodes=1)])
    assert "just started" in reason_of(decision, eight)
    nodes = [HEAD, worker("11", 8, cpus=100), worker("12", 4, free=2, cpus=100)]
    assert admitted(run([eight], nodes, [Claim(rl(1, 2), unseen_nodes=0)])) == [2]


def test_a_gang_whose_node_has_left_does_not_hold_the_others_back() -> None:
    """It was started on a node of eight that died since; nothing of four has room for it."""
    orphan = Claim(rl(1, 8), unseen_nodes=1)
    assert admitted(run([task(2, rl(1, 4)), task(3, rl(1, 4))], TWO_WORKERS, [orphan])) == [2, 3]
    assert admitted(run([task(2, rl(1, 1))], TWO_WORKERS, [Claim(rl(3, 4), unseen_nodes=3)])) == []


def test_three_unseen_small_ones_may_spread() -> None:
    claims = [Claim(rl(1, 1), 1)] * 3
    four = task(9, rl(1, 4))
    assert admitted(run([four], TWO_WORKERS, claims)) == []
    assert admitted(run([four], [*TWO_WORKERS, worker("13"), worker("14"), worker("15")], claims)) == [9]


def test_a_driver_slot_is_needed() -> None:
    full = [HEAD, replace(worker("11"), worker_slots_free=0)]
    one = task(1, rl(1, 1))
    assert "number of drivers" in reason_of(run([one], full), one)


def test_overtaking_is_bounded() -> None:
    big, small = task(1, rl(2, 4)), task(2, rl(1, 1))
    nodes = [HEAD, worker("11"), worker("12", free=1)]
    first = run([big, small], nodes, now=100)
    assert admitted(first) == [2]
    hold = next(h for h in first.holds if h.task_id == big.task_id)
    assert hold.overtaken_since == 100
    waiting = replace(big, state=TaskState.PENDING_RESOURCES, reason=hold.reason, overtaken_since=100)
    assert admitted(run([waiting, small], nodes, now=699)) == [2]
    barred = run([waiting, small], nodes, now=700)
    assert admitted(barred) == []
    assert "nothing younger" in reason_of(barred, small)


def test_the_overtaking_clock_starts_only_when_something_overtakes() -> None:
    decision = run([task(1, rl(2, 4)), task(2, rl(2, 4))], [HEAD, worker("11"), worker("12", free=1)], now=5)
    assert [hold.overtaken_since for hold in decision.holds] == [None, None]


def test_a_refused_task_is_not_tried_again_before_its_time() -> None:
    refused = replace(
        task(1, rl(1, 1)), state=TaskState.PENDING_RESOURCES, reason="verl said no", not_before=50.0, next_retry_at=50.0
    )
    decision = run([refused], TWO_WORKERS, now=49)
    assert admitted(decision) == [] and decision.holds == ()
    assert admitted(run([refused], TWO_WORKERS, now=50)) == [1]


def test_pending_resources_then_delayed_retry() -> None:
    """The behaviour of v2.0: not enough resources, PENDING_RESOURCES, another look after the interval."""
    big = task(1, rl(2, 4))
    first = run([big], [HEAD, worker("11")], now=0)
    hold = first.holds[0]
    assert hold.next_retry_at == 60
    pending = replace(big, state=TaskState.PENDING_RESOURCES, reason=hold.reason, next_retry_at=hold.next_retry_at)
    assert run([pending], [HEAD, worker("11")], now=59).holds == (), "nothing new, so nothing is written"
    assert run([pending], [HEAD, worker("11")], now=61).holds[0].next_retry_at == 121
    assert admitted(run([pending], TWO_WORKERS, now=30)) == [1], "a node that joins need not wait for the retry"


def test_reasons_name_no_other_task_or_node() -> None:
    decision = run([task(i, rl(1, 3)) for i in range(1, 9)], TWO_WORKERS)
    for hold in decision.holds:
        assert "argus-" not in hold.reason and "10.0.0" not in hold.reason


gangs = st.builds(rl, st.integers(1, 3), st.sampled_from([1, 2, 4, 8]))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(gangs, max_size=6),
    st.lists(st.tuples(st.sampled_from([2, 4, 8]), st.integers(0, 8)), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_whatever_ray_picks_every_admitted_gang_fits(
    gangs: list[Gang], shape: list[tuple[int, int]], rng: random.Random
) -> None:
    """Place the admitted gangs in a random order on random fitting nodes, as Ray may: each one finds its room."""
    nodes = [worker(str(i), g, free=min(f, g), cpus=64) for i, (g, f) in enumerate(shape)]
    chosen = list(run([task(i, gang) for i, gang in enumerate(gangs)], nodes).admitted)
    rng.shuffle(chosen)
    free = {n.node_id: [n.gpus_free, n.cpus_free] for n in nodes}
    for each in chosen:
        gang = each.gang
        fitting = [k for k, (g, c) in free.items() if g >= gang.gpus_per_node and c >= gang.cpus_per_node]
        assert len(fitting) >= gang.nnodes
        for key in rng.sample(fitting, gang.nnodes):
            free[key][0] -= gang.gpus_per_node
            free[key][1] -= gang.cpus_per_node


def test_a_long_line_is_decided_with_few_fits() -> None:
    queue = [task(i, rl(1 + i % 2, 1 + i % 4)) for i in range(10_000)]
    decision = run(queue, TWO_WORKERS)
    assert len(decision.admitted) + len(decision.holds) == 10_000


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_the_queue_argument_does_not_matter(order: tuple[int, ...]) -> None:
    queue = [task(i, rl(1, 4)) for i in range(3)]
    assert admitted(run([queue[i] for i in order], TWO_WORKERS)) == [0, 1]
