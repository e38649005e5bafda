"""The scheduling decision as tables: facts in, admissions and reasons out. No Ray, no clock."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus_ray.core.admission import AdmissionPolicy, decide
from argus_ray.core.decision import Decision
from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import Gang, NodeView, SlimTask
from argus_ray.core.pool import Verdict
from argus_ray.core.reasons import Code, because, words
from argus_ray.core.states import TaskState

POLICY = AdmissionPolicy(max_overtake_s=600, retry_interval_s=60)


def rl(nnodes: int, gpus: int) -> Gang:
    return Gang(nnodes, gpus, 3.0 * gpus)


def task(seq: int, gang: Gang, state: TaskState = TaskState.QUEUED) -> SlimTask:
    return SlimTask(f"argus-u-grpo-20260101-000000-{seq:04x}", "u", seq, state, gang)


def worker(name: str, gpus: float = 4, *, free: float | None = None, cpus: float = 24) -> NodeView:
    gpus_free = gpus if free is None else free
    cpus_free = cpus - 3 * (gpus - gpus_free)
    return NodeView(name, f"10.0.0.{name}", False, gpus, cpus, gpus_free, cpus_free, 100, 100)


HEAD = NodeView("head", "10.0.0.1", True, 0, 0, 0, 0, 0, 0)
TWO_WORKERS = [HEAD, worker("11"), worker("12")]


def run(queue: list[SlimTask], nodes: list[NodeView], now: float = 0.0) -> Decision:
    return decide(queue, nodes, now, POLICY)


def admitted(decision: Decision) -> list[int]:
    return [t.seq for t in decision.admitted]


class Held(NamedTuple):
    task: SlimTask
    verdict: Verdict


def held_by(decision: Decision) -> list[Held]:
    return [Held(task, verdict) for task, verdict in zip(decision.waits, decision.verdicts, strict=True)]


def holds(decision: Decision) -> list[Hold]:
    """When all that were admitted start."""
    return list(decision.holds(decision.admitted))


def reason_of(decision: Decision, held: SlimTask) -> str:
    """As seen at this moment."""
    return next(
        words(each.verdict.seen or each.verdict.reason or "") for each in held_by(decision) if each.task is held
    )


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


def test_the_clock_of_an_impossible_task_stands() -> None:
    """It does not begin, since nobody overtakes the task; and one that has begun is not wiped by a node that is away
    for one look."""
    wide = task(1, rl(1, 8))
    decision = run([wide, task(2, rl(1, 4))], TWO_WORKERS, now=100)
    assert admitted(decision) == [2]
    assert holds(decision)[0].overtaken_since is None
    once_possible = replace(wide, overtaken_since=1.0)
    assert holds(run([once_possible], TWO_WORKERS, now=100))[0].overtaken_since == 1.0


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


def test_parts_of_a_gpu_are_no_gpu() -> None:
    """Somebody uses half of one: 7.5 free are room for one gang of four, and not for two."""
    eight = [HEAD, worker("11", 8, free=7.5, cpus=100)]
    assert admitted(run([task(1, rl(1, 4)), task(2, rl(1, 4))], eight)) == [1]


def test_a_gang_takes_the_nodes_that_it_fills_best() -> None:
    """So that whole nodes stay whole for those that need them."""
    nodes = [HEAD, worker("11", 8, cpus=100), worker("12", 8, free=2, cpus=100), worker("13", 8, free=4, cpus=100)]
    decision = run([task(1, rl(1, 2)), task(2, rl(2, 4)), task(3, rl(1, 4))], nodes)
    assert [decision.nodes_of[t.task_id] for t in decision.admitted] == [("12",), ("13", "11"), ("11",)]


def test_the_nodes_do_not_depend_on_the_order_in_which_ray_lists_them() -> None:
    nodes = [HEAD, *(worker(str(i)) for i in range(20, 30))]
    queue = [task(1, rl(3, 2)), task(2, rl(2, 4)), task(3, rl(1, 1))]
    assert run(queue, nodes).nodes_of == run(queue, nodes[::-1]).nodes_of


def test_a_driver_slot_is_needed() -> None:
    full = replace(worker("11"), worker_slots_free=0)
    one = task(1, rl(1, 1))
    decision = run([one], [HEAD, full])
    assert admitted(decision) == [] and "number of drivers" in reason_of(decision, one)
    assert run([one], [HEAD, full, worker("12")]).nodes_of[one.task_id] == ("12",)
    two = task(2, rl(2, 1))
    assert run([two], [HEAD, full, worker("12")]).nodes_of[two.task_id] == ("12", "11"), "the driver goes to the first"
    crowd = [HEAD, full, replace(worker("12"), worker_slots_free=0), worker("13")]
    assert set(run([two], crowd).nodes_of[two.task_id]) == {"13", "11"}
    assert admitted(run([one, two], [HEAD, full, replace(worker("12"), worker_slots_free=1)])) == [1]


def test_overtaking_is_bounded() -> None:
    big, small = task(1, rl(2, 4)), task(2, rl(1, 1))
    nodes = [HEAD, worker("11"), worker("12", free=1)]
    first = run([big, small], nodes, now=100)
    assert admitted(first) == [2]
    hold = next(h for h in holds(first) if h.task_id == big.task_id)
    assert hold.overtaken_since == 100
    waiting = replace(big, state=TaskState.PENDING_RESOURCES, reason=hold.reason, overtaken_since=100)
    assert admitted(run([waiting, small], nodes, now=699)) == [2]
    late = run([waiting, small], nodes, now=700)
    assert admitted(late) == [] and [node.node_id for node in late.reserved] == ["11", "12"]
    assert "reserved for it" in reason_of(late, small)


def test_what_an_old_gang_cannot_use_goes_on() -> None:
    """Four full nodes of eight GPUs, fifty free ones of one: an old gang of 4 x 8 waits for the former only."""
    nodes = [HEAD, *(worker(f"1{i}", 8, free=0) for i in range(4)), *(worker(str(100 + i), 1) for i in range(50))]
    old = replace(task(1, rl(4, 8)), overtaken_since=0.0)
    young = [task(2 + i, rl(1, 1)) for i in range(60)]
    assert len(run([old, *young], nodes, now=7 * 86_400).admitted) == 50


def test_no_more_nodes_are_reserved_than_the_old_gang_needs() -> None:
    """Of ten that could be its own, the two that are nearest to it; and as many again with each further period, so
    that one on which somebody runs for a month is not waited for alone."""
    nodes = [HEAD, *(worker(str(10 + i), free=3 if i in (4, 7) else 1) for i in range(10))]
    old, young = replace(task(1, rl(2, 4)), overtaken_since=0.0), [task(2 + i, rl(1, 1)) for i in range(40)]
    by_time = {now: run([old, *young], nodes, now=now) for now in (599, 600, 1199, 1200, 3000)}
    reserved = {now: [node.node_id for node in decision.reserved] for now, decision in by_time.items()}
    assert reserved[599] == [] and reserved[600] == reserved[1199] == ["14", "17"]
    assert len(reserved[1200]) == 4 and len(reserved[3000]) == 10
    assert [len(decision.admitted) for decision in by_time.values()] == [14, 8, 8, 6, 0]
    assert [decision.reserves_at for decision in by_time.values()] == [600, 1200, 1200, 1800, 3600]


def test_an_old_gang_starts_as_soon_as_its_nodes_are_free() -> None:
    old = replace(task(1, rl(2, 4)), overtaken_since=0.0)
    decision = run([old, task(2, rl(1, 1))], [HEAD, worker("11"), worker("12"), worker("13", free=0)], now=9999)
    assert admitted(decision) == [1] and set(decision.nodes_of[old.task_id]) == {"11", "12"}


def test_what_could_never_start_says_so_behind_an_older_task_too() -> None:
    old = replace(task(1, rl(2, 4)), overtaken_since=0.0)
    wide, small = task(2, rl(1, 8)), task(3, rl(1, 1))
    decision = run([old, wide, small], [HEAD, worker("11"), worker("12", free=1)], now=9999)
    assert admitted(decision) == []
    assert "no node has 8 GPUs" in reason_of(decision, wide) and "reserved" in reason_of(decision, small)


def test_the_overtaking_clock_starts_only_when_something_overtakes() -> None:
    decision = run([task(1, rl(2, 4)), task(2, rl(2, 4))], [HEAD, worker("11"), worker("12", free=1)], now=5)
    assert [hold.overtaken_since for hold in holds(decision)] == [None, None]


def test_a_refused_task_is_not_tried_again_before_its_time() -> None:
    refused = replace(task(1, rl(1, 1)), state=TaskState.PENDING_RESOURCES, not_before=50.0)
    decision = run([refused], TWO_WORKERS, now=49)
    assert admitted(decision) == [] and holds(decision) == []
    assert decision.due == 50, "nothing else must happen for it"
    assert admitted(run([refused], TWO_WORKERS, now=50)) == [1]


def test_a_task_that_waits_is_written_once_and_looked_at_each_time() -> None:
    big = task(1, rl(2, 4))
    (hold,) = holds(run([big], [HEAD, worker("11")], now=0))
    assert hold.not_before is None
    pending = replace(big, state=TaskState.PENDING_RESOURCES, reason=hold.reason)
    for now in (59, 61, 1e6):
        assert holds(run([pending], [HEAD, worker("11")], now=now)) == [], "nothing new, so nothing is written"
    assert admitted(run([pending], TWO_WORKERS, now=30)) == [1], "a node that joins need not wait for the retry"


@pytest.mark.parametrize("free", [0, 1, 3, 3.5])
@pytest.mark.parametrize("slots", [0, 100])
def test_what_is_stored_does_not_change_with_what_is_free(free: float, slots: int) -> None:
    big = task(1, rl(2, 4))
    nodes = [HEAD, replace(worker("11", free=free), worker_slots_free=slots), worker("12")]
    decision = run([big], nodes)
    (hold,) = holds(decision)
    assert hold.reason == because(Code.POOL_BUSY, nodes=2, gpus=4, cpus=12.0)
    assert words(hold.reason) == "needs 2 nodes with 4 GPUs and 12 CPUs free each"


@pytest.mark.parametrize("code", [Code.BAD_INPUTS, Code.CHECKPOINT_UNKNOWN, Code.NO_COMMAND])
def test_a_task_with_trouble_of_its_own_keeps_that_reason_until_it_may_start(code: Code) -> None:
    reason = because(code, what="train_file does not exist", error="EIO")
    troubled = replace(task(1, rl(2, 4)), state=TaskState.PENDING_RESOURCES, reason=reason, not_before=50.0)
    younger = task(2, rl(1, 1))
    early = run([troubled, younger], TWO_WORKERS, now=49)
    assert admitted(early) == [2] and holds(early) == [], "its own time has not come, so nobody overtakes it"
    assert admitted(run([troubled, younger], TWO_WORKERS, now=50)) == [1]
    late = run([troubled, younger], [HEAD, worker("11")], now=50)
    assert [hold.reason for hold in holds(late)] != [None], "it could not run on this pool at all"
    (hold,) = holds(run([troubled, younger], [HEAD, worker("11"), worker("12", free=1)], now=50))
    assert (hold.task_id, hold.reason, hold.not_before) == (troubled.task_id, None, None)
    assert hold.overtaken_since == 50


def test_only_a_task_that_starts_overtakes() -> None:
    big, small = task(1, rl(2, 4)), task(2, rl(1, 1))
    decision = run([big, small], [HEAD, worker("11"), worker("12", free=1)], now=5)
    assert admitted(decision) == [2]
    assert [hold.overtaken_since for hold in decision.holds(decision.admitted)] == [5]
    assert [hold.overtaken_since for hold in decision.holds([])] == [None]


sizes = st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 4, 8]))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(sizes, st.sampled_from([None, 0.0, 60.0])), max_size=5),
    st.lists(sizes, min_size=1, max_size=3),
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.sampled_from([0.0, 599.0, 600.0, 700.0, 5000.0]),
)
def test_who_comes_last_is_decided_over_alone_as_within_the_whole_queue(
    old: list[tuple[tuple[int, int], float | None]], new: list[tuple[int, int]], free: list[int], now: float
) -> None:
    """When none of the older ones starts, which alone is when the scheduler does so."""
    nodes = [HEAD, *(worker(str(i), free=f) for i, f in enumerate(free))]
    older = [replace(task(i, rl(*size)), overtaken_since=since) for i, (size, since) in enumerate(old)]
    came = [task(100 + i, rl(*size)) for i, size in enumerate(new)]
    before = run(older, nodes, now=now)
    if before.admitted:
        return
    alone = decide(came, before.left, now, POLICY, reserved=before.reserved)
    whole = run([*older, *came], nodes, now=now)
    assert alone.admitted == whole.admitted and alone.nodes_of == whole.nodes_of
    told = [
        [(each.task, each.verdict.reason, each.verdict.clock) for each in held_by(found)] for found in (alone, whole)
    ]
    assert told[0] == told[1][len(older) :], "but for what is told of this moment"
    assert sorted(map(str, (*alone.left, *alone.reserved))) == sorted(map(str, (*whole.left, *whole.reserved)))


def test_from_when_on_nodes_are_reserved() -> None:
    nodes = [HEAD, worker("11"), worker("12", free=1)]
    old = replace(task(1, rl(2, 4)), overtaken_since=100.0)
    assert run([old], nodes, now=500).reserves_at == 700
    assert run([old], nodes, now=5000).reserves_at == 5500, "more of them, then"
    assert run([old, task(2, rl(2, 4))], nodes, now=500).reserves_at == 700
    assert run([task(1, rl(1, 1))], nodes).reserves_at is None
    assert run([replace(task(1, rl(1, 8)), overtaken_since=100.0)], nodes).reserves_at is None, "it could never start"


def test_reasons_name_no_other_task_or_node() -> None:
    decision = run([task(i, rl(1, 3)) for i in range(1, 9)], TWO_WORKERS)
    for hold in holds(decision):
        for reason in (hold.reason, hold.seen or hold.reason):
            assert reason is not None and "argus-" not in words(reason) and "10.0.0" not in words(reason)


def test_a_cordoned_node_is_neither_given_nor_reserved_and_is_left_to_be_told() -> None:
    cordoned = replace(worker("12", free=0), is_cordoned=True)
    nodes = [worker("11"), cordoned, worker("13", free=2)]
    old = replace(task(1, rl(2, 4)), overtaken_since=0.0)
    decision = run([old, task(2, rl(1, 1))], nodes, now=90_000)
    assert admitted(decision) == []
    assert sorted(node.node_id for node in decision.reserved) == ["11", "13"]
    assert decision.left == (cordoned,)
    wide = replace(task(1, rl(3, 4)), overtaken_since=0.0)
    decision = run([wide, task(2, rl(1, 1))], nodes, now=90_000)
    assert (admitted(decision), decision.reserved, decision.reserves_at) == ([2], (), None)
    (held,) = held_by(decision)
    assert held.verdict.reason == because(Code.NODES_CORDONED, nodes=3, gpus=4, cpus=12.0, able=2, cordoned=1)


gangs = st.builds(rl, st.integers(1, 3), st.sampled_from([1, 2, 4, 8]))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(gangs, st.sampled_from([None, 0.0])), max_size=8),
    st.lists(
        st.tuples(st.sampled_from([2, 4, 8]), st.sampled_from([0, 1, 2, 2.5, 4, 7.5, 8]), st.sampled_from([0, 1, 9])),
        min_size=1,
        max_size=5,
    ),
)
def test_every_admitted_gang_fits_on_its_nodes_and_no_gpu_is_given_twice(
    gangs: list[tuple[Gang, float | None]], shape: list[tuple[int, float, int]]
) -> None:
    nodes = [
        replace(worker(str(i), g, free=min(f, g), cpus=64), worker_slots_free=s) for i, (g, f, s) in enumerate(shape)
    ]
    queue = [replace(task(i, gang), overtaken_since=since) for i, (gang, since) in enumerate(gangs)]
    decision = run(queue, nodes, now=700)
    free = {n.node_id: [n.gpus_free, n.cpus_free, n.worker_slots_free] for n in nodes}
    for each in decision.admitted:
        chosen = decision.nodes_of[each.task_id]
        assert len(set(chosen)) == len(chosen) == each.gang.nnodes
        for key in chosen:
            free[key][0] -= each.gang.gpus_per_node
            free[key][1] -= each.gang.cpus_per_node
        free[chosen[0]][2] -= 1
    assert all(min(values) >= -1e-3 for values in free.values())
    after = (*decision.left, *decision.reserved)
    assert {n.node_id: [n.gpus_free, n.cpus_free, n.worker_slots_free] for n in after} == free
    assert len(decision.admitted) + len(held_by(decision)) == len(queue)
    # Work conserving: who waits for room finds none in what is left.
    for held in held_by(decision):
        fitting = [n for n in decision.left if n.gpus_free + 1e-4 >= held.task.gang.gpus_per_node]
        with_cpus = [n for n in fitting if n.cpus_free + 1e-4 >= held.task.gang.cpus_per_node]
        has_driver = any(n.worker_slots_free >= 1 for n in with_cpus)
        assert len(with_cpus) < held.task.gang.nnodes or not has_driver


def test_a_long_line_is_decided_with_few_fits() -> None:
    queue = [task(i, rl(1 + i % 2, 1 + i % 4)) for i in range(10_000)]
    decision = run(queue, TWO_WORKERS)
    assert len(decision.admitted) + len(holds(decision)) == 10_000


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_the_queue_argument_does_not_matter(order: tuple[int, ...]) -> None:
    queue = [task(i, rl(1, 4)) for i in range(3)]
    assert admitted(run([queue[i] for i in order], TWO_WORKERS)) == [0, 1]
