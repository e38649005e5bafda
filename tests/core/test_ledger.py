"""What is free for a new gang: what is assigned is taken before Ray shows it, and what others use is taken, too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus_ray.core.ledger import free_nodes
from argus_ray.core.model import ClusterView, Gang, NodeView, Share, SlimAttempt, SlimTask
from argus_ray.core.states import AttemptState, TaskState

TWO = Gang(2, 2, 6.0)
JOB = "0a000000"


def node(name: str, gpus: float = 8, *, free: float | None = None) -> NodeView:
    gpus_free = gpus if free is None else free
    return NodeView(name, name, False, gpus, 3 * gpus, gpus_free, 3 * gpus_free, 10, 10)


def live(*nodes: str, gang: Gang = TWO, job: str | None = None, seq: int = 1) -> SlimTask:
    attempt = SlimAttempt(f"t{seq}--a01", f"t{seq}", 1, AttemptState.RUNNING, 0.0, "/r", ray_job_id=job, nodes=nodes)
    return SlimTask(f"t{seq}", "u", seq, TaskState.RUNNING, gang, live=attempt)


def free(
    nodes: list[NodeView], tasks: list[SlimTask], **held: dict[str, Share]
) -> dict[str, tuple[float, float, float]]:
    view = ClusterView("s", tuple(nodes), {JOB: held["held"]} if held else {})
    found = free_nodes(view, tasks)
    return {each.node_id: (each.gpus_free, each.cpus_free, each.worker_slots_free) for each in found}


def test_what_is_assigned_is_taken_before_ray_shows_it() -> None:
    assert free([node("a"), node("b"), node("c")], [live("b", "a")]) == {
        "a": (6, 18, 10),
        "b": (6, 18, 9),
        "c": (8, 24, 10),
    }


@pytest.mark.parametrize("job", [JOB, None])
def test_what_ray_shows_of_it_is_not_taken_twice(job: str | None) -> None:
    """Until the driver's id is known what Ray shows may be anybody's: for that moment the room is not given away."""
    shown = {"a": Share(2, 6), "b": Share(2, 6)}
    expected = (6, 18, 9) if job else (4, 12, 9)
    assert free([node("a", free=6), node("b")], [live("a", "b", job=job)], held=shown)["a"] == expected


def test_what_others_use_is_taken() -> None:
    assert free([node("a", free=5), node("b", free=0.5)], [live("a", "b")]) == {"a": (3, 9, 9), "b": (0, 0, 10)}


def test_more_than_its_share_is_another_ones() -> None:
    """A program that takes more than its gang has is seen as what it is: one that uses the pool beside Argus."""
    assert free([node("a", free=1)], [live("a", gang=Gang(1, 2, 6.0), job=JOB)], held={"a": Share(7, 21)})["a"][0] == 1


def test_a_node_that_has_left_is_none() -> None:
    assert free([node("a")], [live("gone", "a")]) == {"a": (6, 18, 10)}


def test_an_attempt_that_is_over_holds_nothing() -> None:
    assert free([node("a")], [replace(live("a"), live=None)]) == {"a": (8, 24, 10)}


def test_each_driver_takes_a_slot() -> None:
    tasks = [live("a", gang=Gang(1, 0, 0.0), seq=i) for i in range(12)]
    assert free([node("a")], tasks)["a"] == (8, 24, 0)


def test_one_of_a_version_that_left_the_choice_to_ray_may_come_to_any_node() -> None:
    both = {"a": Share(2, 6), "b": Share(2, 6)}
    seen = free([node("a", free=6), node("b", free=6), node("c")], [live(job=JOB)], held=both)
    assert [gpus for gpus, _, _ in seen.values()] == [6, 6, 8], "Ray shows all of it"
    unseen = free([node("a", free=6), node("b"), node("c")], [live(job=JOB)], held={"a": Share(2, 6)})
    assert [gpus for gpus, _, _ in unseen.values()] == [4, 6, 6]
