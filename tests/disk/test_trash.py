"""Hands on real folders: links that lead out, what is half gone, what is deep, what is gone already."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import paths
from argus_ray.core.retention import checkpoints_to_delete
from argus_ray.disk import checkpoints, trash
from argus_ray.disk.checkpoints import newest_complete
from argus_ray.disk.trash import Budget, Exhausted
from tests.disk.test_checkpoints import FILES, write_zip

NAME = "argus-ada-sft-20270115-080000-0001--a01"
WORLD = 2


def budget(entries: int = 10_000) -> Budget:
    return Budget(entries, float("inf"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A job root with some files, and outside of it something that is to stay."""
    root = Path(paths.job_root(str(tmp_path), "ada", NAME))
    (root / "logs").mkdir(parents=True)
    (root / "logs" / "driver.log").write_text("x" * 10_000)
    (root / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("y" * 1_000_000)
    (root / "out").symlink_to(tmp_path / "precious")
    (root / "logs" / "file").symlink_to(tmp_path / "precious" / "file")
    return root


def trashed(tmp_path: Path) -> Path:
    return Path(paths.trash(str(tmp_path), "ada", NAME))


def precious(tmp_path: Path) -> bool:
    return (tmp_path / "precious" / "file").stat().st_size == 1_000_000


@pytest.mark.parametrize(
    ("keep", "expected"), [(0, ""), (1, "dcba"), (2, "cba"), (4, "a"), (5, ""), (9, ""), (-1, "dcba")]
)
def test_what_is_superfluous(keep: int, expected: str) -> None:
    assert "".join(checkpoints_to_delete("edcba", keep)) == expected
    assert not checkpoints_to_delete("", keep) and not checkpoints_to_delete("e", keep), "never the newest one"


def test_a_job_root_goes_to_the_trash_and_from_there(tmp_path: Path, root: Path) -> None:
    other = root.with_name(NAME.replace("a01", "a02"))
    other.mkdir()
    assert trash.to_trash(str(tmp_path), "ada", NAME)
    assert not root.exists() and (trashed(tmp_path) / "logs" / "driver.log").stat().st_size == 10_000
    assert not trash.to_trash(str(tmp_path), "ada", NAME), "again is nothing"
    trash.delete_from_trash(str(tmp_path), "ada", NAME, budget())
    trash.delete_from_trash(str(tmp_path), "ada", NAME, budget())
    assert list(trashed(tmp_path).parent.iterdir()) == []
    assert precious(tmp_path) and other.exists()


def test_nothing_there_is_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "users" / "ada" / "jobs").mkdir(parents=True)
    assert not trash.to_trash(str(tmp_path), "ada", NAME)
    assert not (tmp_path / "users" / "ada" / "trash").exists()
    for user in ("ada", "bob"):
        trash.delete_from_trash(str(tmp_path), user, NAME, budget())


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../jobs", "", "a\0b", "-x"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, root: Path, name: str) -> None:
    for user, submission_id in (("ada", name), (name, NAME)):
        with pytest.raises(ValueError, match="not a safe folder name"):
            trash.to_trash(str(tmp_path), user, submission_id)
        with pytest.raises(ValueError, match="not a safe folder name"):
            trash.delete_from_trash(str(tmp_path), user, submission_id, budget())
    assert root.exists()


