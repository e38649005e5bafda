"""An attempt's folders: made below each other, through no link, with the modes of the setting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from argus_ray.payload import argus_folders
from tests.support.descriptors import open_below

NAME = "argus-ada-sft-20261126-120000-abcd--a01"


def path_of(shared: Path) -> str:
    return f"{shared}/users/ada/jobs/{NAME}"


@contextmanager
def made(path: str, umask: int = 0o022) -> Iterator[int]:
    fd = argus_folders.job_root(path, umask)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def process_umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def modes(shared: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in (shared / "users").rglob("*")}


def test_it_is_made_with_all_that_is_above_it(tmp_path: Path) -> None:
    for _ in range(2):
        with made(path_of(tmp_path)) as fd:
            assert os.path.samestat(os.fstat(fd), Path(path_of(tmp_path)).stat())
    assert not open_below(tmp_path)


@pytest.mark.parametrize("linked", ["users/ada", "users/ada/jobs", f"users/ada/jobs/{NAME}"])
@pytest.mark.parametrize("target", ["elsewhere", "nowhere", "itself"])
def test_a_link_that_was_made_beforehand_is_refused_and_nothing_is_written_behind_it(
    tmp_path: Path, linked: str, target: str
) -> None:
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = shared / linked
    link.parent.mkdir(parents=True)
    link.symlink_to(link if target == "itself" else tmp_path / target)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        argus_folders.job_root(path_of(shared))
    assert list(elsewhere.iterdir()) == [] and not (tmp_path / "nowhere").exists()
    assert not open_below(tmp_path)


@pytest.mark.parametrize("taken", ["users/ada", "users/ada/jobs", f"users/ada/jobs/{NAME}"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, taken: str) -> None:
    file = tmp_path / taken
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(NotADirectoryError):
        argus_folders.job_root(path_of(tmp_path))


def test_what_is_above_a_users_folder_is_the_operators(tmp_path: Path) -> None:
    """`users` may be on another filesystem, by a link."""
    (tmp_path / "large").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "users").symlink_to(tmp_path / "large")
    with made(path_of(tmp_path / "shared")):
        assert (tmp_path / "large" / "ada" / "jobs" / NAME).is_dir()


def test_a_root_of_another_form_must_itself_be_no_link(tmp_path: Path) -> None:
    with made(f"{tmp_path}/a/b/root"):
        assert (tmp_path / "a" / "b" / "root").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(NotADirectoryError):
        argus_folders.job_root(f"{tmp_path}/link")


@pytest.mark.parametrize("of_process", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o027, 0o750), (0o077, 0o700), (0o002, 0o775)])
def test_the_modes_follow_the_setting_and_not_the_process(
    tmp_path: Path, of_process: int, umask: int, mode: int
) -> None:
    (tmp_path / "users").mkdir()
    with process_umask(of_process), made(path_of(tmp_path), umask):
        assert modes(tmp_path) == {mode}


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    own = tmp_path / "users" / "ada"
    own.mkdir(parents=True, mode=0o700)
    with made(path_of(tmp_path)):
        assert own.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("value", "umask"),
    [("022", 0o022), ("077", 0o077), ("027", 0o027), ("", 0o022), ("777", 0o022), ("22", 0o022), ("0o22", 0o022),
     ("089", 0o022), ("-22", 0o022)],
)  # fmt: skip
def test_the_environment_says_which(value: str, umask: int) -> None:
    assert argus_folders.umask_of({argus_folders.VARIABLE: value}) == umask
    assert argus_folders.file_mode(umask) == 0o666 & ~umask
