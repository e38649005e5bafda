"""The client. Each method is one call of the API, or follows from some; docs/api.md tells what they mean."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence

from argus_ray.client import admin_calls, task_calls
from argus_ray.client.admin_methods import AdminMethods
from argus_ray.client.caller import FOLLOW_S as FOLLOW_S
from argus_ray.client.caller import new_key as new_key
from argus_ray.client.calls import Answer, Call
from argus_ray.client.errors import BadAnswer
from argus_ray.client.log_methods import LogMethods
from argus_ray.client.models import admin
from argus_ray.client.models import tasks as models
from argus_ray.client.models.results import Change
from argus_ray.client.pages import pages
from argus_ray.client.result_methods import ResultMethods
from argus_ray.client.task_calls import Filter, Names, When
from argus_ray.client.wait import wait_for

#: Tasks that one call cancels.
_MANY = 500


class Client(AdminMethods, LogMethods, ResultMethods):
    """The API at `url`, as the holder of this token sees it.

    `ca_file`: certificates to trust in the place of the system's. `timeout`: seconds for one step of a call. `retry_s`:
    for how long reads, and writes that may be repeated, are tried again after a broken connection or a 503. `follow_s`:
    the same for logs, streams, downloads and `wait`, once the server has answered. `on_retry` is told why something
    is tried again, and in how many seconds. Proxies are those of the environment.

    Every method raises ApiError (by its code: `argus_ray.client.errors`), ServerUnreachable and BadAnswer.
    """

    def stream(
        self,
        *,
        progress: Names = None,
        log: str | None = None,
        log_tail: int | None = None,
        user_id: str | None = None,
        everyone: bool | None = None,
        after: str | None = None,
    ) -> Generator[Change, None, None]:
        """All that happens to own tasks, the progress of some (at most 50), and one log; without an end.

        `after`: the `id` of the last change that was seen. Reconnects; after `resync` the lists must be read again.
        """

        def open_at(last_id: str | None) -> Call[Answer]:
            return task_calls.stream(
                progress=progress, log=log, log_tail=log_tail, user_id=user_id, everyone=everyone, after=last_id
            )

        for event in self.stream_events(open_at, after=after):
            try:
                data = json.loads(event.data)
            except ValueError:
                raise BadAnswer("an event of the stream is not understood") from None
            yield Change(event.event, data, event.id)

    # Submitting.

    def submit(self, spec: str | bytes, *, presets: Names = None, key: str | None = None) -> models.Submitted:
        """Submit a TaskSpec. `key`: the Idempotency-Key, without which one is made for this call."""
        made, _ = self.send(task_calls.submit(spec, key or new_key(), presets))
        return made

    def validate(self, spec: str | bytes, *, presets: Names = None) -> models.Validation:
        """What a submission would be answered now, and what it would run; nothing is stored."""
        return self.send(task_calls.validate(spec, presets))

    def resubmit(self, task_id: str, *, resume: bool = False, key: str | None = None) -> models.Resubmitted:
        """A new task from one that has ended; `resume`: it goes on from the newest checkpoint."""
        made, _ = self.send(task_calls.resubmit(task_id, key or new_key(), resume=resume))
        return made

    def export(
        self, task_id: str, *, step: int | None = None, part: str | None = None, key: str | None = None
    ) -> models.Exported:
        """A new task that makes a Hugging Face folder of a checkpoint (`step`: of this one, else of the newest)."""
        made, _ = self.send(task_calls.export(task_id, key or new_key(), step=step, part=part))
        return made

    def cancel(self, task_id: str) -> models.Task:
        """Cancel in any state; final at once. A task that has ended stays as it is."""
        return self.send(task_calls.cancel(task_id))

    def cancel_many(
        self,
        ids: Sequence[str] | None = None,
        *,
        state: Names = None,
        workload: Names = None,
        since: When = None,
        until: When = None,
        user_id: str | None = None,
        dry_run: bool = False,
    ) -> models.ManyCanceled:
        """Cancel these tasks, or all that are found like this and have not ended; `dry_run`: only tell which.

        However many: it calls again for those that one call leaves. A dry run by a filter tells 500 of them.
        """
        if ids is not None:
            parts = [list(ids)[at : at + _MANY] for at in range(0, len(ids), _MANY)]
            found = [self.send(task_calls.cancel_many(part, None, dry_run=dry_run)) for part in parts]
        else:
            call = task_calls.cancel_many(None, Filter(state, workload, since, until, user_id), dry_run=dry_run)
            found = [self.send(call)]
            for _ in range(0 if dry_run else found[0].matched // _MANY + 1):
                if found[-1].more:
                    found.append(self.send(call))
        results = tuple(each for part in found for each in part.results)
        matched = sum(part.matched for part in found) if ids is not None else found[0].matched
        return models.ManyCanceled(results=results, matched=matched, more=bool(found) and found[-1].more)

    # Looking.

    def task(self, task_id: str) -> models.Task:
        return self.send(task_calls.task(task_id))

    def spec(self, task_id: str) -> str:
        """The TaskSpec as it was submitted."""
        return self.send(task_calls.spec(task_id))

    def tasks(
        self,
        *,
        state: Names = None,
        workload: Names = None,
        since: When = None,
        until: When = None,
        user_id: str | None = None,
        id_prefix: str | None = None,
        id_suffix: str | None = None,
        ids: Names = None,
        limit: int | None = None,
        page_size: int = 100,
    ) -> Iterator[models.TaskSummary]:
        """Tasks, newest first, page by page as they are taken; `limit`: at most so many.

        `since`, `until`: of their submission; a time, or how long ago. `ids`: at most 100.
        """
        which = Filter(state, workload, since, until, user_id, id_prefix, id_suffix, ids)

        def page(cursor: str | None, size: int) -> models.TaskPage:
            return self.send(task_calls.tasks(which, limit=size, cursor=cursor))

        return pages(page, lambda found: found.tasks, limit, page_size)

    def counts(
        self,
        *,
        state: Names = None,
        workload: Names = None,
        since: When = None,
        until: When = None,
        user_id: str | None = None,
        id_prefix: str | None = None,
        id_suffix: str | None = None,
        ids: Names = None,
    ) -> models.Counts:
        """How many tasks there are in each state, of those that `tasks` would list."""
        which = Filter(state, workload, since, until, user_id, id_prefix, id_suffix, ids)
        return self.send(task_calls.counts(which))

    def events(self, task_id: str, *, limit: int | None = None, page_size: int = 100) -> Iterator[models.Event]:
        """Every change of the task, oldest first, page by page as they are taken."""

        def page(cursor: str | None, size: int) -> models.EventPage:
            return self.send(task_calls.events(task_id, limit=size, cursor=cursor))

        return pages(page, lambda found: found.events, limit, page_size)

    def queue(self, *, everyone: bool = False) -> models.Queue:
        """Own tasks that wait and that run; `everyone`: all of them (admin)."""
        return self.send(task_calls.queue(everyone=everyone))

    def queue_counts(self) -> models.QueueCounts:
        """How much waits and runs, of this user and of others."""
        return self.send(task_calls.queue_counts())

    def explain(self, task_id: str) -> models.Explanation:
        """Why a task waits."""
        return self.send(task_calls.explain(task_id))

    def estimates(self) -> models.Estimates:
        """How often the ranges of starts were right."""
        return self.send(task_calls.estimates())

    def wait(
        self, ids: str | Iterable[str], *, any: bool = False, timeout: float | None = None
    ) -> tuple[models.Task, ...]:
        """The tasks, in the order of `ids`, when all have ended; with `any` those that have, as soon as one has.

        `timeout`: seconds. Raises WaitTimeout, and TaskNotFound if there is no such task.
        """
        wanted = (ids,) if isinstance(ids, str) else tuple(ids)
        return wait_for(self._transport, wanted, any_of_them=any, timeout=timeout, patience_s=self._follow_s)

    # Whose token it is.

    def me(self) -> admin.Me:
        return self.send(admin_calls.me())

    def presets(self) -> admin.Presets:
        return self.send(admin_calls.presets())
