"""Whether "accepted" means on disk: SIGKILL of the state actor while 64 connections submit as fast as they can, then
a count of the tasks that were answered with 201 and are not there. The goal is none, always."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from pathlib import Path

from benchmarks import cluster, report, wrk
from benchmarks.cluster import Cluster


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of load; the kill comes in the middle")
    options = parser.parse_args(argv)
    argus = cluster.running()
    with report.recorded("durable", options) as found:
        runs = [_kill(argus, options) for _ in range(options.rounds)]
        accepted, missing, twice, ready_s, counted = zip(*runs, strict=True)
        found.figure("201s before and after the kill", "tasks", accepted)
        found.figure("of these, not found afterwards", "tasks", missing, "0")
        found.figure("task ids that were given twice", "tasks", twice, "0")
        found.figure("from the end of the load until ready", "s", ready_s)
        if odd := wrk.others(counted, (201,)):
            found.note(f"while the state actor was away: {odd}")
    return 0


def _kill(argus: Cluster, options: argparse.Namespace) -> tuple[int, int, int, float, wrk.Counted]:
    record = argus.file("accepted", "")
    load = argus.submissions(argus.spec(), record=record)
    victim = argus.state_actor()
    timer = threading.Timer(options.seconds / 2, os.kill, (victim, signal.SIGKILL))
    timer.start()
    counted = argus.run(load, connections=64, seconds=options.seconds)
    timer.join()
    ready_s = argus.wait_ready()
    received = _ids(record)
    there = set(argus.waiting_ids())
    argus.cancel_all()
    return len(received), len(set(received) - there), len(received) - len(set(received)), ready_s, counted


def _ids(record: Path) -> list[str]:
    return [json.loads(line)["task_id"] for line in record.read_text().splitlines() if line]
