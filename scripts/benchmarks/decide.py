"""The scheduler's decision alone, a pure function: many waiting tasks on a pool of a thousand nodes, nearly all of it
taken by tasks that run. Its floor is one look at each waiting task: a Python loop that compares two numbers.
"""

from __future__ import annotations

import collections
import random
import time
from dataclasses import replace
from functools import partial

from argus_ray.core import admission, ledger
from argus_ray.core.model import ClusterView, Gang, NodeView, SlimAttempt, SlimTask
from argus_ray.core.states import AttemptState, TaskState
from benchmarks import report, rounds

_POLICY = admission.AdmissionPolicy(max_overtake_s=600, retry_interval_s=60)
_NOW = 1_800_000_000.0


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--waiting", default="10000,100000", help="tasks that wait, with commas between the numbers")
    parser.add_argument(
        "--nodes", type=int, default=1000, help="of eight GPUs each; seven gangs of one GPU run on each"
    )
    options = parser.parse_args(argv)
    with report.recorded("decide", options) as found:
        nodes = _nodes(options.nodes)
        running = _running(nodes)
        for word in options.waiting.split(","):
            count = int(word)
            queue = _queue(count)
            view = ClusterView("session", tuple(nodes), {})
            held = _settled(queue, view, running)

            sides = {
                "first": partial(_timed, queue, view, running),
                "again": partial(_timed, held, view, running),
                "floor": partial(_look_at_each, queue),
            }
            name = f"{count:,} waiting x {options.nodes:,} nodes"
            runs = rounds.alternate(options.rounds, sides)
            found.figure(f"{name}: all are new", "ms", runs["first"])
            found.figure(f"{name}: nothing has changed", "ms", runs["again"], "< 50" if count >= 100_000 else "")
            found.figure(f"{name}: floor, one look at each", "ms", runs["floor"])
            found.ratio(f"{name}: nothing has changed / floor", runs["again"], runs["floor"])
    return 0


def _timed(queue: list[SlimTask], view: ClusterView, running: list[SlimTask]) -> float:
    begun = time.perf_counter()
    decision = admission.decide(queue, ledger.free_nodes(view, running), _NOW, _POLICY)
    collections.deque(decision.holds(decision.admitted), maxlen=0)  # what is new of each
    return (time.perf_counter() - begun) * 1e3


def _look_at_each(queue: list[SlimTask]) -> float:
    begun = time.perf_counter()
    assert not any(task.gang.gpus_per_node > 64 for task in queue)
    return (time.perf_counter() - begun) * 1e3


def _settled(queue: list[SlimTask], view: ClusterView, running: list[SlimTask]) -> list[SlimTask]:
    """As the queue is stored after a first pass: what does not fit is held, and what fits has left."""
    decision = admission.decide(queue, ledger.free_nodes(view, running), _NOW - 1, _POLICY)
    held = {hold.task_id: hold for hold in decision.holds(decision.admitted)}
    return [
        replace(
            task,
            state=TaskState.PENDING_RESOURCES,
            reason=held[task.task_id].reason,
            not_before=held[task.task_id].not_before,
            overtaken_since=held[task.task_id].overtaken_since,
        )
        for task in queue
        if task.task_id in held
    ]


def _nodes(count: int) -> list[NodeView]:
    """Ray shows nothing of what runs there yet."""
    return [NodeView(f"n{i:04}", f"10.0.{i // 250}.{i % 250}", False, 8, 32, 8, 32, 100, 100) for i in range(count)]


def _running(nodes: list[NodeView]) -> list[SlimTask]:
    """Seven of one GPU on each node: one GPU of eight is free."""
    gang = Gang(1, 1, 3.0)
    return [
        SlimTask(
            name := f"running-{node.node_id}-{number}",
            "ada",
            0,
            TaskState.RUNNING,
            gang,
            live=SlimAttempt(name, name, 1, AttemptState.RUNNING, _NOW, "/r", ray_job_id=name, nodes=(node.node_id,)),
        )
        for node in nodes
        for number in range(7)
    ]


def _queue(count: int) -> list[SlimTask]:
    """Gangs of one to eight nodes; those that ask for one GPU on a node fit."""
    rng = random.Random(0)
    # As the store reads them: tasks of one shape share it.
    gangs = {(n, gpus): Gang(n, gpus, 3.0 * gpus) for n in (1, 2, 4, 8) for gpus in (2, 4, 8)}
    return [
        SlimTask(
            task_id=f"argus-ada-sft-{number}",
            user_id=f"user-{number % 40}",
            seq=number,
            state=TaskState.QUEUED,
            gang=gangs[rng.choice((1, 1, 2, 4, 8)), rng.choice((2, 4, 8, 8))],
        )
        for number in range(count)
    ]
