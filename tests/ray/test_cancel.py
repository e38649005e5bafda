"""Cancel in every state, on real Ray. A canceled task never runs later."""

from __future__ import annotations

import pytest

from argus_ray.node import processes
from tests.support.raycluster import Cluster


@pytest.mark.parametrize("state", ["QUEUED", "PENDING_RESOURCES", "SUBMITTED", "RUNNING", "SUCCEEDED", "FAILED"])
def test_cancel_in_state(cluster: Cluster, state: str) -> None:
    user = cluster.user()
    gate = user.gate()
    gpus = 8 if state == "PENDING_RESOURCES" else 1
    if state in ("SUCCEEDED", "FAILED"):
        task = user.submit({"fail": "exit1"} if state == "FAILED" else {}, n_gpus_per_node=gpus)
        assert user.wait_final(task)["state"] == state
    else:
        task = user.submit({"wait_for_file": str(gate)}, n_gpus_per_node=gpus)
        if state == "RUNNING":
            user.wait(task, lambda v: bool(v["attempts"]) and cluster.executions(v) == [1], "running")
        elif state != "QUEUED":
            user.wait_state(task, state, "RUNNING")
    user.cancel(task)
    user.cancel(task)
    expected = state if state in ("SUCCEEDED", "FAILED") else "CANCELED"
    view = user.wait(task, lambda v: all(a["state"] == "ENDED" for a in v["attempts"]), "over")
    assert view["state"] == expected
    if expected != "CANCELED" or not view["attempts"]:
        return
    # The proof that nothing of it is left or comes later: the driver's processes are gone, and the gate that would
    # let a late starter go on is open.
    gate.touch()
    mark = view["attempts"][0]["submission_id"]
    assert processes.wait_until(lambda: not processes.with_variable("ARGUS_SUBMISSION_ID", mark), 60), (
        "its processes go on"
    )
    assert not (cluster.job_root(view) / "checkpoints").exists(), "it trained after the cancel"
    assert user.task(task)["state"] == "CANCELED"
