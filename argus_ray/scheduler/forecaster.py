"""Foretelling when what waits may start: gathers the facts, has the futures played, and has the answers stored.

Beside the ticks, on their loop, which it never holds: the futures are played elsewhere (`ask`). What it remembers of
runs is a help, and nothing depends on it: a new one learns it again.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from argus_ray.core import ids
from argus_ray.core.admission import AdmissionPolicy
from argus_ray.core.estimates import MAX_TOLD, Range, Unknown
from argus_ray.core.forecast.calibration import MAX_HITS, Hit, Widths, hit, widths
from argus_ray.core.forecast.model import History, Kind, Newcomer, Question, Run, RunSeen, Told
from argus_ray.core.forecast.nature import seconds_by_history
from argus_ray.core.model import NodeView, PoolOrders, SlimTask, Task
from argus_ray.core.orders import cordon_of, that_hold
from argus_ray.core.shares import Use
from argus_ray.core.states import AttemptState, TaskState
from argus_ray.scheduler import gently
from argus_ray.scheduler.queue import QueueView
from argus_ray.scheduler.runs import Runs

log = logging.getLogger(__name__)

#: Between two looks at whether a pass is due; and between two passes: while something waits, where a task was told
#: nothing yet, and while nothing waits. Seconds.
PAUSE_S = 5.0
_EVERY_S, _NEW_S, _IDLE_S = 30.0, 10.0, 300.0
#: Part of what waits that is taken to be canceled before it starts.
_LEAVES = 0.05
#: What is being stopped is over soon. Seconds.
_STOPPING_S = (5.0, 15.0, 60.0)
#: Futures for one newcomer at most: somebody waits for the answer.
_DRAWS_FOR_ONE = 40
#: The id of what nobody has submitted: of no task.
NOBODYS = "nobodys"


class State(Protocol):
    """The state actor."""

    async def tasks(self, task_ids: Sequence[str]) -> Sequence[Task]: ...
    async def gpu_use(self) -> Mapping[str, Use]: ...
    async def run_history(self, kinds: Sequence[Kind], workloads: Sequence[str]) -> History: ...
    async def foretell(self, told: Sequence[Told], runs: Sequence[tuple[str, RunSeen]]) -> None: ...


class Pool(Protocol):
    """The dispatcher."""

    queue: QueueView
    free: tuple[NodeView, ...]
    policy: AdmissionPolicy

    @property
    def low_disk(self) -> Callable[[], object | None]: ...


#: Plays the futures.
Ask = Callable[[Question], Awaitable[Sequence[Told]]]


@dataclass(frozen=True)
class _Facts:
    """Of one moment."""

    #: The first of those that wait, in the order of the queue.
    line: Sequence[SlimTask]
    live: Sequence[SlimTask]
    free: tuple[NodeView, ...]
    orders: PoolOrders
    #: Why nothing starts, for how long is not known.
    held_up: Unknown | None


@dataclass(frozen=True)
class _First:
    """Of a task that waits: the range that it was told first, as the futures said."""

    seq: int
    told_at: float
    low: float
    high: float


@dataclass
class Forecaster:
    pool: Pool
    state: State
    runs: Runs
    ask: Ask
    #: Unix time.
    clock: Callable[[], float]
    draws: int = 100
    #: By task; and what came of them of late, with the workload.
    _firsts: dict[str, _First] = field(default_factory=dict)
    _hits: deque[tuple[str, Hit]] = field(default_factory=lambda: deque(maxlen=4 * MAX_HITS))
    #: Of the last pass: whom it told something; and when it began, and what it took, by the monotonic clock.
    _told: set[str] = field(default_factory=set)
    _began: float = float("-inf")
    _took_s: float = 0.0
    #: Two at once would see the same end twice.
    _following: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def once_if_due(self, monotonic: Callable[[], float]) -> bool:
        """A pass each half minute while something waits, sooner for who was told nothing yet, and seldom while nothing
        does. On a machine on which a pass takes long they are rarer. True: there was one. Raises as `once`."""
        begun, waiting = monotonic(), self.pool.queue.waiting
        every_s = _IDLE_S
        if waiting:
            is_new = any(waiting[seq].task_id not in self._told for seq in heapq.nsmallest(MAX_TOLD, waiting))
            every_s = _NEW_S if is_new else _EVERY_S
        if begun - self._began < max(every_s, 5 * self._took_s):
            return False
        self._began = begun
        try:
            await self.once()
        finally:
            self._took_s = monotonic() - begun
        return True

    async def once(self) -> None:
        """Raises what the state actor raises; then nothing is told."""
        now = self.clock()
        self._see_starts()
        facts = self._facts()
        await self._follow(facts, now, is_wanted=bool(facts.line))
        if not facts.line or not facts.free:
            return
        told: Sequence[Told]
        if facts.held_up is not None:
            told = [Told(task.task_id, facts.held_up) for task in facts.line]
        else:
            told = await self.ask(await self._question(facts, now))
        await self.state.foretell(told, [])
        self._remember(told, facts.line, now)
        self._told = {each.task_id for each in told}

    async def foresee(self, newcomer: Newcomer) -> Range | Unknown:
        """When it might start if it were submitted now, last of all. Raises as `once`, and what `ask` raises."""
        facts, now = self._facts(), self.clock()
        if facts.held_up is not None:
            return facts.held_up
        if len(facts.line) == MAX_TOLD:
            return Unknown.TOO_FAR_BACK
        if not facts.free:
            return Unknown.NOT_YET
        await self._follow(facts, now, is_wanted=True)
        seq = 1 + max((task.seq for task in (*facts.line, *facts.live)), default=0)
        task = SlimTask(NOBODYS, newcomer.user_id, seq, TaskState.QUEUED, newcomer.gang)
        question = await self._question(facts, now)
        run = Run(task, newcomer.workload)
        widths = {**question.widths, newcomer.workload: self._widths(newcomer.workload)}
        question = replace(
            question,
            waiting=(*question.waiting, run),
            only=NOBODYS,
            widths=widths,
            draws=min(self.draws, _DRAWS_FOR_ONE),
        )
        [told] = await self.ask(question)
        return told.start

    async def _follow(self, facts: _Facts, now: float, *, is_wanted: bool) -> None:
        async with self._following:
            if runs := await self.runs.follow(facts.live, now, is_wanted=is_wanted):
                await self.state.foretell([], runs)

    def _facts(self) -> _Facts:
        """Of one moment: no tick comes in between."""
        queue, waiting = self.pool.queue, self.pool.queue.waiting
        line = [waiting[seq] for seq in heapq.nsmallest(MAX_TOLD, waiting)]
        held_up = None if self.pool.low_disk() is None else Unknown.LOW_DISK
        if queue.orders.maintenance is not None:
            held_up = Unknown.MAINTENANCE
        return _Facts(line, list(queue.live.values()), self.pool.free, queue.orders, held_up)

    async def _question(self, facts: _Facts, now: float) -> Question:
        names = [task.task_id for task in (*facts.line, *facts.live)]
        await self.runs.learn_natures(names)
        self.runs.forget_natures(names)
        kinds: dict[Kind, None] = {}
        async for name in gently.over(names):
            if (nature := self.runs.natures.get(name)) is not None:
                kinds[nature.kind] = None
        workloads = list(dict.fromkeys(kind.workload for kind in kinds))
        history = await self.state.run_history(list(kinds), workloads)
        policy = self.pool.policy
        used = await self.state.gpu_use() if policy.half_life_s is not None else None
        deadlines = _deadlines(facts.free, facts.orders)
        running = [self._running(task, history, deadlines, now) async for task in gently.over(facts.live)]
        return Question(
            now,
            policy,
            facts.free,
            tuple(running),
            tuple(self._waiting(task, history) for task in facts.line),
            used,
            history.odds,
            self.draws,
            _LEAVES,
            {name: self._widths(name) for name in workloads},
        )

    def _waiting(self, task: SlimTask, history: History) -> Run:
        seconds = self._by_history(task, history)
        why = None if seconds else Unknown.NO_HISTORY_AHEAD
        return Run(task, ids.workload_of(task.task_id), seconds, why, is_by_history=True)

    def _running(self, task: SlimTask, history: History, deadlines: Mapping[str, float], now: float) -> Run:
        attempt, workload = task.live, ids.workload_of(task.task_id)
        if attempt is None or attempt.state is AttemptState.STOPPING or attempt.stop_reason is not None:
            return Run(task, workload, _STOPPING_S, is_by_history=True, done=1.0)
        deadline = min((deadlines[name] for name in attempt.nodes if name in deadlines), default=None)
        if attempt.stalled_since is not None:
            return Run(task, workload, (), Unknown.STALLED, deadline=deadline)
        known = self.runs.known.get(attempt.submission_id)
        left = Unknown.NO_PACE_YET if known is None else known.pace.left(now)
        if known is not None and isinstance(left, float):
            slack, tail = known.pace.slack(now), self.runs.tail_s(workload)
            return Run(task, workload, (left,), done=known.pace.done, slack=slack, tail=tail, deadline=deadline)
        # By runs like it, of which those count that took longer than this one has by now.
        passed = 0.0 if attempt.used_since is None else max(0.0, now - attempt.used_since)
        whole = self._by_history(task, history)
        if whole:
            longer = tuple(seconds - passed for seconds in whole if seconds > passed)
            seconds = longer or (0.1 * max(whole), 0.5 * max(whole))
            # One that has taken longer than all of them may take as long again.
            slack = 0.0 if longer else max(whole)
            return Run(task, workload, seconds, is_by_history=True, slack=slack, deadline=deadline)
        return Run(task, workload, (), left if isinstance(left, Unknown) else None, deadline=deadline)

    def _remember(self, told: Sequence[Told], line: Sequence[SlimTask], now: float) -> None:
        seq_of = {task.task_id: task.seq for task in line}
        for each in told:
            if each.played is not None and each.task_id not in self._firsts:
                self._firsts[each.task_id] = _First(seq_of[each.task_id], now, *each.played)

    def _see_starts(self) -> None:
        """What came of the ranges that were told first."""
        queue = self.pool.queue
        for name in sorted(name for name, first in self._firsts.items() if first.seq not in queue.waiting):
            first = self._firsts.pop(name)
            task = queue.live.get(first.seq)
            if task is not None and task.live is not None:
                seen = hit(first.told_at, first.low, first.high, task.live.created_at)
                self._hits.append((ids.workload_of(name), seen))

    def _widths(self, workload: str) -> Widths:
        return widths([each for name, each in self._hits if name == workload], [each for _, each in self._hits])

    def _by_history(self, task: SlimTask, history: History) -> tuple[float, ...]:
        nature = self.runs.natures.get(task.task_id)
        return () if nature is None else seconds_by_history(nature, history.runs.get(nature.kind, ()))


def _deadlines(nodes: Sequence[NodeView], orders: PoolOrders) -> dict[str, float]:
    """Of the nodes that are drained: when what runs there is stopped."""
    holding = that_hold(orders)
    found = {}
    for node in nodes if holding else ():
        cordon = cordon_of(node, holding)
        if cordon is not None and cordon.drain and cordon.deadline is not None:
            found[node.node_id] = cordon.deadline
    return found
