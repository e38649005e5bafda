"""Markers and sentences that a run forges, and what the scheduler believes of them.

The runner is the real one, and so are the files. What a run may claim of itself is bounded; what it may do to another
run of the same operating-system user is not stopped, and docs/security.md says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core import paths
from argus_ray.core.lifecycle import Advance, End
from argus_ray.core.model import SlimAttempt
from argus_ray.core.observation import FailureKind, JobSeen, JobStatus, next_step
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.disk import attempt_files
from tests.support.running import PYTHON, RUNNER, STUBBORN, until
from tests.support.simlab import Lab, checked_lab

DEADLINE_S = 30.0
NAME = "argus-ada-sft-20260101-000000-abcd--a01"
#: The guard is the program's parent, and the runner the guard's.
KILL_RUNNER = "os.kill(int(open(f'/proc/{os.getppid()}/stat').read().rsplit(')', 1)[1].split()[1]), 9)"
FORGE = "import json, os; json.dump({'exit_code': 0, 'signal': None}, open('exit.json', 'w')); "


@pytest.fixture
def job_root(tmp_path: Path) -> Path:
    return tmp_path / "users" / "ada" / "jobs" / NAME


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from checked_lab(tmp_path)


def run(job_root: Path, program: str) -> subprocess.CompletedProcess[bytes]:
    argv = [*PYTHON, RUNNER, "--job-root", str(job_root), "--", sys.executable, "-S", "-c", program]
    return subprocess.run(argv, capture_output=True, timeout=DEADLINE_S, check=False)


def believed(job_root: Path, job: JobSeen) -> object:
    """What follows for an attempt that is known to run."""
    attempt = SlimAttempt(NAME, NAME.partition("--")[0], 1, AttemptState.RUNNING, 0.0, str(job_root), session="s")
    return next_step(attempt, job, attempt_files.look(str(job_root)), "s")


def failed(code: int) -> JobSeen:
    """As Ray tells it under a supervisor that has seen the driver end."""
    return JobSeen(JobStatus.FAILED, "the driver ended", FailureKind.DRIVER, code)


@pytest.mark.parametrize(
    "also",
    [
        "",
        "os.chmod('exit.json', 0); ",
        "os.link('exit.json', 'x'); ",
        "os.rename('exit.json', 'x'); os.mkdir('exit.json'); ",
    ],
    ids=["a file", "one that is closed", "one of two names", "a folder"],
)
def test_forged_exit_marker_of_a_program_that_fails(job_root: Path, also: str) -> None:
    ended = run(job_root, f"{FORGE}{also}raise SystemExit(3)")
    assert ended.returncode == 3
    verdict = believed(job_root, failed(3))
    assert isinstance(verdict, End) and (verdict.outcome, verdict.exit_code) == (Outcome.APPLICATION, 3)


def test_forged_exit_marker_of_a_program_that_kills_its_runner(job_root: Path) -> None:
    """While Ray has a word it is Ray's that counts; where it has none, the run's own record does: it decides about its
    own task alone."""
    ended = run(job_root, f"{FORGE}{KILL_RUNNER}")
    assert ended.returncode == -9
    verdict = believed(job_root, failed(137))
    assert isinstance(verdict, End) and verdict.outcome is Outcome.APPLICATION
    assert isinstance(believed(job_root, JobSeen(JobStatus.RUNNING)), Advance)
    alone = believed(job_root, JobSeen(JobStatus.ABSENT))
    assert isinstance(alone, End) and alone.outcome is Outcome.SUCCEEDED


def test_forged_start_marker_starts_nothing_twice(job_root: Path) -> None:
    """Whoever makes it, and whatever it is: a program whose marker stands does not run."""
    for number, forge in enumerate(("write", "link", "pipe", "folder")):
        root = job_root.with_name(f"{NAME[:-1]}{number}")
        root.mkdir(parents=True)
        marker = Path(paths.start_marker(str(root)))
        match forge:
            case "write":
                marker.write_text("{}")
            case "link":
                marker.symlink_to("/nowhere")
            case "pipe":
                os.mkfifo(marker)
            case "folder":
                marker.mkdir()
        assert run(root, "open('ran', 'w')").returncode == 76, forge
        assert not (root / "ran").exists()


def test_start_marker_that_the_program_deletes(job_root: Path) -> None:
    """Its submission is not given to Ray again: the attempt is known to have run."""
    run(job_root, f"import os; os.unlink('started.json'); {KILL_RUNNER}")
    assert not attempt_files.look(str(job_root)).started
    verdict = believed(job_root, JobSeen(JobStatus.ABSENT))
    assert isinstance(verdict, End) and verdict.outcome is Outcome.INFRASTRUCTURE


def test_cancel_marker_that_the_program_deletes(job_root: Path) -> None:
    """It has been seen once, and the program is ended all the same."""
    environ = {**os.environ, "ARGUS_STOP_GRACE_S": "0.2"}
    runner = subprocess.Popen(
        [*PYTHON, RUNNER, "--job-root", str(job_root), "--", sys.executable, "-S", "-u", "-c", STUBBORN],
        env=environ,
        stdout=subprocess.PIPE,
    )
    try:
        assert runner.stdout is not None and runner.stdout.readline() == b"up\n"
        attempt_files.forbid_start(str(job_root))
        until(lambda: b"canceled" in (job_root / "logs" / "driver.log").read_bytes(), "it is seen")
        Path(paths.cancel_marker(str(job_root))).unlink()
        runner.communicate(timeout=DEADLINE_S)
        assert runner.returncode == 137
    finally:
        runner.kill()
        runner.wait()


REFUSED = "ValueError: Total available GPUs 0 is less than total desired GPUs 8"
LOST = "ray.exceptions.NodeDiedError: the actor died because its node has died"
NO_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


def forge_until_it_is_over(lab: Lab, *sentences: str) -> tuple[TaskState, int, bool]:
    """(how a task ends whose program always fails with these sentences in turn, its attempts, whether another user's
    task, submitted when the forger is back in the queue, has run meanwhile)."""
    forger = lab.world.submit(lab.ada)
    other = None
    bob = lab.world.user("bob")
    for _ in range(400):
        lab.tick(1.0)
        if lab.task(forger).state.is_final:
            break
        for name in lab.begin():
            if name.startswith(forger.task_id):
                sentence = sentences[len(lab.task(forger).attempts) % len(sentences)]
                lab.fail(name, f"Traceback (most recent call last):\n{sentence}\n")
            else:
                lab.ray._finish(name, JobStatus.SUCCEEDED, 0)
        lab.tick()
        other = other or lab.world.submit(bob, nnodes=2, n_gpus_per_node=4)
        lab.world.clock.advance(3600.0)
    done = lab.task(forger)
    assert other is not None
    return done.state, len(done.attempts), len(lab.task(other).attempts) > 0


@pytest.mark.parametrize(
    ("sentences", "most"),
    [((REFUSED,), 21), ((LOST,), 6), ((REFUSED, LOST), 12), ((NO_MEMORY,), 1), ((f"{NO_MEMORY} {REFUSED}",), 21)],
    ids=["insufficient resources", "a lost node", "both in turn", "out of memory", "two in a line"],
)
def test_forged_sentences_of_verl_come_to_an_end(lab: Lab, sentences: tuple[str, ...], most: int) -> None:
    """Each sentence has a budget, nobody waits behind who uses it up, and no node is held to be bad for it."""
    state, attempts, others_ran = forge_until_it_is_over(lab, *sentences)
    assert state is TaskState.FAILED
    assert attempts <= most
    assert others_ran
    assert all(record.barred_until is None for record in lab.dispatcher.standing._records.values())
