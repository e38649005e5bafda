"""A simulated Ray with everything that goes wrong with it, for the dispatcher over a real service and database.

It enforces on its own what Ray and the runner enforce: a submission id is created once, the runner starts it once and
not after a cancel marker, a gang is claimed all or nothing from nodes. It counts what must never happen.
"""

from __future__ import annotations

import asyncio
import pickle
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from argus_ray.core.forecast.model import History, Kind, RunSeen, Told
from argus_ray.core.lifecycle import Change
from argus_ray.core.model import Attempt, ClusterView, Gang, NodeView, QueueChanges, Share, SlimAttempt, SlimTask, Task
from argus_ray.core.observation import ExitRecord, FailureKind, FilesSeen, JobSeen, JobStatus
from argus_ray.core.reasons import Reason
from argus_ray.core.shares import Use
from argus_ray.core.stall import MetricsSeen
from argus_ray.disk.checkpoints import Checkpoint
from argus_ray.disk.inputs import Findings
from argus_ray.scheduler.ports import Prepared
from argus_ray.scheduler.queue import QueueView
from argus_ray.scheduler.tick import Dispatcher, Next
from tests.support.builders import World

VERLS_SENTENCE = "ValueError: Total available GPUs 0 is less than total desired GPUs 4\n"


def machine_of(node_id: str) -> str:
    return node_id.partition(".")[0]


class Crash(BaseException):
    """The scheduler's process dies here. Not an Exception: nothing may catch it and go on."""


class NoAnswer(Exception):
    """Ray, the state actor or the disk did not answer."""


@dataclass
class Job:
    task: Task
    status: JobStatus = JobStatus.PENDING
    failure: FailureKind = FailureKind.UNSAID
    exit_code: int | None = None
    #: node id -> GPUs, once the gang is claimed.
    held: dict[str, int] = field(default_factory=dict)
    stop_asked: bool = False

    @property
    def is_alive(self) -> bool:
        return self.status in (JobStatus.PENDING, JobStatus.RUNNING)


