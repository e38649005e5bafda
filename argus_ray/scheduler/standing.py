"""How starts on each node have gone of late, and which nodes take no new gang because of it.

It is the scheduler's own memory: a new scheduler trusts every node, and learns anew from a few starts. Nothing here is
a loss of a task: a start that never began costs it a wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from argus_ray.core.lifecycle import Advance, Change, End
from argus_ray.core.model import ClusterView, NodeView, SlimAttempt, SlimTask
from argus_ray.core.pool import workers
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.scheduler.ports import Cluster

log = logging.getLogger(__name__)

#: Starts in a row that never began, of more than one task, after which a node takes no gang.
MAX_FAILED_STARTS = 3
#: How long: the first time, and at most, since it doubles with each trial that fails. Seconds.
FIRST_PAUSE_S = 60.0
MAX_PAUSE_S = 3600.0
#: Ray starts a driver within seconds. A node on which one has been on its way for longer takes no other one. Seconds.
SLOW_START_S = 45.0
#: Between two looks at whether a silent node answers; seconds.
_ASK_EVERY_S = 5.0


@dataclass
class _Record:
    """Of one node."""

    #: The tasks of the starts that never began, since the last one that did.
    failed: list[str] = field(default_factory=list)
    last_failed_at: float = float("-inf")
    #: It takes no gang before then, and after it one driver at a time until one begins.
    barred_until: float | None = None
    pause_s: float = FIRST_PAUSE_S
    #: Attempts lost on it, since one that came to a good end.
    losses: int = 0


@dataclass
class Standing:
    cluster: Cluster
    #: Seconds of a clock that nobody sets; all times here are its own.
    monotonic: Callable[[], float]
    _records: dict[str, _Record] = field(default_factory=dict)
    #: Nodes of attempts that were lost: whether they are still there is not known before they answer. Ray takes up to a
    #: minute to tell that one is gone. By node, when it was last asked.
    _silent: dict[str, float] = field(default_factory=dict)
    #: When each live attempt was first seen, which is just after it was made if this scheduler has made it.
    _seen: dict[str, float] = field(default_factory=dict)
    #: When an operator has said last that a node is good, by the wall clock; and when that was heard.
    _forgiven: dict[str, float] = field(default_factory=dict)
    _forgiven_at: dict[str, float] = field(default_factory=dict)

    def forgive(self, nodes: Mapping[str, float]) -> None:
        """An operator has said at these times that these nodes take gangs again, whatever was held against them. That
        one does not answer is no opinion, so it stays."""
        for name, at in nodes.items():
            if self._forgiven.get(name) != at:
                self._records.pop(name, None)
                self._forgiven_at[name] = self.monotonic()
        self._forgiven = dict(nodes)
        self._forgiven_at = {name: at for name, at in self._forgiven_at.items() if name in nodes}

    async def ask(self, view: ClusterView) -> None:
        """Those that are in doubt whether they are there. Takes a second where one is not."""
        now = self.monotonic()
        known = {node.node_id: node for node in view.nodes}
        self._silent = {name: at for name, at in self._silent.items() if name in known}
        self._records = {name: record for name, record in self._records.items() if name in known}
        due = [known[name] for name, at in self._silent.items() if now - at >= _ASK_EVERY_S]
        for node, answers in zip(due, await asyncio.gather(*map(self.cluster.answers, due)), strict=True):
            if answers:
                del self._silent[node.node_id]
            else:
                self._silent[node.node_id] = now
                log.warning("the node %s (%s) has lost an attempt and does not answer", node.node_id, node.ip)

    def learn(self, live: Iterable[SlimTask], changes: Collection[Change]) -> None:
        """From what was stored of these tasks' attempts."""
        if not changes:
            return
        attempts = {task.live.submission_id: task.live for task in live if task.live is not None}
        for change in changes:
            if not isinstance(change, (Advance, End)):
                continue
            attempt = attempts.get(change.submission_id)
            if attempt is not None and attempt.nodes:
                self._learn(attempt, change)

    def _learn(self, attempt: SlimAttempt, change: Advance | End) -> None:
        record = self._records.setdefault(attempt.nodes[0], _Record())
        if isinstance(change, Advance):
            if change.ray_job_id is not None and attempt.ray_job_id is None:
                _began(record)
        elif change.was_drained:
            pass  # no node has done anything wrong
        elif change.outcome is Outcome.INFRASTRUCTURE:
            self._silent.update((name, float("-inf")) for name in attempt.nodes)
            record.losses += 1
            if change.is_fault_of_node:
                self._failed(attempt, record)
        elif change.outcome in (Outcome.SUCCEEDED, Outcome.APPLICATION):
            if self._seen.get(attempt.submission_id, float("-inf")) > record.last_failed_at:
                _began(record)
            if change.outcome is Outcome.SUCCEEDED:
                record.losses = 0

    def _failed(self, attempt: SlimAttempt, record: _Record) -> None:
        now = self.monotonic()
        record.failed = [*record.failed, attempt.task_id][-MAX_FAILED_STARTS * 10 :]
        record.last_failed_at = now
        if len(record.failed) < MAX_FAILED_STARTS or len(set(record.failed)) < 2:
            return
        if record.barred_until is not None:
            if now < record.barred_until:
                return  # one that was on its way
            record.pause_s = min(MAX_PAUSE_S, 2 * record.pause_s)
        record.barred_until = now + record.pause_s
        count = len(record.failed)
        log.warning("%d starts in a row failed on %s: no more for %g s", count, attempt.nodes[0], record.pause_s)

    def judge(self, free: Sequence[NodeView], live: Iterable[SlimTask]) -> tuple[NodeView, ...]:
        """The same nodes; of one that takes no new gang nothing is free. For starts that fail or hang that is half of
        the workers at most: where they go wrong on more of them, it is not the nodes."""
        now, seen = self.monotonic(), self._seen
        attempts = [task.live for task in live if task.live is not None]
        self._seen = {attempt.submission_id: seen.get(attempt.submission_id, now) for attempt in attempts}
        #: Whose driver is on its way, and has not started.
        starting = [attempt for attempt in attempts if attempt.nodes and attempt.state in _COMING]
        if not self._records and not self._silent and not starting:
            return tuple(free)
        coming = Counter(attempt.nodes[0] for attempt in starting)
        slow = {
            attempt.nodes[0]
            for attempt in starting
            if attempt.state is AttemptState.SUBMITTED
            and now - max(self._seen[attempt.submission_id], self._forgiven_at.get(attempt.nodes[0], _LONG_AGO))
            > SLOW_START_S
        }
        able = workers(free)
        bad = [node.node_id for node in able if node.node_id in slow or self._is_barred(node.node_id, now)]
        bad.sort(key=lambda name: (-len(self._record(name).failed), name))
        barred = dict.fromkeys(bad[: len(able) // 2])
        return tuple(self._judged(node, now, barred, slow, coming) for node in free)

    def _judged(
        self, node: NodeView, now: float, barred: Collection[str], slow: Collection[str], coming: Mapping[str, int]
    ) -> NodeView:
        name = node.node_id
        record = self._record(name)
        if name in self._silent:
            return _without(node, "an attempt was lost on it, and it does not answer", record)
        if name in barred:
            if name in slow:
                why = f"a start on it has been on its way for more than {SLOW_START_S:g} s"
            else:
                why = f"{len(record.failed)} starts in a row have failed on it"
            return _without(node, why, record)
        if record.barred_until is not None and record.barred_until <= now:
            if coming[name]:
                return _without(node, f"one start is tried, after {len(record.failed)} that failed in a row", record)
            node = node.with_free(node.gpus_free, node.cpus_free, min(1.0, node.worker_slots_free))
        return replace(node, troubles=_troubles(record)) if _troubles(record) else node

    def _is_barred(self, name: str, now: float) -> bool:
        until = self._record(name).barred_until
        return until is not None and now < until

    def _record(self, name: str) -> _Record:
        return self._records.get(name, _GOOD)


_GOOD = _Record()
_LONG_AGO = float("-inf")
_COMING = frozenset({AttemptState.SUBMITTING, AttemptState.SUBMITTED})


def _began(record: _Record) -> None:
    record.failed, record.barred_until, record.pause_s = [], None, FIRST_PAUSE_S


def _troubles(record: _Record) -> int:
    return len(record.failed) + record.losses


def _without(node: NodeView, why: str, record: _Record) -> NodeView:
    return replace(node.with_free(0.0, 0.0, 0.0), barred=why, troubles=_troubles(record))
