"""The scheduler's decision alone, a pure function: many waiting tasks on a pool of a thousand nodes, nearly all of it
taken by tasks that run. Its floor is one look at each waiting task: a Python loop that compares two numbers.
"""

from __future__ import annotations

import collections
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from argus_ray.core import admission, ledger
from argus_ray.core.admission import AdmissionPolicy
from argus_ray.core.model import ClusterView, Gang, NodeView, SlimAttempt, SlimTask
from argus_ray.core.quotas import Quotas
from argus_ray.core.shares import NO_SHARES, Shares, Use, shares_of
from argus_ray.core.states import AttemptState, TaskState
from argus_ray.core.waiting import WaitingTasks
from benchmarks import report, rounds

NOW = 1_800_000_000.0
_USERS = 40
_PLAIN = AdmissionPolicy(max_overtake_s=600, retry_interval_s=60)
POLICIES = {
    "": _PLAIN,
    ", quotas": replace(_PLAIN, quotas=Quotas(1_000)),
    ", fair share": replace(_PLAIN, half_life_s=86_400.0),
    ", both": replace(_PLAIN, quotas=Quotas(1_000), half_life_s=86_400.0),
}


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--waiting", default="10000,100000", help="tasks that wait, with commas between the numbers")
    parser.add_argument(
        "--nodes", type=int, default=1000, help="of eight GPUs each; one of them is free on seven of eight nodes"
    )
    options = parser.parse_args(argv)
    with report.recorded("decide", options) as found:
        nodes = nodes_of(options.nodes)
        running = running_on(nodes)
        free = ledger.free_nodes(ClusterView("session", tuple(nodes), {}), running)
        found.figure(
            f"what is free of {options.nodes:,} nodes, {len(running):,} live",
            "ms",
            rounds.alternate(options.rounds, {"": partial(_ledger, nodes, running)})[""],
        )
        for word in options.waiting.split(","):
            count = int(word)
            name = f"{count:,} waiting"
            queue = queue_of(count)
            sides: dict[str, Callable[[], float]] = {"floor": partial(_look_at_each, queue)}
            for title, policy in POLICIES.items():
                shares = _shares(policy, running)
                held = _settled(queue, free, policy, shares)
                sides[f"all are new{title}"] = partial(_first, queue, free, policy, shares)
                sides[f"nothing has changed{title}"] = partial(_again, _kept(held, policy), free, policy, shares)
                sides[f"one ends, one starts{title}"] = partial(_event, _kept(held, policy), free, policy, shares)
                old = [replace(task, overtaken_since=NOW - 5_000 - task.seq % 5_000) for task in held]
                old = _settled(old, free, policy, shares)
                sides[f"all were overtaken{title}"] = partial(_again, _kept(old, policy), free, policy, shares)
            runs = rounds.alternate(options.rounds, sides)
            for side, values in runs.items():
                goal = "" if count < 100_000 or side.startswith(("floor", "all are new")) else "< 50"
                if goal and side.startswith("one ends"):
                    goal = "< 2"
                found.figure(f"{name}: {side}", "ms", values, goal)
            found.ratio(f"{name}: nothing has changed / floor", runs["nothing has changed"], runs["floor"])
    return 0


def _ledger(nodes: list[NodeView], running: list[SlimTask]) -> float:
    view = ClusterView("session", tuple(nodes), {})
    begun = time.thread_time()
    ledger.free_nodes(view, running)
    return (time.thread_time() - begun) * 1e3


