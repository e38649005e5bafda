"""Facts -> metrics of Prometheus. What is not known has no sample: nothing here says 0 for it.

Label values come from fixed lists, or name a user, a machine or a bucket; never a task, a path or a message.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

import argus_ray
from argus_ray.core.estimates import Verdict
from argus_ray.core.exports import WORKLOAD
from argus_ray.core.monitoring import (
    WAITING_REASONS,
    ActorFacts,
    Histogram,
    PoolFacts,
    PublisherFacts,
    SchedulerFacts,
    StateFacts,
)
from argus_ray.core.states import FINAL, TaskState
from argus_ray.core.verl import failures

#: Of readiness, those that must be there.
PARTS = ("state", "scheduler", "publisher", "ray_jobs")
_WORKLOADS = ("sft", "ppo", "grpo", WORKLOAD)
_OTHER = "other"
_FAILURES = (*failures.CODES, "invalid_inputs")
Labels = tuple[str, ...]
#: By labels, each a tuple of as many strings as its metric has; or of a metric without any. None: not known.
Values = Mapping[Any, float] | float | None


@dataclass(frozen=True, eq=False)  # the registry keeps it by its identity
class Snapshot:
    """One look at all parts, and a collector of prometheus_client."""

    #: As /readyz tells them: "ok", or why not.
    parts: Mapping[str, str]
    #: None: the state actor does not answer.
    state: StateFacts | None = None
    actors: ActorFacts = field(default_factory=ActorFacts)
    per_user: bool = True

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "argus_build",
            "The version that answers; always 1",
            value={"version": argus_ray.__version__, "python": platform.python_version()},
        )
        yield _gauge("part_ready", "1: this part of the service works", dict(self._ready()), "part")
        yield _gauge("gpus", "GPUs of the pool", dict(self._gpus()), "kind")
        if self.state is not None:
            yield from _of_state(self.state)
            if self.per_user:
                yield from _of_users(self.state)
        if self.actors.scheduler is not None:
            yield from _of_scheduler(self.actors.scheduler)
        if self.actors.publisher is not None:
            yield from _of_publisher(self.actors.publisher)

    def _ready(self) -> Iterator[tuple[Labels, bool]]:
        for part in PARTS:
            is_ready = self.parts.get(part) == "ok"
            yield (part,), is_ready and (part != "state" or self.state is not None)

    def _gpus(self) -> Iterator[tuple[Labels, float]]:
        """What is claimed is known of the database, also while the scheduler is away."""
        if self.state is not None:
            yield ("claimed",), self.state.gpus_claimed
        scheduler = self.actors.scheduler
        if scheduler is not None and scheduler.pool is not None:
            pool = scheduler.pool
            yield from ((("total",), pool.gpus_total), (("free",), pool.gpus_free), (("barred",), pool.gpus_barred))


def _of_state(facts: StateFacts) -> Iterator[Metric]:
    totals = facts.totals
    yield _gauge("store_epoch", "How many writers the database has had", facts.epoch)
    yield _gauge("maintenance", "1: maintenance is on, and nothing starts", facts.maintenance)
    every = {(kind, state.value): 0 for kind in _WORKLOADS for state in TaskState}
    yield _gauge("tasks", "Tasks by workload and state", every | dict(facts.tasks), "workload", "state")
    accepted = {(kind,): sum(n for (each, _), n in facts.tasks.items() if each == kind) for kind in _WORKLOADS}
    yield _counter("tasks_accepted", "Tasks accepted", accepted, "workload")
    ended = {(kind, state.value): facts.tasks.get((kind, state.value), 0) for kind in _WORKLOADS for state in FINAL}
    yield _counter("tasks_ended", "Tasks that have ended", ended, "workload", "outcome")
    waiting = {(reason,): facts.waiting.get(reason, 0) for reason in WAITING_REASONS}
    yield _gauge("tasks_waiting", "Tasks that wait, by why", waiting, "reason")
    yield _gauge("oldest_wait_seconds", "Since the oldest task that waits was accepted", facts.oldest_wait_s)
    wanted = {(reason,): facts.gpus_wanted.get(reason, 0) for reason in WAITING_REASONS}
    yield _gauge("gpus_wanted", "GPUs of tasks that wait, by why", wanted, "reason")
    yield _histogram("queue_wait_seconds", "From acceptance to the first admission", facts.queue_waits)
    estimates = {(verdict.value,): facts.start_estimates.get(verdict.value, 0) for verdict in Verdict}
    yield _counter("start_estimates", "Starts, by what was foretold of them", estimates, "result")
    yield _counter("admissions", "Attempts that were admitted", totals.get("admissions", {}).get(""))
    yield _counter("overtakes", "Times that a waiting task began to be overtaken", totals.get("overtakes", {}).get(""))
    yield _counter("attempts_ended", "Attempts that have ended", _by_one(totals.get("attempts_ended", {})), "outcome")
    yield _counter("task_failures", "Tasks that have FAILED, by code", _failures(totals.get("failures", {})), "code")
    yield _gauge("tasks_stalled", "Tasks that run and make no steps", facts.stalled)
    yield _histogram("store_commit_seconds", "Commits of the database that wrote something", facts.commits)
    yield _histogram("store_batch_size", "Calls in one transaction", facts.batches)
    yield _gauge("store_bytes", "Size of the database", facts.size)
    yield _gauge("backup_age_seconds", "Since the newest backup of the database", facts.backup_age_s)
    yield _gauge("log_streams", "Log streams that are open", facts.streams)
    yield _counter(
        "auth_failures", "Requests that were refused for their token", _by_one(totals.get("refused", {})), "reason"
    )


def _failures(found: Mapping[str, float]) -> dict[Labels, float]:
    """A code of another version counts with others."""
    told: dict[Labels, float] = {(code,): 0 for code in (*_FAILURES, _OTHER)}
    for code, count in found.items():
        told[(code if (code,) in told else _OTHER,)] += count
    return told


def _of_users(facts: StateFacts) -> Iterator[Metric]:
    yield _gauge("user_gpus", "GPUs that a user's attempts hold", _by_one(facts.user_gpus), "user")
    yield _gauge("user_tasks", "Tasks of a user that wait or are active", facts.user_tasks, "user", "state")
    seconds = _by_one(facts.user_gpu_seconds)
    yield _counter("user_gpu_seconds", "GPU time that a user's attempts have had", seconds, "user")


def _of_scheduler(facts: SchedulerFacts) -> Iterator[Metric]:
    yield _histogram("scheduler_tick_seconds", "Ticks of the scheduler that went well", facts.ticks)
    yield _gauge("scheduler_last_tick_age_seconds", "Since the last tick that went well", facts.tick_age_s)
    yield _gauge("ray_jobs_reachable", "1: Ray Jobs answers", facts.jobs_reachable)
    yield _gauge("overtake_barrier", "Nodes that are kept for overtaken tasks", facts.barrier)
    if facts.space is not None:
        yield _gauge("shared_free_bytes", "Free where the shared filesystem has least", facts.space.free)
        yield _gauge("shared_size_bytes", "Size of that filesystem", facts.space.size)
    if facts.pool is not None:
        yield from _of_pool(facts.pool)


def _of_pool(pool: PoolFacts) -> Iterator[Metric]:
    yield _gauge("nodes", "Nodes of the pool", _by_one(pool.nodes), "state")
    free = {(name,): machine.gpus_free for name, machine in pool.machines.items()}
    yield _gauge("node_gpus_free", "GPUs of a machine that nobody holds", free, "node")


def _of_publisher(facts: PublisherFacts) -> Iterator[Metric]:
    yield _gauge("head_file_age_seconds", "Since head.json was written", facts.age_s)
    yield _gauge("head_file_ttl_seconds", "For how long head.json is good", facts.ttl_s)
    yield _gauge("epoch", "Of the head; it rises each time that a head takes over", facts.epoch or None)


def _by_one(values: Mapping[str, float]) -> dict[Labels, float]:
    return {(name,): value for name, value in values.items()}


def _gauge(name: str, told: str, values: Values, *labels: str) -> Metric:
    family = GaugeMetricFamily(f"argus_{name}", told, labels=labels)
    return _filled(family, values)


def _counter(name: str, told: str, values: Values, *labels: str) -> Metric:
    family = CounterMetricFamily(f"argus_{name}", told, labels=labels)
    return _filled(family, values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    if isinstance(values, Mapping):
        for labels, value in sorted(values.items()):
            family.add_metric(labels, float(value))
    elif values is not None:
        family.add_metric((), float(values))
    return family


def _histogram(name: str, told: str, values: Histogram) -> Metric:
    names = [*map(_number, values.bounds), "+Inf"]
    family = HistogramMetricFamily(f"argus_{name}", told, labels=())
    family.add_metric((), list(zip(names, map(float, accumulate(values.counts)), strict=True)), values.sum)
    return family


def _number(bound: float) -> str:
    """As OpenMetrics wants it: always with a point."""
    return str(float(bound))
