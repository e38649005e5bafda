"""The layer rules of pyproject.toml, and what the cheap imports must not drag in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    # Wide: else long names are broken over lines.
    environ = {**os.environ, "COLUMNS": "1000", "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=280)


def test_the_layers_point_one_way() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


#: Room -> modules that must not be imported there.
FORBIDDEN = {
    "console": ("argus_ray.gateway.app", "argus_ray.config", "argus_ray.core.ids"),
    "core": (
        *("argus_ray.disk.atomic", "argus_ray.store.store", "argus_ray.payload.argus_runner"),
        *("ray", "sqlite3", "time", "random", "logging", "subprocess", "fastapi"),
    ),
    "disk": (
        *("argus_ray.config", "argus_ray.scheduler.tick", "argus_ray.store.store", "argus_ray.discovery.epoch"),
        *("ray", "fastapi", "sqlite3", "filelock"),
    ),
    "config": ("argus_ray.disk.atomic", "argus_ray.store.store", "argus_ray.gateway.app", "ray", "fastapi"),
    "store": (
        *("argus_ray.service.service", "argus_ray.scheduler.tick", "argus_ray.cluster.jobs"),
        *("ray", "fastapi", "filelock"),
    ),
    "service": ("argus_ray.actors.state", "argus_ray.gateway.app", "argus_ray.node.head", "ray", "fastapi"),
    "scheduler": ("argus_ray.cluster.jobs", "argus_ray.store.store", "argus_ray.service.service", "ray", "sqlite3"),
    "cluster": ("argus_ray.store.store", "argus_ray.scheduler.tick", "argus_ray.service.service", "fastapi", "sqlite3"),
    "discovery": (
        *("argus_ray.config", "argus_ray.core.ids", "argus_ray.disk.beneath", "argus_ray.node.head"),
        *("ray", "pydantic", "yaml", "filelock"),
    ),
    "actors": (
        *("argus_ray.gateway.app", "argus_ray.node.head", "argus_ray.local.cluster"),
        *("fastapi", "sqlite3", "filelock"),
    ),
    "node": (
        *("argus_ray.core.ids", "argus_ray.disk.beneath", "argus_ray.service.service", "argus_ray.actors.state"),
        *("argus_ray.local.cluster", "argus_ray.payload.argus_runner"),
        *("ray", "pydantic", "yaml", "fastapi", "filelock"),
    ),
    "local": (
        *("argus_ray.core.ids", "argus_ray.config", "argus_ray.disk.logs", "argus_ray.gateway.app"),
        *("argus_ray.payload.argus_runner", "ray", "pydantic", "yaml", "fastapi"),
    ),
    "gateway": ("argus_ray.local.cluster", "argus_ray.node.head", "ray", "sqlite3"),
    "payload": ("argus_ray.core.ids", "argus_ray.disk.atomic", "argus_ray.config", "fastapi", "sqlite3"),
    "client": ("argus_ray.cli", "argus_ray.core.ids", "argus_ray.gateway.app", "ray", "pydantic", "fastapi"),
    "admin": (
        *("argus_ray.gateway.app", "argus_ray.actors.state", "argus_ray.service.service", "argus_ray.local.cluster"),
        *("argus_ray.cli", "ray", "fastapi", "sqlite3", "filelock"),
    ),
    "cli": (
        *("argus_ray.core.ids", "argus_ray.config", "argus_ray.gateway.app", "argus_ray.local.client"),
        *("argus_ray.payload.argus_runner", "ray", "pydantic", "fastapi"),
    ),
}
#: Those that may be known; what is wrong with the rule, rather than with the import, would show here.
ALLOWED = {
    "node": ("argus_ray.disk.atomic", "argus_ray.disk.bounded", "argus_ray.disk.lock", "argus_ray.discovery.epoch"),
    "local": ("argus_ray.disk.atomic", "argus_ray.discovery.head_json", "argus_ray.node.processes"),
    "disk": ("argus_ray.core.ids",),
    "cli": ("argus_ray.client", "click", "rich", "httpx2"),
    "gateway": ("argus_ray.actors.state", "argus_ray.disk.logs", "fastapi"),
}


def plant(package: Path, room: str, targets: tuple[str, ...], kind: str) -> list[str]:
    """A module with each of these imports in the room, or lines at the end of one that is a single file; the imports as
    they are reported."""
    planted = []
    for index, target in enumerate(targets):
        if (package / room).is_dir():
            name = f"argus_ray.{room}.{kind}{index}"
            (package / room / f"{kind}{index}.py").write_text(f"import {target}\n")
        else:
            name = f"argus_ray.{room}"
            with (package / f"{room}.py").open("a") as module:
                module.write(f"import {target}\n")
        planted.append(f"{name} -> {target}")
    return planted


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(
        ROOT / "argus_ray", tmp_path / "argus_ray", ignore=shutil.ignore_patterns("__pycache__", "node_modules", "dist")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_room_is_planted_in() -> None:
    rooms = {path.stem for path in (ROOT / "argus_ray").iterdir() if not path.name.startswith("_")}
    assert rooms == set(FORBIDDEN)


def test_a_forbidden_import_is_refused_in_every_room(copy: Path) -> None:
    refused, allowed = list[str](), list[str]()
    for room, targets in FORBIDDEN.items():
        refused += plant(copy / "argus_ray", room, targets, "planted")
    for room, targets in ALLOWED.items():
        allowed += plant(copy / "argus_ray", room, targets, "allowed")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    # Each by itself, not as a part of a longer way.
    reported = {match[1] for match in re.finditer(r"^- +(\S+ -> \S+) \(l\.\d+\)$", done.stdout, re.MULTILINE)}
    assert [each for each in refused if each not in reported] == []
    assert [each for each in allowed if each in reported] == []


def test_a_way_around_by_a_module_of_disk_is_refused(copy: Path) -> None:
    """`node` may use `disk.atomic`; so that one must not bring the rest."""
    with (copy / "argus_ray" / "disk" / "atomic.py").open("a") as module:
        module.write("import argus_ray.core.ids\n")
    with (copy / "argus_ray" / "disk" / "bounded.py").open("a") as module:
        module.write("import argus_ray.disk.logs\nimport pydantic\n")
    done = lint(copy)
    assert done.returncode == 1
    for way in ("argus_ray.disk.atomic -> argus_ray.core.ids", "argus_ray.disk.bounded -> pydantic"):
        assert way in done.stdout


def test_a_room_without_a_place_is_refused(copy: Path) -> None:
    (copy / "argus_ray" / "attic.py").touch()
    done = lint(copy)
    assert done.returncode == 1 and "attic" in done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "argus_ray",
        "argus_ray.node",
        "argus_ray.disk.atomic",
        "argus_ray.disk.bounded",
        "argus_ray.disk.lock",
        "argus_ray.local.client",
        "argus_ray.local.cluster",
        "argus_ray.local.folder",
        "argus_ray.local.session",
        "argus_ray.node.cli",
        "argus_ray.admin.app",
        "argus_ray.node.journal",
        "argus_ray.node.watchdog",
        "argus_ray.node.head",
        "argus_ray.discovery.head_json",
        "argus_ray.disk.beneath",
        "argus_ray.core.verl.files",
        "argus_ray.core.verl.values",
    ],
)
def test_a_cheap_import_brings_neither_ray_nor_pydantic(module: str) -> None:
    code = f"import sys, {module}; print(sorted(m for m in ('ray', 'pydantic', 'fastapi', 'yaml') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "argus_ray.core.attempts",
        "argus_ray.core.verl.command",
        "argus_ray.disk.checkpoints",
        "argus_ray.disk.inputs",
        "argus_ray.service",
        "argus_ray.scheduler.tick",
        "argus_ray.scheduler.housekeeping",
    ],
)
def test_the_rules_run_without_ray(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('ray', 'fastapi', 'verl', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=True)
    assert done.stdout.strip() == "[]"
