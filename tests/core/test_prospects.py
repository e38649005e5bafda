"""Whether a gang that is not there yet would start now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus_ray.core.model import Gang, NodeView
from argus_ray.core.prospects import Fit, prospect
from argus_ray.core.reasons import Code

HEAD = NodeView("h", "10.0.0.1", True, 0, 0, 0, 0, 0, 0)
NODE = NodeView("n1", "10.0.0.2", False, 8, 24, 4, 12, 1, 1)
OTHER = replace(NODE, node_id="n2", ip="10.0.0.3")


@pytest.mark.parametrize(
    ("gang", "nodes", "fit", "code"),
    [
        (Gang(1, 4, 12), [HEAD, NODE], Fit.NOW, None),
        (Gang(2, 4, 12), [NODE, OTHER], Fit.NOW, None),
        (Gang(1, 8, 24), [NODE], Fit.WOULD_WAIT, Code.NODES_BUSY),
        (Gang(1, 9, 24), [NODE, OTHER], Fit.NEVER_ON_THIS_POOL, Code.NODE_TOO_SMALL),
        (Gang(2, 1, 1), [NODE], Fit.NEVER_ON_THIS_POOL, Code.POOL_TOO_SMALL),
        (Gang(1, 1, 1), [HEAD], Fit.NEVER_ON_THIS_POOL, Code.NO_WORKER),
        (Gang(1, 1, 1), [replace(NODE, worker_slots_free=0)], Fit.WOULD_WAIT, Code.DRIVERS_FULL),
        (Gang(1, 1, 1), [replace(NODE, barred="x")], Fit.WOULD_WAIT, Code.NODES_BUSY),
        (Gang(2, 1, 1), [NODE, replace(OTHER, barred="x", is_cordoned=True)], Fit.WOULD_WAIT, Code.NODES_CORDONED),
        (Gang(1, 1, 1), None, Fit.UNKNOWN, None),
    ],
)
def test_by_the_pool(gang: Gang, nodes: list[NodeView] | None, fit: Fit, code: Code | None) -> None:
    found = prospect(gang, nodes, gpus_held=0, gpus_quota=None)
    assert (found.fit, found.reason.code if found.reason else None) == (fit, code)


def test_a_quota_and_what_holds_all_up_come_after_what_the_pool_cannot() -> None:
    small, large = Gang(1, 2, 2), Gang(1, 9, 9)
    assert prospect(small, [NODE], gpus_held=4, gpus_quota=6).fit is Fit.NOW
    found = prospect(small, [NODE], gpus_held=5, gpus_quota=6)
    assert found.fit is Fit.WOULD_WAIT and found.reason is not None
    assert (found.reason.code, found.reason["limit"], found.reason["running"]) == (Code.QUOTA_USED, 6, 5)
    assert prospect(small, [NODE], gpus_held=0, gpus_quota=None, is_held_up=True).fit is Fit.WOULD_WAIT
    assert prospect(large, [NODE], gpus_held=9, gpus_quota=1, is_held_up=True).fit is Fit.NEVER_ON_THIS_POOL
