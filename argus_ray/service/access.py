"""Who is asking, and what they may see. The only gate: each use case comes through here, in its own
transaction."""

from __future__ import annotations

import hmac

from argus_ray.core.actions import INTERNAL_USER, Credential, Principal, Role
from argus_ray.core.errors import ArgusError, Forbidden, TaskNotFound, Unauthenticated, UserDisabled
from argus_ray.core.model import Task, UserState
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import tasks, tokens

#: Seconds. A token's last use is known this coarsely, so that a poll is not a write.
LAST_USED_STEP_S = 60.0


def authenticate(unit: UnitOfWork, who: Credential) -> Principal:
    """Raises Unauthenticated (one text for unknown, revoked and expired) or UserDisabled. Looks a digest up once a
    transaction.

    The gateway has compared the two tokens from the environment already, and says so by the role.
    """
    if who.role is Role.ADMIN:
        return Principal(Role.ADMIN, None, who.variable)
    if who.role is Role.INTERNAL:
        return Principal(Role.INTERNAL, INTERNAL_USER, who.variable)
    if who.role is Role.GATEWAY:
        return Principal(Role.GATEWAY, None)
    if who.digest is None:
        raise Unauthenticated
    known = unit.known.get(who.digest)
    if known is None:
        try:
            known = _user_of(unit, who.digest)
        except ArgusError as error:
            known = error
        unit.known[who.digest] = known
    if isinstance(known, ArgusError):
        raise known
    return known


def _user_of(unit: UnitOfWork, digest: str) -> Principal:
    # The look-up takes a time that depends on the digest. That tells a guesser nothing: who tries tokens does
    # not choose their SHA-256, so a longer common prefix leads to no better guess. The row is compared in
    # constant time all the same, so that no collation or affinity of SQL ever decides who is who.
    bearer = tokens.by_digest(unit.db, digest)
    if bearer is None or not hmac.compare_digest(bearer.digest.encode(), digest.encode()):
        raise Unauthenticated
    info = bearer.info
    if info.revoked_at is not None or (info.expires_at is not None and unit.now >= info.expires_at):
        raise Unauthenticated
    if bearer.user_state is not UserState.ACTIVE:
        raise UserDisabled
    if info.last_used_at is None or unit.now - info.last_used_at >= LAST_USED_STEP_S:
        unit.used[info.token_id] = unit.now
    return Principal(Role.USER, info.user_id, info.token_id, info.expires_at)


def require_admin(principal: Principal) -> Principal:
    if not principal.is_admin:
        raise Forbidden
    return principal


def visible_task(unit: UnitOfWork, principal: Principal, task_id: str) -> Task:
    """The task, if this caller may know of it. For others the answer is the one for a task that does not
    exist, after the same work: the owner is part of the query."""
    if principal.is_admin:
        task = tasks.find(unit.db, task_id)
    else:
        task = None if principal.user_id is None else tasks.find_of(unit.db, principal.user_id, task_id)
    if task is None:
        raise TaskNotFound
    return task
