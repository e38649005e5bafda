"""A call that hangs is given up on, and nothing piles up behind it."""

from __future__ import annotations

import threading

import pytest

from argus_ray.disk.bounded import BoundedCall
from argus_ray.node.processes import wait_until


def test_what_the_call_returns_and_raises_comes_through() -> None:
    patience: BoundedCall[int] = BoundedCall(60)
    assert patience.call(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        patience.call(lambda: 1 // 0)
    with pytest.raises(KeyboardInterrupt):
        patience.call(interrupt)
    assert patience.call(lambda: 0) == 0, "a false value is an answer"


def interrupt() -> int:
    raise KeyboardInterrupt


def test_none_is_an_answer() -> None:
    patience: BoundedCall[None] = BoundedCall(60)
    patience.call(lambda: None)


def test_a_hang_times_out_then_at_once_then_it_works_again() -> None:
    patience: BoundedCall[str] = BoundedCall(0.1)
    free, calls = threading.Event(), []

    def hang() -> str:
        calls.append(1)
        free.wait(30)
        return "late"

    with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        patience.call(hang)
    patience.timeout_s = 3600
    for _ in range(3):
        with pytest.raises(TimeoutError, match="earlier call"):
            patience.call(hang)  # without a second wait, which would outlast the test
    patience.timeout_s = 60
    assert wait_until(lambda: bool(calls), 30, poll_s=0.01) and calls == [1], (
        "no second thread beside the one that hangs"
    )
    free.set()
    assert wait_until(lambda: answer(patience) == "fresh", 30, poll_s=0.01), (
        "the late answer is not taken for a new one"
    )


def answer(patience: BoundedCall[str]) -> str | None:
    try:
        return patience.call(lambda: "fresh")
    except TimeoutError:
        return None
