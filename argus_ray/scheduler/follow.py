"""Following the attempts that are alive: what Ray says of each, and what follows from it.

It looks and it stops; what it finds is handed back, to be stored together with all else of the tick.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from argus_ray.core import observation
from argus_ray.core.lifecycle import Achieved, Advance, Change, End
from argus_ray.core.model import ClusterView, Gang, NodeView, PlacedNode, SlimAttempt, SlimTask
from argus_ray.core.observation import FilesSeen, JobStatus, Stop, Submit, Wait
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.core.text import clean
from argus_ray.scheduler import gently
from argus_ray.scheduler.ports import Files, Jobs

log = logging.getLogger(__name__)


@dataclass
class Followed:
    """Of all live attempts."""

    changes: list[Change] = field(default_factory=list)
    #: Those of the changes that are ends.
    ended: list[End] = field(default_factory=list)
    #: Submission ids that Ray has a record of, which is of no use once the end is stored.
    recorded: set[str] = field(default_factory=set)
    #: Tasks whose attempt is not with Ray, and never began.
    unsubmitted: list[SlimTask] = field(default_factory=list)


@dataclass
class Follower:
    jobs: Jobs
    files: Files
    #: Unix time, as in what is stored.
    clock: Callable[[], float]
    #: (submission id, seconds by stored times and those of files) -> for how long it has made steps.
    stepped_s: Callable[[str, float], float]

    async def follow(self, tasks: Collection[SlimTask], view: ClusterView) -> Followed:
        found = Followed()
        pairs = [(task, task.live) for task in tasks if task.live is not None]
        results = await gently.gather(self._attend(found, task, live, view) for task, live in pairs)
        for (_, attempt), result in zip(pairs, results, strict=True):
            if isinstance(result, BaseException):
                # One attempt that cannot be followed now must not stop the others.
                log.error("following %s failed; trying again", attempt.submission_id, exc_info=result)
        return found

    async def forget(self, submission_ids: Iterable[str]) -> None:
        """Of attempts whose ends are stored."""
        names = list(submission_ids)
        results = await asyncio.gather(*map(self.jobs.forget, names), return_exceptions=True)
        for name, result in zip(names, results, strict=True):
            if isinstance(result, BaseException):
                # The record only takes space; the result is stored.
                log.info("Ray keeps its record of %s: %s", name, result)

    async def _attend(self, found: Followed, task: SlimTask, attempt: SlimAttempt, view: ClusterView) -> None:
        """Look at one attempt and do what follows."""
        marked = False
        if attempt.state is AttemptState.STOPPING or attempt.stop_reason is not None:
            # Before anything else: a submission that is still on its way must find the marker. A disk that refuses
            # it (full, say) is no reason to let the job run on.
            marked = await try_to_forbid(self.files, attempt)
        job = await self.jobs.look(attempt.submission_id)
        if job.status is JobStatus.UNKNOWN:
            log.warning("Ray did not say how %s is: %s", attempt.submission_id, job.message)
            return
        if job.status is JobStatus.ABSENT and attempt.state is AttemptState.STOPPING and not marked:
            return
        files = FilesSeen()
        if job.status in (JobStatus.ABSENT, JobStatus.FAILED, JobStatus.STOPPED):
            files = await self.files.look(attempt.job_root)
        verdict = observation.next_step(attempt, job, files, view.session, _nodes_that_left(attempt, view))
        match verdict:
            case Wait():
                pass
            case Submit():
                found.unsubmitted.append(task)
            case Stop():
                await self.jobs.stop(attempt.submission_id)
            case Advance():
                if (nodes := verdict.nodes) is not None:
                    log.warning("%s was given to Ray before, on %s", attempt.submission_id, ", ".join(nodes))
                    by_id = {node.node_id: node for node in view.nodes}
                    verdict = replace(verdict, placement=placement(task.gang, nodes, by_id))
                if _is_news(attempt, verdict):
                    found.changes.append(verdict)
            case End():
                known_to_ray = job.status is not JobStatus.ABSENT
                if await may_end(self.files, attempt, verdict, known_to_ray=known_to_ray):
                    is_loss = not (verdict.never_began or verdict.was_drained)
                    if verdict.outcome is Outcome.INFRASTRUCTURE and is_loss:
                        verdict = replace(verdict, achieved=await self._achieved(task, attempt))
                    found.changes.append(verdict)
                    found.ended.append(verdict)
                    if known_to_ray:
                        found.recorded.add(attempt.submission_id)

    async def _achieved(self, task: SlimTask, attempt: SlimAttempt) -> Achieved | None:
        try:
            saved = await self.files.saved_step(task)
            metrics = await self.files.metrics(attempt.job_root)
        except Exception as error:
            log.warning("what %s has left: %s: %s", attempt.submission_id, type(error).__name__, error)
            return None
        # A program can set the file's time, but not make the attempt older than it is.
        began = attempt.created_at if attempt.started_at is None else attempt.started_at
        last_step = min(metrics.modified_at, self.clock()) if metrics.size else began
        return Achieved(saved, self.stepped_s(attempt.submission_id, max(0.0, last_step - began)))


async def may_end(files: Files, attempt: SlimAttempt, end: End, *, known_to_ray: bool) -> bool:
    """Whatever may be left of a lost or canceled attempt, on a node that we cannot see, ends itself at its marker.
    Without Ray's word that marker is all that keeps it from starting, so without both it has not ended yet."""
    if end.outcome not in (Outcome.INFRASTRUCTURE, Outcome.CANCELED):
        return True
    return await try_to_forbid(files, attempt) or known_to_ray


async def try_to_forbid(files: Files, attempt: SlimAttempt) -> bool:
    try:
        await files.forbid_start(attempt.job_root)
    except Exception as error:
        log.warning("no cancel marker for %s: %s: %s", attempt.submission_id, type(error).__name__, error)
        return False
    return True


def _nodes_that_left(attempt: SlimAttempt, view: ClusterView) -> set[str]:
    if attempt.session not in (None, view.session):
        return set()  # another session has other nodes, and what is left of this one is told by its jobs
    return set(attempt.nodes) - {node.node_id for node in view.nodes}


def placement(gang: Gang, node_ids: Iterable[str], by_id: Mapping[str, NodeView]) -> tuple[PlacedNode, ...] | None:
    """Of a gang on these nodes; None if one of them is not known."""
    nodes = [by_id.get(node_id) for node_id in node_ids]
    known = [node for node in nodes if node is not None]
    if len(known) < len(nodes):
        return None
    return tuple(PlacedNode(node.node_id, clean(node.hostname), node.ip, gang.gpus_per_node) for node in known)


def _is_news(attempt: SlimAttempt, advance: Advance) -> bool:
    later = [AttemptState.RUNNING] if advance.running else [AttemptState.SUBMITTED, AttemptState.RUNNING]
    facts = ("session", "ray_job_id", "node_id", "node_ip", "nodes")
    return attempt.state not in later or any(
        getattr(advance, fact) is not None and getattr(advance, fact) != getattr(attempt, fact) for fact in facts
    )
