"""What the account of free nodes and a look at the cluster cost, in calls that are counted and not in seconds that
pass: so it is the same on a busy machine. What a decision costs is counted in tests/core/test_decide_quickly.py."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from argus_ray.core import ledger
from argus_ray.core.model import ClusterView, Gang, NodeView, SlimAttempt, SlimTask
from argus_ray.core.states import AttemptState, TaskState


def node(number: int, free: float) -> NodeView:
    return NodeView(f"n{number:04}", f"10.0.{number}", False, 8, 64, free, 64, 100, 100)


def task(number: int, gang: Gang, nodes: tuple[str, ...] = ()) -> SlimTask:
    live = None
    if nodes:
        live = SlimAttempt(f"t{number}--a01", f"t{number}", 1, AttemptState.RUNNING, 0.0, "/r", nodes=nodes)
    state = TaskState.RUNNING if nodes else TaskState.QUEUED
    return SlimTask(f"t{number}", f"u{number % 7}", number, state, gang, None, None, None, live)


def calls_of(function: Callable[[], Any]) -> int:
    """Of functions, Python's own among them."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    gc.collect()
    gc.disable()  # finalizers of what others have left would count
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


def test_an_attempt_that_lives_costs_a_few_calls_however_many_there_are() -> None:
    view = ClusterView("s", tuple(node(number, 8.0) for number in range(100)))

    def of_live(count: int) -> int:
        live = [task(number, Gang(1, 1, 1.0), (f"n{number % 100:04}",)) for number in range(count)]
        return calls_of(lambda: ledger.free_nodes(view, live))

    assert of_live(4000) - of_live(1000) <= 3000 * 3


def test_a_look_asks_ray_for_nothing_that_grows_with_its_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of placement groups keeps each one that was ever made. `tests/ray/test_view.py` measures it."""
    import ray
    import ray.util

    from argus_ray.cluster import view

    asked: list[str] = []

    def note(name: str, answer: Any) -> Any:
        asked.append(name)
        return answer

    class State:
        def __getattr__(self, name: str) -> Callable[..., dict[str, dict[str, float]]]:
            return lambda *_: note(name, {})

    monkeypatch.setattr(ray._private, "state", State())
    monkeypatch.setattr(ray, "nodes", lambda: note("nodes", []))
    monkeypatch.setattr(ray.util, "placement_group_table", lambda *_: note("placement_group_table", {}))
    monkeypatch.setattr(view, "session_name", lambda: "s")
    assert view.look() == ClusterView("s", ())
    assert sorted(asked) == ["available_resources_per_node", "nodes", "total_resources_per_node"]
