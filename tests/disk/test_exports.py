"""Which checkpoints can be exported, and whether the chosen one is still there when its export starts."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from argus_ray.actors.adapters import InputsOfTasks, prepare
from argus_ray.core.exports import Export, Part
from argus_ray.core.model import Task
from argus_ray.core.verl.command import Site
from argus_ray.disk import checkpoints, exports
from argus_ray.disk.inputs import Findings, Preflight
from argus_ray.disk.threads import BoundedThreads
from tests.support.builders import make_service
from tests.support.checkpoints import save


def steps(*roots: Path, workload: str = "sft", part: Part = Part.ACTOR) -> list[int]:
    found = exports.exportable([str(root) for root in roots], workload, 4, part)
    return [checkpoint.step for checkpoint in found]


def test_the_newest_first_of_all_attempts(tmp_path: Path) -> None:
    save(tmp_path / "a01", [5, 10])
    save(tmp_path / "a02", [10, 15])
    assert steps(tmp_path / "a01", tmp_path / "a02") == [15, 10, 10, 5]
    _, newest, *_ = exports.exportable([str(tmp_path / "a01"), str(tmp_path / "a02")], "sft", 4, Part.ACTOR)
    assert newest.job_root == str(tmp_path / "a02"), "of equals that of the later attempt"


@pytest.mark.parametrize("lost", ["model_world_size_4_rank_3.pt", "fsdp_config.json", "huggingface/config.json"])
def test_one_that_is_being_written_is_none(tmp_path: Path, lost: str) -> None:
    (save(tmp_path, [5, 10]) / lost).unlink()
    assert steps(tmp_path) == [5]


def test_hugging_face_weights_alone_are_none(tmp_path: Path) -> None:
    for path in save(tmp_path, [5]).glob("model_world_size_*"):
        path.unlink()
    (tmp_path / "checkpoints" / "global_step_5" / "huggingface" / "model.safetensors").write_bytes(b"x" * 100)
    assert steps(tmp_path) == []


def test_a_link_is_no_configuration(tmp_path: Path) -> None:
    config = save(tmp_path, [5]) / "fsdp_config.json"
    config.rename(tmp_path / "elsewhere")
    config.symlink_to(tmp_path / "elsewhere")
    assert steps(tmp_path) == []


def test_each_part_of_a_ppo_checkpoint_is_looked_at_by_itself(tmp_path: Path) -> None:
    (save(tmp_path, [5], "ppo") / "critic" / "fsdp_config.json").unlink()
    assert steps(tmp_path, workload="ppo") == [5]
    assert steps(tmp_path, workload="ppo", part=Part.CRITIC) == []


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """An export of step 10."""
    world = make_service(tmp_path.resolve())
    made = world.submit(world.user("ada"))
    world.close()
    root = tmp_path / "users" / "ada" / "jobs" / f"{made.task_id}--a01"
    save(root, [10])
    export = Export(made.task_id, "sft", 4, 10, Part.ACTOR, str(root))
    return replace(made, workload="export", export=export, spec_yaml=export.document())


def check(task: Task, prove_root: object = lambda: None, timeout_s: float = 60.0) -> Findings:
    threads = BoundedThreads("exports-test", 1)
    looks = InputsOfTasks(Preflight(threads, timeout_s, "/private"), threads, timeout_s, prove_root)  # type: ignore[arg-type]
    return asyncio.run(looks.check(task))


def test_what_it_starts_from_is_its_checkpoint_and_no_data_set(task: Task) -> None:
    assert check(task) == Findings()


def test_a_checkpoint_that_was_deleted_while_it_waited_is_told(task: Task) -> None:
    assert task.export is not None
    shutil.rmtree(task.export.checkpoint)
    (error,) = check(task).errors
    assert error.field == "checkpoint" and "step 10 is gone" in error.rule
    save(task.export.job_root, [20])
    assert check(task).errors, "another step is not the one that was chosen"


def test_a_run_that_keeps_all_its_checkpoints_costs_a_look_at_one(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hundreds of files each, all of them would take longer than a look may."""
    assert task.export is not None
    root = task.export.job_root
    save(root, [20, 30, 40])
    looked_at: set[str] = set()
    is_whole = checkpoints._all_whole

    def spy(job_root: str, way: Sequence[str], names: Sequence[str]) -> bool:
        looked_at.add(way[0])
        return is_whole(job_root, way, names)

    monkeypatch.setattr(checkpoints, "_all_whole", spy)
    assert check(task) == Findings()
    assert looked_at == {"global_step_10"}
    looked_at.clear()
    (newest,) = exports.surely_exportable([root], "sft", 4, Part.ACTOR, lambda: None, most=1)
    assert newest.step == 40 and looked_at == {"global_step_40"}


def test_a_job_root_that_is_away_is_no_deleted_checkpoint(task: Task) -> None:
    """Housekeeping spares it, so `users` may be a filesystem of its own that is not mounted."""
    assert task.export is not None
    shutil.rmtree(task.export.job_root)
    found = check(task)
    assert found.errors == () and "is its filesystem mounted?" in found.unknown


def test_a_root_that_is_away_says_nothing(task: Task) -> None:
    def is_away() -> None:
        raise OSError("is it mounted?")

    assert check(task, is_away) == Findings(), "what is seen is there"
    assert task.export is not None
    shutil.rmtree(task.export.job_root)
    found = check(task, is_away)
    assert found.errors == () and "is it mounted?" in found.unknown


def test_a_disk_that_hangs_says_nothing(task: Task) -> None:
    assert task.export is not None
    shutil.rmtree(task.export.checkpoint)
    release = threading.Event()
    try:
        found = check(task, lambda: release.wait(60), timeout_s=0.2)
    finally:
        release.set()
    assert found.errors == () and found.unknown.startswith("TimeoutError")


def test_its_command_is_that_of_the_merger(task: Task) -> None:
    site = Site("/private", "/payload", "python3", stop_grace_s=30, log_bytes=1)
    made = prepare(task, site, "the-id--a01", "/private/users/ada/jobs/the-id--a01", None)
    assert made.command[2] == "/payload/argus_export.py"
    assert dict(made.env)["ARGUS_SUBMISSION_ID"] == "the-id--a01"


def test_what_an_export_has_left_is_no_checkpoint(tmp_path: Path) -> None:
    """Of no process everything would be there, and housekeeping deletes old checkpoints."""
    save(tmp_path, [5, 10])
    assert checkpoints.complete([str(tmp_path)], "sft", 0) == []
