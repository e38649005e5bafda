"""Handing the key of the tracking server to an attempt, before Ray hears of the attempt."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from argus_ray.core.model import Attempt, Task
from argus_ray.core.verl import tracking
from argus_ray.core.verl.tracking import Tracking
from argus_ray.discovery import tracking_keys
from argus_ray.disk import secrets
from argus_ray.disk.threads import BoundedThreads
from argus_ray.payload import argus_secrets

log = logging.getLogger(__name__)


@dataclass
class TrackingKeys:
    """The key is read anew for each attempt, so a new one counts from the next attempt on."""

    tracking: Tracking | None
    #: The name by which the launcher knows the key.
    variable: str
    threads: BoundedThreads
    #: Seconds.
    timeout_s: float
    #: Of a job root that has to be made.
    umask: int
    #: Raises OSError unless the shared root proves to be there: no key is written below a bare mount point.
    prove_root: Callable[[], object]
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    async def hand_over(self, task: Task, attempt: Attempt) -> None:
        """Never raises: without its key a run is tracked on the disk, and trains all the same."""
        if not tracking.wants_key(dict(attempt.env), self.tracking):
            return
        earlier = [each.job_root for each in task.attempts if each.job_root != attempt.job_root]
        try:
            await self.threads.run(lambda: self._hand_over(attempt.job_root, earlier), self.timeout_s)
        except (OSError, asyncio.TimeoutError) as error:
            log.warning("%s gets no key for its tracking: %s", attempt.submission_id, type(error).__name__)

    def _hand_over(self, job_root: str, earlier: list[str]) -> None:
        self.prove_root()
        for each in earlier:
            secrets.clear(each)  # of one that was lost before its runner could
        key = tracking_keys.read(self.variable, self.environ)
        if key is not None:
            secrets.hand_over(job_root, argus_secrets.WANDB, key, self.umask)
