"""The rules of admission once more, as plainly as they can be said: one task after the other, and nothing is skipped.

Only where a gang goes and what is reserved of the pool is taken from the product (`Pool`), which is tested by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from argus_ray.core.admission import AdmissionPolicy
from argus_ray.core.decision import OWN_TROUBLES, Decision
from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import Gang, NodeView, SlimTask
from argus_ray.core.pool import Clock, Pool, Verdict
from argus_ray.core.quotas import CLOCK_STANDS
from argus_ray.core.reasons import Code, because
from argus_ray.core.shares import Shares
from argus_ray.core.states import TaskState


@dataclass
class Plain:
    admitted: list[SlimTask] = field(default_factory=list)
    nodes_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    turn_of: dict[str, int] = field(default_factory=dict)
    waits: list[SlimTask] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    reserves_at: float | None = None
    due: float | None = None
    taken: dict[str, int] = field(default_factory=dict)
    left: tuple[NodeView, ...] = ()
    reserved: tuple[NodeView, ...] = ()


def all_of(found: Plain | Decision) -> Plain:
    """What two decisions are compared by. A quota is open, or closed: by how much is no difference."""
    return Plain(
        list(found.admitted),
        dict(found.nodes_of),
        found.turn_of,
        list(found.waits),
        list(found.verdicts),
        found.reserves_at,
        found.due,
        {user: taken for user, taken in found.taken.items() if taken},
        found.left,
        found.reserved,
    )


def decide_plainly(
    queue: Sequence[SlimTask],
    nodes: Sequence[NodeView],
    now: float,
    policy: AdmissionPolicy,
    shares: Shares,
    reserved: Sequence[NodeView] = (),
) -> Plain:
    found, pool, bound = Plain(), Pool(nodes, reserved), policy.max_overtake_s
    found.taken = dict(shares.running if shares.taken is None else shares.taken) if policy.quotas.are_on else {}
    closed = {user for user, taken in found.taken.items() if is_above(policy, user, taken)}
    why: dict[Gang, Verdict] = {}
    begins: list[float] = []
    for task in in_order(queue, shares, now, bound):
        gang, user, reason = task.gang, task.user_id, task.reason
        troubled = reason is not None and reason.code in OWN_TROUBLES
        if task.not_before is not None and task.not_before > now:
            found.waits.append(task)
            found.verdicts.append(Verdict(None, Clock.STANDS if troubled else Clock.RUNS))
            continue
        limit = policy.quotas.limit_of(user)
        refusal = None
        if limit is not None and gang.gpus and pool.is_possible(gang):
            if gang.gpus > limit:
                refusal = Verdict(because(Code.QUOTA_TOO_SMALL, gpus=gang.gpus, limit=limit), Clock.STANDS)
            else:
                if user not in closed:
                    found.taken[user] = found.taken.get(user, 0) + gang.gpus
                    if found.taken[user] > limit:
                        closed.add(user)
                if user in closed:
                    seen = because(Code.QUOTA_USED, limit=limit, running=shares.running.get(user, 0))
                    refusal = Verdict(because(Code.OVER_QUOTA, limit=limit), Clock.STANDS, seen)
        if refusal is not None:
            found.waits.append(task)
            if troubled:
                refusal = Verdict(None, Clock.STANDS)
            elif task.overtaken_since is not None and refusal.reason is not None:
                facts = {**dict(refusal.reason.facts), "passed": max(0.0, clock_s(task, now))}
                stopped = because(refusal.reason.code, **facts)
                refusal = replace(refusal, reason=None if stopped == task.reason else stopped)
            found.verdicts.append(refusal)
            continue
        if gang not in why:
            chosen = pool.take(gang)
            if chosen is not None:
                found.admitted.append(task)
                found.nodes_of[task.task_id] = chosen
                found.turn_of[task.task_id] = len(found.waits)
                continue
            why[gang] = pool.verdict(gang)
        verdict = why[gang]
        if verdict.clock is Clock.RUNS:
            if troubled:
                verdict = replace(verdict, reason=None)
            if task.overtaken_since is not None and stopped_s(task) is not None:
                task = replace(task, reason=task.reason, overtaken_since=now - clock_s(task, now))
            if task.overtaken_since is None:
                begins.append(now + bound)
            elif is_overdue_by(clock := now - task.overtaken_since, bound):
                times = 1 + int((clock - bound) // bound) if bound > 0 else pool.size
                if pool.reserve(gang, gang.nnodes * times):
                    why.clear()
                    begins += [task.overtaken_since + bound * (times + 1)] if bound > 0 else []
            else:
                begins.append(task.overtaken_since + bound)
        found.waits.append(task)
        found.verdicts.append(verdict)
    found.reserves_at = min(begins, default=None)
    found.due = min((each.not_before for each in queue if each.not_before is not None and each.not_before > now),
                    default=None)  # fmt: skip
    found.left, found.reserved = pool.left(), pool.reserved()
    return found


def holds_plainly(found: Plain, started: Sequence[SlimTask], now: float) -> list[Hold]:
    last = max((found.turn_of[task.task_id] for task in started), default=0)
    holds = []
    for turn, (task, verdict) in enumerate(zip(found.waits, found.verdicts, strict=True)):
        since = task.overtaken_since
        if since is None and turn < last and verdict.clock is Clock.RUNS:
            since = now
        not_before = None if task.not_before is not None and task.not_before <= now else task.not_before
        is_told = task.state is TaskState.PENDING_RESOURCES and verdict.reason in (None, task.reason)
        if not (is_told and since == task.overtaken_since and not_before == task.not_before):
            holds.append(Hold(task.task_id, verdict.reason, not_before, since, verdict.seen))
    return holds


def in_order(queue: Sequence[SlimTask], shares: Shares, now: float, bound: float) -> list[SlimTask]:
    use = shares.use
    if use is None:
        return sorted(queue, key=lambda task: task.seq)

    def turn(task: SlimTask) -> tuple[bool, float, int]:
        is_overdue = task.overtaken_since is not None and is_overdue_by(clock_s(task, now), bound)
        return not is_overdue, 0.0 if is_overdue else use.get(task.user_id, 0.0), task.seq

    return sorted(queue, key=turn)


def clock_s(task: SlimTask, now: float) -> float:
    """How long it was overtaken; of a clock that stands for a quota, until then."""
    stopped = stopped_s(task)
    if stopped is not None:
        return stopped
    return now - task.overtaken_since if task.overtaken_since is not None else 0.0


def stopped_s(task: SlimTask) -> float | None:
    passed = dict(task.reason.facts).get("passed") if task.reason and task.reason.code in CLOCK_STANDS else None
    return passed if isinstance(passed, float) else None


def is_overdue_by(clock_s: float, bound: float) -> bool:
    return clock_s >= bound


def is_above(policy: AdmissionPolicy, user: str, gpus: int) -> bool:
    limit = policy.quotas.limit_of(user)
    return limit is not None and gpus > limit
