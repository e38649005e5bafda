"""How long a tick of the scheduler keeps its loop at a time, and how long it takes: many waiting tasks, a pool of a
thousand nodes, and thousands of live attempts. The ports answer at once, so that what is measured is the scheduler's
own. Beside it: a pass of the forecaster on the same loop, first with nothing known, then with a pace of each attempt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from argus_ray.core.forecast.model import History, Kind, Nature, Question, RunSeen, Told
from argus_ray.core.forecast.pace import StepsSeen
from argus_ray.core.lifecycle import Change, Hold
from argus_ray.core.model import ClusterView, NodeView, QueueChanges, Task
from argus_ray.core.observation import JobSeen, JobStatus
from argus_ray.core.shares import Use
from argus_ray.core.stall import MetricsSeen, StallPolicy
from argus_ray.core.states import TaskState
from argus_ray.disk.inputs import Findings
from argus_ray.scheduler import futures
from argus_ray.scheduler.collector import Collector
from argus_ray.scheduler.forecaster import Forecaster
from argus_ray.scheduler.runs import Runs
from argus_ray.scheduler.tick import Dispatcher
from benchmarks import decide, report
from tests.support.builders import spec_yaml


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--waiting", type=int, default=100_000, help="tasks that wait")
    parser.add_argument("--nodes", type=int, default=1000, help="of eight GPUs each, nearly all of them taken")
    options = parser.parse_args(argv)
    with report.recorded("tick", options) as found:
        for title, policy in decide.POLICIES.items():
            world = _World(options.waiting, options.nodes)
            runs = asyncio.run(_measure(world, policy, options.rounds))
            for name, (longest, whole) in runs.items():
                found.figure(f"{name}{title}: longest stretch", "ms", longest, "< 50")
                found.figure(f"{name}{title}: the whole", "ms", whole)
    return 0


_SPEC = spec_yaml("/private", total_training_steps=10_000)


class _World:
    """Behind all ports."""

    def __init__(self, waiting: int, nodes: int) -> None:
        self.nodes = decide.nodes_of(nodes)
        live = decide.running_on(self.nodes)
        self.queue = decide.queue_of(waiting)
        self._by_id = {task.task_id: task for task in (*self.queue, *live)}
        self._step = 0
        self.view = ClusterView("session", tuple(self.nodes), {})
        self.changes = QueueChanges("w", 1, True, (*self.queue, *live))
        self.live = live

    async def queue_changes(self, writer: str, version: int) -> QueueChanges:
        changes, self.changes = self.changes, QueueChanges("w", version + 1, False, ())
        return changes

    async def gpu_use(self) -> Mapping[str, Use]:
        return {}

    async def tasks(self, task_ids: Sequence[str]) -> Sequence[Task]:
        slim = (self._by_id[name] for name in task_ids if name in self._by_id)
        return [
            Task(each.task_id, each.user_id, each.seq, "sft", each.state, each.gang, _SPEC, decide.NOW, decide.NOW)
            for each in slim
        ]

    async def run_history(self, kinds: Sequence[Kind], workloads: Sequence[str]) -> History:
        return History(
            {kind: tuple(RunSeen(Nature(kind, "", 100), 2_000.0, 1.0, 100) for _ in range(20)) for kind in kinds}
        )

    async def foretell(self, told: Sequence[Told], runs: Sequence[tuple[str, RunSeen]]) -> None: ...

    async def steps(self, job_root: str, wants_total: bool) -> StepsSeen:
        self._step += 1
        return StepsSeen(self._step // 100, decide.NOW + time.monotonic(), 0.1, 10_000)

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        """What is held is read back, as it is from the state actor."""
        rows = []
        for change in changes:
            task = self._by_id.get(change.task_id) if isinstance(change, Hold) else None
            if isinstance(change, Hold) and task is not None:
                rows.append(replace(task, state=TaskState.PENDING_RESOURCES, reason=change.reason or task.reason))
        self.changes = replace(self.changes, rows=tuple(rows))
        return [True] * len(changes)

    async def look(self, *_: Any) -> Any:
        return self.view if not _ else JobSeen(JobStatus.RUNNING, ray_job_id=_[0])

    async def forget(self, submission_id: str) -> None: ...

    async def check(self, task: Task) -> Findings:
        return Findings()

    async def answers(self, node: NodeView) -> bool:
        return True

    async def metrics(self, job_root: str) -> MetricsSeen:
        return MetricsSeen()

    def end_one(self) -> None:
        ended = self.live.pop()
        self.changes = replace(self.changes, gone=(ended.seq,))


async def _ask(question: Question) -> Sequence[Told]:
    """The futures of such a pool take their whole bound, elsewhere; what they cost here is the question."""
    return await futures.ask(question, hard_s=0.0)


async def _measure(world: _World, policy: Any, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    ports: Any = world
    dispatcher = Dispatcher(
        state=ports, cluster=ports, jobs=ports, files=ports, inputs=ports, prepare=ports, shared_root="/r",
        policy=policy, stall_policy=StallPolicy(3600, False, 600), clock=lambda: decide.NOW + time.monotonic(),
        monotonic=time.monotonic, tick_s=5,
    )  # fmt: skip
    found: dict[str, tuple[list[float], list[float]]] = {}

    async def tick(name: str) -> None:
        stretches.clear()
        begun = time.thread_time()
        await asyncio.create_task(dispatcher.tick())
        collector.after_tick(len(dispatcher.queue.waiting) + len(dispatcher.queue.live))
        of_name = found.setdefault(name, ([], []))
        of_name[0].append(max(stretches) * 1e3)
        of_name[1].append((time.thread_time() - begun) * 1e3)

    stretches: list[float] = []
    collector = Collector()
    handles: Any = asyncio.Handle
    run = handles._run

    def timed(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        stretches.append(time.thread_time() - begun)

    logging.disable()
    handles._run = timed
    try:
        await tick("the first one")
        for _ in range(rounds):
            await tick("one that tells of 50")
        dispatcher._decided.holds.clear() if dispatcher._decided else None
        for _ in range(rounds):
            await tick("nothing has changed")
            world.end_one()
            await tick("one has ended")
        forecaster = Forecaster(dispatcher, ports, Runs(ports, ports.steps), _ask, dispatcher.clock)
        for name in ("the forecaster's first pass", *["a pass of the forecaster"] * rounds):
            stretches.clear()
            begun = time.thread_time()
            await asyncio.create_task(forecaster.once())
            found.setdefault(name, ([], []))
            found[name][0].append(max(stretches) * 1e3)
            found[name][1].append((time.thread_time() - begun) * 1e3)
    finally:
        handles._run = run
        logging.disable(logging.NOTSET)
    return found
