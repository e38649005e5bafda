"""Random faults with tasks flowing: nothing is lost, nothing runs twice at once, nothing is left behind.

ARGUS_SOAK_CYCLES=50 is the long one (21 minutes on two cores); ARGUS_SOAK_SEED repeats a run, and ARGUS_SOAK_FAULTS,
names of methods of Chaos with commas between them, has only these.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from argus_ray.node import processes
from tests.support.lab import Host, wait_for
from tests.support.pool import PATIENCE_S, Pool
from tests.support.raycluster import FINAL, Api

CYCLES = int(os.environ.get("ARGUS_SOAK_CYCLES", 2))
SEED = int(os.environ.get("ARGUS_SOAK_SEED", 11))
FAULTS = (
    "worker_loses_power",
    "launcher_is_killed",
    "worker_is_cut_off",
    "watchdog_is_killed",
    "head_restarts",
    "head_moves",
)
CHOSEN = os.environ.get("ARGUS_SOAK_FAULTS", ",".join(FAULTS)).split(",")

pytestmark = pytest.mark.timeout(600 + 180 * CYCLES)


class Chaos:
    """One fault at a time, each followed by what an operator's machine does by itself: boot and start its service."""

    def __init__(self, pool: Pool, hosts: dict[str, Host], rng: random.Random) -> None:
        self._pool = pool
        self._hosts = hosts
        self._rng = rng

    def any(self) -> str:
        name = self._rng.choice(CHOSEN)
        getattr(self, name)()
        return name

    def worker_loses_power(self) -> None:
        host = self._worker()
        host.power_off()
        host.boot()
        self._pool.start_worker(host)

    def worker_is_cut_off(self) -> None:
        """For a moment, or for longer than Ray bears."""
        host = self._worker()
        host.cut()
        self._last(self._rng.choice([3.0, 45.0]), f"{host.name} is cut off")
        host.mend()

    def watchdog_is_killed(self) -> None:
        host = self._worker()
        self._pool.watchdogs[host.name].kill()
        self._pool.start_worker(host)

    def head_restarts(self) -> None:
        """The standby is not there, and the head's machine comes back at its address."""
        head, other = self._heads()
        other.power_off()
        head.power_off()
        self._last(self._rng.uniform(0, 10), "there is no head")
        head.boot()
        self._pool.start_head(head)

    def launcher_is_killed(self) -> None:
        """systemd starts it again."""
        head, _ = self._heads()
        self._pool.heads[head.name].kill()
        wait_for("its Ray has gone with it", lambda: not head.find("gcs_server"), 30, lab=self._pool.lab)
        self._pool.start_head(head)

    def head_moves(self) -> None:
        head, other = self._heads()
        if not other.is_up:
            other.boot()
        if not self._pool.status(other, "head"):
            self._pool.start_head(other)
        wait_for("a standby waits", lambda: self._pool.status(other, "head").get("state") == "standby", 60)
        head.power_off()
        wait_for("it is the head", lambda: self._pool.record().get("head_ip") == other.ip, PATIENCE_S)

    def heal(self) -> None:
        """Until the API is ready and both workers are in."""
        head, _ = self._heads()
        self._pool.wait_ready(head)
        for name in ("wa", "wb"):  # Ray shows a node that has gone for a while
            self._pool.wait_joined(self._hosts[name])
        wait_for("8 GPUs", lambda: self._pool.gpus() == 8, PATIENCE_S, lab=self._pool.lab)

    def _worker(self) -> Host:
        return self._hosts[self._rng.choice(["wa", "wb"])]

    def _heads(self) -> tuple[Host, Host]:
        ip = self._pool.record()["head_ip"]
        live, other = sorted((self._hosts["ha"], self._hosts["hb"]), key=lambda host: host.ip != ip)
        return live, other

    def _last(self, seconds: float, what: str) -> None:
        until = time.monotonic() + seconds
        wait_for(f"{what} for {seconds:.0f} s", lambda: time.monotonic() > until, seconds + 10)


