"""The range that a task is told, on pools small enough to work it out by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from argus_ray.core.admission import AdmissionPolicy, decide
from argus_ray.core.decision import Decision
from argus_ray.core.estimates import Basis, Range, Unknown, Verdict, judge
from argus_ray.core.forecast import draw
from argus_ray.core.forecast.draw import HIGH, LOW
from argus_ray.core.forecast.model import Odds, Question, Run
from argus_ray.core.forecast.ranges import FEW, MARGIN, MARGIN_S, MIN_DRAWS, foretell
from argus_ray.core.model import Gang, NodeView, SlimAttempt, SlimTask
from argus_ray.core.quotas import Quotas
from argus_ray.core.reasons import Code, because
from argus_ray.core.shares import Use
from argus_ray.core.states import AttemptState, TaskState

NOW = 1_000_000.0
POLICY = AdmissionPolicy(600.0, 60.0)
WHOLE = Gang(1, 4, 12.0)
#: Of runs that always take as long as was foretold, and always come to their end.
EXACT = {"sft": Odds((1.0,) * 20, (1.0,) * 20)}


def node(name: str, free: float = 4.0, **more: object) -> NodeView:
    made = NodeView(name, name, False, 4.0, 48.0, free, 12 * free, 10.0, 10.0)
    return replace(made, **more)  # type: ignore[arg-type]


def running(seq: int, nodes: str, *seconds: float, gang: Gang = WHOLE, **more: object) -> Run:
    attempt = SlimAttempt(
        f"r{seq}--a01", f"r{seq}", 1, AttemptState.RUNNING, NOW, "", started_at=NOW, nodes=tuple(nodes.split())
    )
    task = SlimTask(f"r{seq}", "ada", seq, TaskState.RUNNING, gang, live=attempt)
    return replace(Run(task, "sft", seconds), **more)  # type: ignore[arg-type]


def waiting(seq: int, *seconds: float, gang: Gang = WHOLE, user: str = "ada", **more: object) -> Run:
    task = SlimTask(f"w{seq}", user, seq, TaskState.PENDING_RESOURCES, gang)
    why = None if seconds else Unknown.NO_HISTORY_AHEAD
    return Run(replace(task, **more), "sft", seconds, why, is_by_history=True)  # type: ignore[arg-type]


def asked(*runs: Run, nodes: tuple[NodeView, ...] = (node("a", 0.0),), **more: object) -> dict[str, Range | Unknown]:
    lives = tuple(run for run in runs if run.task.live is not None)
    line = tuple(run for run in runs if run.task.live is None)
    question = replace(Question(NOW, POLICY, nodes, lives, line, odds=EXACT, draws=40), **more)  # type: ignore[arg-type]
    return {each.task_id: each.start for each in foretell(question, random.Random(1).random)}


def about(start: Range | Unknown, seconds: float, *, basis: Basis = Basis.ASSUMES_NO_OVERTAKING) -> bool:
    """Around this many seconds from now, and no wider than its margins."""
    assert isinstance(start, Range), start
    slack = 2 * (MARGIN * (1 + FEW / 40) * seconds + MARGIN_S) + 15
    is_around = start.earliest <= NOW + seconds <= start.latest
    return is_around and start.latest - start.earliest <= slack and start.basis is basis


def test_a_task_starts_when_what_runs_has_ended() -> None:
    assert about(asked(running(1, "a", 1000.0), waiting(2))["w2"], 1000)


def test_the_tasks_before_it_come_first() -> None:
    alike = (2000.0,) * 20
    found = asked(running(1, "a", 1000.0), waiting(2, *alike), waiting(3, *alike), waiting(4))
    assert about(found["w3"], 3000) and about(found["w4"], 5000)


def test_a_gang_waits_for_its_nodes_and_lets_others_pass() -> None:
    nodes = (node("a", 0.0), node("b", 0.0))
    gang = waiting(3, gang=Gang(2, 4, 12.0))
    found = asked(running(1, "a", 1000.0), running(2, "b", 5000.0), gang, waiting(4, *(300.0,) * 20), nodes=nodes)
    assert about(found["w4"], 1000) and about(found["w3"], 5000)


def test_little_known_runs_make_a_wide_range() -> None:
    start = asked(running(1, "a", 1000.0), waiting(2), odds={})["w2"]
    assert isinstance(start, Range)
    assert start.earliest < NOW + 1000 * LOW * 1.1 and start.latest > NOW + 1000 * HIGH * 0.9


def test_runs_that_fail_early_make_it_sooner() -> None:
    odds = {"sft": Odds((1.0,) * 20, (1.0,) * 10 + (0.5,) * 10)}
    start = asked(running(1, "a", 1000.0), waiting(2), odds=odds)["w2"]
    assert isinstance(start, Range) and start.earliest < NOW + 500 and start.latest > NOW + 1000
    past = asked(running(1, "a", 1000.0, done=0.6), waiting(2), odds=odds)["w2"]
    assert about(past, 1000), "those that fail have failed by now"


def test_what_is_not_known_is_told_as_such() -> None:
    for why in (Unknown.STALLED, Unknown.NO_PACE_YET, Unknown.NO_TOTAL_STEPS):
        assert asked(running(1, "a", why=why), waiting(2))["w2"] is why
    found = asked(running(1, "a", 1000.0), waiting(2), waiting(3))
    assert about(found["w2"], 1000) and found["w3"] is Unknown.NO_HISTORY_AHEAD


def test_a_future_is_over_once_no_run_ends_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reservations grow for ever, and start nothing: what waits behind a run without an end costs a decision or two in
    each future, and not one for each ten minutes of two weeks."""
    decisions = []

    def counted(*args: Any, **more: Any) -> Decision:
        decisions.append(args)
        return decide(*args, **more)

    monkeypatch.setattr(draw, "decide", counted)
    old = waiting(2, 100.0, gang=replace(WHOLE, nnodes=2), overtaken_since=NOW - 700)
    nodes = (node("a", 0.0), node("b"))
    found = asked(running(1, "a", why=Unknown.STALLED), old, waiting(3, 100.0), nodes=nodes)
    assert found == {"w2": Unknown.STALLED, "w3": Unknown.STALLED}
    assert len(decisions) <= 10 * 40


