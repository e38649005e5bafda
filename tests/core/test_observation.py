"""What follows from what is seen of an attempt: one row a case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus_ray.core.lifecycle import Advance, End
from argus_ray.core.model import Attempt
from argus_ray.core.observation import (
    ExitRecord,
    FailureKind,
    FilesSeen,
    JobSeen,
    JobStatus,
    Stop,
    Submit,
    Wait,
    next_step,
)
from argus_ray.core.states import AttemptState, Outcome

SUBMITTING, SUBMITTED, RUNNING, STOPPING = (
    AttemptState.SUBMITTING,
    AttemptState.SUBMITTED,
    AttemptState.RUNNING,
    AttemptState.STOPPING,
)
INSUFFICIENT = "ValueError: Total available GPUs 0 is less than total desired GPUs 1"


def attempt(state: AttemptState, session: str | None = "s1") -> Attempt:
    return Attempt(
        "argus-u-sft-20260101-000000-abcd--a01",
        "argus-u-sft-20260101-000000-abcd",
        1,
        state,
        0.0,
        "/j",
        session,
    )


def outcome(verdict: object) -> Outcome:
    assert isinstance(verdict, End), verdict
    return verdict.outcome


def failed(kind: FailureKind, code: int | None = 1, message: str = "") -> JobSeen:
    return JobSeen(JobStatus.FAILED, message, kind, code)


@pytest.mark.parametrize("state", [SUBMITTING, SUBMITTED, RUNNING, STOPPING])
def test_no_answer_is_no_observation(state: AttemptState) -> None:
    assert next_step(attempt(state), JobSeen(JobStatus.UNKNOWN), FilesSeen(), "s1") == Wait()


def test_an_unknown_submission_that_never_started_is_submitted() -> None:
    assert next_step(attempt(SUBMITTING, None), JobSeen(JobStatus.ABSENT), FilesSeen(), "s1") == Submit()


def test_a_submission_that_did_start_is_never_submitted_again() -> None:
    verdict = next_step(attempt(SUBMITTING), JobSeen(JobStatus.ABSENT), FilesSeen(started=True), "s1")
    assert outcome(verdict) is Outcome.INFRASTRUCTURE


def test_a_job_that_ray_holds_is_adopted() -> None:
    seen = JobSeen(JobStatus.RUNNING, ray_job_id="02000000", node_id="n1", node_ip="10.0.0.2")
    verdict = next_step(attempt(SUBMITTING, None), seen, FilesSeen(), "s1")
    assert isinstance(verdict, Advance)
    assert (verdict.running, verdict.session, verdict.ray_job_id) == (True, "s1", "02000000")


@pytest.mark.parametrize("state", [SUBMITTING, SUBMITTED, RUNNING, STOPPING])
@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.SUCCEEDED, JobStatus.FAILED])
def test_a_job_that_ray_was_given_before_is_where_it_was_given_to(status: JobStatus, state: AttemptState) -> None:
    """And not where a database that was restored has assigned it since; whatever becomes of those nodes."""
    assigned = replace(attempt(state), nodes=("n1", "n2"))
    verdict = next_step(assigned, JobSeen(status, nodes=("n3", "n1")), FilesSeen(), "s1", left={"n2"})
    assert isinstance(verdict, Advance)
    assert (verdict.nodes, verdict.running) == (("n3", "n1"), status is JobStatus.RUNNING)


@pytest.mark.parametrize("nodes", [("n1", "n2"), ()])
def test_a_job_that_is_where_it_was_assigned_to_tells_nothing_new_of_it(nodes: tuple[str, ...]) -> None:
    assigned = replace(attempt(SUBMITTED), nodes=("n1", "n2"))
    verdict = next_step(assigned, JobSeen(JobStatus.RUNNING, nodes=nodes), FilesSeen(), "s1")
    assert isinstance(verdict, Advance) and verdict.nodes is None


@pytest.mark.parametrize("state", [SUBMITTED, RUNNING])
@pytest.mark.parametrize(("session", "word"), [("s2", "session"), ("s1", "record")])
def test_a_job_that_ray_has_forgotten_is_lost(state: AttemptState, session: str, word: str) -> None:
    verdict = next_step(attempt(state), JobSeen(JobStatus.ABSENT), FilesSeen(started=True), session)
    assert outcome(verdict) is Outcome.INFRASTRUCTURE
    assert isinstance(verdict, End) and word in verdict.reason


@pytest.mark.parametrize(("code", "expected"), [(0, Outcome.SUCCEEDED), (3, Outcome.APPLICATION)])
def test_the_runners_own_record_outlives_rays(code: int, expected: Outcome) -> None:
    files = FilesSeen(started=True, exit=ExitRecord(code))
    assert outcome(next_step(attempt(RUNNING), JobSeen(JobStatus.ABSENT), files, "s2")) is expected


@pytest.mark.parametrize("session", ["s1", "s2"])
@pytest.mark.parametrize("started", [False, True])
def test_one_that_ray_has_forgotten_is_a_loss_only_if_it_had_begun(session: str, started: bool) -> None:
    verdict = next_step(attempt(SUBMITTED), JobSeen(JobStatus.ABSENT), FilesSeen(started=started), session)
    assert isinstance(verdict, End) and verdict.outcome is Outcome.INFRASTRUCTURE
    assert verdict.never_began is not started
    assert not verdict.is_fault_of_node


def test_an_application_failure_quotes_the_end_of_the_log() -> None:
    files = FilesSeen(True, ExitRecord(1), "step 1\nstep 2\n\nKeyError: 'mine'\n")
    verdict = next_step(attempt(RUNNING), failed(FailureKind.DRIVER), files, "s1")
    assert outcome(verdict) is Outcome.APPLICATION
    assert isinstance(verdict, End)
    assert verdict.reason.startswith("exit code 1; last lines:") and verdict.reason.endswith("KeyError: 'mine'")


def test_a_failure_that_is_known_is_named_before_the_log_is_quoted() -> None:
    files = FilesSeen(True, ExitRecord(1), "step 1\n[rank0]: KeyError: 'messages'\n")
    verdict = next_step(attempt(RUNNING), failed(FailureKind.DRIVER), files, "s1")
    assert isinstance(verdict, End) and verdict.failure is not None
    assert verdict.failure.code == "dataset_columns"
    first, hint, *rest = verdict.reason.splitlines()
    assert (first, hint) == ("dataset_columns: [rank0]: KeyError: 'messages'", verdict.failure.hint)
    assert rest == ["exit code 1; last lines:", "step 1", "[rank0]: KeyError: 'messages'"]


def test_without_a_log_rays_message_is_quoted() -> None:
    seen = failed(FailureKind.DRIVER, 2, "command not found")
    verdict = next_step(attempt(RUNNING), seen, FilesSeen(started=True), "s1")
    assert isinstance(verdict, End) and "command not found" in verdict.reason


def test_the_reason_is_bounded() -> None:
    files = FilesSeen(True, ExitRecord(1), "x" * 100_000)
    verdict = next_step(attempt(RUNNING), failed(FailureKind.DRIVER), files, "s1")
    assert isinstance(verdict, End) and len(verdict.reason) < 5000


def test_verls_own_fit_check_is_not_a_failure() -> None:
    files = FilesSeen(True, ExitRecord(1), f"Traceback\nray.exceptions.RayTaskError(ValueError)\n{INSUFFICIENT}\n")
    verdict = next_step(attempt(RUNNING), failed(FailureKind.DRIVER), files, "s1")
    assert outcome(verdict) is Outcome.INSUFFICIENT_RESOURCES
    assert isinstance(verdict, End) and "Total available GPUs 0" in verdict.reason


@pytest.mark.parametrize(
    "files",
    [
        FilesSeen(True, ExitRecord(1), f"{INSUFFICIENT}\n", has_metrics=True),
        FilesSeen(True, ExitRecord(1), f"(TaskRunner pid=7) step:1 - actor/loss:0.1\n{INSUFFICIENT}\n"),
        FilesSeen(True, ExitRecord(1), "step:1 - train/loss:0.1\n" + "x\n" * 100 + INSUFFICIENT),
    ],
    ids=["metrics", "a step in the log", "a step further up"],
)
@pytest.mark.parametrize("seen", [failed(FailureKind.DRIVER), JobSeen(JobStatus.ABSENT)], ids=["told", "forgotten"])
def test_after_a_step_verl_asks_for_no_gpus_any_more(files: FilesSeen, seen: JobSeen) -> None:
    assert outcome(next_step(attempt(RUNNING), seen, files, "s1")) is Outcome.APPLICATION


def test_a_node_that_was_lost_after_a_step_is_still_a_loss() -> None:
    log = f"step:1 - train/loss:0.1\n{INSUFFICIENT}\nray.exceptions.NodeDiedError: the node died\n"
    files = FilesSeen(True, ExitRecord(1), log, has_metrics=True)
    assert outcome(next_step(attempt(RUNNING), failed(FailureKind.DRIVER), files, "s1")) is Outcome.INFRASTRUCTURE


@pytest.mark.parametrize(
    "line",
    [
        "The actor died because its node has died. Node Id: 4f",
        "ray.exceptions.ActorUnschedulableError: The actor is not schedulable: The node specified via "
        "NodeAffinitySchedulingStrategy doesn't exist any more or is infeasible, and soft=False was specified.",
        "ray.exceptions.NodeDiedError: the node died",
        "Shutting down the core worker because the local raylet failed.",
        "Failed to connect to GCS at address 10.0.0.1:6379 within 60 seconds.",
    ],
)
def test_a_log_that_tells_of_a_lost_node_is_a_loss(line: str) -> None:
    files = FilesSeen(True, ExitRecord(1), f"step 4\n{line}\n")
    assert outcome(next_step(attempt(RUNNING), failed(FailureKind.DRIVER), files, "s1")) is Outcome.INFRASTRUCTURE


@pytest.mark.parametrize("line", ["my raylet-like model died", "the node classifier has died down", "GCS bucket: 403"])
def test_a_log_that_only_sounds_like_it_is_not(line: str) -> None:
    files = FilesSeen(True, ExitRecord(1), line)
    assert outcome(next_step(attempt(RUNNING), failed(FailureKind.DRIVER), files, "s1")) is Outcome.APPLICATION


@pytest.mark.parametrize("kind", [FailureKind.SUPERVISOR, FailureKind.UNSAID])
@pytest.mark.parametrize("record", [None, ExitRecord(1), ExitRecord(143, 15), ExitRecord(137, 9)])
def test_a_lost_supervisor_is_a_loss(kind: FailureKind, record: ExitRecord | None) -> None:
    seen = failed(kind, None, "Job supervisor actor died: the node was lost")
    assert outcome(next_step(attempt(RUNNING), seen, FilesSeen(True, record), "s1")) is Outcome.INFRASTRUCTURE


def test_a_program_that_had_ended_well_before_its_supervisor_died_succeeded() -> None:
    verdict = next_step(attempt(RUNNING), failed(FailureKind.SUPERVISOR, None), FilesSeen(True, ExitRecord(0)), "s1")
    assert outcome(verdict) is Outcome.SUCCEEDED


def test_the_sft_launcher_says_what_happened() -> None:
    files = FilesSeen(True, ExitRecord(78), "step 1\nargus-sft: lost node 1 of the gang: RayActorError\n")
    assert outcome(next_step(attempt(RUNNING), failed(FailureKind.DRIVER, 78), files, "s1")) is Outcome.INFRASTRUCTURE
    files = FilesSeen(True, ExitRecord(77), "argus-sft: insufficient resources: no 2 nodes within 600 s\n")
    verdict = next_step(attempt(RUNNING), failed(FailureKind.DRIVER, 77), files, "s1")
    assert outcome(verdict) is Outcome.INSUFFICIENT_RESOURCES
    assert isinstance(verdict, End) and "no 2 nodes within 600 s" in verdict.reason


@pytest.mark.parametrize("code", [2, 64, 75, 76, 77, 78])
def test_a_program_may_use_any_exit_code(code: int) -> None:
    files = FilesSeen(True, ExitRecord(code), "my own failure")
    verdict = next_step(attempt(RUNNING), failed(FailureKind.DRIVER, code), files, "s1")
    assert outcome(verdict) is Outcome.APPLICATION


@pytest.mark.parametrize("code", [2, 74, 75, 127, None])
def test_a_worker_that_cannot_start_the_runner_does_not_fail_the_task(code: int | None) -> None:
    """No shared filesystem, no Python: the runner left no trace."""
    seen = failed(FailureKind.DRIVER, code, "python3: can't open file '/private/ray/payload/argus_runner.py'")
    verdict = next_step(attempt(RUNNING), seen, FilesSeen(), "s1")
    assert outcome(verdict) is Outcome.INFRASTRUCTURE
    if code not in (75,):
        assert isinstance(verdict, End) and "can't open file" in verdict.reason


@pytest.mark.parametrize(
    ("record", "expected"),
    [(None, Outcome.INFRASTRUCTURE), (ExitRecord(0), Outcome.SUCCEEDED), (ExitRecord(1), Outcome.APPLICATION)],
)
def test_a_second_delivery_of_a_submission_is_judged_by_the_first(record: ExitRecord | None, expected: Outcome) -> None:
    seen = failed(FailureKind.DRIVER, 76, "argus-runner: x has been started before")
    assert outcome(next_step(attempt(RUNNING), seen, FilesSeen(True, record, "a bug"), "s1")) is expected


def test_only_the_end_of_the_log_decides() -> None:
    log = "Failed to connect to GCS, trying again\n" + "step\n" * 100 + "KeyError: 'x'\n"
    verdict = next_step(attempt(RUNNING), failed(FailureKind.DRIVER), FilesSeen(True, ExitRecord(1), log), "s1")
    assert outcome(verdict) is Outcome.APPLICATION


def test_a_kill_is_named() -> None:
    verdict = next_step(attempt(RUNNING), failed(FailureKind.DRIVER, 137), FilesSeen(True, ExitRecord(137, 9)), "s1")
    assert isinstance(verdict, End) and "signal 9" in verdict.reason and "out of memory" in verdict.reason


@pytest.mark.parametrize(
    ("status", "expected"),
    [(JobStatus.PENDING, Stop()), (JobStatus.RUNNING, Stop())],
)
def test_a_canceled_attempt_is_stopped(status: JobStatus, expected: object) -> None:
    assert next_step(attempt(STOPPING), JobSeen(status), FilesSeen(), "s1") == expected


@pytest.mark.parametrize("status", [JobStatus.ABSENT, JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED])
def test_a_canceled_attempt_that_is_over_is_canceled(status: JobStatus) -> None:
    assert outcome(next_step(attempt(STOPPING), JobSeen(status), FilesSeen(), "s1")) is Outcome.CANCELED


def test_a_job_that_an_operator_stopped_is_canceled() -> None:
    assert outcome(next_step(attempt(RUNNING), JobSeen(JobStatus.STOPPED), FilesSeen(), "s1")) is Outcome.CANCELED


@pytest.mark.parametrize(
    ("job", "files", "expected"),
    [
        (JobSeen(JobStatus.UNKNOWN), FilesSeen(), Wait()),
        (JobSeen(JobStatus.PENDING), FilesSeen(), Stop()),
        (JobSeen(JobStatus.RUNNING), FilesSeen(), Stop()),
        (JobSeen(JobStatus.STOPPED, exit_code=143), FilesSeen(), (Outcome.APPLICATION, 143)),
        (failed(FailureKind.DRIVER, 143), FilesSeen(True, ExitRecord(143, 15)), (Outcome.APPLICATION, 143)),
        (failed(FailureKind.SUPERVISOR, None), FilesSeen(True), (Outcome.APPLICATION, None)),
        (JobSeen(JobStatus.ABSENT), FilesSeen(True), (Outcome.APPLICATION, None)),
        (JobSeen(JobStatus.ABSENT), FilesSeen(True, log_tail=INSUFFICIENT), (Outcome.APPLICATION, None)),
        # It came to its good end before the stop reached it.
        (JobSeen(JobStatus.SUCCEEDED), FilesSeen(), (Outcome.SUCCEEDED, 0)),
        (JobSeen(JobStatus.ABSENT), FilesSeen(True, ExitRecord(0)), (Outcome.SUCCEEDED, 0)),
    ],
)
def test_what_argus_stops_itself_is_never_a_loss(job: JobSeen, files: FilesSeen, expected: object) -> None:
    stopped = replace(attempt(RUNNING), stop_reason="no new step for 600 s")
    verdict = next_step(stopped, job, files, "s2")
    if isinstance(verdict, End):
        assert (verdict.outcome, verdict.exit_code) == expected
        assert verdict.reason == ("" if verdict.outcome is Outcome.SUCCEEDED else "no new step for 600 s")
        assert (verdict.failure and verdict.failure.code) == (
            None if verdict.outcome is Outcome.SUCCEEDED else "stalled"
        )
    else:
        assert verdict == expected


@pytest.mark.parametrize(
    ("job", "files"),
    [
        (JobSeen(JobStatus.STOPPED, exit_code=143), FilesSeen()),
        (failed(FailureKind.DRIVER, 143), FilesSeen(True, ExitRecord(143, 15))),
        (failed(FailureKind.DRIVER, 1), FilesSeen(True, ExitRecord(1), f"{INSUFFICIENT}")),
        (failed(FailureKind.SUPERVISOR, None), FilesSeen()),
        (JobSeen(JobStatus.ABSENT), FilesSeen()),
    ],
)
def test_what_a_drain_stops_is_drained_however_it_ends(job: JobSeen, files: FilesSeen) -> None:
    stopped = replace(attempt(RUNNING), stop_reason="n1 is drained", stop_outcome=Outcome.INFRASTRUCTURE)
    verdict = next_step(stopped, job, files, "s2", left=["n1"])
    assert isinstance(verdict, End) and verdict.was_drained and not verdict.is_fault_of_node
    assert (verdict.outcome, verdict.reason) == (Outcome.INFRASTRUCTURE, "n1 is drained")
    assert next_step(stopped, JobSeen(JobStatus.RUNNING), FilesSeen(), "s1") == Stop()
    assert outcome(next_step(stopped, JobSeen(JobStatus.SUCCEEDED), FilesSeen(), "s1")) is Outcome.SUCCEEDED


def test_a_cancel_outweighs_a_stop() -> None:
    stopped = replace(attempt(STOPPING), stop_reason="no new step for 600 s")
    verdict = next_step(stopped, JobSeen(JobStatus.STOPPED), FilesSeen(), "s1")
    assert outcome(verdict) is Outcome.CANCELED


def of_gang(state: AttemptState = RUNNING, session: str | None = "s1") -> Attempt:
    return replace(attempt(state, session), nodes=("driver", "other"))


def test_an_attempt_whose_node_has_left_before_it_began_is_lost_at_once() -> None:
    """Ray would hold its job for a node that never comes."""
    verdict = next_step(of_gang(SUBMITTING, None), JobSeen(JobStatus.ABSENT), FilesSeen(), "s1", {"other"})
    assert outcome(verdict) is Outcome.INFRASTRUCTURE and "other" in verdict.reason  # type: ignore[union-attr]
    begun = next_step(of_gang(SUBMITTING, None), JobSeen(JobStatus.ABSENT), FilesSeen(started=True), "s1", {"other"})
    assert outcome(begun) is Outcome.INFRASTRUCTURE


def test_a_run_that_has_lost_a_node_is_stopped_and_then_lost() -> None:
    """Its driver may wait for ever for the part that is gone."""
    for status in (JobStatus.PENDING, JobStatus.RUNNING):
        assert next_step(of_gang(), JobSeen(status), FilesSeen(), "s1", {"other"}) == Stop()
    stopped = JobSeen(JobStatus.STOPPED, exit_code=143)
    assert outcome(next_step(of_gang(), stopped, FilesSeen(), "s1", {"other"})) is Outcome.INFRASTRUCTURE
    assert outcome(next_step(of_gang(), stopped, FilesSeen(), "s1")) is Outcome.CANCELED, "by an operator, in Ray"
    by_signal = failed(FailureKind.DRIVER, 143)
    assert outcome(next_step(of_gang(), by_signal, FilesSeen(True), "s1", {"other"})) is Outcome.INFRASTRUCTURE
    assert outcome(next_step(of_gang(), by_signal, FilesSeen(True), "s1")) is Outcome.APPLICATION


def test_when_the_drivers_own_node_is_gone_ray_says_so() -> None:
    running = JobSeen(JobStatus.RUNNING)
    assert isinstance(next_step(of_gang(), running, FilesSeen(), "s1", {"driver"}), Advance)
    assert next_step(of_gang(), JobSeen(JobStatus.PENDING), FilesSeen(), "s1", {"driver"}) == Stop()


def test_a_good_end_is_one_whatever_has_left() -> None:
    succeeded = JobSeen(JobStatus.SUCCEEDED)
    assert outcome(next_step(of_gang(), succeeded, FilesSeen(), "s1", {"other"})) is Outcome.SUCCEEDED
    seen = failed(FailureKind.DRIVER, 0)
    files = FilesSeen(True, ExitRecord(0))
    assert outcome(next_step(of_gang(), seen, files, "s1", {"driver", "other"})) is Outcome.SUCCEEDED


@pytest.mark.parametrize("left", [(), ("other",), ("driver", "other")])
def test_nothing_follows_while_ray_does_not_answer(left: tuple[str, ...]) -> None:
    assert next_step(of_gang(), JobSeen(JobStatus.UNKNOWN), FilesSeen(), "s1", left) == Wait()
