"""What is seen of an attempt, and what follows from it: one pure table for running, ending and recovering.

Three sources: Ray's job record, asked by id; the runner's own files in the job root; the end of the driver's log.
"Ray did not answer" is no observation: nothing follows from it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from argus_ray.core.lifecycle import Advance, End
from argus_ray.core.model import SlimAttempt
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.core.verl import failures


class JobStatus(str, Enum):
    #: Ray did not answer, or with an error of its own.
    UNKNOWN = "UNKNOWN"
    #: Ray answered that it has no job of this id.
    ABSENT = "ABSENT"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class FailureKind(str, Enum):
    """Which part of a job failed, in Ray's own account."""

    #: The driver ended with a code other than 0, under a supervisor that was alive to see it.
    DRIVER = "driver"
    #: The supervisor did not start, or died: the node, or Ray on it, was lost.
    SUPERVISOR = "supervisor"
    #: Ray says no more than that it failed.
    UNSAID = "unsaid"


@dataclass(frozen=True)
class JobSeen:
    """Ray's answer about one submission id."""

    status: JobStatus
    message: str = ""
    failure: FailureKind = FailureKind.UNSAID
    exit_code: int | None = None
    ray_job_id: str | None = None
    node_id: str | None = None
    node_ip: str | None = None
    #: Ray ids of the nodes that its gang was assigned when Ray was given it, the driver's first; empty: not told.
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExitRecord:
    """What the runner wrote when the program ended. `signal`: the one that ended the program, if any."""

    exit_code: int
    signal: int | None = None


@dataclass(frozen=True)
class FilesSeen:
    """The runner's files in the job root."""

    started: bool = False
    exit: ExitRecord | None = None
    log_tail: str = ""
    #: verl has written metrics, so it had its GPUs and made steps.
    has_metrics: bool = False


@dataclass(frozen=True)
class Submit:
    """Give the attempt to Ray (again): it does not know it, and it never started."""


@dataclass(frozen=True)
class Stop:
    """Tell Ray to stop the job; ask again later."""


@dataclass(frozen=True)
class Wait:
    """Nothing follows yet."""


Verdict = Submit | Stop | Wait | Advance | End

#: Exit codes of the runner itself, see payload/argus_runner.py. A program may use the same ones, so the runner's
#: traces and lines decide with them.
RUNNER_REFUSED_CANCELED = 75
RUNNER_REFUSED_STARTED = 76
_RUNNER_LINE = "argus-runner: "

#: Ends that are not the program's fault.
_OUTCOMES = {
    failures.INSUFFICIENT_RESOURCES: Outcome.INSUFFICIENT_RESOURCES,
    failures.NODE_LOST: Outcome.INFRASTRUCTURE,
}
#: The end of a log that is quoted, and that alone may tell of such an end: a run may have survived what stands further
#: up.
_REASON_LINES = 40
_REASON_CHARS = 4000


def next_step(
    attempt: SlimAttempt, job: JobSeen, files: FilesSeen, session: str, left: Collection[str] = ()
) -> Verdict:
    """What to do about a live attempt. `session` is Ray's present one. `left`: those of its nodes that Ray does not
    have any more."""
    if job.status is JobStatus.UNKNOWN:
        return Wait()
    if job.nodes and job.nodes != attempt.nodes:
        # It ran before the database was restored that has assigned it again. All else follows at the next look.
        return _holds(attempt, job, session, job.nodes)
    if attempt.state is AttemptState.STOPPING:
        return _judge_canceled(attempt, job)
    if attempt.stop_reason is not None:
        return _judge_stopped_by_argus(attempt, attempt.stop_reason, job, files)
    if left and (verdict := _judge_without_nodes(attempt, job, files, left)) is not None:
        return verdict
    if job.status is JobStatus.ABSENT:
        return _judge_absent(attempt, files, session)
    if job.status in (JobStatus.PENDING, JobStatus.RUNNING):
        return _holds(attempt, job, session)
    if job.status is JobStatus.SUCCEEDED:
        return End(attempt.submission_id, Outcome.SUCCEEDED, "", exit_code=0)
    if job.status is JobStatus.STOPPED:
        return End(attempt.submission_id, Outcome.CANCELED, "stopped in Ray by an operator", job.exit_code)
    return _judge_failed(attempt, job, files)


