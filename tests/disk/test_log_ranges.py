"""Parts of a log, and all of it as one file: with a gap, in pieces, and while it changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from argus_ray.disk import beneath, log_sequence, logs
from argus_ray.disk.job_files import NoSuchFile
from argus_ray.disk.log_file import LogFile, LogOpening
from tests.disk.test_log_search import write
from tests.support.descriptors import open_below

HEAD = b"h" * 300_000 + b"\n"
#: The log goes on here after its gap, in two pieces.
FIRST, SECOND = (400_000, b"p" * 999 + b"\n"), (401_000, b"q" * 1000)
SIZE = 402_000


@pytest.fixture
def root(tmp_path: Path) -> str:
    return write(tmp_path, HEAD, FIRST, SECOND)


def part(root: str, start: int, end: int, most: int = 10**6, *, from_end: bool = False) -> logs.Range:
    path = f"{root}/logs/driver.log"
    return logs.read_range(root, path, lambda size: (start, min(end, size)), most, from_end=from_end)


def test_a_part_is_the_bytes_that_were_asked_for(root: str) -> None:
    assert part(root, 299_999, 300_001) == logs.Range(b"h\n", 299_999, SIZE, None)
    assert part(root, 400_998, 401_002) == logs.Range(b"p\nqq", 400_998, SIZE, None)
    assert part(root, 400_998, 401_002, 3).data == b"p\nq"
    assert part(root, 401_000, 10**9, 3, from_end=True) == logs.Range(b"qqq", SIZE - 3, SIZE, None)


def test_a_part_ends_before_the_gap_or_begins_behind_it(root: str) -> None:
    gap = (len(HEAD), 400_000)
    assert part(root, 300_000, 400_002) == logs.Range(b"\n", 300_000, SIZE, gap)
    assert part(root, len(HEAD), 400_002) == logs.Range(b"pp", 400_000, SIZE, gap)
    assert part(root, 350_000, 400_002) == logs.Range(b"pp", 400_000, SIZE, gap)
    assert part(root, 300_000, len(HEAD)) == logs.Range(b"\n", 300_000, SIZE, None), "it asks for nothing of the gap"
    assert part(root, 350_000, 399_999).data == b"" and part(root, 350_000, 399_999).gap == gap
    assert part(root, 300_000, 10**9, from_end=True) == logs.Range(FIRST[1] + SECOND[1], 400_000, SIZE, gap)
    assert part(root, 350_000, 10**9, from_end=True) == logs.Range(FIRST[1] + SECOND[1], 400_000, SIZE, gap)


def opened(root: str) -> LogFile:
    return LogOpening(root, f"{root}/logs/driver.log").open()


def content(file: LogFile, piece: int) -> bytes:
    data = b"".join(file.read(offset, min(piece, file.size - offset)) for offset in range(0, file.size, piece))
    file.close()
    return data


@pytest.mark.parametrize("piece", [7919, 100_000, 10**6])
def test_the_whole_log_is_one_file_with_a_line_for_its_gap(root: str, piece: int) -> None:
    line = b"argus: %d bytes of the log are left out here\n" % (400_000 - len(HEAD))
    assert content(opened(root), piece) == HEAD + line + FIRST[1] + SECOND[1]


def test_a_log_that_grows_is_what_it_was_and_can_be_gone_on_with(root: str) -> None:
    file = opened(root)
    with Path(f"{root}/logs/driver.log.{SECOND[0]:015d}").open("ab") as log:
        log.write(b"more")
    grown = opened(root)
    assert grown.version == file.version and grown.size == file.size + 4
    assert content(grown, 10**6)[:-4] == content(file, 10**6)


def test_one_whose_oldest_piece_goes_is_read_to_its_end_and_is_another_one_then(root: str) -> None:
    file = opened(root)
    Path(f"{root}/logs/driver.log.{FIRST[0]:015d}").unlink()
    assert content(file, 10**6).endswith(FIRST[1] + SECOND[1])
    later = opened(root)
    assert later.version != file.version
    later.close()


def test_a_piece_that_goes_between_two_looks_is_looked_for_anew(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = log_sequence._pieces

    def found(folder: int, name: str, head_end: int) -> list[log_sequence._Part]:
        pieces = real(folder, name, head_end)
        Path(f"{root}/logs/driver.log.{FIRST[0]:015d}").unlink(missing_ok=True)
        return pieces

    monkeypatch.setattr(log_sequence, "_pieces", found)
    file = opened(root)
    assert content(file, 10**6).endswith(b" bytes of the log are left out here\n" + SECOND[1])
    assert open_below(Path(root)) == []


def test_names_that_tell_what_was_half_a_minute_ago_hide_nothing(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, which keeps what it was told of a name. Of a file that is opened it asks anew."""
    real, before = os.stat, {}
    for start, _ in (FIRST, SECOND):
        name = f"driver.log.{start:015d}"
        with (path := Path(f"{root}/logs/{name}")).open("r+b") as piece:
            size = path.stat().st_size
            piece.truncate(10)
            before[name] = path.stat()
            piece.truncate(size)

    def stale(path: Any, *args: Any, **options: Any) -> os.stat_result:
        return before.get(path) or real(path, *args, **options)

    monkeypatch.setattr(os, "stat", stale)
    assert part(root, 400_000, 10**9).size == SIZE
    assert part(root, 400_500, 400_600) == logs.Range(b"\0" * 100, 400_500, SIZE, None)
    found = logs.read_lines_from(root, f"{root}/logs/driver.log", 401_000, final=True)
    assert (found.start, found.end) == (401_000, SIZE)


def test_each_look_of_a_follower_opens_the_log_anew(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an open makes a network filesystem ask what the file is now."""
    opened_names: list[str] = []
    real = beneath.plain_file

    def counted(folder: Any, *names: str, **options: Any) -> Any:
        opened_names.extend(names)
        return real(folder, *names, **options)

    monkeypatch.setattr(beneath, "plain_file", counted)
    for _ in range(3):
        logs.read_lines_from(root, f"{root}/logs/driver.log", SIZE, final=False)
    assert opened_names.count("driver.log") == 3
    assert opened_names.count(f"driver.log.{SECOND[0]:015d}") == 3, "and the piece that grows"


def test_what_is_no_log_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFile, match="no log"):
        opened(str(tmp_path))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "driver.log").symlink_to("/etc/passwd")
    with pytest.raises(NoSuchFile, match="no plain file"):
        opened(str(tmp_path))
