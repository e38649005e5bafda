"""Whether a gang that nobody has submitted yet would start now, as far as one look at the pool tells. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from argus_ray.core.model import Gang, NodeView
from argus_ray.core.pool import Pool
from argus_ray.core.reasons import Code, Reason, because


class Fit(str, Enum):
    #: There is room, and nothing holds it back. Who waits before it may take the room.
    NOW = "NOW"
    WOULD_WAIT = "WOULD_WAIT"
    #: Not even on the empty pool, as it is now: a node must join that is large enough.
    NEVER_ON_THIS_POOL = "NEVER_ON_THIS_POOL"
    #: The pool has not been seen.
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Prospect:
    fit: Fit
    reason: Reason | None = None


_NEVER = frozenset({Code.NO_WORKER, Code.NODE_TOO_SMALL, Code.POOL_TOO_SMALL})


def prospect(
    gang: Gang, nodes: Sequence[NodeView] | None, *, gpus_held: int, gpus_quota: int | None, is_held_up: bool = False
) -> Prospect:
    """`nodes`: with what is free of each; None: not known. `gpus_held`, `gpus_quota`: of its user. `is_held_up`:
    nothing starts now, whatever is free."""
    if nodes is None:
        return Prospect(Fit.UNKNOWN)
    # A node that takes no gang has no room now; one that is cordoned is none of the pool's.
    pool = Pool([node.with_free(0.0, 0.0, 0.0) if node.barred is not None else node for node in nodes], ())
    fits = pool.is_possible(gang) and pool.take(gang) is not None
    if not fits:
        verdict = pool.verdict(gang)
        never = verdict.reason is not None and verdict.reason.code in _NEVER
        return Prospect(Fit.NEVER_ON_THIS_POOL if never else Fit.WOULD_WAIT, verdict.seen or verdict.reason)
    if gpus_quota is not None and gpus_held + gang.gpus > gpus_quota:
        return Prospect(Fit.WOULD_WAIT, because(Code.QUOTA_USED, limit=gpus_quota, running=gpus_held))
    return Prospect(Fit.WOULD_WAIT if is_held_up else Fit.NOW)
