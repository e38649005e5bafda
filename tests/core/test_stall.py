"""When a running attempt counts as stalled, and what is said: one row a case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus_ray.core.lifecycle import Stall
from argus_ray.core.model import Attempt, Gang
from argus_ray.core.stall import Growth, MetricsSeen, StallPolicy, check_stall, follow
from argus_ray.core.states import AttemptState

NAME = "argus-u-sft-20260101-000000-abcd--a01"
RUNNING = Attempt(NAME, NAME[:-5], 1, AttemptState.RUNNING, 0.0, "/j", started_at=1000.0)
GANG = Gang(2, 4, 12.0)
TELL, STOP, OFF = StallPolicy(600.0), StallPolicy(600.0, stop=True), StallPolicy(0.0, stop=True)
NOT_GROWN, NO_STEP = "its metrics file has not grown", "it has made no step at all"
HOLDS_4 = "waits for its placement group: holds 4 of 8 GPUs"


@pytest.mark.parametrize(
    ("known", "seen", "expected"),
    [
        # The first look: the file's time, but never before the start nor in the future.
        (None, MetricsSeen(), Growth(0, 1000.0)),
        (None, MetricsSeen(10, 1500.0), Growth(10, 1500.0)),
        (None, MetricsSeen(10, 500.0), Growth(10, 1000.0)),
        (None, MetricsSeen(10, 99_999.0), Growth(10, 2000.0)),
        (None, MetricsSeen(0, 1500.0), Growth(0, 1000.0)),
        # From then on the size alone: whoever touches the file makes no step.
        (Growth(10, 1500.0), MetricsSeen(10, 1990.0), Growth(10, 1500.0)),
        (Growth(10, 1500.0), MetricsSeen(11, 1.0), Growth(11, 2000.0)),
        (Growth(10, 1500.0), MetricsSeen(3, 1990.0), Growth(3, 1500.0)),
        (Growth(10, 1500.0), MetricsSeen(), Growth(0, 1500.0)),
        (Growth(0, 1000.0), MetricsSeen(1, 1.0), Growth(1, 2000.0)),
    ],
)
def test_growth(known: Growth | None, seen: MetricsSeen, expected: Growth) -> None:
    assert follow(known, seen, 1000.0, 2000.0) == expected


def stalled(since: float, why: str, stop_reason: str | None = None) -> Stall:
    return Stall(NAME, since, why, stop_reason)


@pytest.mark.parametrize(
    ("policy", "size", "grown_at", "held", "now", "expected"),
    [
        (TELL, 10, 1000.0, 8.0, 1599.0, None),
        (TELL, 10, 1000.0, 8.0, 1600.0, stalled(1000.0, NOT_GROWN)),
        (TELL, 0, 1000.0, 8.0, 1600.0, stalled(1000.0, NO_STEP)),
        (TELL, 0, 1000.0, 4.0, 1600.0, stalled(1000.0, HOLDS_4)),
        (TELL, 10, 1000.0, 4.0, 1600.0, stalled(1000.0, HOLDS_4)),
        (TELL, 0, 1000.0, 0.0, 1600.0, stalled(1000.0, "waits for its placement group: holds 0 of 8 GPUs")),
        (TELL, 0, 1000.0, 4.0, 1599.0, None),
        (STOP, 10, 1000.0, 8.0, 1599.0, None),
        (STOP, 10, 1000.0, 8.0, 1600.0, stalled(1000.0, NOT_GROWN, f"no new step for 600 s: {NOT_GROWN}")),
        (OFF, 0, 0.0, 0.0, 99_999.0, None),
        # The clock went back.
        (TELL, 10, 1000.0, 8.0, 500.0, None),
    ],
)
def test_an_attempt_that_was_well(
    policy: StallPolicy, size: int, grown_at: float, held: float, now: float, expected: Stall | None
) -> None:
    assert check_stall(RUNNING, GANG, Growth(size, grown_at), held, now, policy) == expected


@pytest.mark.parametrize(
    ("policy", "grown_at", "held", "expected"),
    [
        (TELL, 1000.0, 8.0, None),  # told already
        (TELL, 990.0, 8.0, None),  # a new scheduler, by the file's time
        (TELL, 1200.0, 8.0, stalled(1200.0, NOT_GROWN)),  # a step that nobody saw, and none after it
        (TELL, 1000.0, 4.0, stalled(1000.0, HOLDS_4)),
        (TELL, 1900.0, 8.0, Stall(NAME)),
        (STOP, 1900.0, 8.0, Stall(NAME)),
        (STOP, 1000.0, 8.0, stalled(1000.0, NOT_GROWN, f"no new step for 1000 s: {NOT_GROWN}")),
        (OFF, 1000.0, 8.0, Stall(NAME)),
    ],
)
def test_an_attempt_that_was_stalled(policy: StallPolicy, grown_at: float, held: float, expected: Stall | None) -> None:
    attempt = replace(RUNNING, stalled_since=1000.0, stalled_why=NOT_GROWN)
    assert check_stall(attempt, GANG, Growth(10, grown_at), held, 2000.0, policy) == expected


@pytest.mark.parametrize("state", [state for state in AttemptState if state is not AttemptState.RUNNING])
def test_only_what_runs_can_stall(state: AttemptState) -> None:
    assert check_stall(replace(RUNNING, state=state), GANG, Growth(0, 0.0), 0.0, 9999.0, STOP) is None


def test_one_that_is_being_stopped_is_left_alone() -> None:
    attempt = replace(RUNNING, stalled_since=1000.0, stalled_why=NOT_GROWN, stop_reason="x")
    for growth in (Growth(0, 0.0), Growth(10, 9999.0)):
        assert check_stall(attempt, GANG, growth, 0.0, 9999.0, STOP) is None
