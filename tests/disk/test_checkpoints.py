"""Which checkpoint a lost task resumes from: whole ones, torn ones, foreign ones, and a disk that does not answer."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from argus_ray.disk.checkpoints import Checkpoint, newest_complete
from tests.support.descriptors import open_below

WORLD = 2


def shards(world: int = WORLD) -> list[str]:
    kinds = ("model", "optim", "extra_state")
    return [f"{kind}_world_size_{world}_rank_{rank}.pt" for kind in kinds for rank in range(world)]


#: What verl 0.9 loads, as read in its source and seen on its disk.
FILES = {
    "sft": [*shards(), "data_0.pt", "data_1.pt"],
    "grpo": ["data.pt", *(f"actor/{name}" for name in shards())],
    "ppo": ["data.pt", *(f"{part}/{name}" for part in ("actor", "critic") for name in shards())],
}


def write_zip(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", os.urandom(3000))
        archive.writestr("archive/version", "3\n")


def save(job_root: Path, step: int, workload: str = "sft") -> Path:
    folder = job_root / "checkpoints" / f"global_step_{step}"
    for name in FILES[workload]:
        write_zip(folder / name)
    # verl writes these too, and resumes without them.
    (folder / "huggingface").mkdir()
    (folder / "fsdp_config.json").write_text("{}")
    (job_root / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


def newest(*job_roots: Path, workload: str = "sft", world: int = WORLD) -> Checkpoint | None:
    return newest_complete([str(root) for root in job_roots], workload, world)


def step_of(*job_roots: Path, workload: str = "sft") -> int | None:
    found = newest(*job_roots, workload=workload)
    return None if found is None else found.step


@pytest.mark.parametrize("workload", FILES)
def test_the_newest_one_with_all_its_files(tmp_path: Path, workload: str) -> None:
    save(tmp_path, 9, workload)
    newer = save(tmp_path, 10, workload)
    assert newest(tmp_path, workload=workload) == Checkpoint(str(newer), 10, str(tmp_path))


@pytest.mark.parametrize(("workload", "name"), [(workload, name) for workload in FILES for name in FILES[workload]])
def test_each_file_is_needed(tmp_path: Path, workload: str, name: str) -> None:
    save(tmp_path, 9, workload)
    (save(tmp_path, 10, workload) / name).unlink()
    assert step_of(tmp_path, workload=workload) == 9


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def blank(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def half_blank(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + b"\0" * 100)


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def linked_away(path: Path) -> None:
    """Its content is whole, but lies elsewhere."""
    elsewhere = path.parents[3] / "elsewhere.pt"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: cut(path, 0),
    "one byte is missing": lambda path: cut(path, path.stat().st_size - 1),
    "half is missing": lambda path: cut(path, path.stat().st_size // 2),
    "only the first bytes": lambda path: cut(path, 4),
    "size without content": blank,
    "begun, the rest without content": half_blank,
    "a text": lambda path: path.write_text("model"),
    "an archive of nothing": replaced_by(lambda path: zipfile.ZipFile(path, "w").close()),
    "a folder": replaced_by(lambda path: path.mkdir()),
    "a pipe": replaced_by(os.mkfifo),
    "a link to itself": replaced_by(lambda path: path.symlink_to(path)),
    "a link to a whole one": linked_away,
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["model_world_size_2_rank_1.pt", "data_0.pt"])
def test_a_broken_one_is_passed_over_for_the_next_older(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    save(tmp_path, 9)
    damage(save(tmp_path, 10) / name)
    assert step_of(tmp_path) == 9


def test_of_another_world_size(tmp_path: Path) -> None:
    save(tmp_path, 10)
    assert newest(tmp_path, world=1) is None
    assert newest(tmp_path, world=4) is None


def test_of_another_workload(tmp_path: Path) -> None:
    save(tmp_path, 10, "grpo")
    assert newest(tmp_path, workload="ppo") is None, "no critic"
    assert newest(tmp_path, workload="sft") is None


@pytest.mark.parametrize(
    "name",
    ["global_step_", "global_step_0", "global_step_011", "global_step_-11", "global_step_11.tmp", "global_step_1e9",
     "global_step_٣", "global_step_99999999999", "xglobal_step_11", "Global_step_11", "global_step_11\n"],
)  # fmt: skip
def test_other_names_are_ignored(tmp_path: Path, name: str) -> None:
    save(tmp_path, 10).rename(tmp_path / "checkpoints" / name)
    assert newest(tmp_path) is None
    save(tmp_path, 9)
    assert step_of(tmp_path) == 9


def test_steps_are_numbers_and_not_texts(tmp_path: Path) -> None:
    save(tmp_path, 100)
    save(tmp_path, 20)
    assert step_of(tmp_path) == 100


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    save(tmp_path, 9)
    (tmp_path / "checkpoints" / "global_step_10").write_text("")
    assert step_of(tmp_path) == 9


@pytest.mark.parametrize("what", ["job root", "checkpoints", "step", "part"])
def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path: Path, what: str) -> None:
    root = tmp_path / "a01"
    save(root, 10, "grpo")
    folder = {
        "job root": root,
        "checkpoints": root / "checkpoints",
        "step": root / "checkpoints" / "global_step_10",
        "part": root / "checkpoints" / "global_step_10" / "actor",
    }[what]
    folder.rename(tmp_path / "victim")
    folder.symlink_to(tmp_path / "victim")
    assert newest(root, workload="grpo") is None


def test_the_tracker_file_plays_no_part(tmp_path: Path) -> None:
    save(tmp_path, 10)
    tracker = tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt"
    for content in ("", "9", "11", "ten"):
        tracker.write_text(content)
        assert step_of(tmp_path) == 10
    tracker.unlink()
    assert step_of(tmp_path) == 10


def test_nothing_is_there(tmp_path: Path) -> None:
    assert newest() is None
    assert newest(tmp_path / "never made") is None
    assert newest(tmp_path) is None, "no folder of checkpoints"
    (tmp_path / "checkpoints").mkdir()
    assert newest(tmp_path) is None


def test_over_all_attempts_the_highest_step_wins(tmp_path: Path) -> None:
    a01, a02, a03 = (tmp_path / name for name in ("a01", "a02", "a03"))
    save(a01, 30)
    save(a02, 40)
    a03.mkdir()
    assert newest(a01, a02, a03) == Checkpoint(f"{a02}/checkpoints/global_step_40", 40, str(a02))
    (a02 / "checkpoints" / "global_step_40" / "data_0.pt").unlink()
    assert newest(a01, a02, a03) == Checkpoint(f"{a01}/checkpoints/global_step_30", 30, str(a01))


def test_at_the_same_step_the_newest_attempt_wins(tmp_path: Path) -> None:
    a01, a02, a03 = (tmp_path / name for name in ("a01", "a02", "a03"))
    for root in (a01, a02, a03):
        save(root, 30)
    (a03 / "checkpoints" / "global_step_30" / "data_0.pt").unlink()
    found = newest(a01, a02, a03)
    assert found and found.job_root == str(a02)


def test_what_verl_leaves_of_a_deleted_one_hides_nothing(tmp_path: Path) -> None:
    """ppo and grpo delete the parts of an old checkpoint and leave its folder with the data loader's state."""
    for step in range(1, 400):
        write_zip(tmp_path / "checkpoints" / f"global_step_{step}" / "data.pt")
    save(tmp_path, 400, "grpo")
    assert step_of(tmp_path, workload="grpo") == 400


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ETIMEDOUT, errno.EMFILE])
@pytest.mark.parametrize("at", ["a01", "checkpoints", "global_step_10", "data_0.pt"])
def test_a_disk_that_does_not_answer_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, error: int
) -> None:
    root = tmp_path / "a01"
    save(root, 9)
    save(root, 10)
    really = os.open

    def fails(name: str, *args: object, **options: object) -> int:
        if Path(name).name == at:
            raise OSError(error, os.strerror(error), name)
        return really(name, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(OSError, match=os.strerror(error)):
        newest(root)


@pytest.mark.parametrize("call", ["pread", "scandir"])
def test_a_read_that_fails_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    save(tmp_path, 10)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match="Input/output error"):
        newest(tmp_path)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    save(tmp_path, 9, "ppo")
    (save(tmp_path, 10, "ppo") / "critic" / "optim_world_size_2_rank_1.pt").unlink()
    newest(tmp_path, workload="ppo")
    assert open_below(tmp_path) == []
