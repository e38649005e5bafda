"""Attempts that end in every way, with children that leave their session: nothing of them stays on a host, and nothing
of anybody else is touched. ARGUS_LEFT_ATTEMPTS=100 is the long one; ARGUS_LEFT_SEED repeats a run."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.lab import Host, wait_for
from tests.support.pool import Pool
from tests.support.raycluster import FINAL, Api
from tests.support.running import kill, name_of

ATTEMPTS = int(os.environ.get("ARGUS_LEFT_ATTEMPTS", 0))
SEED = int(os.environ.get("ARGUS_LEFT_SEED", 12))
#: As the issue has it: after this nothing may be left. Seconds.
LEFT_S = 60.0
_MARK = b"ARGUS_SUBMISSION_ID="

pytestmark = [
    pytest.mark.timeout(600 + 30 * ATTEMPTS),
    pytest.mark.skipif(not ATTEMPTS, reason="takes minutes: ARGUS_LEFT_ATTEMPTS=100"),
]


def of_attempts(hosts: list[Host]) -> dict[int, str]:
    """Processes that were started with an attempt's mark: its name."""
    found = {}
    for host in hosts:
        for pid, command in host.pids():
            try:
                environ = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if (at := environ.find(_MARK)) >= 0 and b"someone" not in environ:
                name = environ[at + len(_MARK) :].partition(b"\0")[0].decode()
                found[pid] = f"{name}: {command[:60]}"
    return found


def runners(task: str, hosts: list[Host]) -> list[int]:
    """The task's runner, and then its forks, which bear its name."""
    found = [pid for host in hosts for pid, command in host.find("argus_runner.py") if task in command]
    return sorted(pid for pid in found if name_of(pid).startswith("python"))


def end(task: str, way: str, user: Api, hosts: list[Host]) -> None:
    """End it in this way, at whatever place it is by then."""
    if way == "cancel":
        user.cancel(task)
    elif way == "runner":
        kill(runners(task, hosts)[:1])
    elif way == "fork":
        kill(runners(task, hosts)[-1:])
    elif way == "driver":
        # Not its runner and its forks, whose command lines hold the driver's.
        found = [each for host in hosts for each in host.find("-m verl.trainer") if f"{task}--" in each[1]]
        kill([pid for pid, command in found if "argus_runner.py" not in command])


def test_nothing_of_any_attempt_is_left(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    rng, user = random.Random(SEED), pool.user()
    workers = [hosts["wa"], hosts["wb"]]
    elsewhere = {"ARGUS_SUBMISSION_ID": "someone--a01", "ARGUS_JOB_ROOT": "/elsewhere/users/someone/jobs/someone--a01"}
    bystanders = [host.spawn("bystander", "sleep", "3600", env=env) for host in workers for env in ({}, elsewhere)]
    ways: Counter[str] = Counter()
    for _ in range(0, ATTEMPTS, 4):
        gate = user.gate()
        plan = {"leave_behind": True, "wait_for_file": str(gate), "wait_at_step": 2}
        chosen = [rng.choice(["good", "fails", "cancel", "runner", "fork", "driver"]) for _ in range(4)]
        ways.update(chosen)
        tasks = [
            user.submit({**plan, **({"fail": "exit1", "fail_at_step": 2} if way == "fails" else {})}, n_gpus_per_node=1)
            for way in chosen
        ]
        for task in tasks:
            user.wait_state(task, "RUNNING")
        if rng.random() < 0.7:  # else some have not begun yet
            wait_for("all have left something", lambda: len(of_attempts(workers)) >= 6 * 4, 120, lab=pool.lab)
        for task, way in zip(tasks, chosen, strict=True):
            end(task, way, user, workers)
        gate.touch()
        for task in tasks:
            user.wait(task, lambda view: view["state"] in FINAL, "ended", 300)
    begun = time.monotonic()
    wait_for(f"nothing is left ({ways})", lambda: not of_attempts(workers), LEFT_S, lab=pool.lab)
    print(
        f"\n{sum(ways.values())} attempts ended ({dict(ways)}); nothing of them {time.monotonic() - begun:.1f} s later"
    )
    assert all(Path(f"/proc/{each.pid}/stat").exists() and each.alive for each in bystanders)
    for each in bystanders:
        each.kill()
