"""What has changed, for streams: where one begins, and what is new for all of them at once."""

from __future__ import annotations

from collections.abc import Mapping

from argus_ray.core import places
from argus_ray.core.actions import Credential, Principal, Role
from argus_ray.core.errors import ArgusError, FieldError, Forbidden, InvalidRequest, TaskNotFound, UserNotFound
from argus_ray.core.model import Task
from argus_ray.core.states import TaskState
from argus_ray.core.watching import (
    MAX_CALLERS,
    MAX_CHANGES,
    Changed,
    Changes,
    CheckCallers,
    Counts,
    ReadChanges,
    Watch,
    WatchTasks,
)
from argus_ray.service import access, tasks
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import changes, queue, users

#: Of a caller that may see everyone's. No user id has an asterisk.
_EVERYONE = "*"


def watch(unit: UnitOfWork, principal: Principal, action: WatchTasks) -> Watch:
    owner = _owner(unit, principal, action)
    newest, master = changes.clock(unit.db)
    key = places.key_of(master, _EVERYONE if owner is None else owner)
    # Not the newest of all: whoever begins again and again would see by it when others do something.
    own = newest if owner is None else changes.newest_of(unit.db, owner)
    place = own if action.after is None else places.unseal(key, action.after)
    is_lost = place is None or place > newest
    found: tuple[Changed, ...] = ()
    if place is not None and not is_lost:
        found = _since(unit, owner, place, MAX_CHANGES + 1)
        is_lost = len(found) > MAX_CHANGES
    return Watch(
        principal=principal,
        owner=owner,
        key=key,
        era=places.era_of(master),
        newest=newest,
        place=own if place is None or is_lost else place,
        is_lost=is_lost,
        changed=() if is_lost else found,
        counts=_total(unit) if owner is None else changes.counts(unit.db, [owner])[owner],
        tasks=tuple(tasks.for_list(unit, task) for task in _named(unit, principal, action)),
    )


def _named(unit: UnitOfWork, principal: Principal, action: WatchTasks) -> list[Task]:
    """Raises TaskNotFound, which names each that is not the caller's to see: the others may be asked for without it."""
    found: list[Task] = []
    missing: list[FieldError] = []
    for task_id in action.task_ids:
        try:
            found.append(access.visible_task(unit, principal, task_id))
        except TaskNotFound as error:
            missing.append(FieldError(f"tasks.{task_id}", error.detail))
    if missing:
        raise TaskNotFound(fields=missing)
    return found


def _owner(unit: UnitOfWork, principal: Principal, action: WatchTasks) -> str | None:
    if action.everyone and action.user_id is not None:
        raise InvalidRequest("Name one user, or everyone.", [FieldError("everyone", "goes without user_id")])
    if action.everyone:
        access.require_admin(principal)
        return None
    if action.user_id is None or action.user_id == principal.user_id:
        return principal.user_id or ""
    if not principal.is_admin:
        raise Forbidden("another user's tasks are for the admin")
    if users.find(unit.db, action.user_id) is None:
        raise UserNotFound
    return action.user_id


def read(unit: UnitOfWork, action: ReadChanges) -> Changes:
    newest, master = changes.clock(unit.db)
    era = places.era_of(master)
    if newest <= action.after:
        return Changes(era, newest)
    limit = max(1, min(action.limit, MAX_CHANGES))
    found = _since(unit, None, action.after, limit + 1)
    more = len(found) > limit
    found = found[:limit]
    return Changes(
        era=era,
        newest=found[-1].number if more else newest,
        changed=found,
        counts=changes.counts(unit.db, {each.task.user_id for each in found}),
        total=_total(unit) if action.with_total else None,
        more=more,
    )


def check(unit: UnitOfWork, action: CheckCallers) -> Mapping[str, ArgusError]:
    refused: dict[str, ArgusError] = {}
    for digest in action.digests[:MAX_CALLERS]:
        try:
            access.authenticate(unit, Credential(Role.USER, digest))
        except ArgusError as error:
            refused[digest] = error
    return refused


def _since(unit: UnitOfWork, owner: str | None, after: int, limit: int) -> tuple[Changed, ...]:
    found = changes.since(unit.db, owner, after, limit)
    return tuple(Changed(number, tasks.for_list(unit, task)) for number, task in found)


def _total(unit: UnitOfWork) -> Counts:
    return {TaskState(state): n for state, n in queue.count_by_state(unit.db).items()}
