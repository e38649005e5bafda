"""How far a task is, over HTTP, and what reading it costs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from argus_ray.core.model import Attempt, Gang, Task
from argus_ray.core.states import TaskState
from argus_ray.core.taskspec import parse
from argus_ray.core.verl import command
from argus_ray.disk import logs
from argus_ray.gateway.metrics.progress import Progress, ProgressReader, digest_end, total_steps
from tests.support.builders import spec_yaml
from tests.support.gateway import Api, Headers, TestClient, attempt, lines, log_of, metrics_of


def test_progress_in_the_task_the_list_and_the_queue(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice, total_training_steps=20)
    change = api.run(task_id)
    assert api.get(f"/api/v2/tasks/{task_id}", alice)["progress"] is None
    path = metrics_of(change)
    path.write_text(lines(1, 2, train__loss=0.5, timing_s__step=2.0) + '{"step": 3, "da')
    expected = {
        "step": 2, "total_steps": 20, "steps_per_s": 0.5, "seconds_left": 36.0,
        "headline": {"name": "train/loss", "value": 0.5, "step": 2},
    }  # fmt: skip
    assert api.get(f"/api/v2/tasks/{task_id}", alice)["progress"] == expected
    assert api.get("/api/v2/queue", alice)["running"][0]["progress"] == expected
    assert api.get("/api/v2/tasks", alice)["tasks"][0]["progress"] == expected
    api.end(change)
    ended = api.get(f"/api/v2/tasks/{task_id}", alice)["progress"]
    assert ended == {**expected, "seconds_left": None}


def running_task(root: Path, steps: int = 9) -> Task:
    attempts = (given(attempt(root), steps),)
    return Task("t", "alice", 1, "sft", TaskState.RUNNING, Gang(1, 1, 1.0), "", 0.0, 0.0, attempts=attempts)


def given(one: Attempt, steps: int) -> Attempt:
    return dataclasses.replace(one, command=("python3", f"trainer.total_training_steps={steps}"))


def test_progress_is_not_lost_with_an_attempt(tmp_path: Path) -> None:
    """The next one waits, starts, or resumes from the last step and has none to make."""
    reader, task = ProgressReader(), running_task(tmp_path / "0", 20)
    (tmp_path / "0" / "metrics.jsonl").write_text(lines(7, 8, timing_s__step=2.0))
    task = dataclasses.replace(task, attempts=(*task.attempts, given(attempt(tmp_path / "1", 2), 20)))
    before = reader(task)
    assert before is not None and (before.step, before.total_steps) == (8, 20)
    assert before.seconds_left is None, "what is told of is over"
    (tmp_path / "1" / "metrics.jsonl").write_text(lines(7, timing_s__step=2.0))
    now = reader(task)
    assert now is not None and (now.step, now.seconds_left) == (7, 26.0)
    many = tuple(attempt(tmp_path / f"none-{i}", i) for i in range(3, 300))
    assert reader(dataclasses.replace(task, attempts=(*task.attempts, *many))) is None, "some are looked at, not all"


def test_the_pace_of_sft_is_that_of_its_file(tmp_path: Path) -> None:
    reader, task = ProgressReader(), running_task(tmp_path, 100)
    path = tmp_path / "metrics.jsonl"

    def grow(at: float, *steps: int) -> Progress:
        with path.open("a") as file:
            file.write(lines(*steps))
        os.utime(path, (at, at))
        found = reader(task)
        assert found is not None
        return found

    assert grow(1000.0, 1, 2).steps_per_s is None, "one look tells no pace"
    second = grow(1010.0, 3, 4, 5, 6, 7)
    assert (second.steps_per_s, second.seconds_left) == (0.5, 186.0)
    assert grow(1020.0, 7).steps_per_s == 0.5, "no new step"
    assert grow(2000.0, 8, 9).steps_per_s == pytest.approx(2 / 990), "an old look does not count any more"
    assert grow(2010.0, 3).steps_per_s is None, "it has begun again"
    assert grow(2010.0, 4).steps_per_s is None, "no time has passed"
    other = tmp_path / "other"
    other.write_text(lines(50))
    other.rename(path)
    assert grow(2020.0).steps_per_s is None, "another file"


def test_progress_costs_one_look_while_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, task = ProgressReader(), running_task(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*range(100_000)))
    taken: list[int] = []
    read_at = logs.read_at

    def counted(fd: int, offset: int, length: int) -> bytes:
        taken.append(length)
        return read_at(fd, offset, length)

    monkeypatch.setattr(logs, "read_at", counted)
    first = reader(task)
    assert first is not None and first.step == 99_999
    assert sum(taken) <= 128 * 1024, "not the file's whole length"
    taken.clear()
    assert reader(task) == first
    assert taken == []


def test_a_slow_disk_leaves_progress_out(api: Api, alice: Headers, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        api.run(api.submit(alice))
    monkeypatch.setattr("argus_ray.gateway.context._PROGRESS_READ_S", 0.3)
    now = [0.0]
    monkeypatch.setattr("argus_ray.gateway.context.time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(_: Task) -> Progress:
        now[0] += 0.2
        return Progress(1, None)

    api.client = TestClient(api.make_app(progress=slow))
    running = api.get("/api/v2/queue", alice)["running"]
    assert [task["progress"] is not None for task in running] == [True, True, False, False]


@pytest.mark.parametrize(
    ("data", "whole", "step"),
    [
        (b"", True, None), (b'{"step": 1}\n', True, 1), (b'{"step": 1}\n{"step": 2}', True, 1),
        (b'{"step": 3}\nnoise\n', True, 3), (b'{"step": true}\n', True, None), (b'tep": 5}\n', False, None),
        (b'{"step": 5}\n', False, None), (b'ep": 4}\n{"step": 5}\n', False, 5), (b"x", False, None),
    ],
)  # fmt: skip
def test_the_end_of_a_file(data: bytes, whole: bool, step: int | None) -> None:
    assert digest_end(data, begins_with_line=whole).last_step == step


@pytest.mark.parametrize("workload", ["sft", "ppo"])
@pytest.mark.parametrize("steps", [None, 1, 123456789])
def test_the_total_is_the_one_that_verl_was_given(tmp_path: Path, workload: str, steps: int | None) -> None:
    """Never what the text looks like: this one fools a search for the field's name."""
    text = "# total_training_steps: 7\n" + spec_yaml("/private", workload=workload, total_training_steps=steps)
    site = command.Site("/private", "/private/ray/payload/x", "python3", 30, 1 << 30)
    launch = command.launch(parse(text, shared_root="/private"), site, submission_id="t--a01", job_root="/private/j")
    attempts = (dataclasses.replace(attempt(tmp_path), command=launch.command),)
    task = Task("t", "alice", 1, workload, TaskState.RUNNING, Gang(1, 1, 1.0), text, 0.0, 0.0, attempts=attempts)
    assert total_steps(task) == steps
    assert total_steps(dataclasses.replace(task, attempts=())) == steps, "before the first one"


def test_total_steps_of_a_task_that_does_not_tell(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    change = api.run(task_id)
    metrics_of(change).write_text(lines(1, timing_s__step=2.0))
    log_of(change).write_bytes(b"noise\nEpoch 1/2:  10%|#    | 1/5 [00:01<00:04,  1.00it/s]\r")
    progress = api.get(f"/api/v2/tasks/{task_id}", alice)["progress"]
    assert (progress["total_steps"], progress["seconds_left"]) == (10, 18.0)
    assert api.get(f"/api/v2/tasks/{task_id}/metrics", alice)["total_steps"] == 10
