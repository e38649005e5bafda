"""What is free on the shared filesystem, and where the least is."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from argus_ray.core.reserve import Space
from argus_ray.disk import space


@dataclass
class Says:
    f_bavail: int
    f_blocks: int = 1000
    f_frsize: int = 4096


def say(monkeypatch: pytest.MonkeyPatch, said: dict[str, Says | OSError]) -> None:
    def statvfs(path: str) -> Says:
        found = said[path]
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(os, "statvfs", statvfs)


def test_the_folders_are_those_that_grow_and_the_database() -> None:
    assert space.folders("/p", "c") == ("/p", "/p/users", "/p/ray/state/c")


def test_of_this_machine(tmp_path: Path) -> None:
    seen, found = os.statvfs(tmp_path), space.least([str(tmp_path), str(tmp_path / "none")])
    assert found is not None and found.at == str(tmp_path)
    assert abs(found.free - seen.f_bavail * seen.f_frsize) < 2**30


def test_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, {"/a": Says(20), "/b": Says(10), "/c": Says(30)})
    assert space.least(["/a", "/b", "/c"]) == Space(10 * 4096, "/b")


def test_a_filesystem_that_does_not_count_and_a_folder_that_is_not_there_say_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say(monkeypatch, {"/a": Says(0, 0), "/b": OSError(errno.ENOENT, "gone"), "/c": Says(30)})
    assert space.least(["/a", "/b", "/c"]) == Space(30 * 4096, "/c")
    assert space.least(["/a", "/b"]) is None


def test_a_disk_that_fails_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, {"/a": Says(20), "/b": OSError(errno.EIO, "Input/output error")})
    with pytest.raises(OSError, match="Input/output"):
        space.least(["/a", "/b"])
