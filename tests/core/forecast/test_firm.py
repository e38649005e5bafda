"""A firm range: whatever ends sooner than it may, whatever comes, the task starts no later than told."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from argus_ray.core.estimates import Basis, Range, Unknown
from argus_ray.core.forecast.draw import UNPROVEN, Future, longest
from argus_ray.core.forecast.model import Odds, Question, Run
from argus_ray.core.forecast.ranges import foretell
from argus_ray.core.model import Gang, NodeView
from argus_ray.core.reasons import Code, because
from tests.core.forecast.test_ranges import EXACT, NOW, POLICY, node, running, waiting

BOUND_S = POLICY.max_overtake_s
EXACTLY = EXACT["sft"]


def question(*runs: Run, nodes: tuple[NodeView, ...], odds: Mapping[str, Odds] = EXACT) -> Question:
    lives = tuple(run for run in runs if run.task.live is not None)
    line = tuple(run for run in runs if run.task.live is None)
    return Question(NOW, POLICY, nodes, lives, line, odds=odds, draws=20)


def told(asked: Question, name: str) -> Range | Unknown:
    return {each.task_id: each.start for each in foretell(asked, random.Random(1).random)}[name]


def is_firm(asked: Question, name: str) -> bool:
    start = told(asked, name)
    return isinstance(start, Range) and start.basis is Basis.FIRM


def started(asked: Question, lasted: Mapping[int, float], *came: Run) -> dict[str, float]:
    """What came to pass, by the real decision. `lasted`: seconds of each run, from now or from its start."""
    ends = {run.task.seq: NOW + lasted[run.task.seq] for run in asked.running}
    later = replace(asked, waiting=(*asked.waiting, *came))
    return Future(later, ends, lasted).play()


def of(gpus: int, nnodes: int = 1) -> Gang:
    return Gang(nnodes, gpus, float(gpus))


def pool_in_which_the_reservation_moves(overtaken_s: float) -> Question:
    """Node a is the nearest one to w5. Once two of its runs fail it is b, where somebody runs for a day."""
    runs = [
        running(1, "a", 1000.0, gang=of(2)),
        running(2, "b", 80_000.0, gang=of(1)),
        running(3, "b", 3000.0, gang=of(3)),
    ]
    line = [waiting(5, gang=of(4), overtaken_since=NOW - overtaken_s)]
    line += [waiting(6, 50_000.0, gang=of(2))]
    return question(*runs, *line, nodes=(node("a", 2.0), node("b", 0.0)))


def test_a_reservation_that_moves_is_no_promise() -> None:
    asked = pool_in_which_the_reservation_moves(BOUND_S)
    late = started(asked, {1: 1000.0, 2: 80_000.0, 3: 10.0, 5: 10.0, 6: 50_000.0})["w5"]
    assert late > NOW + 50_000, "w6 took what the reservation had left, and began first"
    start = told(asked, "w5")
    assert isinstance(start, Range) and start.latest < late and start.basis is Basis.ASSUMES_NO_OVERTAKING


def test_what_is_kept_whole_is_a_promise() -> None:
    asked = pool_in_which_the_reservation_moves(2 * BOUND_S)
    start = told(asked, "w5")
    assert isinstance(start, Range) and start.basis is Basis.FIRM
    for early in (10.0, 900.0, 3000.0):
        assert started(asked, {1: 1000.0, 2: 80_000.0, 3: early, 5: 10.0, 6: 50_000.0})["w5"] <= start.latest


def test_who_comes_back_or_is_looked_at_again_may_come_first() -> None:
    overdue: dict[str, Any] = {"overtaken_since": NOW - BOUND_S}
    one = (node("a", 0.0),)
    assert is_firm(question(running(1, "a", 1000.0), waiting(5, **overdue), nodes=one), "w5")
    troubled = waiting(2, 9000.0, reason=because(Code.BAD_INPUTS, what="gone"))
    assert not is_firm(question(running(1, "a", 1000.0), troubled, waiting(5, **overdue), nodes=one), "w5")
    early = waiting(2, 9000.0, not_before=NOW + 5000)
    assert not is_firm(question(running(1, "a", 1000.0), early, waiting(5, **overdue), nodes=one), "w5")
    itself = waiting(5, not_before=NOW + 5000, **overdue)
    assert not is_firm(question(running(1, "a", 1000.0), itself, nodes=one), "w5"), "nothing is kept for it before then"
    drained = running(2, "b", 9000.0, deadline=NOW + 10)
    both = (node("a", 0.0), node("b", 0.0, barred="draining", is_cordoned=True))
    assert not is_firm(question(running(1, "a", 1000.0), drained, waiting(5, **overdue), nodes=both), "w5")


def test_a_node_that_is_cordoned_for_now_counts() -> None:
    both = (node("a", 0.0), node("b", barred="cordoned", is_cordoned=True))
    runs = running(1, "a", 1000.0), running(2, "b", 50.0)
    for periods in (1, 2):
        asked = question(*runs, waiting(5, overtaken_since=NOW - periods * BOUND_S), nodes=both)
        assert is_firm(asked, "w5") is (periods == 2)


def test_a_pace_that_was_never_seen_to_hold_promises_little() -> None:
    run = running(1, "a", 1000.0)
    assert longest(run, Odds()) == UNPROVEN * 1000 + 60 > longest(run, EXACTLY)
    assert longest(replace(run, is_by_history=True), EXACTLY) == UNPROVEN * 1000 + 60
    assert longest(run, Odds((1.0,) * 19 + (4.0,), ())) == 5060


def test_the_last_step_counts_however_near_the_end_is() -> None:
    """Nothing is left by its pace, and it validates for minutes: a task that waits for it was told a minute."""
    near = running(1, "a", 30.0, slack=400.0, tail=50.0)
    assert longest(near, EXACTLY) == 1.6 * 30 + 400 + 50 + 60
    asked = question(near, waiting(5, overtaken_since=NOW - BOUND_S), nodes=(node("a", 0.0),))
    start = told(asked, "w5")
    assert (
        isinstance(start, Range)
        and start.basis is Basis.FIRM
        and started(asked, {1: 430.0, 5: 1.0})["w5"] < start.latest
    )
    open_to_others = question(near, waiting(5), nodes=(node("a", 0.0),))
    start = told(open_to_others, "w5")
    assert isinstance(start, Range) and start.earliest < NOW + 100 and start.latest > NOW + 350


@pytest.mark.parametrize("seed", range(60))
def test_firm_holds_in_any_pool(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(2, 3)
    free = {chr(97 + number): 4 for number in range(count)}
    runs = []
    for seq in range(1, 9):
        gang = of(rng.choice([1, 2, 3]))
        name = rng.choice(sorted(free))
        if free[name] >= gang.gpus_per_node:
            free[name] -= gang.gpus_per_node
            runs.append(running(seq, name, rng.uniform(100, 20_000), gang=gang))
    gang = of(4, rng.randint(1, count))
    nodes = tuple(node(name, float(left)) for name, left in free.items())
    if sum(each.gpus_free >= 4 for each in nodes) >= gang.nnodes:
        return  # it need not wait
    overtaken_s = BOUND_S * rng.randint(1, 3)
    line = [waiting(20, gang=gang, overtaken_since=NOW - overtaken_s)]
    line += [waiting(seq, rng.uniform(100, 50_000), gang=of(rng.choice([1, 2, 4]))) for seq in range(21, 25)]
    asked = question(*runs, *line, nodes=nodes)
    start = told(asked, "w20")
    assert isinstance(start, Range)
    assert (start.basis is Basis.FIRM) is (gang.nnodes * overtaken_s / BOUND_S >= count)
    if start.basis is not Basis.FIRM:
        return
    for _ in range(8):
        lasted = {run.task.seq: rng.choice([0.01, 1.0, rng.random()]) * longest(run, EXACTLY) for run in runs}
        lasted |= {seq: rng.uniform(100, 90_000) for seq in range(20, 30)}
        came = [waiting(seq, 1.0, gang=of(rng.choice([1, 2, 4]))) for seq in range(25, 30)]
        assert started(asked, lasted, *came)["w20"] <= start.latest
