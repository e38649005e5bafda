"""A lock is the kernel's, or there is none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from argus_ray.disk.lock import KernelLock, LockBusy, NoLocks
from tests.support.noflock import lacking_flock

HOLD = """
import sys, time
from argus_ray.disk.lock import KernelLock
with KernelLock(sys.argv[1]).held(5):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_flock_is_not_there_it_is_refused_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "head.lock"
    lock = KernelLock(path)
    with lacking_flock(monkeypatch, number), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # the second try is no other
            with pytest.raises(NoLocks) as caught:
                lock.acquire(timeout_s=0)
            for words in (str(path), "lacks flock", os.strerror(number)):
                assert words in str(caught.value)
        with pytest.raises(NoLocks):
            KernelLock(path).acquire(timeout_s=0)
        lock.release()
    # What was left there is no lock to anybody.
    with KernelLock(path).held(0):
        pass


def test_another_error_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lacking_flock(monkeypatch, errno.EIO), pytest.raises(OSError) as caught:
        KernelLock(tmp_path / "lock").acquire(timeout_s=0)
    assert caught.value.errno == errno.EIO and not isinstance(caught.value, NoLocks)


def test_one_holder_at_a_time_and_none_after_its_death(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(LockBusy, match="held by another process"):
                KernelLock(path).acquire(timeout_s=0)
        finally:
            holder.kill()
    KernelLock(path).acquire(timeout_s=5)


def test_taken_twice_it_is_given_back_once_and_by_any_thread(tmp_path: Path) -> None:
    lock = KernelLock(tmp_path / "lock")
    lock.acquire(timeout_s=0)
    lock.acquire(timeout_s=0)
    with pytest.raises(LockBusy):
        KernelLock(lock.path).acquire(timeout_s=0)
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    with KernelLock(lock.path).held(0), pytest.raises(LockBusy):
        lock.acquire(timeout_s=0)
    lock.release()


def test_no_one_else_may_read_it(tmp_path: Path) -> None:
    with KernelLock(tmp_path / "lock").held(0):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
