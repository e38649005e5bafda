"""What Argus adds to Ray Jobs: from the submission to the first line of the driver on an idle, warm cluster, and many
trivial jobs at once. Beside it: the same command and environment, submitted by Ray's JobSubmissionClient alone.

The program prints one line and ends, so that nothing but the start is measured. The cluster is one worker.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import cluster, report, rounds
from benchmarks.cluster import Cluster

_THREADS = 16
_FINAL = ("SUCCEEDED", "FAILED", "STOPPED", "CANCELED")


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.set_defaults(rounds=10)
    parser.add_argument("--jobs", type=int, default=100, help="that are submitted at once; 0: only one at a time")
    parser.add_argument("--many-rounds", type=int, default=2, help="of so many jobs at once")
    options = parser.parse_args(argv)
    argus = cluster.running(workers=1, gpus=128)
    with report.recorded("latency", options) as found:
        ours = _Argus(argus, argus.tokens()[0])
        rays = _Ray(argus, ours.example())
        ours.first_line_s(), rays.first_line_s()
        runs = rounds.alternate(options.rounds, {"Argus": ours.first_line_s, "Ray Jobs": rays.first_line_s})
        for name, seconds in runs.items():
            found.figure(f"submit -> first line, {name}", "ms", [1e3 * each for each in seconds])
        pairs = zip(runs["Argus"], runs["Ray Jobs"], strict=True)
        found.figure("submit -> first line, Argus - Ray Jobs", "ms", [1e3 * (a - b) for a, b in pairs], "<= 100")
        if options.jobs:
            _many(found, ours, rays, options)
    return 0


def _many(found: report.Report, ours: _Argus, rays: _Ray, options: argparse.Namespace) -> None:
    sides: dict[str, Callable[[], float]] = {
        "Argus": partial(_at_once, ours.submit, ours.ended, options.jobs),
        "Ray Jobs": partial(_at_once, rays.submit, rays.ended, options.jobs),
    }
    runs = rounds.alternate(options.many_rounds, sides)
    for name, seconds in runs.items():
        found.figure(f"{options.jobs} trivial jobs at once, {name}", "s", seconds)
    found.ratio(f"{options.jobs} trivial jobs: Argus / Ray Jobs", runs["Argus"], runs["Ray Jobs"], "<= 1.1")


def _at_once(submit: Callable[[], str], ended: Callable[[set[str]], set[str]], count: int) -> float:
    """Seconds from the first submission until the last one has ended."""
    begun = time.monotonic()
    with ThreadPoolExecutor(_THREADS) as pool:
        alive = set(pool.map(lambda _: submit(), range(count)))
    while alive:
        time.sleep(0.5)
        alive -= ended(alive)
        if time.monotonic() - begun > 600:
            raise OSError(f"{len(alive)} of {count} jobs have not ended after 600 s: {sorted(alive)[:3]}")
    return time.monotonic() - begun


def _until_there(log: Path) -> float:
    """The moment at which this file has a line."""
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size):
        if time.monotonic() > deadline:
            raise OSError(f"{log} has no line after 120 s")
        time.sleep(0.002)
    return time.monotonic()


@dataclass
class _Argus:
    argus: Cluster
    token: str

    def submit(self) -> str:
        spec = self.argus.trivial_spec()
        return str(self.argus.ask("POST", "/api/v2/tasks", token=self.token, body=spec).json()["task_id"])

    def ended(self, alive: set[str]) -> set[str]:
        """Of these. By pages of what lives: its number falls."""
        lives = set(self.argus.task_ids("QUEUED,PENDING_RESOURCES,SUBMITTING,SUBMITTED,RUNNING"))
        return alive - lives

    def first_line_s(self) -> float:
        begun = time.monotonic()
        task = self.submit()
        # Where the first attempt writes follows from user and task.
        root = self.argus.shared / "users" / "bench-0" / "jobs" / f"{task}--a01"
        seconds = _until_there(root / "logs" / "driver.log") - begun
        self.argus.wait_final(task, self.token)
        return seconds

    def example(self) -> dict[str, Any]:
        """An attempt that has ended: its command, environment and job root."""
        task = self.argus.run_to_end(self.token, self.argus.trivial_spec())
        attempt: dict[str, Any] = self.argus.ask("GET", f"/api/v2/tasks/{task}", token=self.token).json()["attempts"][0]
        return attempt


class _Ray:
    """The same program without Argus: no runner, no task, no gang."""

    def __init__(self, argus: Cluster, attempt: dict[str, Any]) -> None:
        os.environ.update(argus.machine.environment())  # Ray reads its token's place when it is imported
        from ray.job_submission import JobSubmissionClient

        self._client: Any = JobSubmissionClient(argus.machine.dashboard)
        self._attempt = attempt
        self._folder = argus.folder / "ray-jobs"
        self._folder.mkdir(exist_ok=True)

    def submit(self) -> str:
        job = f"bench-{secrets.token_hex(6)}"
        root = self._folder / job
        root.mkdir()
        text = json.dumps([self._attempt["command"], self._attempt["env"]])
        command, env = json.loads(text.replace(self._attempt["job_root"], str(root)))
        entrypoint = f"cd {root} && exec {shlex.join(command)} > {root}/driver.log 2>&1"
        self._client.submit_job(
            entrypoint=entrypoint,
            submission_id=job,
            runtime_env={"env_vars": env},
            entrypoint_resources={"worker_node": 1},
        )
        return job

    def ended(self, alive: set[str]) -> set[str]:
        """Of these. Asked only for those that have printed their line: a question costs the head some milliseconds."""
        printed = [job for job in alive if self._log(job).exists()]
        return {job for job in printed if str(self._client.get_job_status(job).value) in _FINAL}

    def first_line_s(self) -> float:
        begun = time.monotonic()
        job = self.submit()
        seconds = _until_there(self._log(job)) - begun
        deadline = time.monotonic() + 60
        while not self.ended({job}):
            if time.monotonic() > deadline:
                raise OSError(f"{job} has not ended")
            time.sleep(0.1)
        return seconds

    def _log(self, job: str) -> Path:
        return self._folder / job / "driver.log"
