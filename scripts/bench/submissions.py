"""How many submissions a second, and how long one takes: Argus over HTTP, beside Ray's own Jobs API on the same
cluster, and the floor under "accepted means on disk": one fsync at a time on the same filesystem.

  .venv/bin/python scripts/bench/submissions.py [--count 200] [--clients 1,8]

It starts a head and the service on this machine, and no worker, so that nothing but submissions happens: Argus queues
the tasks, and Ray's Jobs API records the jobs, which then wait for a node. Compare the ratios of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from argus_ray.local.cluster import OneMachine

HERE = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="submissions for each line of the table")
    parser.add_argument("--clients", default="1,8", help="how many at the same time, with commas between them")
    arguments = parser.parse_args()
    clients = [int(word) for word in arguments.clients.split(",")]
    root = Path(f"/tmp/argus-bench-{os.getpid()}")  # noqa: S108
    root.mkdir(mode=0o700)
    admin = secrets.token_hex(24)
    machine = OneMachine(root, f"bench-{os.getpid()}", environ={"ARGUS_ADMIN_TOKEN": admin})
    try:
        machine.start_head()
        machine.wait_for_head()
        machine.serve(HERE / "serve_config.yaml")
        machine.wait_for_service()
        with httpx.Client(trust_env=False, timeout=120) as http:
            _measure(http, machine, admin, arguments.count, clients)
    finally:
        machine.stop()
        shutil.rmtree(root, ignore_errors=True)
    return 0


def _measure(http: httpx.Client, machine: OneMachine, admin: str, count: int, clients: list[int]) -> None:
    argus = _argus(http, machine, admin)
    ray = _ray_jobs(http, machine)
    argus(), ray()  # the first calls import and connect
    print(f"{'what':28} {'clients':>7} {'a second':>9} {'median ms':>10} {'p99 ms':>8}")
    for number in clients:
        _line("Argus, POST /api/v2/tasks", argus, count, number)
        # Each of these starts an actor that waits; fewer are enough.
        _line("Ray, POST /api/jobs/", ray, min(count, 40), number)
        _line("floor: 4 KiB and an fsync", _fsync(machine.shared_root), count, number)


def _argus(http: httpx.Client, machine: OneMachine, admin: str) -> Callable[[], None]:
    head = {"Authorization": f"Bearer {admin}"}
    http.post(f"{machine.url}/api/v2/users", json={"user_id": "ada"}, headers=head).raise_for_status()
    issued = http.post(f"{machine.url}/api/v2/users/ada/tokens", headers=head).raise_for_status().json()
    # Real inputs, since they are looked at before a task is accepted.
    make = [sys.executable, str(HERE / "scripts" / "make_tiny.py"), str(machine.shared_root / "common")]
    subprocess.run(make, check=True, timeout=300, capture_output=True)
    spec = (HERE / "examples" / "cpu-sft.yaml").read_text().replace("/private/", f"{machine.shared_root}/")
    headers = {"Authorization": f"Bearer {issued['token']}", "Content-Type": "application/yaml"}

    def submit() -> None:
        answer = http.post(f"{machine.url}/api/v2/tasks", content=spec, headers=headers)
        if answer.status_code != 201:
            raise RuntimeError(f"{answer.status_code}: {answer.text[:500]}")

    return submit


def _ray_jobs(http: httpx.Client, machine: OneMachine) -> Callable[[], None]:
    token = (machine.root / "ray-token").read_text()

    def submit() -> None:
        body = {"entrypoint": "true", "entrypoint_resources": {"worker_node": 1}}
        headers = {"Authorization": f"Bearer {token}"}
        http.post(f"{machine.dashboard}/api/jobs/", content=json.dumps(body), headers=headers).raise_for_status()

    return submit


def _fsync(folder: Path) -> Callable[[], None]:
    def write() -> None:
        path = folder / f"fsync-{secrets.token_hex(8)}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            os.write(fd, bytes(4096))
            os.fsync(fd)
        finally:
            os.close(fd)

    return write


def _line(name: str, call: Callable[[], None], count: int, clients: int) -> None:
    def timed(_: int) -> float:
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        took = sorted(pool.map(timed, range(count)))
    rate = count / (time.perf_counter() - begun)
    p99 = took[min(len(took) - 1, int(len(took) * 0.99))]
    print(f"{name:28} {clients:7} {rate:9.1f} {statistics.median(took) * 1e3:10.1f} {p99 * 1e3:8.1f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
