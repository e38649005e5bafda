"""Log lines and the status file: no repetition, and no harm from a disk or a reader in trouble."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from argus_ray.disk import atomic
from argus_ray.node.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal("watchdog", tmp_path / "status.json")


def test_a_line_that_repeats_is_written_once(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    for seconds in range(5):
        journal.say("wait", f"expired {seconds} s ago, next try in {seconds / 2:.1f} s")
    journal.say("join", "10.0.0.1:6379, epoch 7")
    journal.say("join", "10.0.0.1:6379, epoch 8")
    journal.say("wait", "expired 9 s ago, next try in 0.0 s")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "wait: expired 0 s ago, next try in 0.0 s",
        "join: 10.0.0.1:6379, epoch 7",
        "join: 10.0.0.1:6379, epoch 8",
        "wait: expired 9 s ago, next try in 0.0 s",
    ]
    assert all(re.match(r"20\d\d-\d\d-\d\dT[\d:.]+\+00:00 argus-watchdog ", line) for line in lines)


def test_the_status_file_is_readable_by_all_and_whole(journal: Journal, tmp_path: Path) -> None:
    journal.status(state="waiting", reason="ä")
    path = tmp_path / "status.json"
    assert json.loads(path.read_text()) == {"state": "waiting", "reason": "ä"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    before = path.stat().st_ino
    journal.status(state="waiting", reason="ä")
    assert path.stat().st_ino == before, "the same facts are not written again"
    journal.status(state="joined", reason="ä")
    assert path.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_once_and_the_status_is_written_later(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_atomically", full)
        for _ in range(3):
            journal.status(state="joined")
    (line,) = capsys.readouterr().out.splitlines()
    assert "No space left" in line
    journal.status(state="joined")
    assert json.loads((tmp_path / "status.json").read_text()) == {"state": "joined"}


def test_a_reader_of_our_output_that_has_gone_is_no_harm(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Gone())
    journal.say("wait", "nobody hears")
