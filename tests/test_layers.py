"""The layer rules of pyproject.toml, and what the cheap imports must not drag in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_layers_point_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "argus_ray",
        "argus_ray.node",
        "argus_ray.local.cluster",
        "argus_ray.node.watchdog",
        "argus_ray.node.head",
        "argus_ray.discovery.head_json",
    ],
)
def test_a_cheap_import_brings_neither_ray_nor_pydantic(module: str) -> None:
    code = f"import sys, {module}; print(sorted(m for m in ('ray', 'pydantic', 'fastapi', 'yaml') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "argus_ray.core.verl.command",
        "argus_ray.service",
        "argus_ray.scheduler.tick",
        "argus_ray.scheduler.housekeeping",
    ],
)
def test_the_rules_run_without_ray(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('ray', 'fastapi', 'verl', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