@dataclass
class SimRay:
    rng: random.Random
    nodes: dict[str, int]
    session: str = "session-1"
    jobs: dict[str, Job] = field(default_factory=dict)
    #: What the runners wrote: job root -> files. Outlives Ray.
    started: Counter[str] = field(default_factory=Counter)
    exits: dict[str, ExitRecord] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    markers: set[str] = field(default_factory=set)
    #: The step of the newest checkpoint: job root -> step.
    saved: dict[str, int] = field(default_factory=dict)
    #: Nodes that have died, and that Ray shows all the same until it has noticed.
    dead: set[str] = field(default_factory=set)
    #: Nodes that cannot start a program: it ends with 127 at once. And those on which a start hangs until Ray gives up.
    bad: set[str] = field(default_factory=set)
    clogged: set[str] = field(default_factory=set)
    #: GPUs of each node that somebody uses beside Argus; also parts of one.
    taken: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    #: Tasks whose program says each time what verl says where there are too few GPUs, and such as take their node down
    #: with them.
    picky: set[str] = field(default_factory=set)
    poison: set[str] = field(default_factory=set)
    #: Probability that a run which has its gang goes on for one more step.
    patience: float = 0.0
    #: What programs print that fail.
    last_words: str = ""
    #: The shared root is away: nobody can say anything about files.
    is_root_away: bool = False
    #: The disk does not say what lost attempts have left.
    is_silent: bool = False
    #: The metrics file: job root -> what is seen of it.
    metrics: dict[str, MetricsSeen] = field(default_factory=dict)
    #: Probability that a call fails before, and after, it had its effect.
    flakiness: float = 0.0
    #: Probability that a job moves on while the scheduler asks for another one: no tick sees one moment of the cluster.
    restlessness: float = 0.0
    findings: dict[str, Findings] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def job_root(self, submission_id: str) -> str:
        return self.jobs[submission_id].task.attempts[-1].job_root

    async def submit(self, task: Task, attempt: Attempt) -> None:
        self._maybe_fail()
        if attempt.submission_id not in self.jobs:
            self.jobs[attempt.submission_id] = Job(replace(task, attempts=(attempt,)))
        self._maybe_fail()

    async def look(self, submission_id: str) -> JobSeen:
        await asyncio.sleep(0)
        if self.rng.random() < self.restlessness:
            self.step()
        if self.rng.random() < self.flakiness:
            return JobSeen(JobStatus.UNKNOWN)
        job = self.jobs.get(submission_id)
        if job is None:
            return JobSeen(JobStatus.ABSENT)
        # Ray knows it once the driver has attached.
        ray_job_id = f"job-of-{submission_id}" if self.started[self.job_root(submission_id)] else None
        nodes = job.task.attempts[-1].nodes
        return JobSeen(job.status, "", job.failure, job.exit_code, ray_job_id=ray_job_id, nodes=nodes)

    async def stop(self, submission_id: str) -> None:
        self._maybe_fail()
        self.jobs[submission_id].stop_asked = True
        self._maybe_fail()

    async def forget(self, submission_id: str) -> None:
        self._maybe_fail()
        self.jobs.pop(submission_id, None)

    async def forbid_start(self, job_root: str) -> None:
        self._maybe_fail()
        self.need_root()
        self.markers.add(job_root)

    async def files(self, job_root: str) -> FilesSeen:
        self._maybe_fail()
        self.need_root()
        has_metrics = self.metrics.get(job_root, MetricsSeen()).size > 0
        return FilesSeen(self.started[job_root] > 0, self.exits.get(job_root), self.logs.get(job_root, ""), has_metrics)

    async def check_inputs(self, task: Task) -> Findings:
        if self.is_root_away:
            return Findings(unknown="the root of the inputs is away")
        return self.findings.get(task.task_id, Findings())

    async def find_checkpoint(self, task: Task) -> Checkpoint | None:
        self._maybe_fail()
        self.need_root()
        known = [*(task.resume_roots or ()), *(attempt.job_root for attempt in task.attempts)]
        roots = [root for root in known if root in self.saved]
        if not roots:
            return None
        root = max(roots, key=lambda each: self.saved[each])
        return Checkpoint(f"{root}/checkpoints/global_step_{self.saved[root]}", self.saved[root], root)

    async def view(self) -> ClusterView | None:
        if self.rng.random() < self.flakiness:
            return None
        held: Counter[str] = Counter()
        for job in self.jobs.values():
            held.update(job.held)
        nodes = [
            NodeView(
                name, machine_of(name), False, gpus, 64, gpus - held[name] - self.taken[name], 64 - held[name], 100, 100
            )
            for name, gpus in sorted(self.nodes.items())
        ]
        shares = {
            f"job-of-{key}": {name: Share(float(gpus), float(gpus)) for name, gpus in job.held.items()}
            for key, job in self.jobs.items()
        }
        return ClusterView(self.session, tuple(nodes), shares)

    # --- what happens inside Ray ----------------------------------------------------------------------------------

    def step(self) -> None:
        """Let one random job move on."""
        alive = [key for key, job in self.jobs.items() if job.is_alive]
        if not alive:
            return
        key = self.rng.choice(alive)
        job = self.jobs[key]
        root = self.job_root(key)
        if job.stop_asked or root in self.markers:
            self._finish(key, JobStatus.STOPPED if job.stop_asked else JobStatus.FAILED, 143)
        elif job.status is JobStatus.PENDING:
            self._start(key)
        elif job.task.task_id in self.picky:
            self.logs[root] = VERLS_SENTENCE
            self._finish(key, JobStatus.FAILED, 1)
        elif not job.held:
            self._claim(job)
        elif job.task.task_id in self.poison:
            self.lose_node(job.task.attempts[-1].nodes[0])
        elif self.patience and self.rng.random() < self.patience:
            pass
        else:
            self._finish(key, JobStatus.SUCCEEDED, 0) if self.rng.random() < 0.8 else self._fail(key)

    def lose_node(self, name: str | None = None) -> str | None:
        """A node (of all but the last one, unless it is named) dies with all that runs on it; None: none has."""
        if name is None:
            if len(self.nodes) < 2:
                return None
            name = self.rng.choice(sorted(self.nodes))
        self.nodes.pop(name, None)
        for key, job in self.jobs.items():
            drives = job.status is JobStatus.RUNNING and job.task.attempts[-1].nodes[0] == name
            if job.is_alive and (name in job.held or drives):
                job.held, job.status, job.failure = {}, JobStatus.FAILED, FailureKind.SUPERVISOR
                del key
        return name

    def lose_node_unseen(self) -> str | None:
        """The same, and for now Ray shows it as alive, with nothing held."""
        before = dict(self.nodes)
        name = self.lose_node()
        self.nodes = before
        if name is not None:
            self.dead.add(name)
        return name

    def notice(self) -> None:
        """Ray sees which nodes are dead, and fails what was on its way to them."""
        for name in self.dead:
            self.nodes.pop(name, None)
        for job in self.jobs.values():
            if job.is_alive and job.status is JobStatus.PENDING and self.dead & set(job.task.attempts[-1].nodes[:1]):
                job.status, job.failure = JobStatus.FAILED, FailureKind.SUPERVISOR
        self.dead.clear()

    def rejoin(self) -> None:
        """Each machine that has no node joins again; Ray gives it another id."""
        for machine in sorted(self.full_nodes.keys() - set(map(machine_of, self.nodes))):
            self._joins += 1
            self.nodes[f"{machine}.{self._joins}"] = self.full_nodes[machine]

    def lose_session(self) -> None:
        """The head dies without a durable GCS: Ray forgets everything, and the workers start anew."""
        self.session = f"session-{int(self.session.split('-')[1]) + 1}"
        self.jobs.clear()

    def _start(self, key: str) -> None:
        job, root = self.jobs[key], self.job_root(key)
        nodes = job.task.attempts[-1].nodes
        if nodes[0] in self.dead:
            return
        if nodes[0] not in self.nodes:
            job.status, job.failure = JobStatus.FAILED, FailureKind.SUPERVISOR
            return
        if nodes[0] in self.clogged:
            if self.rng.random() < 0.1:
                job.status, job.failure = JobStatus.FAILED, FailureKind.SUPERVISOR
            return
        if root in self.markers or self.started[root]:
            self._finish(key, JobStatus.FAILED, 75 if root in self.markers else 76)
            return
        if nodes[0] in self.bad:
            self._finish(key, JobStatus.FAILED, 127)
            return
        self.started[root] += 1
        rivals = [k for k, j in self.jobs.items() if k != key and j.status is JobStatus.RUNNING]
        if any(self.jobs[k].task.task_id == job.task.task_id for k in rivals):
            self.violations.append(f"two attempts of {job.task.task_id} run at once")
        job.status = JobStatus.RUNNING

    def _claim(self, job: Job) -> None:
        gang: Gang = job.task.gang
        held: Counter[str] = Counter()
        for other in self.jobs.values():
            held.update(other.held)
        nodes = job.task.attempts[-1].nodes
        if len(set(nodes)) != gang.nnodes:
            self.violations.append(f"{job.task.task_id} has {len(set(nodes))} nodes for a gang of {gang.nnodes}")
        lost = [name for name in nodes if name not in self.nodes or name in self.dead]
        full = [name for name in nodes if name not in lost and self.nodes[name] - held[name] < gang.gpus_per_node]
        if full:
            self.violations.append(f"{job.task.task_id} was assigned {full}, which have no room")
        left = {name: self.nodes.get(name, 0) - held[name] - self.taken[name] for name in nodes}
        refused = [name for name in nodes if left[name] < gang.gpus_per_node]
        if not lost and not full and not refused:
            job.held = dict.fromkeys(nodes, gang.gpus_per_node)

    def _fail(self, key: str) -> None:
        job = self.jobs[key]
        if self.rng.random() < 0.5:
            job.failure = FailureKind.DRIVER
            self.logs[self.job_root(key)] = self.last_words
            self._finish(key, JobStatus.FAILED, 1)
        else:
            job.failure, job.status, job.held = FailureKind.SUPERVISOR, JobStatus.FAILED, {}
            if self.rng.random() < 0.5:
                self.saved[self.job_root(key)] = self.rng.randint(1, 100)

    def _finish(self, key: str, status: JobStatus, code: int) -> None:
        job, root = self.jobs[key], self.job_root(key)
        job.status, job.exit_code, job.held = status, code, {}
        if job.status is JobStatus.FAILED:
            job.failure = FailureKind.DRIVER
        if self.started[root]:
            self.exits[root] = ExitRecord(code)

    def _maybe_fail(self) -> None:
        if self.rng.random() < self.flakiness:
            raise NoAnswer

    def need_root(self) -> None:
        if self.is_root_away:
            raise TimeoutError

    def __post_init__(self) -> None:
        #: By machine, which is the id of its first node.
        self.full_nodes = dict(self.nodes)
        self._joins = 0


