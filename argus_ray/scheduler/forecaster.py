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
from dataclasses import dataclass, field
from typing import Protocol

from argus_ray.core import ids
from argus_ray.core.admission import AdmissionPolicy
from argus_ray.core.estimates import MAX_TOLD, Unknown
from argus_ray.core.forecast.calibration import MAX_HITS, Hit, Widths, hit, widths
from argus_ray.core.forecast.draw import MIN_SAMPLES
from argus_ray.core.forecast.model import History, Kind, Nature, Question, Run, RunSeen, Told
from argus_ray.core.forecast.nature import nature_of, seconds_by_history
from argus_ray.core.forecast.pace import Pace, StepsSeen
from argus_ray.core.model import NodeView, PoolOrders, SlimTask, Task
from argus_ray.core.orders import cordon_of, that_hold
from argus_ray.core.shares import Use
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.scheduler import gently
from argus_ray.scheduler.queue import QueueView

log = logging.getLogger(__name__)

#: Between two looks at whether a pass is due; and between two passes: while something waits, where a task was told
#: nothing yet, and while nothing waits. Seconds.
PAUSE_S = 5.0
_EVERY_S, _NEW_S, _IDLE_S = 30.0, 10.0, 300.0
#: Tasks that are fetched whole at a time: their specs are read once.
_AT_ONCE = 64
#: Runs that are looked at in one pass, those first that were not for longest.
_MAX_LOOKS = 256
#: Between two looks at one run: while something waits, and while nothing does. Seconds.
_LOOK_EVERY_S = 60.0
_IDLE_LOOK_EVERY_S = 600.0
#: What a run still needs is judged by its end only if it was as much. Seconds.
_LEAST_JUDGED_S = 60.0
#: Part of what waits that is taken to be canceled before it starts.
_LEAVES = 0.05
#: Of so many runs it is known how long they take from their last step to their end; while they are few, it is taken to
#: be so much. Seconds.
_MAX_TAILS, _UNSEEN_TAIL_S = 200, 240.0
#: What is being stopped is over soon. Seconds.
_STOPPING_S = (5.0, 15.0, 60.0)


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


#: (job root, whether verl's log should be asked for the number of steps). OSError or TimeoutError: no observation.
Look = Callable[[str, bool], Awaitable[StepsSeen]]
#: Plays the futures.
Ask = Callable[[Question], Awaitable[Sequence[Told]]]


@dataclass
class _Known:
    """Of one attempt."""

    task: SlimTask
    pace: Pace
    nature: Nature | None = None
    looked_at: float = float("-inf")
    #: What was foretold first, and when.
    foretold: tuple[float, float] | None = None


