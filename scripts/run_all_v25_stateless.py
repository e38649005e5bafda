"""A head, two workers with four logical GPUs each, users, PPO, GRPO and SFT, a cancel, a head that moves: end to end.

Four hosts are made on this machine, each with its own network, processes, /tmp and name; they share one folder and
nothing else. The training is real verl on the CPU. Exit codes: 0 all is well, 1 something failed, 2 no hosts here.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import ids
from tests.support import lab
from tests.support.lab import Host, Lab, wait_for
from tests.support.pool import Pool
from tests.support.raycluster import FINAL, Api

#: Seconds for the tasks: real training, on a machine that may have two cores.
TASKS_TIMEOUT_S = 1500
_BEGUN = time.monotonic()


def main() -> int:
    if reason := lab.why_not():
        print(f"run_all: no hosts can be made here: {reason}", file=sys.stderr)
        return 2
    root = Path(f"/var/tmp/al-{os.getpid()}")  # noqa: S108
    root.mkdir(mode=0o700)
    try:
        with Lab(root) as ours:
            _story(Pool(ours))
    except (AssertionError, TimeoutError, OSError, pytest.fail.Exception) as error:
        print(f"\nrun_all: {error}\nThe logs are in {root / 'logs'}.", file=sys.stderr)
        return 1
    shutil.rmtree(root, ignore_errors=True)
    print("\nAll is well; nothing is left running.")
    return 0


def _story(pool: Pool) -> None:
    _say("making four hosts, and a tiny model with data on the shared filesystem")
    head, other = pool.lab.host("head-1", 11), pool.lab.host("head-2", 12)
    workers = [pool.lab.host("worker-1", 21), pool.lab.host("worker-2", 22)]
    head.run("python", "scripts/make_tiny.py", str(pool.shared / "common"), timeout_s=180)

    _say("1. a head with the API and the publisher; two watchdogs that are told no address")
    for host in workers:
        pool.start_worker(host)
    pool.start_head(head)
    pool.wait_ready(head)
    for host in workers:
        pool.wait_joined(host)
    _show_ray(pool, head)

    _say("2. users and tokens")
    ada, bob = pool.user(), pool.user()
    _say(f"   GET /api/v2/me as ada: {ada.get('/api/v2/me')}")

    _say("3. SFT and GRPO by ada, and a PPO by bob that needs the whole pool and so has to wait")
    sft = ada.submit_example("cpu-sft", test_freq=-1, total_epochs=8, total_training_steps=300, save_freq=20)
    grpo = ada.submit_example("cpu-grpo", save_freq=1)
    big = bob.submit_example("cpu-ppo", nnodes=2, n_gpus_per_node=4)
    ppo = bob.submit_example("cpu-ppo", total_training_steps=1, save_freq=1)
    bob.wait_state(big, "PENDING_RESOURCES")
    for caller, name in ((ada, "ada"), (bob, "bob")):
        _say(f"   the queue as {name} sees it:")
        _queue(caller)
    assert bob.request("GET", f"/api/v2/tasks/{sft}").status_code == 404, "bob sees nothing of ada's"

    _say("4. bob cancels what waits")
    bob.cancel(big)
    _say(f"   {big}: {bob.wait_state(big, 'CANCELED')['state']}")
    _wait(ada, sft, lambda view: (view.get("progress") or {}).get("step", 0) >= 25, "past its first checkpoint")

    _say(f"5. the head's machine {head.ip} dies; a standby waits at {other.ip}")
    pool.start_head(other)
    wait_for("a standby", lambda: pool.status(other, "head").get("state") == "standby", 60, lab=pool.lab)
    epoch, died = pool.epoch(), time.monotonic()
    head.power_off()
    wait_for("head.json names the new head", lambda: pool.record().get("head_ip") == other.ip, 240, lab=pool.lab)
    pool.wait_ready(other)
    _say(f"   epoch {pool.epoch()} (was {epoch}) serves {time.monotonic() - died:.0f} s after the death")
    for host in workers:
        pool.wait_joined(host, epoch=pool.epoch())
    _say(f"   both workers are back {time.monotonic() - died:.0f} s after it, and nobody touched them")
    _show_ray(pool, other)

    _say("6. what ran goes on from its last checkpoint")
    for caller, task in ((ada, sft), (ada, grpo), (bob, ppo)):
        view = _wait(caller, task, lambda view: view["state"] in FINAL, "final")
        assert view["state"] == "SUCCEEDED", view
        curves = caller.get(f"/api/v2/tasks/{task}/metrics?max_points=1000")["curves"]
        seen = max((curve["steps"] for curve in curves.values()), key=len)
        assert seen == list(range(1, seen[-1] + 1)), f"the curve through both attempts has a hole or a double: {seen}"
        _say(f"   {task}: SUCCEEDED after {len(view['attempts'])} attempts, steps {_steps(pool, view)}")


def _show_ray(pool: Pool, host: Host) -> None:
    wait_for("1 + 2 nodes and 8 GPUs", lambda: len(pool.nodes()) == 3 and pool.gpus() == 8, 180, lab=pool.lab)
    command = ("ray", "status", f"--address={host.ip}:6379")

    def status_with_all() -> str:
        """Ray's monitor writes it now and then: for some seconds it lacks nodes that have joined."""
        status = host.run(*command, env=pool.ray_environment, timeout_s=120).stdout
        return status if "/8.0 GPU" in status else ""

    status = wait_for("`ray status` tells of 8 GPUs", status_with_all, 60, 1.0, lab=pool.lab)
    print("".join(f"      | {line}\n" for line in status.splitlines() if line.strip()), end="", flush=True)


def _queue(user: Api) -> None:
    queue = user.get("/api/v2/queue")
    for task in [*queue.get("running", []), *queue.get("pending", [])]:
        print(f"      | {task['task_id']} {task['state']} {task.get('reason') or ''}"[:160], flush=True)


def _wait(user: Api, task: str, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    view = user.wait(task, lambda view: condition(view) or view["state"] in FINAL, what, TASKS_TIMEOUT_S)
    assert condition(view), f"{task} has ended before it was {what}: {view}"
    return view


def _steps(pool: Pool, view: dict[str, Any]) -> str:
    """Of each attempt, first to last."""
    runs = enumerate(pool.runs(view), 1)
    return ", ".join(f"{ids.attempt_label(number)} {run[0]} to {run[-1]}" if run else "none" for number, run in runs)


def _say(words: str) -> None:
    print(f"[{time.monotonic() - _BEGUN:5.0f} s] {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
