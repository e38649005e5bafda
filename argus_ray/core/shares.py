"""What each user holds and has had of late: what quotas and fair share ask. Both are off by default."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from argus_ray.core.model import SlimTask


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


def use_of_run(gpus: int, since: float | None, until: float, half_life_s: float) -> float:
    """GPU-seconds of a run, decayed to `until`. Without a start nothing was used."""
    if since is None:
        return 0.0
    lasted = max(0.0, until - since)
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
            use[user_id] = use.get(user_id, 0.0) + use_of_run(gpus, task.live.used_since, now, half_life_s)
    return Shares(running, use=None if ended is None else use)
