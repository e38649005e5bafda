"""The watchdog's choice, row by row, and the launcher's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus_ray.discovery.head_json import HeadRecord, Reading, ReadOutcome
from argus_ray.node.decision import (
    LEAVE_AFTER_S,
    Joined,
    Verb,
    Versions,
    WatchdogDecision,
    backoff_s,
    decide,
    may_take_over,
)
from argus_ray.node.fitness import Trouble

MINE = Versions(ray="2.60.0", python="3.11.7")
RECORD = HeadRecord("argus", "10.0.0.1", 6379, 8265, "http://10.0.0.1:8000", 7, "s1", "2.60.0", "3.11.7", 100.0, 115.0)
VALID = Reading(ReadOutcome.VALID, "fine", RECORD)
IN = Joined("10.0.0.1:6379", "s1", 7)
#: Every way not to be valid, with a record where the reader gives one.
BAD = [
    Reading(
        outcome, "the words of the reader", RECORD if outcome in (ReadOutcome.EXPIRED, ReadOutcome.CLOCK_SKEW) else None
    )
    for outcome in ReadOutcome
    if outcome is not ReadOutcome.VALID
]


def look(
    reading: Reading = VALID,
    joined: Joined | None = None,
    alive: bool = False,
    retry_at: float = 0.0,
    now: float = 50.0,
    trouble: Trouble | None = None,
    busy: bool = False,
) -> WatchdogDecision:
    return decide(reading, joined, alive, retry_at, now, MINE, trouble, lambda: busy)


def names(found: Reading) -> str:
    return found.outcome.name


@pytest.mark.parametrize("reading", BAD, ids=names)
def test_not_joined_and_no_good_file_waits_and_says_why(reading: Reading) -> None:
    decision = look(reading)
    assert decision.verb is Verb.WAIT
    assert reading.outcome.value in decision.reason
    assert reading.message in decision.reason


@pytest.mark.parametrize("reading", BAD, ids=names)
def test_joined_and_no_good_file_stays(reading: Reading) -> None:
    decision = look(reading, IN, alive=True)
    assert decision.verb is Verb.STAY
    assert reading.message in decision.reason


@pytest.mark.parametrize("reading", [VALID, *BAD], ids=names)
def test_a_dead_raylet_leaves_whatever_the_file_says(reading: Reading) -> None:
    assert look(reading, IN, alive=False).verb is Verb.LEAVE


@pytest.mark.parametrize("reading", [VALID, *BAD], ids=names)
def test_where_programs_cannot_start_an_idle_machine_leaves_after_a_while(reading: Reading) -> None:
    trouble = Trouble("the shared root has gone", LEAVE_AFTER_S)
    assert look(reading, IN, alive=True, trouble=trouble).verb is Verb.LEAVE
    assert look(reading, IN, alive=True, trouble=trouble, busy=True).verb is Verb.STAY
    young = look(reading, IN, alive=True, trouble=replace(trouble, lasts_s=LEAVE_AFTER_S - 1))
    assert young.verb is Verb.STAY


def test_where_programs_cannot_start_none_joins_and_it_says_so() -> None:
    decision = look(trouble=Trouble("python3 does not start", 0.0))
    assert decision == WatchdogDecision(Verb.WAIT, "programs cannot start here: python3 does not start")


def test_not_joined_and_a_good_file_joins() -> None:
    assert look() == WatchdogDecision(Verb.JOIN, "10.0.0.1:6379, epoch 7")


@pytest.mark.parametrize(
    ("change", "verb"),
    [
        ({}, Verb.STAY),
        ({"updated_at": 105.0, "expires_at": 120.0}, Verb.STAY),
        ({"api_url": "http://elsewhere:8000", "dashboard_port": 9999}, Verb.STAY),
        # A head that came back on its durable store.
        ({"epoch": 8}, Verb.STAY),
        ({"head_ip": "10.0.0.2", "epoch": 8}, Verb.LEAVE),
        ({"gcs_port": 6380, "epoch": 8}, Verb.LEAVE),
        ({"session": "s2", "epoch": 8}, Verb.LEAVE),
        # The same, published again before the epoch could rise (a head that was started by hand).
        ({"head_ip": "10.0.0.2"}, Verb.LEAVE),
        ({"session": "s2"}, Verb.LEAVE),
        # An old head that does not know yet.
        ({"epoch": 6, "head_ip": "10.0.0.2"}, Verb.STAY),
        ({"epoch": 6, "session": "s0"}, Verb.STAY),
        ({"epoch": 6}, Verb.STAY),
        # Other versions are no reason to leave a cluster that works.
        ({"ray_version": "2.61.0"}, Verb.STAY),
    ],
)
def test_joined_and_a_good_file(change: dict[str, object], verb: Verb) -> None:
    record = HeadRecord(**{**vars(RECORD), **change})
    assert look(Reading(ReadOutcome.VALID, "fine", record), IN, alive=True).verb is verb


def test_watchdog_decision_on_change() -> None:
    """The seed plan's case: an address that changes leads to a new join, a renewal at the same address to nothing."""
    renewed = replace(RECORD, updated_at=105.0, expires_at=120.0)
    assert look(Reading(ReadOutcome.VALID, "fine", renewed), IN, alive=True).verb is Verb.STAY
    moved = Reading(ReadOutcome.VALID, "fine", replace(renewed, head_ip="10.0.0.2", session="s2", epoch=8))
    left = look(moved, IN, alive=True)
    assert left.verb is Verb.LEAVE and "10.0.0.1:6379" in left.reason and "10.0.0.2:6379" in left.reason
    assert look(moved) == WatchdogDecision(Verb.JOIN, "10.0.0.2:6379, epoch 8"), "the next look joins the new one"


