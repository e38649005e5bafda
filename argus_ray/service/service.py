"""The use cases behind one door: who asks, what they ask, in one transaction. A plain class: no Ray, no HTTP.

The state actor wraps it; tests call it. It may be called from several threads.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from typing_extensions import assert_never

from argus_ray.config import Settings
from argus_ray.core import actions
from argus_ray.core.actions import Action, Credential, Principal, ReadSubmission, ResubmitTask, Result, SubmitTask
from argus_ray.core.errors import ArgusError, InvalidRequest, Unavailable
from argus_ray.core.lifecycle import Change
from argus_ray.core.model import Gang, Task
from argus_ray.core.retention import Chores
from argus_ray.core.taskspec import TaskSpec
from argus_ray.service import access, accounts, submission, tasks, upkeep
from argus_ray.service import changes as scheduling
from argus_ray.service.changes import TaskCache
from argus_ray.service.unit_of_work import Ports, Specs, UnitOfWork
from argus_ray.store import Store, line, tokens
from argus_ray.store import tasks as task_rows
from argus_ray.store.store import savepoint

_log = logging.getLogger(__name__)

Call = tuple[Credential, Action]


class Service:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        gang_of: Callable[[TaskSpec], Gang],
        resolve: Callable[[str], str] = os.path.realpath,
    ) -> None:
        """`clock`: seconds since the Unix epoch; `entropy(n)`: n bytes fit for secrets; `gang_of` must be
        pure; `resolve` follows symbolic links. The service closes the store."""
        self._store = store
        self._ports = Ports(settings, clock, entropy, gang_of, resolve)
        with store.transaction() as db:
            accounts.ensure_internal_user(self._unit(db))

    # --- for the gateway ---

    def handle(self, who: Credential, action: Action) -> Result:
        """One call. Raises ArgusError."""
        answer = self.handle_many([(who, action)])[0]
        if isinstance(answer, ArgusError):
            raise answer
        return answer

    def handle_many(self, calls: Sequence[Call]) -> list[Result | ArgusError]:
        """All calls, in order, in one transaction with one fsync; the answers in the same order.

        A call that fails has changed nothing and spoils no other: its answer is an ArgusError. When this
        returns, all that it answers is on disk. Raises StaleWriter alone: this process must stop.
        """
        specs = self._read_specs(calls)
        used: set[str] = set()
        try:
            with self._store.transaction() as db:
                unit = self._unit(db, specs, used)
                answers = [self._answer(unit, call) for call in calls]
        except Unavailable as error:
            if len(calls) > 1:
                # Reads can be answered when writes cannot, and one huge write must not spoil the others.
                return [answer for call in calls for answer in self.handle_many([call])]
            _log.exception("a transaction failed")
            return [error]
        self._write_last_use(used)
        return answers

    # --- for the scheduler ---

    def waiting(self, limit: int = 10_000) -> tuple[Task, ...]:
        """The line from its head, with attempts."""
        with self._store.transaction() as db:
            return line.waiting(db, limit)

    def active(self) -> tuple[Task, ...]:
        """Tasks with an attempt that is not over, those of CANCELED tasks included, in line order."""
        with self._store.transaction() as db:
            return line.active(db)

    def task(self, task_id: str) -> Task | None:
        with self._store.transaction() as db:
            return task_rows.find(db, task_id)

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """All changes, in order, in one transaction. False: it came too late and was dropped, or it was an
        error of the caller's, which is logged; either way it has changed nothing and spoils no other.

        Raises StaleWriter and Unavailable: then nothing was changed.
        """
        with self._store.transaction() as db:
            unit = self._unit(db)
            seen = TaskCache(db, changes)
            return [self._apply_one(unit, seen, change) for change in changes]

    def chores(self) -> Chores:
        """What a pass over the disk may do now. What leaves is marked, so that nobody resumes from it any more."""
        with self._store.transaction() as db:
            return upkeep.chores(self._unit(db))

    def ping(self) -> dict[str, Any]:
        """Raises what a write would raise. `epoch`, and `tasks`: counts by state."""
        with self._store.transaction() as db:
            return {"epoch": self._store.epoch, "tasks": line.count_by_state(db)}

    def close(self) -> None:
        """Idempotent."""
        self._store.close()

    # --- within ---

    def _unit(self, db: sqlite3.Connection, specs: Specs | None = None, used: set[str] | None = None) -> UnitOfWork:
        return UnitOfWork(
            db, self._ports.clock(), self._ports, specs or Specs(self._ports), set() if used is None else used
        )

    def _read_specs(self, calls: Sequence[Call]) -> Specs:
        """Parse the bodies of callers that may submit, outside of the transaction that will accept them:
        links are followed on the shared filesystem, which may take its time."""
        specs = Specs(self._ports)
        kinds = (ReadSubmission, SubmitTask, ResubmitTask)
        submits = [(who, action) for who, action in calls if isinstance(action, kinds)]
        if not submits:
            return specs
        try:
            with self._store.transaction() as db:
                unit = self._unit(db)
                wanted = [self._new_spec(unit, who, action) for who, action in submits]
        except ArgusError:
            return specs  # The transaction that comes meets the same trouble and answers for it.
        for text in filter(None, wanted):
            # Whoever needs this spec meets the same error again, and it is reported there.
            with suppress(Exception):
                specs.read(text)
        return specs

    def _new_spec(
        self, unit: UnitOfWork, who: Credential, action: ReadSubmission | SubmitTask | ResubmitTask
    ) -> str | None:
        try:
            call = action.call if isinstance(action, ReadSubmission) else action
            return submission.new_spec(unit, access.authenticate(unit, who), call)
        except (ArgusError, UnicodeError):
            return None

    def _answer(self, unit: UnitOfWork, call: Call) -> Result | ArgusError:
        who, action = call
        try:
            with savepoint(unit.db):
                return self._dispatch(unit, access.authenticate(unit, who), action)
        except sqlite3.OperationalError:
            raise  # The disk, not the call: the transaction is lost.
        except ArgusError as error:
            return error
        except UnicodeEncodeError:
            return InvalidRequest("the request holds text that is not valid Unicode")
        except Exception:
            _log.exception("%s failed", type(action).__name__)
            return ArgusError()

    def _dispatch(self, unit: UnitOfWork, principal: Principal, action: Action) -> Result:
        match action:
            case actions.WhoAmI():
                return principal
            case actions.ReadSubmission():
                return submission.read(unit, principal, action)
            case actions.SubmitTask():
                return submission.submit(unit, principal, action)
            case actions.ResubmitTask():
                return submission.resubmit(unit, principal, action)
            case actions.GetTask():
                return tasks.get(unit, principal, action.task_id)
            case actions.ListTasks():
                return tasks.list_page(unit, principal, action)
            case actions.ExplainTask():
                return tasks.explain(unit, principal, action)
            case actions.CancelTask():
                return tasks.cancel(unit, principal, action)
            case actions.TaskEvents():
                return tasks.list_events(unit, principal, action)
            case actions.FindAttempt():
                return tasks.find_attempt(unit, principal, action)
            case actions.ShowQueue():
                return tasks.show_queue(unit, principal, action)
            case _:
                return self._administer(unit, access.require_admin(principal), action)

    def _administer(self, unit: UnitOfWork, admin: Principal, action: _AdminAction) -> Result:
        match action:
            case actions.RequireAdmin():
                return admin
            case actions.CreateUser():
                return accounts.create(unit, action)
            case actions.GetUser():
                return accounts.get(unit, action.user_id)
            case actions.ListUsers():
                return accounts.list_all(unit)
            case actions.SetUserEnabled():
                return accounts.set_enabled(unit, action)
            case actions.IssueToken():
                return accounts.issue_token(unit, action)
            case actions.ListTokens():
                return accounts.list_tokens(unit, action.user_id)
            case actions.RevokeToken():
                return accounts.revoke_token(unit, action)
            case _:
                assert_never(action)

    def _apply_one(self, unit: UnitOfWork, seen: TaskCache, change: Change) -> bool:
        task = seen.task_of(change)
        if task is None:
            return False
        try:
            with savepoint(unit.db):
                return scheduling.apply(unit, task, change)
        except scheduling.Stale:
            return False
        except sqlite3.OperationalError:
            raise
        except Exception:
            _log.exception("%s of %s is impossible", type(change).__name__, task.task_id)
            return False
        finally:
            # The next change of this task, if there is one, must see what this one has done.
            seen.forget(task.task_id)

    def _write_last_use(self, token_ids: set[str]) -> None:
        """On its own, after the answer is safe: a disk that is full must not make a read fail."""
        if not token_ids:
            return
        try:
            with self._store.transaction() as db:
                tokens.touch(db, sorted(token_ids), self._ports.clock())
        except ArgusError as error:
            _log.warning("the last use of %d tokens was not written: %s", len(token_ids), error)


_AdminAction = (
    actions.RequireAdmin
    | actions.CreateUser
    | actions.GetUser
    | actions.ListUsers
    | actions.SetUserEnabled
    | actions.IssueToken
    | actions.ListTokens
    | actions.RevokeToken
)
