"""Small files: read with a bound and without waiting, written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from argus_ray.disk import atomic
from tests.support.descriptors import open_below


def only_file(folder: Path) -> str:
    """The name of the one entry: what a failed write must not leave is a second one."""
    (path,) = folder.iterdir()
    return path.name


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_a_file_within_the_limit_is_read_whole(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    assert atomic.read_small(tmp_path / "file", 10) == b"x" * size


@pytest.mark.parametrize("size", [11, 12, 100_000])
def test_a_longer_file_gives_one_byte_more_than_the_limit(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    assert len(atomic.read_small(tmp_path / "file", 10)) == 11


def test_a_fifo_without_a_writer_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(atomic.NotAFile):
        atomic.read_small(tmp_path / "fifo")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/proc/self"])
def test_devices_and_folders_are_refused(path: str) -> None:
    with pytest.raises(atomic.NotAFile):
        atomic.read_small(Path(path))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    for _ in range(3):
        atomic.write_atomically(tmp_path / "file", b"x", mode=0o600)
        atomic.read_small(tmp_path / "file")
        with pytest.raises(atomic.NotAFile):
            atomic.read_small(tmp_path)
    assert open_below(tmp_path) == []


def test_a_concurrent_reader_never_sees_a_torn_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    wholes = {bytes([65 + number]) * (1 + 5000 * number) for number in range(8)}
    atomic.write_atomically(path, min(wholes), mode=0o644)
    done = threading.Event()

    def write() -> None:
        for _ in range(10):
            for content in wholes:
                atomic.write_atomically(path, content, mode=0o644)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    looks = 0
    while not done.is_set() or not looks:
        assert atomic.read_small(path) in wholes
        looks += 1
    writer.join(30)
    assert only_file(tmp_path) == "file"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_the_asked_one_whatever_the_umask(tmp_path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        atomic.write_atomically(tmp_path / "file", b"x", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@pytest.mark.parametrize("call", ["write", "fsync", "fchmod", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    atomic.write_atomically(path, b"old", mode=0o644)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "replace" else os, call, refuse)
        with pytest.raises(OSError, match="No space"):
            atomic.write_atomically(path, b"new", mode=0o644)
    assert path.read_bytes() == b"old"
    assert only_file(tmp_path) == "file"
    atomic.write_atomically(path, b"new", mode=0o644)
    assert path.read_bytes() == b"new"


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: write(fd, content[:3]))
    atomic.write_atomically(tmp_path / "file", b"0123456789", mode=0o644)
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_folder_that_is_gone_or_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic.write_atomically(tmp_path / "gone" / "file", b"x", mode=0o644)
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        atomic.write_atomically(tmp_path / "plain" / "file", b"x", mode=0o644)
    assert only_file(tmp_path) == "plain"