@pytest.mark.parametrize(
    ("ray", "python", "word"),
    [
        ("2.60.1", "3.11.7", "Ray version"),
        ("2.61.0", "3.12.1", "Ray version"),
        ("2.60.0", "3.11.8", "Python version"),
        ("2.60.0", "3.10.7", "Python version"),
    ],
)
def test_other_versions_wait_and_name_both(ray: str, python: str, word: str) -> None:
    other = Reading(ReadOutcome.VALID, "fine", replace(RECORD, ray_version=ray, python_version=python))
    decision = look(other)
    assert decision.verb is Verb.WAIT
    assert word in decision.reason
    theirs, ours = (ray, MINE.ray) if word.startswith("Ray") else (python, MINE.python)
    assert theirs in decision.reason and ours in decision.reason


def test_other_versions_are_told_before_the_pause() -> None:
    other = Reading(ReadOutcome.VALID, "fine", replace(RECORD, ray_version="2.61.0"))
    assert "Ray version" in look(other, retry_at=60.0, now=50.0).reason


@pytest.mark.parametrize(
    ("retry_at", "verb"), [(60.0, Verb.WAIT), (50.1, Verb.WAIT), (50.0, Verb.JOIN), (9, Verb.JOIN)]
)
def test_after_a_failure_it_waits_for_its_time(retry_at: float, verb: Verb) -> None:
    assert look(retry_at=retry_at, now=50.0).verb is verb


@pytest.mark.parametrize(
    ("outcome", "quiet_s", "verb"),
    [
        *[
            (outcome, quiet_s, Verb.JOIN)
            for outcome in (ReadOutcome.MISSING, ReadOutcome.EXPIRED)
            for quiet_s in (0, 15, 99)
        ],
        *[
            (outcome, quiet_s, verb)
            for outcome in ReadOutcome
            if outcome not in (ReadOutcome.MISSING, ReadOutcome.EXPIRED)
            for quiet_s, verb in ((0.0, Verb.WAIT), (14.9, Verb.WAIT), (15.0, Verb.JOIN), (3600.0, Verb.JOIN))
        ],
    ],
)
def test_may_take_over(outcome: ReadOutcome, quiet_s: float, verb: Verb) -> None:
    decision = may_take_over(Reading(outcome, "the words of the reader"), quiet_s, 15.0)
    assert decision.verb is verb
    assert decision.reason


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(1, 0.5, 1.5), (2, 1, 3), (3, 2, 6), (6, 16, 48), (7, 30, 90), (10_000, 30, 90)]
)
def test_the_pause_grows_and_is_bounded(failures: int, least: float, most: float) -> None:
    assert backoff_s(failures, 0.0) == least
    assert least < backoff_s(failures, 0.5) < backoff_s(failures, 0.999) < most
