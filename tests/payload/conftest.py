"""A job root, and the runner on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.running import DEADLINE_S, PYTHON, RUNNER, Start, descendants_by_variable, kill


@pytest.fixture
def job_root(tmp_path: Path) -> Path:
    return tmp_path / "users" / "ada" / "jobs" / "argus-ada-sft-20260101-000000-abcd--a01"


@pytest.fixture
def start(job_root: Path) -> Iterator[Start]:
    """Starts the runner with a program in Python; ends what a failed test leaves."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        program: str,
        *,
        grace_s: float = 60.0,
        argv: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
        python: Sequence[str] = PYTHON,
        extra: Mapping[str, str] | None = None,
        own_group: bool = False,
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*python, RUNNER, "--job-root", str(job_root), *options, "--", *(argv or (*PYTHON, "-c", program))],
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "ARGUS_STOP_GRACE_S": str(grace_s),
                "ARGUS_SUBMISSION_ID": job_root.name,
                "ARGUS_JOB_ROOT": str(job_root),
                **(extra or {}),
            },
            start_new_session=own_group,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=DEADLINE_S)
    kill(descendants_by_variable(job_root))