@pytest.mark.parametrize("link", ["users", "users/ada", "users/ada/jobs", "users/ada/trash"])
def test_a_link_on_the_way_stops_it(tmp_path: Path, root: Path, link: str) -> None:
    """Else a job root of the same name elsewhere would be taken, or it would be put elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    if link == "users/ada/trash":
        elsewhere.mkdir()
    else:
        (tmp_path / link).rename(elsewhere)
    (tmp_path / link).symlink_to(elsewhere)
    before = sorted(path for path in elsewhere.rglob("*"))
    with pytest.raises(NotADirectoryError):
        trash.to_trash(str(tmp_path), "ada", NAME)
    if link != "users/ada/jobs":
        with pytest.raises(NotADirectoryError):
            trash.delete_from_trash(str(tmp_path), "ada", NAME, budget())
    assert sorted(path for path in elsewhere.rglob("*")) == before
    assert (root / "logs" / "driver.log").exists()


def test_a_job_root_that_is_a_link_goes_as_a_link(tmp_path: Path, root: Path) -> None:
    root.rename(tmp_path / "real")
    root.symlink_to(tmp_path / "real")
    assert trash.disk_bytes(str(root), budget(), 100) == 0
    assert trash.to_trash(str(tmp_path), "ada", NAME)
    trash.delete_from_trash(str(tmp_path), "ada", NAME, budget())
    assert not trashed(tmp_path).is_symlink() and (tmp_path / "real" / "metrics.jsonl").exists()


def test_the_shared_root_itself_may_be_a_link(tmp_path: Path, root: Path) -> None:
    (tmp_path / "private").symlink_to(tmp_path)
    assert trash.to_trash(str(tmp_path / "private"), "ada", NAME)
    assert trashed(tmp_path).exists()


def test_a_second_job_root_of_that_name_is_not_put_over_the_first(tmp_path: Path, root: Path) -> None:
    trash.to_trash(str(tmp_path), "ada", NAME)
    root.mkdir()  # a run that nobody sees is still writing
    (root / "late").touch()
    with pytest.raises(OSError) as caught:
        trash.to_trash(str(tmp_path), "ada", NAME)
    assert caught.value.errno in (errno.ENOTEMPTY, errno.EEXIST)
    assert (root / "late").exists() and (trashed(tmp_path) / "metrics.jsonl").exists()


def test_a_deletion_that_is_cut_short_goes_on(tmp_path: Path, root: Path) -> None:
    for number in range(50):
        (root / f"f{number}").touch()
    trash.to_trash(str(tmp_path), "ada", NAME)
    passes = 0
    while trashed(tmp_path).exists():
        passes += 1
        with contextlib.suppress(Exhausted):
            trash.delete_from_trash(str(tmp_path), "ada", NAME, budget(10))
    assert 5 < passes < 12 and precious(tmp_path)


def test_a_very_deep_tree_is_deleted_and_not_measured(tmp_path: Path, root: Path) -> None:
    folder = os.open(root, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d", dir_fd=folder)
        child = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = child
    os.close(folder)
    assert trash.disk_bytes(str(root), budget(), 10_000) is None
    trash.to_trash(str(tmp_path), "ada", NAME)
    trash.delete_from_trash(str(tmp_path), "ada", NAME, budget())
    assert not trashed(tmp_path).exists() and precious(tmp_path)


def test_odd_things_are_deleted(tmp_path: Path, root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "sealed").mkdir()
    (root / "sealed" / "x").touch()
    (root / "sealed").chmod(0o500)
    (root / "dangling").symlink_to(tmp_path / "nowhere")
    (root / b"\xff\n".decode("utf-8", "surrogateescape")).touch()
    (root / "hard").hardlink_to(tmp_path / "precious" / "file")
    trash.to_trash(str(tmp_path), "ada", NAME)
    trash.delete_from_trash(str(tmp_path), "ada", NAME, budget())
    assert not trashed(tmp_path).exists() and precious(tmp_path)


def test_a_folder_that_becomes_a_link_under_our_hands_is_not_followed(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trash.to_trash(str(tmp_path), "ada", NAME)
    real = os.open
    swapped: list[object] = []

    def swap(name: object, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if name == "logs" and not swapped:
            swapped.append(name)
            os.rename("logs", "was-logs", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            os.symlink(tmp_path / "precious", "logs", dir_fd=dir_fd)
        return real(name, flags, *args, dir_fd=dir_fd)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(NotADirectoryError):
        trash.delete_from_trash(str(tmp_path), "ada", NAME, budget())
    assert swapped and precious(tmp_path)
    trash.delete_from_trash(str(tmp_path), "ada", NAME, budget())
    assert not trashed(tmp_path).exists() and precious(tmp_path)


def test_a_budget_ends_by_entries_by_time_and_by_word() -> None:
    now = [0.0]
    by_time = Budget(10, 5.0, clock=lambda: now[0])
    by_time.take()
    now[0] = 5.0
    stopped = budget()
    stopped.stop()
    for over in (by_time, stopped, budget(0)):
        with pytest.raises(Exhausted):
            over.take()


def test_the_size_is_that_of_the_job_root_alone(tmp_path: Path, root: Path) -> None:
    size = trash.disk_bytes(str(root), budget(), 100)
    assert size is not None and 10_000 <= size < 200_000, "not what its links lead to"
    assert trash.disk_bytes(str(root / "none"), budget(), 100) == 0
    assert trash.disk_bytes(str(root), budget(), 4) is None
    assert trash.disk_bytes(str(root), budget(), 5) == size
    with pytest.raises(Exhausted):
        trash.disk_bytes(str(root), budget(4), 100)


# --- checkpoints ---


def save(job_root: Path, step: int, whole: bool = True) -> Path:
    folder = job_root / "checkpoints" / f"global_step_{step}"
    for name in FILES["sft"][: None if whole else -1]:
        write_zip(folder / name)
    (folder / "huggingface").mkdir()
    (folder / "huggingface" / "weights").write_text("w" * 100)
    return folder


def steps_in(*job_roots: Path) -> list[str]:
    names = [path.name for root in job_roots for path in (root / "checkpoints").iterdir()]
    return sorted(name.removeprefix("global_step_") for name in names)


def prune(job_roots: Sequence[Path], keep: int, entries: int = 10_000) -> list[int]:
    roots = [str(root) for root in job_roots]
    allowed = budget(entries)
    gone = trash.prune(roots, "sft", WORLD, keep, allowed)
    trash.sweep_pruned(roots, allowed)
    return [checkpoint.step for checkpoint in gone]


def test_the_newest_complete_ones_stay(tmp_path: Path) -> None:
    first, second = tmp_path / "a01", tmp_path / "a02"
    for step in (10, 20, 30):
        save(first, step)
    save(second, 30)
    save(second, 40, whole=False)
    assert prune([first, second], 9) == prune([first, second], 0) == []
    assert prune([first, second], 2) == [20, 10]
    assert steps_in(first, second) == ["30", "30", "40"], "one that is not complete counts for nothing, and stays"
    assert prune([first, second], 1) == [30]
    assert steps_in(first) == [], "of two equal ones that of the newer attempt stays"
    assert prune([first, second], 1) == []
    found = newest_complete([str(first), str(second)], "sft", WORLD)
    assert found is not None and found.step == 30


def test_no_checkpoint_is_half_gone_under_its_name(tmp_path: Path) -> None:
    for step in range(1, 5):
        save(tmp_path, step)
    with pytest.raises(Exhausted):
        prune([tmp_path], 1, entries=8)
    for folder in (tmp_path / "checkpoints").glob("global_step_*"):
        assert len(list(folder.iterdir())) == 9
    newest = newest_complete([str(tmp_path)], "sft", WORLD)
    assert newest is not None and newest.step == 4
    prune([tmp_path], 1)
    assert steps_in(tmp_path) == ["4"]


def test_links_among_the_checkpoints_lead_nowhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "a01", tmp_path / "outside"
    for step in (1, 2):
        save(outside, step)
    save(root, 5)
    (root / "checkpoints" / "global_step_2").symlink_to(outside / "checkpoints" / "global_step_2")
    (root / "checkpoints" / "argus_pruned_x").symlink_to(outside / "checkpoints")
    linked = tmp_path / "a02"
    linked.mkdir()
    (linked / "checkpoints").symlink_to(outside / "checkpoints")
    (tmp_path / "a03").symlink_to(outside)
    assert prune([root, linked, tmp_path / "a03", tmp_path / "none"], 1) == []
    assert steps_in(outside) == ["1", "2"] and steps_in(root) == ["2", "5"]
    assert (outside / "checkpoints" / "global_step_2" / "huggingface" / "weights").exists()


def test_a_checkpoint_that_becomes_a_link_before_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, outside = tmp_path / "a01", tmp_path / "outside"
    save(outside, 1)
    old = save(root, 1)
    save(root, 2)
    complete = checkpoints.complete

    def then_swap(*args: Any) -> object:
        found = complete(*args)
        old.rename(root / "moved")
        old.symlink_to(outside / "checkpoints" / "global_step_1")
        return found

    monkeypatch.setattr(checkpoints, "complete", then_swap)
    assert prune([root], 1) == [1]
    assert (outside / "checkpoints" / "global_step_1" / "data_0.pt").exists()
    assert steps_in(root) == ["2"]
