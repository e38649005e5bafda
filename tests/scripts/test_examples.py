"""The examples are valid TaskSpecs, and docs/taskspec.md names every field. Those for the CPU are run by tests/ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from argus_ray.core.taskspec import parse

ROOT = Path(__file__).resolve().parents[2]


WORKLOADS = ("sft", "grpo", "ppo")


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_example_is_valid(workload: str, device: str) -> None:
    name = workload if device == "cuda" else f"cpu-{workload}"
    text = (ROOT / "examples" / f"{name}.yaml").read_text()
    spec = parse(text, shared_root="/private")
    assert (spec.workload, spec.trainer_device) == (workload, device)


def test_every_example_is_tested() -> None:
    tested = {f"{prefix}{workload}.yaml" for prefix in ("", "cpu-") for workload in WORKLOADS}
    assert {path.name for path in (ROOT / "examples").iterdir()} == tested


def test_the_table_of_fields_is_that_of_the_model() -> None:
    """If not: scripts/make_taskspec_reference.py."""
    command = [sys.executable, str(ROOT / "scripts" / "make_taskspec_reference.py"), "--check"]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == 0
