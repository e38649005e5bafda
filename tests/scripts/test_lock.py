"""The lock pins what pyproject.toml asks for, and the committed deployment file is a valid one."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from argus_ray import config

ROOT = Path(__file__).resolve().parents[2]


def test_every_requirement_is_locked_within_its_range() -> None:
    import tomllib
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(line) for line in (*project["dependencies"], *extras["verl"], *extras["test"])]
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    locked = {canonicalize_name(name): version for name, version in pins.items()}
    for requirement in wanted:
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in requirements.lock"
        assert version in requirement.specifier, f"{requirement} is locked at {version}"


def test_the_committed_deployment_file_says_what_the_defaults_are() -> None:
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    (application,) = document["applications"]
    assert config.load(application["args"], environ={}) == config.Settings()
