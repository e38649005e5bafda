"""Times and durations."""

from __future__ import annotations

import time

import pytest

from argus_ray.cli import when

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("7d", 604_800),
        ("1.5h", 5400),
        ("1w", 604_800),
    ],
)
def test_a_duration(text: str, expected: float) -> None:
    assert when.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "2 h", "-1h", "2y", "1h,", "1e3", "nan"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="write 90s"):
        when.seconds(text)


def test_a_point_in_time() -> None:
    # By the server's clock.
    assert [when.point(text) for text in ("2h", "7d", "1h30m", "1.5h")] == ["2h", "7d", "5400s", "5400s"]
    assert when.point("2026-01-31T12:00:00Z") == "2026-01-31T12:00:00.000Z"
    assert when.point("2026-01-31T12:00:00+02:00") == "2026-01-31T10:00:00.000Z"
    midnight = time.mktime((2026, 1, 31, 0, 0, 0, 0, 0, -1))
    assert when.point("2026-01-31") == when.rfc3339(midnight)
    for text in ("yesterday", "", "2026-13-01", "2h ago"):
        with pytest.raises(ValueError, match="is no time"):
            when.point(text)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (0, "0s"),
        (59.6, "1m"),
        (45, "45s"),
        (90, "1m30s"),
        (720, "12m"),
        (6600, "1h50m"),
        (3600, "1h"),
        (40_000, "11h"),
        (273_600, "3d4h"),
        (-5, "0s"),
    ],
)
def test_a_length_of_time(length: float, words: str) -> None:
    assert when.span(length) == words


def test_an_age_has_one_unit() -> None:
    assert [when.short_span(length) for length in (5, 61, 3 * 3600 + 59, 47 * 3600, 49 * 3600)] == [
        "5s",
        "1m",
        "3h",
        "47h",
        "2d",
    ]


def test_a_time_is_read_as_the_api_writes_it() -> None:
    assert when.unix(when.rfc3339(NOW)) == NOW
    assert when.local("2026-01-31T12:00:00.123Z", utc=True) == "2026-01-31T12:00:00Z"
