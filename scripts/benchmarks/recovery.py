"""How long the API is away when all of the head's Ray is killed (SIGKILL), until its first answer.

Beside it: an empty Serve application on an empty Ray, with the same launcher and the same durable store. So what is
left as a difference is Argus's own. Each is started anew for each kill.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
import urllib.request
from functools import partial

from benchmarks import cluster, report, rounds
from benchmarks.cluster import Cluster

_EMPTY = """
proxy_location: HeadOnly
http_options:
  host: 0.0.0.0
  port: 8000
applications:
  - name: empty
    route_prefix: /
    import_path: benchmarks.empty:app
"""
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--calm", type=float, default=5.0, help="seconds that a head serves before it is killed")
    options = parser.parse_args(argv)
    cluster.end()  # one head at a time: a second one would share the two cores
    with report.recorded("recovery", options) as found:
        sides = {"Argus": partial(_argus, options.calm), "empty Ray + Serve": partial(_empty, options.calm)}
        runs = rounds.alternate(options.rounds, sides)
        answers = {name: [first for first, _ in times] for name, times in runs.items()}
        for name, seconds in answers.items():
            found.figure(f"SIGKILL -> first answer, {name}", "s", seconds)
        found.figure("SIGKILL -> ready, Argus", "s", [ready for _, ready in runs["Argus"]])
        found.ratio("first answer: Argus / empty", answers["Argus"], answers["empty Ray + Serve"], "<= 1.3")
    return 0


def _argus(calm_s: float) -> tuple[float, float]:
    try:
        return _kill(cluster.running(), calm_s)
    finally:
        cluster.end()


def _empty(calm_s: float) -> tuple[float, float]:
    machine, admin = cluster.new_machine("empty")
    try:
        config = machine.root / "empty.yaml"
        config.write_text(_EMPTY)
        machine.launch_head(config)
        machine.wait_for_launch([])
        return _kill(Cluster(machine, admin, machine.root / "bench"), calm_s)
    finally:
        machine.stop()
        shutil.rmtree(machine.root, ignore_errors=True)


def _kill(argus: Cluster, calm_s: float) -> tuple[float, float]:
    """Seconds until the first 200 of /healthz, and of /readyz."""
    time.sleep(calm_s)
    victims = argus.head_pids()
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    return _until(f"{argus.url}/healthz", begun), _until(f"{argus.url}/readyz", begun)


def _until(url: str, begun: float) -> float:
    while True:
        with contextlib.suppress(OSError), _OPENER.open(url, timeout=2) as answer:
            if answer.status == 200:
                return time.monotonic() - begun
        if time.monotonic() - begun > 300:
            raise OSError(f"{url} does not answer")
        time.sleep(0.02)
