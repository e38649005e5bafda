"""The use cases behind one door: who asks, what they ask, in one transaction. A plain class: no Ray, no HTTP.

The state actor wraps it; tests call it. It may be called from several threads. It reads no file but its database.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from argus_ray.config import Settings
from argus_ray.core import actions, watching
from argus_ray.core.actions import Action, Credential, Principal, Role
from argus_ray.core.audit import FollowAudit, ListAudit
from argus_ray.core.clock_steps import ClockSteps
from argus_ray.core.errors import ArgusError, Forbidden, InvalidRequest, Unavailable
from argus_ray.core.forecast.model import History, Kind, RunSeen, Told
from argus_ray.core.lifecycle import Change
from argus_ray.core.model import QueueChanges, Task
from argus_ray.core.monitoring import ReadMonitoring, ReportGateway
from argus_ray.core.retention import Chore, Chores
from argus_ray.core.shares import Use
from argus_ray.core.usage import ShowMe, ShowUsage
from argus_ray.core.webhooks import Moves
from argus_ray.service import (
    access,
    accounts,
    audit,
    bulk,
    changes,
    clocks,
    exports,
    forecasts,
    monitoring,
    orders,
    search,
    submission,
    tasks,
    upkeep,
    usage,
    webhooks,
)
from argus_ray.service import watching as streams
from argus_ray.service.changes import TaskCache
from argus_ray.service.meters import Meters
from argus_ray.service.unit_of_work import Ports, UnitOfWork
from argus_ray.store import Store, feed, gpu_use, queue, tokens
from argus_ray.store import forecasts as forecast_rows
from argus_ray.store import orders as order_rows
from argus_ray.store import tasks as task_rows
from argus_ray.store.store import savepoint

_log = logging.getLogger(__name__)

R = TypeVar("R")
Call = tuple[Credential, Action[Any]]

#: Seconds between two writes of when tokens were last used; they are known by the minute only (access.py).
_LAST_USE_EVERY_S = 5.0

#: What anybody may ask, with the principal; each use case says itself what this one may see.
_USE_CASES: Mapping[type[Action[Any]], Callable[[UnitOfWork, Principal, Any], Any]] = {
    actions.WhoAmI: lambda unit, principal, action: principal,
    actions.SubmitTask: submission.submit,
    actions.FindSubmission: submission.find,
    actions.ResubmitTask: submission.resubmit,
    actions.ReadResubmission: submission.read_again,
    actions.ForeseeSubmission: submission.foresee,
    actions.ExportTask: exports.export,
    actions.ReadExport: exports.read,
    actions.GetTask: tasks.get,
    actions.ListTasks: search.list_page,
    actions.CountTasks: search.count,
    actions.ExplainTask: tasks.explain,
    actions.CancelTask: tasks.cancel,
    actions.CancelTasks: bulk.cancel,
    actions.TaskEvents: tasks.list_events,
    actions.FindAttempt: tasks.find_attempt,
    actions.ShowQueue: tasks.show_queue,
    actions.CountQueue: tasks.count_queue,
    ShowMe: lambda unit, principal, action: usage.show_me(unit, principal),
    watching.WatchTasks: streams.watch,
    actions.ShowEstimates: forecasts.show,
}
#: What only the gateway itself may ask, which may ask nothing else.
_GATEWAY_CASES: Mapping[type[Action[Any]], Callable[[UnitOfWork, Any], Any]] = {
    watching.ReadChanges: streams.read,
    watching.CheckCallers: streams.check,
    ReadMonitoring: monitoring.read,
    ReportGateway: monitoring.report,
}
#: What only an admin may ask.
_ADMIN_CASES: Mapping[type[Action[Any]], Callable[[UnitOfWork, Principal, Any], Any]] = {
    actions.RequireAdmin: lambda unit, admin, action: admin,
    actions.CreateUser: lambda unit, admin, action: accounts.create(unit, action),
    actions.GetUser: lambda unit, admin, action: accounts.get(unit, action.user_id),
    actions.ListUsers: lambda unit, admin, action: accounts.list_all(unit),
    actions.SetUserEnabled: lambda unit, admin, action: accounts.set_enabled(unit, action),
    actions.IssueToken: lambda unit, admin, action: accounts.issue_token(unit, action),
    actions.ListTokens: lambda unit, admin, action: accounts.list_tokens(unit, action.user_id),
    actions.RevokeToken: lambda unit, admin, action: accounts.revoke_token(unit, action),
    actions.ShowNodes: lambda unit, admin, action: orders.show_nodes(unit),
    actions.ShowOrders: lambda unit, admin, action: orders.show(unit),
    actions.OrderNode: orders.order_node,
    actions.SetMaintenance: orders.set_maintenance,
    ListAudit: lambda unit, admin, action: audit.list_page(unit, action),
    FollowAudit: lambda unit, admin, action: audit.follow(unit, action),
    ShowUsage: lambda unit, admin, action: usage.show(unit, action),
}


#: They are about stretches of time that are stored, so these must be right by the clock of now.
_BY_THE_CLOCK = (actions.OrderNode, actions.SetMaintenance)


class Service:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        """`clock`: seconds since the Unix epoch; `monotonic`: seconds of a clock that nobody sets; `entropy(n)`: n
        bytes fit for secrets. The service closes the store."""
        self._store = store
        self._meters = Meters(store, monotonic)
        self._ports = Ports(settings, clock, entropy, self._meters)
        #: Tokens that were used and when, and when that was written last.
        self._used: dict[str, float] = {}
        self._use_written_at = float("-inf")
        self._monotonic = monotonic
        self._refusals = audit.Refusals()
        self._steps = ClockSteps.begin(clock(), monotonic())
        self._one_follows = threading.Lock()
        with store.transaction() as db:
            unit = self._unit(db)
            accounts.ensure_internal_user(unit)
            moved = clocks.bring_back(unit)
        if moved:
            _log.warning("%d stored times lay too far ahead: was the clock set back? They count from now", moved)

    # --- for the gateway ---

    def handle(self, who: Credential, action: Action[R]) -> R:
        """One call. Raises ArgusError."""
        answer = self.handle_many([(who, action)])[0]
        if isinstance(answer, ArgusError):
            raise answer
        result: R = answer
        return result

    def handle_many(self, calls: Sequence[Call]) -> list[Any]:
        """All calls, in order, in one transaction with one fsync. For each, in the same order, its result or an
        ArgusError.

        A call that fails has changed nothing and spoils no other. When this returns, all that it answers is on
        disk. Raises StaleWriter alone: this process must stop.
        """
        try:
            if any(type(action) in _BY_THE_CLOCK for _, action in calls):
                self._follow_clock()
            with self._store.transaction() as db:
                unit = self._unit(db)
                answers = [self._answer(unit, call) for call in calls]
                self._meters.batches.add(len(calls))
        except Unavailable as error:
            if len(calls) > 1:
                # Reads can be answered when writes cannot, and one huge write must not spoil the others.
                return [answer for call in calls for answer in self.handle_many([call])]
            _log.exception("a transaction failed")
            return [error]
        self._used |= unit.used
        self._write_refused(unit)
        self._write_last_use()
        return answers

    # --- for the scheduler ---

    def queue_changes(self, writer: str, version: int) -> QueueChanges:
        """What is new of the tasks that wait or live since that answer; the whole if it was another writer's."""
        self._follow_clock()
        with self._store.transaction() as db:
            mine = self._store.writer_id
            return feed.since(db, mine, version) if writer == mine else feed.whole(db, mine)

    def gpu_use(self) -> dict[str, Use]:
        """What the ended attempts of each user have used."""
        with self._store.transaction() as db:
            return gpu_use.of_all(db)

    def tasks(self, task_ids: Sequence[str]) -> tuple[Task, ...]:
        """Those that exist, whole: with their specs and the commands of their attempts."""
        with self._store.transaction() as db:
            return tuple(task_rows.by_ids(db, task_ids).values())

    def task(self, task_id: str) -> Task | None:
        with self._store.transaction() as db:
            return task_rows.find(db, task_id)

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """All changes, in order, in one transaction. False: it came too late and was dropped, or it cannot be
        stored, which is logged and told as an event of the task; either way it has changed nothing and spoils no
        other.

        Raises StaleWriter and Unavailable: then nothing was changed.
        """
        self._follow_clock()
        with self._store.transaction() as db:
            unit = self._unit(db)
            seen = TaskCache(db, changes)
            return [self._apply_one(unit, seen, change) for change in changes]

    def chores(self, chore: Chore, begun: float | None = None) -> Chores:
        """What a pass over the disk may do now of this kind. What leaves is marked, so that nobody resumes from it any
        more. `begun`: of the pass, as its first answer said."""
        self._follow_clock()
        certain = self._steps.certain(self._ports.clock(), self._monotonic())
        with self._store.transaction() as db:
            audit.trim(self._unit(db), certain)
        with self._store.transaction() as db:
            return upkeep.chores(self._unit(db), chore, certain, begun)

    def webhook_place(self, name: str, told_to: int | None = None) -> int:
        """The event up to which this webhook has been told, after `told_to` was noted."""
        with self._store.transaction() as db:
            return webhooks.settled(self._unit(db), name, told_to)

    def moves(self, place: int) -> Moves:
        """Of tasks of all users, those that come after this event; a bounded number."""
        with self._store.transaction() as db:
            return webhooks.moves(self._unit(db), place)

    def run_history(self, kinds: Sequence[Kind], workloads: Sequence[str]) -> History:
        """Of runs that are over, to foretell others."""
        with self._store.transaction() as db:
            return forecast_rows.history(db, kinds, workloads)

    def foretell(self, told: Sequence[Told], runs: Sequence[tuple[str, RunSeen]]) -> None:
        """What is told of tasks that wait, and runs that are over, each with its submission id."""
        with self._store.transaction() as db:
            forecasts.foretell(self._unit(db), told, runs)

    def ping(self) -> dict[str, Any]:
        """Raises what a write would raise. `epoch`; `tasks`: counts by state; `maintenance_since`: None if it is
        off."""
        with self._store.transaction() as db:
            since = order_rows.maintenance_since(db)
            return {"epoch": self._store.epoch, "tasks": queue.count_by_state(db), "maintenance_since": since}

    def close(self) -> None:
        """Idempotent."""
        self._write_last_use(at_once=True)
        self._store.close()

    # --- within ---

    def _follow_clock(self) -> None:
        """Where the wall clock was set, the times that the scheduler goes by follow it, before it reads or writes any.
        In a transaction of its own, which is made again at the next call if it fails."""
        with self._one_follows:
            monotonic = self._monotonic()
            step_s = self._steps.unsettled(self._ports.clock(), monotonic)
            if not step_s:
                return
            with self._store.transaction() as db:
                moved = clocks.follow(self._unit(db), step_s)
            self._steps.settle(step_s, monotonic)
        _log.warning("the clock was set by %+d s; %d stored times follow it", step_s, moved)

    def _unit(self, db: sqlite3.Connection) -> UnitOfWork:
        return UnitOfWork(db, self._ports.clock(), self._ports)

    def _answer(self, unit: UnitOfWork, call: Call) -> Any:
        who, action = call
        try:
            if not action.writes:
                return self._do(unit, access.authenticate(unit, who), action)
            with savepoint(unit.db):
                principal, before = access.authenticate(unit, who), unit.db.total_changes
                answer = self._do(unit, principal, action)
                if unit.db.total_changes != before:
                    audit.record(unit, who, principal, action, answer)
                return answer
        except sqlite3.OperationalError:
            raise  # The disk, not the call: the transaction is lost.
        except ArgusError as error:
            self._refusals.note(unit, who, action, error, self._monotonic())
            return error
        except UnicodeEncodeError:
            return InvalidRequest("the request holds text that is not valid Unicode")
        except Exception:
            _log.exception("%s failed", type(action).__name__)
            return ArgusError()

    def _do(self, unit: UnitOfWork, principal: Principal, action: Action[Any]) -> Any:
        of_gateway = _GATEWAY_CASES.get(type(action))
        if (of_gateway is None) is (principal.role is Role.GATEWAY):
            raise Forbidden("this is for the gateway alone, and all else is not")
        if of_gateway is not None:
            return of_gateway(unit, action)
        case = _USE_CASES.get(type(action))
        if case is not None:
            return case(unit, principal, action)
        answer = _ADMIN_CASES[type(action)](unit, access.require_admin(principal), action)
        if action.writes:
            unit.known.clear()  # it may have been about one of them
        return answer

    def _apply_one(self, unit: UnitOfWork, seen: TaskCache, change: Change) -> bool:
        task = seen.task_of(change)
        if task is None:
            return False
        try:
            with savepoint(unit.db):
                return changes.apply(unit, task, change)
        except changes.Stale:
            return False
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            _log.exception("%s of %s is impossible", type(change).__name__, task.task_id)
            changes.tell_impossible(unit, task, change, error)
            return False
        finally:
            # The next change of this task, if there is one, must see what this one has done.
            seen.forget(task.task_id)

    def _write_refused(self, unit: UnitOfWork) -> None:
        """On its own, before the answer: a disk that is full must not change what is refused."""
        if not unit.refused:
            return
        try:
            with self._store.transaction() as db:
                audit.write_refused(self._unit(db), unit.refused)
        except ArgusError as error:
            _log.warning("%d refused calls are missing in the audit: %s", len(unit.refused), error)
        except Exception:
            # What was answered is done, and must be told.
            _log.exception("%d refused calls are missing in the audit", len(unit.refused))

    def _write_last_use(self, *, at_once: bool = False) -> None:
        """Seldom, on its own, and after the answer is safe: a disk that is full must not make a read fail."""
        now = self._ports.clock()
        if not self._used or (not at_once and 0 <= now - self._use_written_at < _LAST_USE_EVERY_S):
            return
        used, self._used, self._use_written_at = self._used, {}, now
        try:
            with self._store.transaction() as db:
                tokens.touch(db, used)
        except ArgusError as error:
            _log.warning("the last use of %d tokens was not written: %s", len(used), error)