@dataclass
class SimState:
    """The state actor's calls, with crashes of the caller before and after each."""

    world: World
    rng: random.Random
    crashiness: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    #: Bytes of the arguments and answers, pickled as Ray does; None: nobody counts.
    crossed: int | None = None

    async def queue_changes(self, writer: str, version: int) -> QueueChanges:
        found = await self._call(self.world.service.queue_changes, writer, version)
        assert isinstance(found, QueueChanges)
        return found

    async def gpu_use(self) -> dict[str, Use]:
        return dict(await self._call(self.world.service.gpu_use))

    async def tasks(self, task_ids: Sequence[str]) -> Sequence[Task]:
        return tuple(await self._call(self.world.service.tasks, task_ids))

    async def run_history(self, kinds: Sequence[Kind], workloads: Sequence[str]) -> History:
        found = await self._call(self.world.service.run_history, kinds, workloads)
        assert isinstance(found, History)
        return found

    async def foretell(self, told: Sequence[Told], runs: Sequence[tuple[str, RunSeen]]) -> None:
        await self._call(self.world.service.foretell, told, runs)

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        return list(await self._call(self.world.service.apply, changes)) if changes else []

    async def _call(self, function: Any, *args: Any) -> Any:
        if self.rng.random() < self.crashiness:
            raise Crash
        self.calls[function.__name__] += 1
        result = function(*args)
        if self.crossed is not None:
            self.crossed += len(pickle.dumps(args, protocol=5)) + len(pickle.dumps(result, protocol=5))
        if self.rng.random() < self.crashiness:
            raise Crash
        return result


