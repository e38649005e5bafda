"""Folders and logs of ours where others may have been first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from argus_ray.disk import own

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")


def test_it_makes_a_folder_that_only_we_can_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        own.make_folder(tmp_path / "a" / "b")
        own.make_folder(tmp_path / "c", 0o700)
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700
    own.make_folder(tmp_path / "c")
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700, "as it was"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o722])
def test_one_that_others_can_write_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(own.NotOurs, match=f"chmod go-w {folder}"):
        own.make_folder(folder)


@needs_root
def test_that_of_another_user_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir(mode=0o755)
    os.chown(folder, 65534, 65534)
    with pytest.raises(own.NotOurs, match="belongs to the user nobody: have it deleted"):
        own.make_folder(folder)
    os.chown(folder, 54321, 54321)
    with pytest.raises(own.NotOurs, match="belongs to the user 54321"):
        own.check_folder(folder)


def test_a_link_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "file").touch()
    with pytest.raises(own.NotOurs, match="is a link"):
        own.make_folder(tmp_path / "link")
    with pytest.raises(own.NotOurs, match="is no folder"):
        own.make_folder(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        own.check_folder(tmp_path / "missing")


def test_a_log_is_never_written_through_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "log"
    target.write_text("years of work")
    link.symlink_to(target)
    os.mkfifo(tmp_path / "fifo")
    for append in (False, True):
        with pytest.raises(OSError, match="symbolic"):
            own.open_log(link, append=append)
        with pytest.raises(OSError, match="fifo"):
            own.open_log(tmp_path / "fifo", append=append)
    assert target.read_text() == "years of work"


def test_a_log_begins_anew_unless_it_is_to_go_on(tmp_path: Path) -> None:
    for text, append in (("one", False), ("two", True), ("three", False), ("four", True)):
        with own.open_log(tmp_path / "log", append=append) as log:
            log.write(text.encode())
    assert (tmp_path / "log").read_text() == "threefour"
