"""How far a wall clock was stepped: one row a case."""

from __future__ import annotations

import pytest

from argus_ray.core.clock_steps import DOUBT_S, ClockSteps


@pytest.mark.parametrize(
    ("off_s", "expected"),
    [(0.0, 0), (1.9, 0), (-1.9, 0), (2.0, 2), (3600.3, 3600), (-3599.8, -3600), (1e9, 1_000_000_000)],
)
def test_a_step_is_told_until_it_is_settled(off_s: float, expected: int) -> None:
    steps = ClockSteps.begin(5000.0, 100.0)
    assert steps.unsettled(5060.0, 160.0) == 0, "time that passes is no step"
    assert [steps.unsettled(5060.0 + off_s, 160.0) for _ in range(2)] == [expected, expected]
    steps.settle(expected, 160.0)
    assert steps.unsettled(9060.0 + off_s, 4160.0) == 0


def test_small_steps_add_up() -> None:
    steps = ClockSteps.begin(0.0, 0.0)
    assert [steps.unsettled(1.5 * k, 0.0) for k in range(3)] == [0, 0, 3]


def test_a_step_forward_is_doubted_for_a_day_and_one_back_is_believed() -> None:
    steps = ClockSteps.begin(1000.0, 0.0)
    assert steps.certain(8200.0, 0.0) == 1000.0, "before anybody has settled it"
    steps.settle(7200, 0.0)
    assert steps.certain(8200.0 + DOUBT_S - 1, DOUBT_S - 1) == 1000.0 + DOUBT_S - 1
    assert steps.certain(8200.0 + DOUBT_S, DOUBT_S) == 8200.0 + DOUBT_S
    steps.settle(-3600, DOUBT_S)
    assert steps.certain(4600.0 + DOUBT_S, DOUBT_S) == 4600.0 + DOUBT_S
