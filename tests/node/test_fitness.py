"""Whether programs can start on a worker."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

import pytest

from argus_ray.discovery import sentinel
from argus_ray.discovery.sentinel import Sentinel
from argus_ray.node import fitness
from argus_ray.node.fitness import LOOK_EVERY_S, Fitness, is_busy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "ray" / "discovery" / "argus"
    sentinel.begin(found)
    return found


def test_a_root_that_has_gone_is_trouble_since_then_and_heals(folder: Path) -> None:
    fit = Fitness(folder, sys.executable)
    assert fit.look(100.0) is None
    away = folder.rename(folder.with_name("away"))
    assert fit.look(101.0) is None, "it looks now and then only"
    trouble = fit.look(100.0 + LOOK_EVERY_S)
    assert trouble is not None and "the shared root has gone" in trouble.reason and trouble.lasts_s == 0
    later = fit.look(200.0)
    assert later is not None and later.lasts_s == 200.0 - 100.0 - LOOK_EVERY_S
    away.rename(folder)
    assert fit.look(300.0) is None


def test_another_root_in_its_place_is_trouble(folder: Path) -> None:
    fit = Fitness(folder, sys.executable)
    assert fit.look(0.0) is None
    shutil.rmtree(folder)
    sentinel.begin(folder)
    trouble = fit.look(100.0)
    assert trouble is not None and "another shared root" in trouble.reason


def test_a_root_without_a_sentinel_from_the_first_is_none(tmp_path: Path) -> None:
    """One of an older version."""
    assert Fitness(tmp_path / "ray" / "discovery" / "argus", sys.executable).look(0.0) is None


def test_a_python_that_does_not_start_is_trouble(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "python3"
    assert "does not start" in str(Fitness(folder, str(broken)).look(0.0))
    broken.write_text("#!/bin/sh\necho no module named encodings >&2\nexit 1\n")
    broken.chmod(0o755)
    assert "no module named encodings" in str(Fitness(folder, str(broken)).look(0.0))


def test_a_root_that_does_not_answer_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "_TIMEOUT_S", 0.2)
    gate = threading.Event()
    hangs: list[bool] = []

    def read(where: Path) -> Sentinel:
        if hangs:
            gate.wait(60)
        return sentinel.read(where)

    fit = Fitness(folder, "/bin/true", read)
    assert fit.look(0.0) is None
    hangs.append(True)
    assert fit.look(100.0) is None and fit.look(200.0) is None
    gate.set()


def test_busy_is_what_rays_own_processes_are_not() -> None:
    idle = ["/x/raylet --a", "ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "python -u agent.py", ""]
    assert not is_busy(idle)
    for command in ("ray::JobSupervisor", "ray::TaskRunner.run", "python3 -u /p/argus_runner.py --job-root /x"):
        assert is_busy([*idle, command])
