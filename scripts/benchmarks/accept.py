"""Accepted submissions a second, and reads, beside Argus's own no-op through the same proxy, beside a plain server with
the same promise (peer.py), beside Ray's Jobs API on the same cluster, and the floor under "accepted means on disk".

All specs are distinct, by 40 users, and their inputs are there. The tasks ask for more than the cluster has, so nothing
starts; they are canceled between the rounds, so that each begins with an empty queue. Ray's jobs ask for a resource
that nobody has. Each of these leaves an actor that waits, so they are few, come last in a round, and are let die.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import cluster, peer, report, rounds, wrk
from benchmarks.cluster import Cluster
from benchmarks.report import Report

#: Ray is measured with both, and its better rate counts.
_RAY_CONNECTIONS = (16, 64)
_CONNECTIONS = 64


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (Ray's: 1)")
    parser.add_argument("--connections", default="64,1", help="with commas between them")
    parser.add_argument("--ray-rounds", type=int, default=3, help="fewer, since what they leave takes a minute to die")
    options = parser.parse_args(argv)
    argus = cluster.running()
    with report.recorded("accept", options) as found:
        tokens = argus.file("tokens", "\n".join(argus.tokens()) + "\n")
        with peer.started(_emptied(argus.folder / "peer"), tokens, cluster.free_port()) as plain:
            argus.run(wrk.Load(f"{plain}/healthz"), connections=64, seconds=1)  # it, too, begins warm
            for word in options.connections.split(","):
                _accept(found, argus, plain, int(word), options)
                _reads(found, argus, int(word), options)
        if options.ray_rounds:
            _beside_ray(found, argus, options)
    return 0


def _accept(found: Report, argus: Cluster, plain: str, connections: int, options: argparse.Namespace) -> None:
    submissions = argus.submissions(argus.spec())
    no_op = wrk.Load(f"{argus.url}/healthz")
    measure = partial(argus.run, connections=connections, seconds=options.seconds)
    floor: list[float] = []

    def accept() -> wrk.Counted:
        floor.append(rounds.fsyncs_a_second(argus.shared, min(1.0, options.seconds)))
        counted = measure(submissions)
        argus.cancel_all()
        return counted

    sides: dict[str, Callable[[], wrk.Counted]] = {
        "Argus no-op, GET /healthz": partial(measure, no_op),
        "Argus POST /api/v2/tasks": accept,
        "plain no-op, GET /healthz": partial(measure, replace(no_op, url=f"{plain}/healthz")),
        "plain POST /api/v2/tasks": partial(measure, replace(submissions, url=f"{plain}/api/v2/tasks")),
    }
    runs = rounds.alternate(options.rounds, sides)
    rates = {name: _add(found, name, connections, counted) for name, counted in runs.items()}
    found.figure("floor: 4 KiB and an fsync, one at a time", "/s", floor)
    mine = rates["Argus POST /api/v2/tasks"]
    of = f"({connections} conn.) accept"
    found.ratio(f"{of} / Argus no-op", mine, rates["Argus no-op, GET /healthz"], ">= 0.9" if connections > 1 else "")
    found.ratio(f"{of} / plain server", mine, rates["plain POST /api/v2/tasks"], ">= 0.5" if connections > 1 else "")
    found.ratio(f"{of} / fsyncs", mine, floor)
    found.ratio(
        f"({connections} conn.) plain accept / plain no-op",
        rates["plain POST /api/v2/tasks"],
        rates["plain no-op, GET /healthz"],
    )


def _reads(found: Report, argus: Cluster, connections: int, options: argparse.Namespace) -> None:
    """Of tasks that each user has."""
    tokens = argus.tokens()
    spec = argus.spec().replace("@N@", "read")
    tasks = [argus.ask("POST", "/api/v2/tasks", token=token, body=spec).json()["task_id"] for token in tokens]
    load = wrk.Load(argus.url, tokens=argus.file("tokens", "\n".join(tokens) + "\n"))
    paths = argus.file("reads", "".join(f"/api/v2/tasks/{task}\n" for task in tasks))
    measure = partial(argus.run, connections=connections, seconds=options.seconds)
    sides = {
        "Argus no-op beside the reads": partial(measure, wrk.Load(f"{argus.url}/healthz")),
        "Argus GET /api/v2/me": partial(measure, replace(load, url=f"{argus.url}/api/v2/me")),
        "Argus GET /api/v2/tasks/{id}": partial(measure, replace(load, paths=paths)),
    }
    runs = rounds.alternate(options.rounds, sides)
    rates = {name: _add(found, name, connections, counted) for name, counted in runs.items()}
    no_op = rates.pop("Argus no-op beside the reads")
    for name, mine in rates.items():
        found.ratio(f"({connections} conn.) {name.removeprefix('Argus ')} / Argus no-op", mine, no_op, ">= 0.8")
    argus.cancel_all()


def _beside_ray(found: Report, argus: Cluster, options: argparse.Namespace) -> None:
    submissions = argus.submissions(argus.spec())
    body = argus.file("job.json", '{"entrypoint": "true", "entrypoint_resources": {"nobody_has_this": 1}}')
    token = argus.file("ray-token", f"{argus.ray_token}\n")
    jobs = wrk.Load(f"{argus.machine.dashboard}/api/jobs/", "POST", token, None, body, "application/json")

    def accept() -> wrk.Counted:
        counted = argus.run(submissions, connections=_CONNECTIONS, seconds=options.seconds)
        argus.cancel_all()
        return counted

    argus.run(jobs, connections=1, seconds=1)  # the first one starts an agent

    def ray(connections: int) -> wrk.Counted:
        counted = argus.run(jobs, connections=connections, seconds=1)
        time.sleep(cluster.JOB_START_S + 10)
        return counted

    mine, theirs = "Argus POST /api/v2/tasks beside Ray's", "Ray POST /api/jobs/"
    sides = {mine: accept} | {f"{theirs} {each}": partial(ray, each) for each in _RAY_CONNECTIONS}
    runs = rounds.alternate(options.ray_rounds, sides)
    accepted = _add(found, mine, _CONNECTIONS, runs[mine], wanted=201)
    rates = [_add(found, theirs, each, runs[f"{theirs} {each}"], wanted=200) for each in _RAY_CONNECTIONS]
    best = [max(of_round) for of_round in zip(*rates, strict=True)]
    found.ratio(f"({_CONNECTIONS} conn.) accept / {theirs}, the better one", accepted, best, ">= 10")


def _add(
    found: Report, name: str, connections: int, runs: list[wrk.Counted], *, wanted: int | None = None
) -> list[float]:
    """The rates of the wanted answer; what else was answered becomes a note."""
    status = wanted or (201 if "POST" in name else 200)
    rates = [run.rate(status) for run in runs]
    found.figure(f"({connections} conn.) {name}", "/s", rates)
    found.figure(f"({connections} conn.) {name}, p99", "ms", [run.p99_ms for run in runs])
    if odd := wrk.others(runs, (status,)):
        found.note(f"({connections} conn.) {name}: also {odd}")
    return rates


def _emptied(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for entry in folder.iterdir():
        entry.unlink()
    return folder