def test_what_is_not_in_the_way_need_not_be_known() -> None:
    nodes = (node("a", 0.0), node("b", 0.0, gpus_total=1.0, cpus_total=12.0))
    small = Gang(1, 1, 1.0)
    found = asked(running(1, "a", 1000.0), running(2, "b", why=Unknown.STALLED, gang=small), waiting(3), nodes=nodes)
    assert about(found["w3"], 1000)


def test_a_task_that_was_overtaken_for_long_enough_has_a_firm_range() -> None:
    long_ago = NOW - POLICY.max_overtake_s
    start = asked(running(1, "a", 1000.0), waiting(2, overtaken_since=long_ago))["w2"]
    assert isinstance(start, Range) and start.basis is Basis.FIRM
    assert start.latest >= NOW + 1000 * HIGH, "all that a run may take"
    assert about(asked(running(1, "a", 1000.0), waiting(2, overtaken_since=long_ago + 1))["w2"], 1000)
    barred = node("b", 0.0, barred="it does not answer")
    overtaken = waiting(2, overtaken_since=long_ago)
    start = asked(running(1, "a", 1000.0), overtaken, nodes=(node("a", 0.0), barred))["w2"]
    assert isinstance(start, Range) and start.basis is Basis.ASSUMES_NO_OVERTAKING


def test_who_cannot_start_is_told_why_and_keeps_nobody() -> None:
    large, troubled = waiting(2, gang=Gang(2, 4, 12.0)), waiting(3, reason=because(Code.BAD_INPUTS, what="gone"))
    found = asked(running(1, "a", 1000.0), large, troubled, waiting(4))
    assert found["w2"] is Unknown.NEVER_FITS and found["w3"] is Unknown.OWN_TROUBLE
    assert about(found["w4"], 1000)


def test_a_quota_holds_back_its_own_user_alone() -> None:
    nodes = (node("a", 0.0), node("b"))
    policy = replace(POLICY, quotas=Quotas(4))
    found = asked(running(1, "a", 1000.0), waiting(2), waiting(3, user="bob"), nodes=nodes, policy=policy)
    assert about(found["w2"], 1000) and about(found["w3"], 0)
    small = replace(POLICY, quotas=Quotas(3))
    assert asked(running(1, "a", 1000.0), waiting(2), nodes=nodes, policy=small)["w2"] is Unknown.OVER_QUOTA


def test_fair_share_goes_by_what_users_will_have_had() -> None:
    policy = replace(POLICY, half_life_s=86_400.0)
    alike = (2000.0,) * 20
    line = (waiting(2, *alike), waiting(3, *alike, user="bob"))
    found = asked(running(1, "a", 1000.0), *line, policy=policy, used={"ada": Use(1e6, NOW)})
    assert about(found["w3"], 1000) and about(found["w2"], 3000)


def test_nobody_waits_for_a_cordoned_node_or_before_its_own_time() -> None:
    cordoned = node("b", 0.0, barred="cordoned", is_cordoned=True)
    nodes = (node("a", 0.0), cordoned)
    found = asked(running(1, "a", 1000.0), running(2, "b", 10.0), waiting(3), nodes=nodes)
    assert about(found["w3"], 1000)
    assert about(asked(waiting(2, not_before=NOW + 500), nodes=(node("a"),))["w2"], 500)


def test_what_a_drain_stops_comes_back_to_its_place() -> None:
    drained = node("b", 0.0, barred="draining", is_cordoned=True)
    stopped = running(1, "b", 5000.0, deadline=NOW + 100)
    found = asked(running(2, "a", 1000.0), stopped, waiting(3), nodes=(node("a", 0.0), drained))
    assert about(found["w3"], 1000 + 4900)


def test_a_forecast_that_was_cut_short_tells_nothing() -> None:
    question = Question(NOW, POLICY, (node("a", 0.0),), (running(1, "a", 10.0),), (waiting(2),), odds=EXACT)
    found = foretell(question, random.Random(1).random, lambda played: played < MIN_DRAWS - 1)
    assert [each.start for each in found] == [Unknown.NOT_YET]
    found = foretell(question, random.Random(1).random, lambda played: played < MIN_DRAWS)
    assert isinstance(found[0].start, Range)


def test_a_range_is_judged_by_its_ends() -> None:
    told = Range(10.0, 20.0, Basis.FIRM)
    judged = [judge(told, at) for at in (9.9, 10.0, 20.0, 20.1)]
    assert judged == [Verdict.EARLY, Verdict.INSIDE, Verdict.INSIDE, Verdict.LATE]
    assert judge(None, 1.0) is Verdict.NONE
