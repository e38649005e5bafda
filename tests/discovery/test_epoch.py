"""The fence: a counter that only rises, under a short lock that a dead process cannot keep."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.discovery import epoch
from argus_ray.discovery.epoch import EpochUnknown, HeadClaim, Superseded
from argus_ray.disk.lock import NoLocks
from tests.support.noflock import lacking_flock

CLAIM = HeadClaim(0, "host-a", "10.0.0.1", 6379)
GOOD: dict[str, object] = {"epoch": 3, "host": "host-a", "head_ip": "10.0.0.1", "gcs_port": 6379, "gcs_dir": ""}
BAD: tuple[object, ...] = (None, "x", 0, -1, [], {}, float("inf"), float("nan"), "9" * 5000)

#: Takes epochs as fast as it can and prints them.
TAKE = """
import sys
from pathlib import Path
from argus_ray.discovery import epoch
epoch._LOCK_TIMEOUT_S = 300
for _ in range(10):
    print(epoch.take(Path(sys.argv[1]), epoch.HeadClaim(0, "host", "10.0.0.1", 6379)).epoch, flush=True)
"""
#: Holds the short lock until it is killed.
HOLD = """
import sys, time
from pathlib import Path
from argus_ray.discovery import epoch
with epoch.writing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the short lock."""
    child = start(HOLD, tmp_path)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.communicate(timeout=60)


def test_there_is_none_at_first_and_then_it_rises_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "by" / "take"
    assert epoch.current(folder) is None
    first = epoch.take(folder, CLAIM)
    assert first == HeadClaim(1, "host-a", "10.0.0.1", 6379)
    assert epoch.current(folder) == first
    second = epoch.take(folder, HeadClaim(99, "host-b", "10.0.0.2", 6380, "/gcs/e2"))
    assert second == HeadClaim(2, "host-b", "10.0.0.2", 6380, "/gcs/e2")
    assert epoch.current(folder) == second


def test_processes_that_take_at_once_get_distinct_rising_epochs(tmp_path: Path) -> None:
    takers = [start(TAKE, tmp_path) for _ in range(3)]
    found = [[int(word) for word in taker.communicate(timeout=240)[0].split()] for taker in takers]
    assert all(series == sorted(series) for series in found)
    assert sorted(number for series in found for number in series) == list(range(1, 31))
    last = epoch.current(tmp_path)
    assert last is not None and last.epoch == 30


def test_a_lower_epoch_is_superseded_and_an_equal_or_higher_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(EpochUnknown, match="is not there"):
        epoch.check(tmp_path, 1)
    for _ in range(3):
        epoch.take(tmp_path, CLAIM)
    epoch.check(tmp_path, 3)
    epoch.check(tmp_path, 4)
    with pytest.raises(Superseded, match=r"epoch 2 is over: host-a \(10\.0\.0\.1\) is the head with epoch 3"):
        epoch.check(tmp_path, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"3",
        b'"text"',
        b"[]",
        b"{}",
        b"\xff\xfe\x00",
        b"\0" * 64,
        b"[" * 100_000,
        b"x" * 200_000,
        *[json.dumps({k: v for k, v in GOOD.items() if k != gone}).encode() for gone in GOOD if gone != "gcs_dir"],
        *[json.dumps({**GOOD, "epoch": bad}).encode() for bad in BAD],
        json.dumps({**GOOD, "gcs_port": float("inf")}).encode(),
        json.dumps({**GOOD, "gcs_port": None}).encode(),
    ],
    ids=lambda content: repr(content[:24]),
)
def test_a_damaged_file_is_unknown_and_nobody_takes_an_epoch_on_it(tmp_path: Path, content: bytes) -> None:
    path = epoch.path_in(tmp_path)
    path.write_bytes(content)
    with pytest.raises(EpochUnknown):
        epoch.current(tmp_path)
    with pytest.raises(EpochUnknown):
        epoch.check(tmp_path, 1)
    with pytest.raises(EpochUnknown):
        epoch.take(tmp_path, CLAIM)
    assert path.read_bytes() == content, "it is left for people to look at"


def test_a_file_cut_anywhere_is_unknown(tmp_path: Path) -> None:
    epoch.take(tmp_path, HeadClaim(0, "host-a", "10.0.0.1", 6379, "/gcs/e1"))
    whole = epoch.path_in(tmp_path).read_bytes().rstrip()
    for length in range(len(whole)):
        epoch.path_in(tmp_path).write_bytes(whole[:length])
        with pytest.raises(EpochUnknown):
            epoch.current(tmp_path)


def test_a_folder_or_a_loop_instead_of_the_file_is_unknown_not_none(tmp_path: Path) -> None:
    path = epoch.path_in(tmp_path)
    path.mkdir()
    with pytest.raises(EpochUnknown):
        epoch.current(tmp_path)
    path.rmdir()
    path.symlink_to(path)
    with pytest.raises(EpochUnknown):
        epoch.current(tmp_path)
    path.unlink()
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(EpochUnknown):
        epoch.current(tmp_path / "plain")


def test_the_short_lock_excludes_another_process_and_times_out(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch, "_LOCK_TIMEOUT_S", 0.2)
    with pytest.raises(TimeoutError, match="held by another process"):
        epoch.take(tmp_path, CLAIM)
    assert epoch.current(tmp_path) is None, "nothing was written"


def test_killing_the_holder_frees_the_short_lock(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait(30)
    assert epoch.take(tmp_path, CLAIM).epoch == 1


def test_the_short_lock_is_free_again_after_an_error_inside(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), epoch.writing(tmp_path):
        raise ZeroDivisionError
    assert epoch.take(tmp_path, CLAIM).epoch == 1
    assert not list(tmp_path.glob(".*"))


def test_without_flock_no_epoch_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lacking_flock(monkeypatch):
        for _ in range(2):
            with pytest.raises(NoLocks, match="lacks flock"):
                epoch.take(tmp_path, CLAIM)
        assert epoch.current(tmp_path) is None
