"""The examples are valid TaskSpecs, and docs/taskspec.md names every field."""

from __future__ import annotations

from pathlib import Path

import pytest

from argus_ray.core.taskspec import TaskSpec, parse

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("workload", ["sft", "grpo", "ppo"])
def test_the_example_is_valid(workload: str) -> None:
    text = (ROOT / "examples" / f"{workload}.yaml").read_text()
    spec = parse(text, shared_root="/private", resolve=lambda path: path)
    assert spec.workload == workload


def test_every_example_is_tested() -> None:
    assert sorted(path.name for path in (ROOT / "examples").iterdir()) == ["grpo.yaml", "ppo.yaml", "sft.yaml"]


def test_every_field_is_documented() -> None:
    page = (ROOT / "docs" / "taskspec.md").read_text()
    missing = [name for name in TaskSpec.model_fields if f"| `{name}` |" not in page]
    assert missing == []
