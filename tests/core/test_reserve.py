"""The reserve of the shared filesystem: when it is touched, when it is whole again, what waiting tasks are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus_ray.core import reserve
from argus_ray.core.model import Gang, SlimTask
from argus_ray.core.reasons import Code, because, words
from argus_ray.core.reserve import LowDisk, Space, judge
from argus_ray.core.states import TaskState

GIB = 1024**3
NOW = 1000.0
LOW = LowDisk(900.0, 2 * GIB, Space(GIB, "/private"))
WAITS = SlimTask("argus-a-sft-x", "a", 1, TaskState.PENDING_RESOURCES, Gang(1, 1, 3.0), because(Code.POOL_BUSY))


def seen(free: float) -> Space:
    return Space(int(free * GIB), "/private")


def test_it_begins_below_the_reserve_and_ends_a_tenth_above_it() -> None:
    low = None
    for free, is_low in ((2.0, False), (1.99, True), (2.0, True), (2.19, True), (2.21, False), (2.0, False)):
        low = judge(low, seen(free), 2 * GIB, NOW)
        assert (low is not None) is is_low, free


def test_it_keeps_its_beginning_and_knows_the_last_look() -> None:
    assert judge(LOW, seen(1.5), 2 * GIB, NOW) == LowDisk(900.0, 2 * GIB, seen(1.5))


@pytest.mark.parametrize("old", [None, LOW])
def test_what_the_disk_does_not_say_changes_nothing(old: LowDisk | None) -> None:
    assert judge(old, None, 2 * GIB, NOW) is old


def test_without_a_reserve_nothing_is_low() -> None:
    assert judge(LOW, seen(0), 0, NOW) is None and judge(None, seen(0), 0, NOW) is None


def test_the_words() -> None:
    assert words(LOW.reason()) == (
        "the shared filesystem has less than 2.0 GiB free: nothing starts until 2.2 GiB are free"
    )
    assert LOW.words() == (
        "1.0 GiB free at /private, and the reserve is 2.0 GiB: nothing starts, and logs do not grow, "
        "until 2.2 GiB are free"
    )


def test_the_reason_does_not_change_with_what_is_free() -> None:
    assert replace(LOW, space=seen(0.1)).reason() == LOW.reason()


def test_tasks_are_told_once_and_keep_a_reason_of_their_own() -> None:
    own = replace(WAITS, seq=2, reason=because(Code.BAD_INPUTS, what="x"), not_before=None)
    early = replace(WAITS, seq=3, not_before=NOW + 1)
    quota = replace(WAITS, seq=4, reason=because(Code.OVER_QUOTA, limit=1))
    new = replace(WAITS, seq=5, state=TaskState.QUEUED, reason=None)
    told = replace(WAITS, seq=6, reason=LOW.reason())
    found = list(reserve.holds([WAITS, own, early, quota, new, told], LOW, NOW))
    assert [(hold.task_id, hold.reason) for hold in found] == [(WAITS.task_id, LOW.reason())] * 2


def test_the_overtaking_clock_stands_meanwhile() -> None:
    overtaken = replace(WAITS, overtaken_since=NOW - 40)
    [hold] = reserve.holds([overtaken], LOW, NOW)
    assert hold.reason is not None and hold.reason["passed"] == 40.0 and hold.overtaken_since == NOW - 40
    told = replace(overtaken, reason=hold.reason)
    assert list(reserve.holds([told], LOW, NOW + 500)) == []
