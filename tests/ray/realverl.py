"""Tasks that train for real: the examples for the CPU, on a tiny model."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from raycluster import FINAL, ROOT, Api

from argus_ray.node import processes

needs_verl = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "verl")),
    reason="torch and verl are not installed (pip install 'argus-ray[verl]')",
)

#: Say how long something took or how much the machine had in use, not how the training went.
_OF_THE_MACHINE = ("timing", "perf/", "train/mfu", "critic/perf/", "actor/perf/")


def make_inputs(shared: Path) -> None:
    """A tiny model and a data set of one-digit additions where the examples have theirs; no code of a user's own."""
    common = shared / "common"
    subprocess.run([sys.executable, ROOT / "scripts" / "make_tiny.py", common], check=True, timeout=300)
    (common / "code" / "verl").mkdir(parents=True, exist_ok=True)


def wait_long(user: Api, task: str, minutes: float = 15) -> dict[str, Any]:
    """The task's view once it has SUCCEEDED."""
    seen: list[dict[str, Any]] = []

    def ended() -> bool:
        seen.append(user.task(task))
        return seen[-1]["state"] in FINAL

    assert processes.wait_until(ended, minutes * 60, 1.0), seen[-1]
    assert seen[-1]["state"] == "SUCCEEDED", seen[-1]["reason"]
    return seen[-1]


def curves(user: Api, task: str) -> dict[str, dict[int, float]]:
    """What the API tells of the training, by name, as {step: value}, through all attempts."""
    path = f"/api/v2/tasks/{task}/metrics?max_points=2048"
    first = user.get(path)
    names = [name for name in [*first["curves"], *first["available"]] if not name.startswith(_OF_THE_MACHINE)]
    found = {}
    for i in range(0, len(names), 16):
        for name, curve in user.get(f"{path}&names={','.join(names[i : i + 16])}")["curves"].items():
            assert len(set(curve["steps"])) == len(curve["steps"]), f"{name} has a step twice"
            found[name] = dict(zip(curve["steps"], curve["values"], strict=True))
    assert found.keys() == set(names)
    return found


def metric(root: Path, key: str) -> list[float]:
    lines = (root / "metrics.jsonl").read_text().splitlines()
    return [entry["data"][key] for entry in map(json.loads, lines) if key in entry["data"]]


def differences(one: dict[str, dict[int, float]], other: dict[str, dict[int, float]]) -> list[str]:
    """Where two runs are not alike, but for the order in which float32 numbers were added."""
    found = [f"{name} is in one only" for name in one.keys() ^ other.keys()]
    for name in one.keys() & other.keys():
        if one[name].keys() != other[name].keys():
            found.append(f"{name}: steps {sorted(one[name])} and {sorted(other[name])}")
            continue
        for step, value in one[name].items():
            if not math.isclose(value, other[name][step], rel_tol=1e-3, abs_tol=1e-5):
                found.append(f"{name} at step {step}: {value} and {other[name][step]}")
    return found
