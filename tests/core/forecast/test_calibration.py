"""Ranges grow by what starts have missed them, and never shrink below their margin."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from argus_ray.core.estimates import Range
from argus_ray.core.forecast.calibration import LEAST, MIN_HITS, MOST, UNSEEN, Hit, Widths, hit, widths
from argus_ray.core.forecast.model import Question
from argus_ray.core.forecast.ranges import foretell
from tests.core.forecast.test_ranges import EXACT, NOW, POLICY, node, running, waiting


def test_a_start_is_measured_by_the_futures_ends() -> None:
    assert hit(100.0, 1100.0, 2100.0, 600.0) == Hit(0.5, 0.25)
    assert hit(100.0, 1100.0, 2100.0, 4100.0) == Hit(4.0, 2.0)
    assert hit(100.0, 110.0, 120.0, 100.0) == Hit(1.0, 0.0), "within a minute it is no miss"


def test_few_starts_tell_nothing() -> None:
    few = [Hit(0.5, 2.0)] * (MIN_HITS - 1)
    assert widths(few, few) == UNSEEN
    assert widths(few, [Hit(1.5, 0.5)] * MIN_HITS) == Widths(), "of all workloads there are enough, and they were right"


def test_a_workload_that_misses_is_told_wider_ranges() -> None:
    right, wrong = [Hit(1.5, 0.5)] * 90, [Hit(0.6, 1.4)] * 10
    found = widths(right + wrong, [])
    assert found.low == pytest.approx(0.6) and found.high == pytest.approx(1.4)
    assert widths(right + wrong[:1], []) == Widths(), "one in ninety may miss"
    assert widths([Hit(0.01, 99.0)] * 50, []) == Widths(LEAST, MOST), "so wide that it tells something"


def test_the_newest_count() -> None:
    assert widths([Hit(0.5, 1.5)] * 50 + [Hit(1.5, 0.5)] * 200, []) == Widths()


def test_nearly_all_of_the_next_ones_are_inside() -> None:
    rng = random.Random(7)
    hits, inside = [Hit(1.0, 1.0)] * 0, 0
    for number in range(600):
        took = rng.lognormvariate(0.0, 0.25)  # the futures say 0.9 to 1.1, which is too sure
        now = widths(hits, hits)
        inside += number >= 100 and 0.9 * now.low <= took <= 1.1 * now.high
        hits.append(Hit(took / 0.9, took / 1.1))
    assert inside >= 0.9 * 500
    assert now.high < 2 and now.low > 0.5


def test_the_least_of_few_futures_is_not_the_least_of_all() -> None:
    """Of 20, each tenth truth lies beyond all of them."""
    rng, inside = random.Random(3), 0
    for _ in range(200):
        seconds = tuple(20_000 * rng.lognormvariate(0.0, 0.8) for _ in range(40))
        run = running(1, "a", *seconds, is_by_history=True)
        question = Question(NOW, POLICY, (node("a", 0.0),), (run,), (waiting(2),), odds=EXACT, draws=20)
        [each] = foretell(question, rng.random)
        truth = NOW + rng.choice(seconds)
        inside += isinstance(each.start, Range) and each.start.earliest <= truth <= each.start.latest
    assert inside >= 0.96 * 200


def test_a_range_is_told_as_wide_as_that() -> None:
    question = Question(NOW, POLICY, (node("a", 0.0),), (running(1, "a", 1000.0),), (waiting(2),), odds=EXACT, draws=40)

    def told(found: Question) -> Range:
        [each] = foretell(found, random.Random(1).random)
        assert isinstance(each.start, Range) and each.played is not None
        assert each.played[0] == pytest.approx(NOW + 1000, abs=10), "what is learned from is not what was learned"
        return each.start

    plain, wide = told(question), told(replace(question, widths={"sft": Widths(0.5, 2.0), "ppo": Widths(0.3, 3.0)}))
    assert wide.earliest == pytest.approx(NOW + 500 - 30, abs=10) and wide.latest == pytest.approx(NOW + 2030, abs=10)
    assert told(replace(question, widths={"sft": Widths()})) == plain
