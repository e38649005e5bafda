"""The methods about what a run leaves: curves, rollouts and files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from argus_ray.client import task_calls
from argus_ray.client.caller import Caller
from argus_ray.client.download import download_file, file_name
from argus_ray.client.models.results import (
    Curves,
    FileEntry,
    FilePage,
    Rollouts,
    RolloutStep,
    Sample,
    Sparkline,
    TaskCurves,
)
from argus_ray.client.pages import pages
from argus_ray.client.task_calls import Names


class ResultMethods(Caller):
    """Part of Client."""

    def curves(
        self, task_id: str, *, names: Names = None, max_points: int | None = None, since_step: int | None = None
    ) -> Curves:
        """The main curves, or those of `names`. `complete` is False if there is more to read: the same call goes on."""
        call = task_calls.curves(task_id, names=names, max_points=max_points, since_step=since_step)
        return self.send(call)

    def many_curves(
        self,
        task_ids: Names,
        *,
        names: Names = None,
        max_points: int | None = None,
        since_step: int | None = None,
    ) -> tuple[TaskCurves, ...]:
        """The curves of up to 8 tasks, each with its curves or its problem."""
        call = task_calls.many_curves(task_ids, names=names, max_points=max_points, since_step=since_step)
        return self.send(call).tasks

    def sparklines(self, task_ids: Names, *, max_points: int | None = None) -> tuple[Sparkline, ...]:
        """The headlines of up to 100 tasks as small curves."""
        return self.send(task_calls.sparklines(task_ids, max_points=max_points)).tasks

    def rollout_steps(
        self,
        task_id: str,
        *,
        kind: str | None = None,
        attempt: int | str | None = None,
        limit: int | None = None,
        page_size: int = 100,
    ) -> Iterator[RolloutStep]:
        """Which steps there are samples of, newest first."""

        def page(cursor: str | None, size: int) -> Rollouts:
            call = task_calls.rollouts(task_id, kind=kind, attempt=attempt, limit=size, cursor=cursor)
            return self.send(call)

        return pages(page, lambda found: found.steps, limit, page_size)

    def rollouts(
        self,
        task_id: str,
        step: int,
        *,
        kind: str | None = None,
        attempt: int | str | None = None,
        max_chars: int | None = None,
        limit: int | None = None,
        page_size: int = 100,
    ) -> Iterator[Sample]:
        """Prompts, answers and scores of a step."""

        def page(cursor: str | None, size: int) -> Rollouts:
            call = task_calls.rollouts(
                task_id, step=step, kind=kind, attempt=attempt, max_chars=max_chars, limit=size, cursor=cursor
            )
            return self.send(call)

        return pages(page, lambda found: found.samples, limit, page_size)

    def files(
        self,
        task_id: str,
        path: str = "",
        *,
        attempt: int | str | None = None,
        limit: int | None = None,
        page_size: int = 100,
    ) -> Iterator[FileEntry]:
        """What is in a folder of the job root. `path`: percent-encoded, as `path` of an entry."""

        def page(cursor: str | None, size: int) -> FilePage:
            return self.send(task_calls.files(task_id, path, attempt=attempt, limit=size, cursor=cursor))

        return pages(page, lambda found: found.entries, limit, page_size)

    def download(
        self,
        task_id: str,
        path: str,
        to: str | Path,
        *,
        attempt: int | str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """A file of the job root to `to` (a file, or a folder that is there), which is there only when it is whole.

        A download that was broken off goes on where it was, also by a later call, unless the file has changed.
        `on_progress` is told the bytes so far and in all. Raises OSError for what the disk here says.
        """
        target = Path(to)
        if target.is_dir():
            target = target / file_name(path)
        call = task_calls.download(task_id, path, attempt=attempt)
        return download_file(self._transport, call, target, on_progress=on_progress, patience_s=self._follow_s)
