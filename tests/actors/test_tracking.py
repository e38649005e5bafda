"""Which attempt is handed the key, and that a trouble with it holds up nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from argus_ray.actors.adapters import JobsOfRay, prepare
from argus_ray.actors.tracking import TrackingKeys
from argus_ray.cluster.jobs import JobRequest
from argus_ray.core import paths
from argus_ray.core.model import Attempt, Gang, Task
from argus_ray.core.states import AttemptState, TaskState
from argus_ray.core.verl import command
from argus_ray.core.verl.tracking import Tracking
from argus_ray.discovery import sentinel, tracking_keys
from argus_ray.disk.threads import BoundedThreads
from argus_ray.payload import argus_secrets
from tests.support.builders import spec_yaml

KEY = "0123456789abcdef0123456789abcdef01234567"
NAME = "argus-ada-sft-20260101-000000-abcd"
ONLINE = Tracking("{user}", "online", "https://wandb.example")


def keys_of(tmp_path: Path, tracking: Tracking | None = ONLINE, **more: Any) -> TrackingKeys:
    tracking_keys.write(tmp_path / "keys", {"OUR_KEY": KEY})
    arguments: dict[str, Any] = {"umask": 0o022, "prove_root": lambda: None}
    environ = {tracking_keys.VARIABLE: str(tmp_path / "keys")}
    return TrackingKeys(tracking, "OUR_KEY", BoundedThreads("tracking", 1), 30.0, environ=environ, **arguments | more)


def attempt_of(tmp_path: Path, number: int, tracking: Tracking | None = ONLINE) -> Attempt:
    """With the command and environment that the scheduler stores."""
    submission = f"{NAME}--a{number:02d}"
    root = paths.job_root(str(tmp_path), "ada", submission)
    site = command.Site(str(tmp_path), "/payload", "python3", 30, 1 << 30, tracking=tracking)
    prepared = prepare(task_of(tmp_path), site, submission, root, None)
    plain = Attempt(submission, NAME, number, AttemptState.SUBMITTING, 0.0, root)
    return replace(plain, command=prepared.command, env=prepared.env)


def task_of(tmp_path: Path, *attempts: Attempt) -> Task:
    spec = spec_yaml(tmp_path)
    gang = Gang(1, 4, 12.0)
    return Task(NAME, "ada", 1, "sft", TaskState.RUNNING, gang, spec, 0.0, 0.0, attempts=attempts)


def handed(attempt: Attempt) -> Path:
    return Path(attempt.job_root, argus_secrets.FOLDER, argus_secrets.WANDB)


def hand_over(keys: TrackingKeys, attempt: Attempt, *earlier: Attempt) -> None:
    root = Path(attempt.job_root).parents[3]
    asyncio.run(keys.hand_over(task_of(root, *earlier, attempt), attempt))


def test_an_attempt_is_handed_the_key_of_now_and_what_an_earlier_one_left_is_gone(tmp_path: Path) -> None:
    keys, first, second = keys_of(tmp_path), attempt_of(tmp_path, 1), attempt_of(tmp_path, 2)
    hand_over(keys, first)
    assert handed(first).read_text() == KEY
    tracking_keys.write(tmp_path / "keys", {"OUR_KEY": f"new{KEY}"})  # the launcher was started again
    hand_over(keys, second, first)
    assert handed(second).read_text() == f"new{KEY}"
    assert not handed(first).exists()


def test_what_is_stored_and_what_ray_is_given_has_no_key(tmp_path: Path) -> None:
    keys, attempt = keys_of(tmp_path), attempt_of(tmp_path, 1)
    requests: list[JobRequest] = []

    class Ray:
        async def submit(self, request: JobRequest) -> None:
            assert handed(attempt).read_text() == KEY  # before Ray hears of it
            requests.append(request)

    site = command.Site(str(tmp_path), "/payload", "python3", 30, 1 << 30, tracking=ONLINE)
    jobs = JobsOfRay(Ray(), site, keys)  # type: ignore[arg-type]
    asyncio.run(jobs.submit(task_of(tmp_path, attempt), attempt))
    assert KEY not in repr((requests, attempt))
    assert requests[0].env["WANDB_RUN_ID"] == NAME


@pytest.mark.parametrize(
    "now",
    [None, replace(ONLINE, mode="offline", base_url="https://elsewhere.example")],
    ids=["switched off", "another server"],
)
def test_no_key_goes_where_it_does_not_belong(tmp_path: Path, now: Tracking | None) -> None:
    attempt = attempt_of(tmp_path, 1)
    hand_over(keys_of(tmp_path, now), attempt)
    assert not Path(attempt.job_root).exists()


@pytest.mark.parametrize("tracking", [None, replace(ONLINE, mode="offline")], ids=["not tracked", "offline"])
def test_an_attempt_that_sends_nothing_gets_no_key(tmp_path: Path, tracking: Tracking | None) -> None:
    attempt = attempt_of(tmp_path, 1, tracking)
    hand_over(keys_of(tmp_path), attempt)
    assert not Path(attempt.job_root).exists()


def test_without_a_key_or_a_shared_root_the_attempt_starts_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def away() -> None:
        raise sentinel.RootUnknown("a bare mount point")

    attempt = attempt_of(tmp_path, 1)
    hand_over(keys_of(tmp_path, prove_root=away), attempt)
    assert not Path(attempt.job_root).exists()
    assert f"{attempt.submission_id} gets no key" in caplog.text
    keys = keys_of(tmp_path)
    tracking_keys.write(tmp_path / "keys", {})
    hand_over(keys, attempt)
    assert not Path(attempt.job_root).exists()
    assert KEY not in caplog.text


def test_a_later_attempt_stays_in_the_project_of_the_first(tmp_path: Path) -> None:
    first = attempt_of(tmp_path, 1)
    site = command.Site(
        str(tmp_path), "/payload", "python3", 30, 1 << 30, tracking=replace(ONLINE, project="renamed", mode="offline")
    )
    prepared = prepare(task_of(tmp_path, first), site, f"{NAME}--a02", first.job_root.replace("a01", "a02"), None)
    env = dict(prepared.env)
    assert (env["WANDB_PROJECT"], env["WANDB_MODE"]) == ("ada", "offline")
