"""What a use case works with: the open transaction, one `now`, and the ports of the service."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from argus_ray.config import Settings
from argus_ray.core.actions import Principal
from argus_ray.core.audit import AuditEntry
from argus_ray.core.errors import ArgusError
from argus_ray.service.meters import Meters


@dataclass(frozen=True)
class Ports:
    """What the service is given by whoever made it. `clock`: seconds since the Unix epoch. `entropy(n)`: n
    random bytes."""

    settings: Settings
    clock: Callable[[], float]
    entropy: Callable[[int], bytes]
    meters: Meters


@dataclass(frozen=True)
class UnitOfWork:
    """One transaction. All that happens in it happens at the same `now`."""

    db: sqlite3.Connection
    now: float
    ports: Ports
    #: Tokens whose last use should be written down, after this transaction and never by it, with its time.
    used: dict[str, float] = field(default_factory=dict)
    #: What each digest has been found to be in this transaction, until an account changes.
    known: dict[str, Principal | ArgusError] = field(default_factory=dict)
    #: How many more tasks may wait at least, by user; None: of all users. What leaves the queue meanwhile is not in it.
    room: dict[str | None, int] = field(default_factory=dict)
    #: Refused calls for the audit, which are written after this transaction.
    refused: list[AuditEntry] = field(default_factory=list)
