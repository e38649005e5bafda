"""The audit: who did what to whom, when, from where, by which token. Values, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from argus_ray.core.actions import Action

#: The result of what was done. Of what was refused it is the code of the refusal.
DONE = "done"


@dataclass(frozen=True)
class AuditEntry:
    #: It rises by one with each entry.
    audit_id: int
    #: Unix time, in whole milliseconds.
    at_ms: int
    #: The user; `admin` or `internal` for their tokens; None: a token that nobody knows.
    actor: str | None
    role: str
    #: Of a user; of the others the variable that holds the token, where that is known.
    token_id: str | None
    #: Of the client, as far as trusted proxies tell; None: not known.
    address: str | None
    #: Such as `task.submit`.
    action: str
    #: A task, a user, a token or a machine.
    target: str | None
    #: Whose the target is.
    user_id: str | None
    #: DONE, or the code of the refusal.
    result: str
    detail: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class AuditFilter:
    """What is not None must be so."""

    user_id: str | None = None
    actor: str | None = None
    action: str | None = None
    #: Milliseconds: from, and before.
    since_ms: int | None = None
    until_ms: int | None = None

    def takes(self, entry: AuditEntry) -> bool:
        """By whom and what; times are for lists."""
        return (
            self.user_id in (None, entry.user_id)
            and self.actor in (None, entry.actor)
            and self.action in (None, entry.action)
        )


@dataclass(frozen=True)
class AuditPage:
    """Newest first."""

    entries: tuple[AuditEntry, ...]
    #: The place after them: time and id; None: there are no more.
    next_place: tuple[int, int] | None


@dataclass(frozen=True)
class AuditNews:
    """Oldest first, after an id."""

    entries: tuple[AuditEntry, ...]
    #: The newest id that was ever given.
    newest: int


@dataclass(frozen=True)
class ListAudit(Action[AuditPage]):
    """A page of it; admin only."""

    wanted: AuditFilter = field(default_factory=AuditFilter)
    limit: int = 100
    before: tuple[int, int] | None = None


@dataclass(frozen=True)
class FollowAudit(Action[AuditNews]):
    """What is new after this id; None: nothing but the newest id. Admin only."""

    after: int | None = None
    limit: int = 500