def _shares(policy: AdmissionPolicy, running: list[SlimTask]) -> Shares:
    if policy.half_life_s is None:
        return shares_of(running, NOW) if policy.quotas.are_on else NO_SHARES
    used = {f"user-{number}": Use(1e6 * (number // 4), NOW) for number in range(_USERS)}
    return shares_of(running, NOW, used, policy.half_life_s)


def _kept(queue: list[SlimTask], policy: AdmissionPolicy) -> WaitingTasks:
    """As the scheduler keeps them from tick to tick."""
    waiting = policy.no_tasks()
    waiting.add_all(queue)
    waiting.bring_to(NOW)
    return waiting


def _first(queue: list[SlimTask], free: tuple[NodeView, ...], policy: AdmissionPolicy, shares: Shares) -> float:
    """They come at once, and what is new of each is told."""
    begun = time.thread_time()
    decision = admission.decide(_kept(queue, policy), free, NOW, policy, shares=shares)
    collections.deque(decision.holds(decision.admitted), maxlen=0)
    return (time.thread_time() - begun) * 1e3


def _again(waiting: WaitingTasks, free: tuple[NodeView, ...], policy: AdmissionPolicy, shares: Shares) -> float:
    begun = time.thread_time()
    decision = admission.decide(waiting, free, NOW, policy, shares=shares)
    collections.deque(decision.holds(decision.admitted), maxlen=0)
    return (time.thread_time() - begun) * 1e3


def _event(waiting: WaitingTasks, free: tuple[NodeView, ...], policy: AdmissionPolicy, shares: Shares) -> float:
    """A run of eight GPUs has ended, and somebody who waits takes its place. It leaves, and a new one comes."""
    nodes = (replace(free[0], gpus_free=8, cpus_free=32), *free[1:])
    begun = time.thread_time()
    decision = admission.decide(waiting, nodes, NOW, policy, shares=shares)
    collections.deque(decision.holds([]), maxlen=0)
    for task in decision.admitted:
        waiting.remove(task.seq)
        waiting.put(replace(task, seq=task.seq + 10_000_000))
    return (time.thread_time() - begun) * 1e3


def _look_at_each(queue: list[SlimTask]) -> float:
    begun = time.thread_time()
    assert not any(task.gang.gpus_per_node > 64 for task in queue)
    return (time.thread_time() - begun) * 1e3


def _settled(
    queue: list[SlimTask], free: tuple[NodeView, ...], policy: AdmissionPolicy, shares: Shares
) -> list[SlimTask]:
    """As the queue is stored after a first pass: what does not fit is held, and what fits has left."""
    decision = admission.decide(queue, free, NOW, policy, shares=shares)
    # As the store reads them: tasks of one reason share it.
    reasons = {hold.reason: hold.reason for hold in decision.holds(decision.admitted)}
    held = {hold.task_id: hold for hold in decision.holds(decision.admitted)}
    return [
        replace(
            task,
            state=TaskState.PENDING_RESOURCES,
            reason=reasons[held[task.task_id].reason] or task.reason,
            overtaken_since=held[task.task_id].overtaken_since,
        )
        if task.task_id in held
        else task
        for task in decision.waits
    ]


def nodes_of(count: int) -> list[NodeView]:
    """Ray shows nothing of what runs there yet."""
    return [NodeView(f"n{i:04}", f"10.0.{i // 250}.{i % 250}", False, 8, 32, 8, 32, 100, 100) for i in range(count)]


def running_on(nodes: list[NodeView]) -> list[SlimTask]:
    """Eight of one GPU on one node of eight, and seven on each other one."""
    gang = Gang(1, 1, 3.0)
    names = [f"user-{number}" for number in range(_USERS)]
    found: list[SlimTask] = []
    for place, node in enumerate(nodes):
        for number in range(8 if place % 8 == 0 else 7):
            name = f"argus-ada-sft-{node.node_id}-0-{number}"
            live = SlimAttempt(
                name, name, 1, AttemptState.RUNNING, NOW - 900, "/r", ray_job_id=name, nodes=(node.node_id,),
                started_at=NOW - 900,
            )  # fmt: skip
            user = names[len(found) % _USERS]
            found.append(SlimTask(name, user, -len(found) - 1, TaskState.RUNNING, gang, live=live))
    return found


def queue_of(count: int) -> list[SlimTask]:
    """Gangs of one to eight nodes; those that ask for one GPU on a node fit."""
    rng = random.Random(0)
    # As the store reads them: tasks of one shape share it.
    gangs = {(n, gpus): Gang(n, gpus, 3.0 * gpus) for n in (1, 2, 4, 8) for gpus in (2, 4, 8)}
    return [
        SlimTask(
            task_id=f"argus-ada-sft-0-0-{number}",
            user_id=f"user-{number % 40}",
            seq=number,
            state=TaskState.QUEUED,
            gang=gangs[rng.choice((1, 1, 2, 4, 8)), rng.choice((2, 4, 8, 8))],
        )
        for number in range(count)
    ]
