"""What a long queue costs: accepting while thousands wait, specs near the limit of the body, what a pass of the
scheduler moves through Ray, and the events that it writes while free GPUs come and go and nothing can start.

The first two are measured over HTTP, in turn with an empty queue and with small specs. The other two run the real
scheduler over a real service in this process; time is simulated.
"""

from __future__ import annotations

import argparse
import random
import time
from functools import partial

from benchmarks import cluster, inside, report, rounds, wrk
from benchmarks.cluster import Cluster
from benchmarks.report import Report

_SECONDS = 1.0


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--waiting", type=int, default=cluster.WAITING_LIMIT, help="tasks that wait")
    parser.add_argument("--bytes", type=int, default=8000, help="of a large spec; the limit is 8 KiB")
    parser.add_argument("--minutes", type=float, default=10.0, help="of simulated time")
    parser.add_argument("--in-process", action="store_true", help="only what needs no cluster")
    options = parser.parse_args(argv)
    with report.recorded("waiting", options) as found:
        _passes(found, options.waiting)
        _unmoved(found, options.minutes)
        if not options.in_process:
            argus = cluster.running()
            _large_specs(found, argus, options)
            _full_queue(found, argus, options)
    return 0


# --- over HTTP ---


def _large_specs(found: Report, argus: Cluster, options: argparse.Namespace) -> None:
    spec = argus.spec()
    line = "# what this run is for, as somebody may note it in a TaskSpec\n"
    large = spec + line * ((options.bytes - len(spec) - 16) // len(line))
    loads = {f"{len(text) / 1e3:.1f} KB": argus.submissions(text, f"spec-{len(text)}") for text in (spec, large)}

    def accept(load: wrk.Load) -> wrk.Counted:
        counted = argus.run(load, connections=64, seconds=2 * _SECONDS)
        argus.cancel_all()
        return counted

    runs = rounds.alternate(options.rounds, {name: partial(accept, load) for name, load in loads.items()})
    (small_name, small), (large_name, big) = ((name, _rates(found, f"specs of {name}", runs[name])) for name in loads)
    found.ratio(f"accept, specs of {large_name} / of {small_name}", big, small, ">= 0.5")


def _full_queue(found: Report, argus: Cluster, options: argparse.Namespace) -> None:
    """With as many as leave room for one measurement: beyond the limit a submission is a 429."""
    load = argus.submissions(argus.spec())
    none: list[wrk.Counted] = []
    many: list[wrk.Counted] = []
    waited: list[float] = []
    for _ in range(options.rounds):
        argus.cancel_all()
        none.append(argus.run(load, connections=64, seconds=_SECONDS))
        room = int(1.3 * none[-1].rate(201) * _SECONDS) + 64
        waited.append(argus.fill(load, min(options.waiting, cluster.WAITING_LIMIT) - 2 * room))
        time.sleep(2)  # the scheduler has seen them all
        many.append(argus.run(load, connections=64, seconds=_SECONDS))
    argus.cancel_all()
    empty = _rates(found, "an empty queue", none)
    full = _rates(found, "a full queue", many)
    found.figure("tasks in the full queue", "tasks", waited)
    found.ratio("accept, a full queue / an empty one", full, empty, ">= 0.9")


def _rates(found: Report, name: str, runs: list[wrk.Counted]) -> list[float]:
    rates = [run.rate(201) for run in runs]
    found.figure(f"accept, {name}", "/s", rates)
    found.figure(f"accept, {name}, p99", "ms", [run.p99_ms for run in runs])
    if odd := wrk.others(runs, (201,)):
        found.note(f"accept, {name}: also {odd}")
    return rates


# --- in process ---


def _passes(found: Report, waiting: int) -> None:
    with inside.world() as world:
        who = world.user("ada")
        inside.fill(world, who, waiting - 1)  # one more is to come, and the settings allow no more
        tick, moved = inside.scheduler(world, inside.Pool())
        for name, goal in (
            ("the first pass of a scheduler", ""),
            ("the pass after it", "< 3"),
            ("the pass after one submission", "< 3"),
        ):
            if "submission" in name:
                inside.fill(world, who, 1)
            before, begun = moved.bytes, time.perf_counter()
            tick()
            found.figure(f"{waiting} waiting, {name}: through Ray", "MB", (moved.bytes - before) / 1e6, goal)
            found.figure(f"{waiting} waiting, {name}: took", "ms", (time.perf_counter() - begun) * 1e3)


def _unmoved(found: Report, minutes: float, waiting: int = 500, tick_s: float = 5.0) -> None:
    """Free GPUs change before each tick, and never suffice."""
    with inside.world() as world:
        inside.fill(world, world.user("ada"), waiting)
        pool, rng = inside.Pool(), random.Random(1)
        tick, moved = inside.scheduler(world, pool)
        tick()
        events, moved.bytes = inside.count_events(world), 0
        ticks = int(minutes * 60 / tick_s)
        for _ in range(ticks):
            world.clock.advance(tick_s)
            pool.shuffle(rng)
            tick()
        name = f"{waiting} waiting, {minutes:g} minutes, free GPUs change"
        found.figure(f"{name}: events of tasks that did not move", "rows", inside.count_events(world) - events, "0")
        found.figure(f"{name}: through Ray", "MB", moved.bytes / 1e6)