def _holds(attempt: SlimAttempt, job: JobSeen, session: str, nodes: tuple[str, ...] | None = None) -> Advance:
    return Advance(
        attempt.submission_id,
        running=job.status is JobStatus.RUNNING,
        session=session,
        ray_job_id=job.ray_job_id,
        node_id=job.node_id,
        node_ip=job.node_ip,
        nodes=nodes,
    )


def _judge_canceled(attempt: SlimAttempt, job: JobSeen) -> Verdict:
    """A canceled attempt. Its cancel marker was written first, so a submission still on its way never starts."""
    if job.status in (JobStatus.PENDING, JobStatus.RUNNING):
        return Stop()
    return End(attempt.submission_id, Outcome.CANCELED, "canceled by the user", job.exit_code)


def _judge_stopped_by_argus(attempt: SlimAttempt, why: str, job: JobSeen, files: FilesSeen) -> Verdict:
    """Argus has stopped it. However it ends that is the reason, and never a loss that counts; only one that comes to
    its good end before is one."""
    if job.status in (JobStatus.PENDING, JobStatus.RUNNING):
        return Stop()
    code = job.exit_code if files.exit is None else files.exit.exit_code
    if job.status is JobStatus.SUCCEEDED or (files.exit is not None and code == 0):
        return End(attempt.submission_id, Outcome.SUCCEEDED, "", exit_code=0)
    if attempt.stop_outcome is Outcome.INSUFFICIENT_RESOURCES:
        return End(attempt.submission_id, attempt.stop_outcome, why, code, failures.unplaced(_first_line(why)))
    if attempt.stop_outcome is Outcome.INFRASTRUCTURE:
        return End(attempt.submission_id, attempt.stop_outcome, why, code, failures.drained(_first_line(why)))
    return End(attempt.submission_id, Outcome.APPLICATION, why, code, failures.stalled())


def _judge_without_nodes(attempt: SlimAttempt, job: JobSeen, files: FilesSeen, left: Collection[str]) -> Verdict | None:
    """What follows from the loss of nodes alone; None: nothing, what is seen of the job tells."""
    why = f"the node {', '.join(sorted(left))} of its gang has left the pool"
    if job.status is JobStatus.ABSENT:
        never_began = attempt.state is AttemptState.SUBMITTING and not files.started and files.exit is None
        return _not_begun(attempt, f"{why} before it began") if never_began else None
    if job.status in (JobStatus.PENDING, JobStatus.RUNNING):
        # The driver may wait for ever for the part that is gone. When its own node is gone Ray says so.
        return None if job.status is JobStatus.RUNNING and attempt.nodes[0] in left else Stop()
    if job.status is JobStatus.SUCCEEDED or (files.exit is not None and files.exit.exit_code == 0):
        return None
    # However it ends then, by our word or by an error of its own.
    if not files.started and files.exit is None:
        return _not_begun(attempt, f"{why} before it began", job.exit_code)
    return _lost(attempt, why, job.exit_code)


def _judge_absent(attempt: SlimAttempt, files: FilesSeen, session: str) -> Verdict:
    if files.exit is not None:
        # Ray's record is gone, but the program had ended: its own record is the truth.
        return _by_exit_code(attempt, files.exit.exit_code, files.log_tail, files)
    if attempt.state is AttemptState.SUBMITTING and not files.started:
        return Submit()
    is_other = attempt.session is not None and attempt.session != session
    why = "the Ray session that ran it is gone" if is_other else "Ray has no record of its job any more"
    return _lost(attempt, why) if files.started else _not_begun(attempt, f"{why}, and it had not begun")


