"""One future: how long each run takes in it, and when what waits would start, by the decision that is made for real.

`chance`: numbers from 0 to 1, evenly; the core has no chance of its own.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from argus_ray.core.admission import decide
from argus_ray.core.forecast.model import Odds, Question, Run
from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import SlimAttempt, SlimTask
from argus_ray.core.pool import has_room
from argus_ray.core.shares import NO_SHARES, Shares, Use, shares_of, use_of_run
from argus_ray.core.states import AttemptState, TaskState
from argus_ray.core.waiting import WaitingTasks

Chance = Callable[[], float]

#: From the end of a run until the next one has its nodes, and from then until its program trains: of the same order.
TURNOVER_S = 3.0
#: Runs of which fewer are known are taken to vary so much.
MIN_SAMPLES = 20
LOW, HIGH = 0.7, 1.6
#: How many times as long as foretold a run takes at most, by a pace that has not been seen to hold.
UNPROVEN = 3.0
#: And so many of them do not come to their end.
FAIL = 0.1
#: Futures go no further than this. Seconds.
HORIZON_S = 14 * 86_400.0
#: Ends that come so close together are one moment: each moment is a decision. Part of the time from now.
CLOSE = 0.002

NEVER = math.inf


def length(run: Run, odds: Odds, chance: Chance) -> float:
    """Seconds from now, or from its start."""
    if not run.seconds:
        return NEVER
    drawn = run.seconds[min(len(run.seconds) - 1, int(chance() * len(run.seconds)))]
    if run.is_by_history:
        if len(run.seconds) < MIN_SAMPLES:
            drawn *= _spread(chance)
    else:
        drawn *= _pick(odds.ratios, chance) if len(odds.ratios) >= MIN_SAMPLES else _spread(chance)
    drawn *= _part(run.done, odds, chance)
    return drawn + chance() * run.slack if run.slack else drawn


def longest(run: Run, odds: Odds) -> float:
    """Seconds within which it is over for certain, as far as anything about runs is."""
    if not run.seconds:
        return NEVER
    worst = max(HIGH, 1.25 * max(odds.ratios, default=0.0))
    if run.is_by_history or len(odds.ratios) < MIN_SAMPLES:
        worst = max(worst, UNPROVEN)
    return max(run.seconds) * worst + run.slack + run.tail + 60.0


def _spread(chance: Chance) -> float:
    return math.exp(math.log(LOW) + chance() * (math.log(HIGH) - math.log(LOW)))


def _pick(values: Sequence[float], chance: Chance) -> float:
    return values[min(len(values) - 1, int(chance() * len(values)))]


def _part(done: float, odds: Odds, chance: Chance) -> float:
    """Of what is left: some runs end before their end."""
    later = [end for end in odds.ends if end > done]
    if len(odds.ends) < MIN_SAMPLES or not later:
        return chance() if chance() < FAIL else 1.0
    end = _pick(later, chance)
    return 1.0 if end >= 1.0 or done >= 1.0 else (end - done) / (1.0 - done)


class Future:
    """The pool from `question.now` on, in one draw."""

    def __init__(self, question: Question, ends: Mapping[int, float], lengths: Mapping[int, float]) -> None:
        """By place in the queue: when what runs ends, and for how long what waits will run."""
        self._q = question
        self._lengths = dict(lengths)
        policy = question.policy
        self._waiting: WaitingTasks = policy.no_tasks()
        self._waiting.add_all(run.task for run in question.waiting)
        self._seq_of = {run.task.task_id: run.task.seq for run in (*question.waiting, *question.running)}
        self._nodes = {node.node_id: node for node in question.nodes}
        self._needs_shares = policy.quotas.are_on or question.used is not None
        self._used: dict[str, Use] = dict(question.used or {})
        self._live: dict[int, SlimTask] = {run.task.seq: run.task for run in question.running}
        self._ends: list[tuple[float, int]] = []
        self._again: dict[int, tuple[SlimTask, float]] = {}
        for run in question.running:
            end = ends[run.task.seq]
            if run.deadline is not None and end > run.deadline:
                # It goes back to its place in the queue, and what it still needs, it needs then.
                self._again[run.task.seq] = (run.task, end - run.deadline if end < NEVER else NEVER)
                end = run.deadline
            if end < NEVER:
                heapq.heappush(self._ends, (max(question.now, end), run.task.seq))
        #: Of the last decision: when some task's own time comes.
        self._due: float | None = question.now
        self.starts: dict[str, float] = {}

    def play(self) -> dict[str, float]:
        """When each task that waits starts, by id; those that never do are left out. It ends once all have started of
        whom it is asked."""
        now = self._q.now
        wanted = {run.task.task_id for run in self._q.waiting} if self._q.only is None else {self._q.only}
        until = now + HORIZON_S
        while True:
            if self._may_start(now):
                self._step(now)
                if wanted <= self.starts.keys():
                    return self.starts
            upcoming = self._upcoming(now)
            if upcoming == NEVER or upcoming > until:
                return self.starts
            now = max(upcoming, now + 0.001) + CLOSE * (upcoming - self._q.now)
            while self._ends and self._ends[0][0] <= now:
                self._end(heapq.heappop(self._ends)[1], now)

    def _may_start(self, now: float) -> bool:
        """A decision that starts nothing changes nothing but what is told, and is the cost of all this: none is made
        while no shape that waits has the room."""
        if self._due is not None and self._due <= now:
            return True
        nodes = self._nodes.values()
        gangs = {traits.gang for traits in self._waiting.groups}
        return any(sum(has_room(gang, node) for node in nodes) >= gang.nnodes for gang in gangs)

    def _upcoming(self, now: float) -> float:
        """A reservation that begins or grows starts nothing by itself, it counts from the next end on: a future in
        which no run ends any more is over, though reservations grow for ever."""
        times = [end for end, _ in self._ends[:1]]
        times += [self._due] if self._due is not None and self._due > now else []
        return min(times, default=NEVER)

    def _step(self, now: float) -> None:
        """One decision."""
        policy = self._q.policy
        decision = decide(self._waiting, tuple(self._nodes.values()), now, policy, shares=self._shares(now))
        for task in decision.admitted:
            self._start(task, decision.nodes_of[task.task_id], now)
        for hold in decision.holds(decision.admitted):
            self._hold(hold)
        self._due = decision.due

    def _shares(self, now: float) -> Shares:
        if not self._needs_shares:
            return NO_SHARES
        half_life_s = self._q.policy.half_life_s
        if self._q.used is None or half_life_s is None:
            return Shares(shares_of(self._live.values(), now).running)
        return shares_of(self._live.values(), now, self._used, half_life_s)

    def _start(self, task: SlimTask, nodes: Sequence[str], now: float) -> None:
        self._waiting.remove(task.seq)
        self.starts.setdefault(task.task_id, now + TURNOVER_S)
        self._take(nodes, task, -1.0)
        attempt = SlimAttempt(
            f"{task.task_id}--a99", task.task_id, 99, AttemptState.RUNNING, now, "", started_at=now, nodes=tuple(nodes)
        )
        self._live[task.seq] = replace(task, state=TaskState.RUNNING, live=attempt)
        lasts = self._lengths.get(task.seq, NEVER)
        if lasts < NEVER:
            heapq.heappush(self._ends, (now + lasts + 2 * TURNOVER_S, task.seq))

    def _end(self, seq: int, now: float) -> None:
        task = self._live.pop(seq)
        if task.live is None:
            return
        half_life_s = self._q.policy.half_life_s
        if self._q.used is not None and half_life_s is not None:
            used = use_of_run(task.gang.gpus, task.live.used_since, now, half_life_s)
            self._used[task.user_id] = self._used.get(task.user_id, Use()).plus(used, now, half_life_s)
        self._take(task.live.nodes, task, 1.0)
        if seq in self._again:
            before, left = self._again.pop(seq)
            self._lengths[seq] = left
            self._waiting.put(replace(before, state=TaskState.QUEUED, live=None, reason=None, not_before=None))

    def _take(self, names: Sequence[str], task: SlimTask, sign: float) -> None:
        gang = task.gang
        for place, name in enumerate(names):
            node = self._nodes.get(name)
            if node is None or node.barred is not None:
                continue
            self._nodes[name] = node.with_free(
                node.gpus_free + sign * gang.gpus_per_node,
                node.cpus_free + sign * gang.cpus_per_node,
                node.worker_slots_free + sign * (place == 0),
            )

    def _hold(self, hold: Hold) -> None:
        seq = self._seq_of[hold.task_id]
        task = self._waiting.by_seq[seq]
        self._waiting.put(
            replace(
                task,
                state=TaskState.PENDING_RESOURCES,
                reason=hold.reason or task.reason,
                not_before=hold.not_before,
                overtaken_since=hold.overtaken_since,
            )
        )
