"""`ray start` as a child: what the watchdog's own tests cannot bring about."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from argus_ray.node import processes, raychild
from argus_ray.node.raychild import NODE_MARK, RayChild


def test_nothing_starts_beside_what_does_not_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process stuck in the kernel (a dead filesystem, a GPU driver) may go on to train one day."""
    mark = f"test-{os.urandom(6).hex()}"
    log = tmp_path / "ray.log"
    (tmp_path / "ray").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "ray").chmod(0o755)
    monkeypatch.setattr(raychild, "command_beside_python", lambda name: str(tmp_path / name))
    stuck = subprocess.Popen(
        [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
        env={**os.environ, NODE_MARK: mark},
        stdout=subprocess.PIPE,
    )
    assert stuck.stdout is not None and stuck.stdout.readline() == b"up\n"  # its mark can be seen from now on
    child = RayChild(mark, log)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(processes, "KILL_PATIENCE_S", 0.1)
            patched.setattr(os, "kill", lambda *_: None)
            with pytest.raises(TimeoutError, match=str(stuck.pid)):
                child.start([], os.environ)
        assert not log.exists() and stuck.poll() is None
        child.start([], os.environ)
        assert log.exists() and stuck.wait(30) != 0, "ended first"
    finally:
        stuck.kill()
        stuck.wait(30)
        child.end(0)


@pytest.mark.parametrize("grace_s", [0, 0.1])
def test_a_ray_start_that_does_not_die_is_told_and_the_rest_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace_s: float
) -> None:
    """As a TimeoutError, which launcher and watchdog take for a machine that needs a restart."""
    (tmp_path / "ray").write_text("#!/bin/sh\nsleep 600 &\nexec sleep 600\n")
    (tmp_path / "ray").chmod(0o755)
    monkeypatch.setattr(raychild, "command_beside_python", lambda name: str(tmp_path / name))
    child = RayChild(f"test-{os.urandom(6).hex()}", tmp_path / "ray.log")
    child.start([], os.environ)
    stuck = child._child
    assert stuck is not None
    kill = os.kill
    try:
        assert processes.wait_until(lambda: len(processes.descendants(stuck.pid)) == 1, 60)
        [other] = processes.descendants(stuck.pid)
        with monkeypatch.context() as patched:
            patched.setattr(processes, "KILL_PATIENCE_S", 0.5)
            patched.setattr(stuck, "kill", lambda: None)
            patched.setattr(os, "kill", lambda pid, number: None if pid == stuck.pid else kill(pid, number))
            with pytest.raises(TimeoutError, match=f"process(es that do| {stuck.pid} does) not end"):
                child.end(grace_s)
        assert processes.wait_until(lambda: other not in child.ours(), 60), "nothing goes on below it"
    finally:
        child.end(0)
    assert stuck.returncode is not None