@dataclass
class Forecaster:
    pool: Pool
    state: State
    look: Look
    ask: Ask
    #: Unix time.
    clock: Callable[[], float]
    draws: int = 100
    _natures: dict[str, Nature] = field(default_factory=dict)
    _known: dict[str, _Known] = field(default_factory=dict)
    #: By workload, of runs of late: from the last step to the end. Seconds.
    _tails: dict[str, deque[float]] = field(default_factory=dict)
    #: Of tasks that wait: when each was told a range first, and what the futures said. And what came of them of late,
    #: with the workload.
    _firsts: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    _hits: deque[tuple[str, Hit]] = field(default_factory=lambda: deque(maxlen=4 * MAX_HITS))
    #: Of the last pass: whom it told something; and when it began, and what it took, by the monotonic clock.
    _told: set[str] = field(default_factory=set)
    _began: float = float("-inf")
    _took_s: float = 0.0

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
        now, queue = self.clock(), self.pool.queue
        self._see_starts()
        # Of one moment: no tick comes in between.
        live, free, orders, low = list(queue.live.values()), self.pool.free, queue.orders, self.pool.low_disk()
        line = self._line(now, live)
        runs = await self._follow(live, now, is_wanted=bool(line))
        if runs:
            await self.state.foretell([], runs)
        if not line or not free:
            return
        await self._learn_natures([task.task_id for task in (*line, *live)])
        if orders.maintenance is not None or low is not None:
            why = Unknown.LOW_DISK if orders.maintenance is None else Unknown.MAINTENANCE
            told: Sequence[Told] = [Told(task.task_id, why) for task in line]
        else:
            told = await self.ask(await self._question(line, live, free, orders, now))
        await self.state.foretell(told, [])
        self._remember(told, now)
        self._told = {each.task_id for each in told}

    def _line(self, now: float, live: Sequence[SlimTask]) -> list[SlimTask]:
        """The first of those that wait, in the order of the queue."""
        waiting = self.pool.queue.waiting
        return [waiting[seq] for seq in heapq.nsmallest(MAX_TOLD, waiting)]

    async def _follow(self, live: Sequence[SlimTask], now: float, *, is_wanted: bool) -> list[tuple[str, RunSeen]]:
        """Looks at the runs; those that are over since the last pass."""
        names = {task.live.submission_id: task for task in live if task.live is not None}
        gone = {name: known for name, known in self._known.items() if name not in names}
        for name, task in names.items():
            attempt = task.live
            if attempt is None or attempt.state is not AttemptState.RUNNING:
                continue
            known = self._known.get(name)
            if known is None:
                known = self._known[name] = _Known(task, Pace(attempt.started_at or now))
            known.task = task
        every_s = _LOOK_EVERY_S if is_wanted else _IDLE_LOOK_EVERY_S
        due = [known for name, known in self._known.items() if name in names and now - known.looked_at >= every_s]
        due.sort(key=lambda known: known.looked_at)
        await self._learn_natures([known.task.task_id for known in [*due[:_MAX_LOOKS], *gone.values()]])
        await gently.gather(self._look_at(known, now) for known in due[:_MAX_LOOKS] if known.task.gang.gpus)
        found = await self._ended(gone, now) if gone else []
        for name in gone:
            del self._known[name]
        return found

    async def _look_at(self, known: _Known, now: float) -> None:
        attempt = known.task.live
        if attempt is None:
            return
        known.nature = self._natures.get(known.task.task_id, known.nature)
        if known.nature is not None and known.nature.steps is not None:
            known.pace.total = known.nature.steps
        known.looked_at = now
        try:
            seen = await self.look(attempt.job_root, known.pace.total is None)
        except (OSError, asyncio.TimeoutError) as error:
            log.info("the steps of %s were not looked at: %s", attempt.submission_id, type(error).__name__)
            return
        known.pace.look(seen)
        left = known.pace.left(now)
        if known.foretold is None and isinstance(left, float) and left >= _LEAST_JUDGED_S:
            known.foretold = (now, left)

    async def _ended(self, gone: Mapping[str, _Known], now: float) -> list[tuple[str, RunSeen]]:
        found = []
        names = sorted({known.task.task_id for known in gone.values()})
        for at in range(0, len(names), _AT_ONCE):
            for task in await self.state.tasks(names[at : at + _AT_ONCE]):
                for attempt in task.attempts:
                    known = gone.get(attempt.submission_id)
                    if known is None or attempt.ended_at is None or attempt.used_since is None:
                        continue
                    if attempt.outcome is Outcome.INFRASTRUCTURE:
                        continue  # which says nothing of runs
                    await self._look_at(known, now)
                    is_good = attempt.outcome is Outcome.SUCCEEDED
                    seconds = max(0.0, attempt.ended_at - attempt.used_since)
                    done = 1.0 if is_good else min(0.999, known.pace.done)
                    ratio = None
                    if is_good and known.pace.looks:
                        tails = self._tails.setdefault(ids.workload_of(task.task_id), deque(maxlen=_MAX_TAILS))
                        tails.append(max(0.0, attempt.ended_at - known.pace.looks[-1][0]))
                    if is_good and known.foretold is not None:
                        at_, left = known.foretold
                        ratio = max(0.01, (attempt.ended_at - at_) / left)
                    # One that went on from a checkpoint says nothing of how long a whole run takes.
                    is_whole = attempt.number == 1 and task.resume_roots is None
                    steps = known.pace.total if is_whole else None
                    nature = known.nature or nature_of(task)
                    if is_whole or ratio is not None or not is_good:
                        found.append((attempt.submission_id, RunSeen(nature, seconds, done, steps, ratio)))
        return found

    async def _learn_natures(self, task_ids: Sequence[str]) -> None:
        """What does not change is asked for once."""
        wanted = [name for name in dict.fromkeys(task_ids) if name not in self._natures]
        for at in range(0, len(wanted), _AT_ONCE):
            for task in await self.state.tasks(wanted[at : at + _AT_ONCE]):
                self._natures[task.task_id] = nature_of(task)
            await gently.others_first()
        if len(self._natures) > 20 * _AT_ONCE + 2 * len(task_ids):
            keep = {known.task.task_id for known in self._known.values()} | set(task_ids)
            self._natures = {name: nature for name, nature in self._natures.items() if name in keep}

    async def _question(
        self,
        line: Sequence[SlimTask],
        live: Sequence[SlimTask],
        free: tuple[NodeView, ...],
        orders: PoolOrders,
        now: float,
    ) -> Question:
        natures = [self._natures[task.task_id] for task in (*line, *live) if task.task_id in self._natures]
        kinds = list(dict.fromkeys(nature.kind for nature in natures))
        history = await self.state.run_history(kinds, list(dict.fromkeys(kind.workload for kind in kinds)))
        policy = self.pool.policy
        used = await self.state.gpu_use() if policy.half_life_s is not None else None
        deadlines = _deadlines(free, orders)
        return Question(
            now,
            policy,
            free,
            tuple(self._running(task, history, deadlines, now) for task in live),
            tuple(self._waiting(task, history) for task in line),
            used,
            history.odds,
            self.draws,
            _LEAVES,
            {kind.workload: self._widths(kind.workload) for kind in kinds},
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
        known = self._known.get(attempt.submission_id)
        left = Unknown.NO_PACE_YET if known is None else known.pace.left(now)
        if known is not None and isinstance(left, float):
            slack, tail = known.pace.slack(now), self._tail_s(workload)
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

    def _remember(self, told: Sequence[Told], now: float) -> None:
        for each in told:
            if each.played is not None and each.task_id not in self._firsts:
                self._firsts[each.task_id] = (now, *each.played)

    def _see_starts(self) -> None:
        """What came of the ranges that were told first."""
        waiting = {task.task_id for task in self.pool.queue.waiting.values()}
        gone = sorted(self._firsts.keys() - waiting)
        live = {task.task_id: task for task in self.pool.queue.live.values()} if gone else {}
        for name in gone:
            told_at, low, high = self._firsts.pop(name)
            if name in live and (attempt := live[name].live) is not None:
                self._hits.append((ids.workload_of(name), hit(told_at, low, high, attempt.created_at)))

    def _widths(self, workload: str) -> Widths:
        return widths([each for name, each in self._hits if name == workload], [each for _, each in self._hits])

    def _tail_s(self, workload: str) -> float:
        """How long runs take at most from their last step to their end."""
        tails: Sequence[float] = self._tails.get(workload, ())
        return 1.25 * max([*tails, *([_UNSEEN_TAIL_S] if len(tails) < MIN_SAMPLES else [])])

    def _by_history(self, task: SlimTask, history: History) -> tuple[float, ...]:
        nature = self._natures.get(task.task_id)
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