@dataclass
class SimFiles:
    ray: SimRay

    async def look(self, job_root: str) -> FilesSeen:
        return await self.ray.files(job_root)

    async def metrics(self, job_root: str) -> MetricsSeen:
        self.ray._maybe_fail()
        self.ray.need_root()
        return self.ray.metrics.get(job_root, MetricsSeen())

    async def forbid_start(self, job_root: str) -> None:
        await self.ray.forbid_start(job_root)

    async def saved_step(self, task: SlimTask) -> int | None:
        self.ray._maybe_fail()
        self.ray.need_root()
        if self.ray.is_silent:
            raise TimeoutError
        assert task.live is not None
        return self.ray.saved.get(task.live.job_root)


@dataclass
class SimCluster:
    ray: SimRay
    looks: int = 0

    async def look(self) -> ClusterView | None:
        self.looks += 1
        return await self.ray.view()

    async def answers(self, node: NodeView) -> bool:
        return node.node_id in self.ray.nodes and node.node_id not in self.ray.dead


@dataclass
class SimInputs:
    ray: SimRay

    async def check(self, task: Task) -> Findings:
        return await self.ray.check_inputs(task)

    async def find_checkpoint(self, task: Task) -> Checkpoint | None:
        return await self.ray.find_checkpoint(task)


def make_dispatcher(world: World, ray: SimRay, rng: random.Random, crashiness: float = 0.0) -> Dispatcher:
    return Dispatcher(
        state=SimState(world, rng, crashiness),
        cluster=SimCluster(ray),
        jobs=ray,
        files=SimFiles(ray),
        inputs=SimInputs(ray),
        prepare=_prepare,
        shared_root=world.shared_root,
        policy=world.settings.admission_policy(),
        stall_policy=world.settings.scheduling.stall_policy(),
        clock=world.clock,
        monotonic=world.clock.monotonic,
        tick_s=5,
    )


#: There is more to do.
AGAIN = (Next.AT_ONCE, Next.IN_A_MOMENT)
#: More ticks at once than any step of a simulation can need; each would have found something to do.
_MAX_AT_ONCE = 500


async def settle(dispatcher: Dispatcher) -> None:
    """Tick as the actor does: again at once for as long as the tick says so."""
    for _ in range(_MAX_AT_ONCE):
        if await dispatcher.tick() not in AGAIN:
            return
    raise AssertionError("the scheduler never rests")


def check_view(world: World, view: QueueView) -> None:
    """The scheduler's own copy of the queue, kept by changes, is what the database holds."""
    asyncio.run(view.refresh())
    expected = {task.seq: slim(task) for task in world.all_tasks()}
    expected = {seq: row for seq, row in expected.items() if row.state.is_waiting or row.live is not None}
    assert {**view.waiting, **view.live} == expected
    assert all(row.live is None for row in view.waiting.values())
    assert all(row.live is not None for row in view.live.values())
    whole = world.service.queue_changes("", 0)
    assert {row.seq: row for row in whole.rows} == expected and whole.is_whole and not whole.gone


def slim(task: Task) -> SlimTask:
    """Written down once more, to compare with what the store reads."""
    live = next((attempt for attempt in task.attempts if attempt.ended_at is None), None)
    return SlimTask(
        task_id=task.task_id,
        user_id=task.user_id,
        seq=task.seq,
        state=task.state,
        gang=task.gang,
        reason=task.reason if isinstance(task.reason, Reason) else None,
        not_before=task.not_before,
        overtaken_since=task.overtaken_since,
        live=None if live is None else SlimAttempt(**{f.name: getattr(live, f.name) for f in fields(SlimAttempt)}),
    )


def _prepare(task: Task, submission_id: str, job_root: str, resume_from: str | None) -> Prepared:
    return Prepared(("run", submission_id, *([resume_from] if resume_from else [])), (("ROOT", job_root),))
