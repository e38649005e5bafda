"""The last lines of a log in which progress bars are written over themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus_ray.disk import log_sequence, logs

_MIB = 1024 * 1024


def write(folder: Path, content: bytes) -> str:
    path = folder / "logs" / "driver.log"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return str(folder)


def tail(root: str, lines: int, max_bytes: int = 4 * _MIB) -> bytes:
    path = f"{root}/logs/driver.log"
    span = logs.read_tail(root, path, lines, max_bytes)
    assert logs.tail_offset(root, path, lines, max_bytes) == span.start
    return span.data


def test_ten_lines_of_progress_bars_are_ten_and_not_four_mebibytes(tmp_path: Path) -> None:
    bars = [b"\r%5d/99999 [" % step + b"#" * 60 + b"]" for step in range(70_000)]
    root = write(tmp_path, b"Training begins\n" + b"".join(bars))
    assert tail(root, 10) == b"".join(bars[-10:])[1:], "what stands behind the tenth carriage return from the end"
    root = write(tmp_path, b"".join(bars) + b"\ndone\n")
    assert tail(root, 2) == bars[-1][1:] + b"\ndone\n"


def test_a_carriage_return_before_a_newline_is_one_line_end(tmp_path: Path) -> None:
    root = write(tmp_path, b"one\r\ntwo\r\nthree\r\n")
    assert [tail(root, lines) for lines in (1, 2, 3)] == [b"three\r\n", b"two\r\nthree\r\n", b"one\r\ntwo\r\nthree\r\n"]
    root = write(tmp_path, b"10%\r20%\r30%\r")
    assert tail(root, 2) == b"20%\r30%\r", "the last one ends a line and begins none"


def test_a_tail_that_is_cut_by_its_bytes_begins_behind_a_carriage_return(tmp_path: Path) -> None:
    root = write(tmp_path, b"%06d\r" * 10_000 % tuple(range(10_000)))
    assert tail(root, 9_000, max_bytes=40) == b"".join(b"%06d\r" % number for number in range(9_995, 10_000))


def ends(content: bytes) -> list[bytes]:
    """The lines of a log, each with its end."""
    return re.findall(rb"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+\Z", content)


@given(
    content=st.binary(max_size=40).map(lambda raw: bytes(b"ab\r\n"[byte % 4] for byte in raw)), lines=st.integers(1, 9)
)
def test_any_mixture_of_line_ends_across_blocks(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, lines: int
) -> None:
    root = write(tmp_path_factory.getbasetemp(), content)
    with pytest.MonkeyPatch.context() as patch:
        for block in (1, 2, 3, 7):
            patch.setattr(logs, "_BLOCK", block)
            assert tail(root, lines) == b"".join(ends(content)[-lines:]), block
    assert log_sequence.line_ends(content).count(b"\n") == len([each for each in ends(content) if each[-1:] in b"\r\n"])
