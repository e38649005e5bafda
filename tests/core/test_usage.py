"""GPU time by day: parts that add up to the whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from argus_ray.core.usage import DAY_MS, MAX_DAYS, by_day

TIMES = st.integers(0, 3 * MAX_DAYS * DAY_MS)


@given(gpus=st.integers(0, 4096), start=TIMES, stop=TIMES)
def test_the_days_of_a_run_add_up_to_it(gpus: int, start: int, stop: int) -> None:
    parts = by_day(gpus, start, stop)
    assert sum(parts.values()) == gpus * max(0, stop - start)
    assert len(parts) <= MAX_DAYS
    days = sorted(parts)
    assert days == list(range(days[0], days[-1] + 1)) if days else not gpus or stop <= start
    for day in days[1:]:
        assert 0 < parts[day] <= gpus * DAY_MS


def test_a_run_over_midnight() -> None:
    assert by_day(8, 2 * DAY_MS - 1000, 2 * DAY_MS + 3000) == {1: 8000, 2: 24000}
    assert by_day(2, 5 * DAY_MS, 7 * DAY_MS) == {5: 2 * DAY_MS, 6: 2 * DAY_MS}, "a day ends where the next one begins"
    assert by_day(8, 7, 7) == {} == by_day(8, 9, 7) == by_day(0, 0, DAY_MS)
