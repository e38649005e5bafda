"""Cancel in every state, on real Ray. A canceled task never runs later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from argus_ray.node import processes
from tests.support.raycluster import Api, Cluster

ENDED = ("SUCCEEDED", "FAILED")


@dataclass(frozen=True)
class Sent:
    user: Api
    gate: Path
    task: str


def send(cluster: Cluster, state: str) -> Sent:
    """A task that comes to this state."""
    user = cluster.user()
    gate = user.gate()
    plan = {"fail": "exit1"} if state == "FAILED" else {} if state in ENDED else {"wait_for_file": str(gate)}
    return Sent(user, gate, user.submit(plan, n_gpus_per_node=8 if state == "PENDING_RESOURCES" else 1))


@pytest.fixture(scope="module")
def early(cluster: Cluster) -> Iterator[dict[str, Sent]]:
    """Those that take a while to come to their state."""
    found = {state: send(cluster, state) for state in ("RUNNING", *ENDED)}
    yield found
    for sent in found.values():  # also where its test was not asked for
        sent.gate.touch()
        sent.user.wait_final(sent.task)


@pytest.mark.parametrize("state", ["QUEUED", "PENDING_RESOURCES", "SUBMITTED", "RUNNING", *ENDED])
def test_cancel_in_state(cluster: Cluster, early: dict[str, Sent], state: str) -> None:
    sent = early.get(state) or send(cluster, state)
    user, task = sent.user, sent.task
    if state in ENDED:
        assert user.wait_final(task)["state"] == state
    elif state == "RUNNING":
        user.wait(task, lambda v: bool(v["attempts"]) and cluster.executions(v) == [1], "running")
    elif state != "QUEUED":
        user.wait_state(task, state, "RUNNING")
    user.cancel(task)
    user.cancel(task)
    expected = state if state in ENDED else "CANCELED"
    view = user.wait(task, lambda v: all(a["state"] == "ENDED" for a in v["attempts"]), "over")
    assert view["state"] == expected
    if expected != "CANCELED" or not view["attempts"]:
        return
    # The proof that nothing of it is left or comes later: the driver's processes are gone, and the gate that would
    # let a late starter go on is open.
    sent.gate.touch()
    mark = view["attempts"][0]["submission_id"]
    assert processes.wait_until(lambda: not processes.with_variable("ARGUS_SUBMISSION_ID", mark), 60), (
        "its processes go on"
    )
    assert not (cluster.job_root(view) / "checkpoints").exists(), "it trained after the cancel"
    assert user.task(task)["state"] == "CANCELED"