def test_faults_at_random(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    rng = random.Random(SEED)
    chaos = Chaos(pool, hosts, rng)
    user = pool.user()
    tasks: list[str] = []
    faults: Counter[str] = Counter()
    begun = time.monotonic()
    for cycle in range(CYCLES):
        for _ in range(2):
            steps = rng.randint(20, 100)
            task = user.submit(
                {"steps": steps, "step_s": 0.1},
                key=f"soak-{SEED}-{len(tasks)}",
                n_gpus_per_node=rng.choice([1, 2, 4]),
                nnodes=rng.choice([1, 1, 2]),
                total_training_steps=steps,
            )
            tasks.append(task)
        _wait_for_steps(pool, user)
        fault = chaos.any()
        faults[fault] += 1
        chaos.heal()
        print(f"\ncycle {cycle + 1:3} {fault:20} healed, {time.monotonic() - begun:6.0f} s", flush=True)
    views = _wait_for_all(pool, user, tasks)
    attempts = Counter(len(view["attempts"]) for view in views)
    overlaps = [overlap for view in views for overlap in _overlaps(pool, view)]
    print(f"seed {SEED}: {dict(faults)}; {len(tasks)} tasks, by attempts {dict(attempts)}, overlaps {overlaps}")
    for view in views:
        assert max(pool.executions(view)) == 1, view
        # All together: the last attempt has none to make where the one before it died after its last checkpoint.
        made = set().union(*pool.runs(view))
        total = view["progress"]["total_steps"]
        assert made == set(range(1, total + 1)) and view["progress"]["step"] == total, view
    assert not [seconds for seconds in overlaps if seconds > 0], "an attempt wrote on after the next one had begun"


def _wait_for_steps(pool: Pool, user: Api) -> None:
    """Until a task makes steps: a fault that hits nothing shows nothing, and after fifty of them nothing has run."""

    def one_makes_steps() -> bool:
        answer = user.request("GET", "/api/v2/tasks?state=RUNNING&limit=500")
        running = answer.json()["tasks"] if answer.status_code == 200 else []
        return any(len(pool.steps(user.task(each["task_id"]))) > 0 for each in running)

    wait_for("a task makes steps", one_makes_steps, PATIENCE_S, 0.5, lab=pool.lab)


def _wait_for_all(pool: Pool, user: Api, tasks: list[str]) -> list[dict[str, Any]]:
    """Their views once all have ended. The line may be long: what must not last is that nothing ends."""
    views = {task: user.task(task) for task in tasks}
    while open_tasks := [task for task, view in views.items() if view["state"] not in FINAL]:

        def one_has_ended(among: list[str] = open_tasks) -> bool:
            views.update({task: user.task(task) for task in among})
            return any(views[task]["state"] in FINAL for task in among)

        if not processes.wait_until(one_has_ended, PATIENCE_S, 1.0):
            pytest.fail(
                f"nothing has ended for {PATIENCE_S:g} s:\n{_report(pool, user, [views[t] for t in open_tasks])}"
            )
    assert {view["state"] for view in views.values()} == {"SUCCEEDED"}, [
        (task, view["state"], view["reason"]) for task, view in views.items() if view["state"] != "SUCCEEDED"
    ]
    return list(views.values())


def _report(pool: Pool, user: Api, views: list[dict[str, Any]]) -> str:
    """What there is to know of tasks that hang."""
    lines = []
    for view in views:
        lines.append(f"--- {view['task_id']}: {view['state']}, {view['reason']}")
        if view["state"] in ("SUBMITTING", "SUBMITTED", "RUNNING"):
            events = user.get(f"/api/v2/tasks/{view['task_id']}/events")["events"]
            log = user.request("GET", f"/api/v2/tasks/{view['task_id']}/logs?tail=40").text
            lines += [json.dumps(view["attempts"], indent=1), *(str(event) for event in events), log]
    head = next(host for host in pool.lab.hosts.values() if host.is_up and host.ip == pool.record()["head_ip"])
    for kind in ("placement-groups", "jobs", "actors"):
        command = ("ray", "list", kind, f"--address=http://{head.ip}:8265", "--detail", "--limit=1000")
        lines += [f"--- {kind}", head.run(*command, env=pool.ray_environment, timeout_s=120, check=False).stdout]
    for host in pool.lab.hosts.values():
        lines += [f"--- {host.name}: {pid} {command}" for pid, command in (host.pids() if host.is_up else [])]
    return "\n".join(lines)


def _overlaps(pool: Pool, view: dict[str, Any]) -> list[float]:
    """Seconds by which each attempt's last step came after the beginning of the next attempt that ran (all hosts have
    this machine's clock); negative: a gap."""
    found = []
    ran = [
        Path(attempt["job_root"])
        for attempt in view["attempts"]
        if (Path(attempt["job_root"]) / "metrics.jsonl").exists()
    ]
    for earlier, later in itertools.pairwise(ran):
        last_write = (earlier / "metrics.jsonl").stat().st_mtime
        first_write = json.loads((later / "executions.log").read_text().splitlines()[0])["at"]
        found.append(round(last_write - first_write, 2))
    return found


def test_all_stop_when_asked_and_nothing_is_left(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    """The last test of the session: SIGTERM to each launcher and watchdog."""
    for name, proc in [*pool.watchdogs.items(), *pool.heads.items()]:
        if proc.alive:
            proc.signal(signal.SIGTERM)
            assert proc.wait(60) == 0, f"{name}: {proc.log_text()[-2000:]}"
    for host in hosts.values():
        if host.is_up:
            assert [command for _, command in host.pids()] == [], host.name
            # What was killed has no command line any more, and may take a moment to go.
            wait_for(f"{host.name} has no zombies", lambda host=host: host.zombies() == [], 10, lab=pool.lab)  # type: ignore[misc]
    assert pool.record()["expires_at"] <= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 1))