def _judge_failed(attempt: SlimAttempt, job: JobSeen, files: FilesSeen) -> Verdict:
    record = files.exit
    if job.failure is FailureKind.DRIVER:
        code = job.exit_code if job.exit_code is not None else (record.exit_code if record else 1)
        if not files.started and record is None:
            return _never_began(attempt, job, code)
        if code == RUNNER_REFUSED_STARTED and _RUNNER_LINE in job.message:
            # A second delivery of the same submission; the files are those of the first.
            if record is None:
                return _lost(attempt, "it had been started before, in a Ray session that is gone", code)
            code = record.exit_code
        return _by_exit_code(attempt, code, files.log_tail or job.message, files)
    if record is not None and record.exit_code == 0:
        # The supervisor died between the program's good end and its report.
        return End(attempt.submission_id, Outcome.SUCCEEDED, "", exit_code=0)
    # A program that dies with its node may well leave exit code 1 behind, so a lost supervisor outweighs it.
    why = f"its node or Ray on it was lost: {_first_line(job.message)}"
    if not files.started and record is None:
        return _not_begun(attempt, f"{why}, before it began", is_fault_of_node=True)
    return _lost(attempt, why)


def _never_began(attempt: SlimAttempt, job: JobSeen, code: int) -> End:
    """The runner left no trace: it refused, or the worker could not even start it (no shared filesystem, no Python).
    Neither says anything about the program, and another worker may do better."""
    if code == RUNNER_REFUSED_CANCELED:
        return _lost(attempt, "the runner found the attempt canceled", code)
    why = f"the worker could not start it (exit code {code}): {_end_of(failures.lines_of(job.message), 3)}"
    return _not_begun(attempt, why, code, is_fault_of_node=True)


def _by_exit_code(attempt: SlimAttempt, code: int, log: str, files: FilesSeen) -> End:
    if code == 0:
        return End(attempt.submission_id, Outcome.SUCCEEDED, "", exit_code=0)
    lines = failures.lines_of(log)
    # verl asks for its GPUs before its first step: after one, these words come from elsewhere.
    may_be_refused = not (files.has_metrics or failures.has_step(lines))
    if found := failures.special(lines[-_REASON_LINES:], may_be_refused=may_be_refused):
        who = "verl: " if found.code == failures.INSUFFICIENT_RESOURCES else ""
        return End(attempt.submission_id, _OUTCOMES[found.code], f"{who}{found.line}", code, found)
    found = failures.explain(lines, code)
    how = f"exit code {code}" if code < 128 else f"exit code {code} (signal {code - 128})"
    if end := _end_of(lines, _REASON_LINES):
        how += f"; last lines:\n{end}"
    why = (
        "" if found.code == failures.UNKNOWN else f"{found.code}: {found.line}".removesuffix(": ") + f"\n{found.hint}\n"
    )
    return End(attempt.submission_id, Outcome.APPLICATION, why + how, code, found)


def _not_begun(attempt: SlimAttempt, why: str, exit_code: int | None = None, *, is_fault_of_node: bool = False) -> End:
    """No loss: nothing was achieved, and nothing is missing. `is_fault_of_node`: of the driver's, not of one that
    has left."""
    failure = failures.not_started(_first_line(why))
    return End(
        attempt.submission_id, Outcome.INFRASTRUCTURE, why, exit_code, failure, is_fault_of_node=is_fault_of_node
    )


def _lost(attempt: SlimAttempt, why: str, exit_code: int | None = None) -> End:
    return End(attempt.submission_id, Outcome.INFRASTRUCTURE, why, exit_code)


def _end_of(lines: list[str], count: int) -> str:
    return "\n".join(lines[-count:])[-_REASON_CHARS:]


def _first_line(message: str) -> str:
    return next((line.strip() for line in message.splitlines() if line.strip()), "no message")[:500]
