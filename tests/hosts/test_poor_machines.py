"""Machines and mounts that are in trouble while tasks run and wait: nobody's task fails by them.

What takes minutes runs with ARGUS_LONG=1, and the last one with ARGUS_TEST_MAX_LOSSES=5.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

import pytest

from argus_ray.core import paths
from tests.support.lab import Host, wait_for
from tests.support.pool import PATIENCE_S, Pool

pytestmark = pytest.mark.timeout(1200)

IS_LONG = os.environ.get("ARGUS_LONG") == "1"
long = pytest.mark.skipif(not IS_LONG, reason="takes minutes: ARGUS_LONG=1")


def outcomes(views: list[dict[str, Any]]) -> Counter[tuple[str, str | None]]:
    """Of all attempts, with the codes of their failures."""
    attempts = [attempt for view in views for attempt in view["attempts"]]
    return Counter((each["outcome"], (each["failure"] or {}).get("code")) for each in attempts)


@pytest.mark.parametrize("hidden", ["payload", pytest.param("root", marks=long)])
def test_a_worker_that_cannot_start_programs_fails_nobody(
    pool: Pool, hosts: dict[str, Host], story: None, hidden: str
) -> None:
    """Its mount is hidden from it, the whole of it or what is started. All tasks end on the other worker."""
    wa, user = hosts["wa"], pool.user()
    where = str(pool.shared) if hidden == "root" else paths.payload_root(str(pool.shared))
    wa.run("mount", "-t", "tmpfs", "tmpfs", where)
    try:
        tasks = [user.submit(n_gpus_per_node=1) for _ in range(10)]
        views = [user.wait(task, lambda v: v["state"] in ("SUCCEEDED", "FAILED"), "ended", 600) for task in tasks]
        assert {view["state"] for view in views} == {"SUCCEEDED"}
        seen = outcomes(views)
        print(f"\n{hidden} hidden: {dict(seen)}")
        assert set(seen) <= {("SUCCEEDED", None), ("INFRASTRUCTURE", "not_started")}
        good = [each for view in views for each in view["attempts"] if each["outcome"] == "SUCCEEDED"]
        assert {each["node_ip"] for each in good} == {hosts["wb"].ip}
        assert all(pool.executions(view)[-1] == 1 and sum(pool.executions(view)) == 1 for view in views)
    finally:
        wa.run("umount", "-l", where)

    def is_clear() -> bool:
        """A trial at a time, once its pause is over."""
        user.wait_state(user.submit(n_gpus_per_node=4, nnodes=1), "SUCCEEDED")
        return all(node["barred"] is None for node in pool.nodes())

    if IS_LONG:
        wait_for("it has proved itself", is_clear, 600, lab=pool.lab)


@long
def test_inputs_that_are_away_for_90_s_fail_nobody(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    user = pool.user()
    gate = user.gate()
    blockers = [user.submit({"wait_for_file": str(gate)}, n_gpus_per_node=4) for _ in range(2)]
    for blocker in blockers:
        user.wait_state(blocker, "RUNNING")
    tasks = [user.submit(n_gpus_per_node=1) for _ in range(20)]
    common, away = pool.shared / "common", pool.shared / "common.away"
    for blocker in blockers:
        user.cancel(blocker)
    common.rename(away)
    time.sleep(90)
    away.rename(common)
    views = [user.wait(task, lambda v: v["state"] in ("SUCCEEDED", "FAILED"), "ended", 600) for task in tasks]
    assert [view["state"] for view in views] == ["SUCCEEDED"] * 20


@pytest.mark.skipif(os.environ.get("ARGUS_TEST_MAX_LOSSES") != "5", reason="takes minutes: ARGUS_TEST_MAX_LOSSES=5")
def test_a_task_that_kills_its_raylet_fails_alone(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    user, other = pool.user(), pool.user()
    gate = other.gate()
    plan = {"step_s": 0.5, "wait_for_file": str(gate), "wait_at_step": 400}
    innocent = other.submit(plan, n_gpus_per_node=1, total_training_steps=400, save_freq=2)
    other.wait(innocent, lambda v: v["state"] == "RUNNING" and len(pool.steps(v)) > 3, "running, with steps")
    poison = user.submit({"fail": "kill_raylet", "fail_at_step": 1}, n_gpus_per_node=1)
    ended = user.wait(poison, lambda v: v["state"] in ("SUCCEEDED", "FAILED"), "ended", 900)
    assert ended["state"] == "FAILED" and "lost 6 attempts" in ended["reason"], ended
    view = other.task(innocent)
    print(f"\nthe innocent one: {view['state']}, {dict(outcomes([view]))}")
    gate.touch()
    assert other.wait(innocent, lambda v: v["state"] in ("SUCCEEDED", "FAILED"), "ended", 600)["state"] == "SUCCEEDED"
    wait_for("8 GPUs", lambda: pool.gpus() == 8, PATIENCE_S, lab=pool.lab)
