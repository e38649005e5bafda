"""A gang that runs and finds no room where it was assigned to."""

from __future__ import annotations

from dataclasses import replace

from argus_ray.core.claims import check_claim
from argus_ray.core.model import ClusterView, Gang, NodeView, Share, SlimAttempt
from argus_ray.core.states import AttemptState, Outcome

GANG = Gang(2, 4, 12.0)
ATTEMPT = SlimAttempt(
    "t--a01", "t", 1, AttemptState.RUNNING, 0.0, "/x", ray_job_id="01", started_at=100.0, nodes=("n1", "n2")
)


def view(free: float, held: dict[str, Share] | None = None, cpus: float = 24.0) -> ClusterView:
    nodes = (NodeView("n1", "1", False, 4, 24, 4, 24, 1, 1), NodeView("n2", "2", False, 4, 24, free, cpus, 1, 1))
    return ClusterView("s", nodes, {"01": held or {}})


def test_one_that_found_no_room_goes_back_and_the_node_is_named() -> None:
    halt = check_claim(ATTEMPT, GANG, view(3), 600.0, 600)
    assert halt is not None and halt.outcome is Outcome.INSUFFICIENT_RESOURCES
    assert halt.reason == (
        "its gang was not placed in 600 s: the node n2 (2) has 3 GPUs and 24 CPUs free, and it needs 4 and 12 there"
    )
    assert check_claim(ATTEMPT, GANG, view(4, cpus=11), 600.0, 600) is not None


def test_not_before_its_time_nor_while_its_nodes_have_room_nor_once_it_holds_them() -> None:
    assert check_claim(ATTEMPT, GANG, view(3), 599.0, 600) is None
    assert check_claim(ATTEMPT, GANG, view(3), 6900.0, 0) is None
    assert check_claim(ATTEMPT, GANG, view(4), 6900.0, 600) is None, "it prepares its data"
    held = {"n1": Share(4, 12), "n2": Share(4, 12)}
    assert check_claim(ATTEMPT, GANG, view(0, held, cpus=0), 6900.0, 600) is None
    assert check_claim(replace(ATTEMPT, stop_reason="x"), GANG, view(3), 600.0, 600) is None
    assert check_claim(replace(ATTEMPT, nodes=()), GANG, view(3), 600.0, 600) is None
    assert check_claim(replace(ATTEMPT, state=AttemptState.STOPPING), GANG, view(3), 600.0, 600) is None
