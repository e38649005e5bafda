"""What each user may have at a time, and what each has had of late: quotas and fair share. Both are off by default."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from argus_ray.core.model import Gang, SlimTask
from argus_ray.core.reasons import Code, Reason, because


@dataclass(frozen=True)
class Quotas:
    """GPUs that a user may hold at a time. None: any number."""

    default: int | None = None
    of_user: Mapping[str, int | None] = field(default_factory=dict)

    def limit_of(self, user_id: str) -> int | None:
        return self.of_user.get(user_id, self.default)

    @property
    def are_on(self) -> bool:
        return self.default is not None or any(limit is not None for limit in self.of_user.values())


NO_QUOTAS = Quotas()


@dataclass(frozen=True)
class Use:
    """GPU-seconds of one user. What is older counts less: half with each half-life. `at`: as of when."""

    gpu_s: float = 0.0
    at: float = 0.0

    def decayed(self, now: float, half_life_s: float) -> float:
        # A clock that was set back makes nothing count more.
        return self.gpu_s * math.exp2(-max(0.0, now - self.at) / half_life_s)

    def plus(self, gpu_s: float, now: float, half_life_s: float) -> Use:
        """`gpu_s`: decayed to `now`."""
        return Use(self.decayed(now, half_life_s) + gpu_s, now)


def use_of_run(gpus: int, started_at: float | None, until: float, half_life_s: float) -> float:
    """GPU-seconds of a run, decayed to `until`. Without a start nothing was used."""
    if started_at is None:
        return 0.0
    lasted = max(0.0, until - started_at)
    return gpus * half_life_s / math.log(2) * -math.expm1(-math.log(2) * lasted / half_life_s)


@dataclass(frozen=True)
class Shares:
    """What a decision has to know of the users; empty where neither quotas nor fair share are on."""

    #: GPUs that each user holds.
    running: Mapping[str, int] = field(default_factory=dict)
    #: The same, with what older tasks that wait keep of their users' quotas; None: none does.
    taken: Mapping[str, int] | None = None
    #: Recent use of each user in GPU-seconds, where there is any; None: fair share is off.
    use: Mapping[str, float] | None = None


NO_SHARES = Shares()


def shares_of(
    live: Iterable[SlimTask], now: float, ended: Mapping[str, Use] | None = None, half_life_s: float = math.inf
) -> Shares:
    """`live`: every task that has an attempt which is not over. `ended`: what attempts that are over have used; None:
    fair share is off."""
    running: dict[str, int] = {}
    use = {} if ended is None else {user_id: used.decayed(now, half_life_s) for user_id, used in ended.items()}
    for task in live:
        user_id, gpus = task.user_id, task.gang.gpus
        running[user_id] = running.get(user_id, 0) + gpus
        if ended is not None and task.live is not None:
            use[user_id] = use.get(user_id, 0.0) + use_of_run(gpus, task.live.started_at, now, half_life_s)
    return Shares(running, use=None if ended is None else use)


def by_use(queue: Iterable[SlimTask], use: Mapping[str, float], now: float, max_overtake_s: float) -> list[SlimTask]:
    """`queue`, oldest first, in the order of fair share: the users with the least use first, all tasks of one in their
    order, and users with the same use as one. Before all others come those that were overtaken for as long as is
    allowed, the oldest first: each gets its turn, whatever its user has used."""
    overdue: list[SlimTask] = []
    turns = _Turns(use)
    for task in queue:
        since = task.overtaken_since
        # A clock that has stood is never further than `since` says.
        if since is None or now - since < max_overtake_s or now - overtaken_since(task, now, since) < max_overtake_s:
            turns[task.user_id](task)
        else:
            overdue.append(task)
    return list(chain(overdue, *(turns.groups[each] for each in sorted(turns.groups))))


class _Turns(dict[str, Callable[[SlimTask], None]]):
    """By user what appends a task to those of users with the same use."""

    def __init__(self, use: Mapping[str, float]) -> None:
        self.groups: dict[float, list[SlimTask]] = {}
        self._use = use

    def __missing__(self, user_id: str) -> Callable[[SlimTask], None]:
        group = self.groups.setdefault(self._use.get(user_id, 0.0), [])
        self[user_id] = group.append
        return group.append


@dataclass(frozen=True)
class Refusal:
    """Of a quota; many tasks share one."""

    reason: Reason
    #: The same at this moment.
    seen: Reason | None = None


class Bookings:
    """The quotas during one decision. Each user's tasks take theirs in their order, after what runs: one that waits for
    room keeps its part, and one for which nothing is left closes the quota. Else small ones would keep a large one of
    the same user waiting for ever."""

    def __init__(self, quotas: Quotas, shares: Shares, is_possible: Callable[[Gang], bool]) -> None:
        """`is_possible`: whether the gang would fit into the empty pool. For one that would not nothing is kept."""
        self.taken = dict(shares.running if shares.taken is None else shares.taken)
        self._quotas = quotas
        self._running = shares.running
        self._is_possible = is_possible
        #: By the identity of the gang, which many tasks share; 0: it takes no quota.
        self._gpus: dict[int, int] = {}
        self._by_gang: dict[Gang, int] = {}
        self._over: dict[str, Refusal] = {}
        self._too_large: dict[tuple[int, int], Refusal] = {}

    def book(self, task: SlimTask) -> Refusal | None:
        """What the task takes is taken; None: its user's quota allows it. Once for each task, in their order. What was
        refused need not come again: all of the same user and gang that come later are refused by the same."""
        user_id = task.user_id
        limit = self._quotas.limit_of(user_id)
        if limit is None:
            return None
        gang = task.gang
        gpus = self._gpus.get(id(gang))
        if gpus is None:
            gpus = self._by_gang.get(gang)
            if gpus is None:
                gpus = self._by_gang[gang] = gang.gpus if self._is_possible(gang) else 0
            self._gpus[id(gang)] = gpus
        if gpus > limit:
            return self._too_large.setdefault(
                (gpus, limit), Refusal(because(Code.QUOTA_TOO_SMALL, gpus=gpus, limit=limit))
            )
        taken = self.taken[user_id] = self.taken.get(user_id, 0) + gpus
        if taken <= limit or not gpus:
            return None
        refusal = self._over.get(user_id)
        if refusal is None:
            running = self._running.get(user_id, 0)
            seen = because(Code.QUOTA_USED, limit=limit, running=running)
            refusal = self._over[user_id] = Refusal(because(Code.OVER_QUOTA, limit=limit), seen)
        return refusal


#: Reasons that a quota gives.
OF_QUOTAS = frozenset({Code.OVER_QUOTA, Code.QUOTA_TOO_SMALL})


def with_clock_stopped(task: SlimTask, reason: Reason, now: float) -> Reason | None:
    """The reason, with the seconds that the overtaking clock of this task has run, so that it can run on from there.
    None: it stands already, for this reason."""
    if task.overtaken_since is None:
        return reason
    passed = _stopped_at(task)
    if passed is None:
        passed = max(0.0, now - task.overtaken_since)
    stopped = because(reason.code, **dict(reason.facts), passed=passed)
    return None if stopped == task.reason else stopped


def overtaken_since(task: SlimTask, now: float, since: float) -> float:
    """`since`, but for a clock that has stood for a quota: it is as far as it was when it stopped."""
    passed = _stopped_at(task)
    return since if passed is None else now - passed


def _stopped_at(task: SlimTask) -> float | None:
    if task.reason is None or task.reason.code not in OF_QUOTAS:
        return None
    passed = dict(task.reason.facts).get("passed")
    return passed if isinstance(passed, float) else None
