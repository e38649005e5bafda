"""Real verl over two hosts, one of which dies in the middle. Its name puts it before the soak, which ends the pool."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.lab import Host, wait_for
from tests.support.pool import PATIENCE_S, Pool
from tests.support.realverl import curves, make_inputs, needs_verl, wait_long

pytestmark = [pytest.mark.verl, pytest.mark.timeout(900), needs_verl]

STEPS = 120
SAVE_FREQ = 20


def test_a_host_dies_in_a_real_run_and_the_next_attempt_goes_on(
    pool: Pool, hosts: dict[str, Host], story: None
) -> None:
    """sft on both workers. The one without the driver loses power: the launcher of the gang is what notices."""
    make_inputs(pool.shared)
    user = pool.user()
    fields: dict[str, Any] = {"nnodes": 2, "total_epochs": 4, "total_training_steps": STEPS, "save_freq": SAVE_FREQ, "test_freq": -1}
    undisturbed = user.submit_example("cpu-sft", **fields)
    wanted = curves(user, wait_long(user, undisturbed)["task_id"])["train/loss"]
    assert sorted(wanted) == list(range(1, STEPS + 1))

    task = user.submit_example("cpu-sft", **fields)

    def step() -> int:
        view = user.task(task)
        assert view["state"] != "FAILED", view
        return int((view["progress"] or {}).get("step") or 0)

    wait_for("it is past its first checkpoint", lambda: step() > SAVE_FREQ, PATIENCE_S, lab=pool.lab)
    driver_ip = user.task(task)["attempts"][0]["node_ip"]
    victim = next(host for host in (hosts["wa"], hosts["wb"]) if host.ip != driver_ip)
    victim.power_off()
    victim.boot()
    pool.start_worker(victim)
    view = wait_long(user, task)
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["INFRASTRUCTURE", "SUCCEEDED"], view
    first, second = pool.steps(view, 0), pool.steps(view, 1)
    print(f"\na01 made steps 1 to {first[-1]}, a02 {second[0]} to {second[-1]}")
    assert second[0] % SAVE_FREQ == 1 and first[-1] - SAVE_FREQ < second[0] <= first[-1] + 1, "the newest checkpoint"
    loss = curves(user, task)["train/loss"]
    assert list(loss) == list(range(1, STEPS + 1)), "no hole, and no step twice"
    print(f"train/loss at the end: {loss[STEPS]:.4f}, and {wanted[STEPS]:.4f} of the run that nothing disturbed")
    assert math.isclose(loss[STEPS], wanted[STEPS], rel_tol=0.05)
    wait_for("8 GPUs", lambda: pool.gpus() == 8, PATIENCE_S, lab=pool.lab)
