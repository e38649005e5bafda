"""The scheduling decision as tables: facts in, admissions and reasons out. No Ray, no clock."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus_ray.core.admission import AdmissionPolicy, Claim, Decision, decide
from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import Gang, NodeView, SlimTask
from argus_ray.core.reasons import Code, because, words
from argus_ray.core.states import TaskState

POLICY = AdmissionPolicy(max_overtake_s=600, retry_interval_s=60)


def rl(nnodes: int, gpus: int) -> Gang:
    return Gang(nnodes, gpus, 3.0 * gpus, 3.0)


def task(seq: int, gang: Gang, state: TaskState = TaskState.QUEUED) -> SlimTask:
    return SlimTask(f"argus-u-grpo-20260101-000000-{seq:04x}", "u", seq, state, gang)


def worker(name: str, gpus: float = 4, *, free: float | None = None, cpus: float = 24) -> NodeView:
    gpus_free = gpus if free is None else free
    cpus_free = cpus - 3 * (gpus - gpus_free)
    return NodeView(name, f"10.0.0.{name}", False, gpus, cpus, gpus_free, cpus_free, 100, 100)


HEAD = NodeView("head", "10.0.0.1", True, 0, 0, 0, 0, 0, 0)
TWO_WORKERS = [HEAD, worker("11"), worker("12")]


def run(queue: list[SlimTask], nodes: list[NodeView], claims: list[Claim] | None = None, now: float = 0.0) -> Decision:
    return decide(queue, nodes, claims or [], now, POLICY)


def admitted(decision: Decision) -> list[int]:
    return [t.seq for t in decision.admitted]


def holds(decision: Decision) -> list[Hold]:
    """When all that were admitted start."""
    return list(decision.holds(decision.admitted))


def reason_of(decision: Decision, held: SlimTask) -> str:
    """As seen at this moment."""
    return next(words(each.seen or each.reason or "") for each in decision.held if each.task is held)


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
    assert holds(decision)[0].overtaken_since is None
    once_possible = replace(wide, overtaken_since=1.0)
    assert holds(run([once_possible], TWO_WORKERS, now=100))[0].overtaken_since is None


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
    hold = next(h for h in holds(first) if h.task_id == big.task_id)
    assert hold.overtaken_since == 100
    waiting = replace(big, state=TaskState.PENDING_RESOURCES, reason=hold.reason, overtaken_since=100)
    assert admitted(run([waiting, small], nodes, now=699)) == [2]
    barred = run([waiting, small], nodes, now=700)
    assert admitted(barred) == []
    assert "nothing younger" in reason_of(barred, small)


def test_what_could_never_start_says_so_behind_an_older_task_too() -> None:
    old = replace(task(1, rl(2, 4)), overtaken_since=0.0)
    wide, small = task(2, rl(1, 8)), task(3, rl(1, 1))
    decision = run([old, wide, small], [HEAD, worker("11"), worker("12", free=1)], now=9999)
    assert admitted(decision) == []
    assert "no node has 8 GPUs" in reason_of(decision, wide) and "nothing younger" in reason_of(decision, small)


def test_the_overtaking_clock_starts_only_when_something_overtakes() -> None:
    decision = run([task(1, rl(2, 4)), task(2, rl(2, 4))], [HEAD, worker("11"), worker("12", free=1)], now=5)
    assert [hold.overtaken_since for hold in holds(decision)] == [None, None]


def test_a_refused_task_is_not_tried_again_before_its_time() -> None:
    refused = replace(task(1, rl(1, 1)), state=TaskState.PENDING_RESOURCES, not_before=50.0)
    decision = run([refused], TWO_WORKERS, now=49)
    assert admitted(decision) == [] and holds(decision) == []
    assert decision.due() == 50, "nothing else must happen for it"
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
@pytest.mark.parametrize("unseen", [0, 1, 2])
def test_what_is_stored_does_not_change_with_what_is_free(free: float, slots: int, unseen: int) -> None:
    big = task(1, rl(2, 4))
    nodes = [HEAD, replace(worker("11", free=free), worker_slots_free=slots), worker("12")]
    decision = run([big], nodes, [Claim(rl(1, 1), unseen_nodes=1)] * unseen)
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
    st.sampled_from([0.0, 599.0, 600.0, 700.0]),
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
    barred = before.barred_at is not None and before.barred_at <= now
    alone = decide(came, nodes, [], now, POLICY, barred=barred)
    whole = run([*older, *came], nodes, now=now)
    assert alone.admitted == whole.admitted
    assert alone.held == whole.held[len(older) :]


def test_from_when_on_older_tasks_bar_the_way() -> None:
    nodes = [HEAD, worker("11"), worker("12", free=1)]
    old = replace(task(1, rl(2, 4)), overtaken_since=100.0)
    assert run([old], nodes, now=500).barred_at == 700
    assert run([old], nodes, now=5000).barred_at == 700
    assert run([old, task(2, rl(2, 4))], nodes, now=5000).barred_at == 700
    assert run([task(1, rl(1, 1))], nodes).barred_at is None
    assert run([replace(task(1, rl(1, 8)), overtaken_since=100.0)], nodes).barred_at is None, "it could never start"


def test_reasons_name_no_other_task_or_node() -> None:
    decision = run([task(i, rl(1, 3)) for i in range(1, 9)], TWO_WORKERS)
    for hold in holds(decision):
        for reason in (hold.reason, hold.seen):
            assert reason is not None and "argus-" not in words(reason) and "10.0.0" not in words(reason)


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
    assert len(decision.admitted) + len(holds(decision)) == 10_000


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_the_queue_argument_does_not_matter(order: tuple[int, ...]) -> None:
    queue = [task(i, rl(1, 4)) for i in range(3)]
    assert admitted(run([queue[i] for i in order], TWO_WORKERS)) == [0, 1]
