"""Each group of verl's goes to the node that Argus has assigned, and what others make stays where they want it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAYLOAD = Path(__file__).parents[2] / "argus_ray" / "payload"
#: In a process of its own, as the payload changes Ray for good. `calls` are made from a module of this name.
PROGRAM = """
import importlib, json, sys, types
groups = importlib.import_module("ray.util.placement_group")
made = []
def make(bundles, strategy=None, name="", lifetime=None, bundle_label_selector=None):
    made.append([strategy, name, bundle_label_selector])
groups.placement_group = make
import argus_verl_placement
caller = types.ModuleType(sys.argv[1])
error = None
try:
    exec("from ray.util.placement_group import placement_group\\n" + sys.argv[2], caller.__dict__)
except RuntimeError as failure:
    error = str(failure)
print(json.dumps([made, error]))
"""
VERL = "verl.single_controller.ray.base"
TWO_GROUPS = "for i in range(2): placement_group(bundles=[{}, {}], strategy='STRICT_PACK', name=f'g{i}', lifetime=None)"


def run(module: str, code: str, nodes: str | None = "n1,n2") -> tuple[list[Any], str | None]:
    env = {**os.environ, "PYTHONPATH": str(PAYLOAD), **({} if nodes is None else {"ARGUS_NODES": nodes})}
    output = subprocess.check_output([sys.executable, "-c", PROGRAM, module, code], env=env, text=True, timeout=120)
    made, error = json.loads(output.splitlines()[-1])
    return made, error


def selector(node: str) -> list[dict[str, str]]:
    return [{"ray.io/node-id": node}] * 2


def test_each_group_of_verls_goes_to_the_next_assigned_node() -> None:
    assert run(VERL, TWO_GROUPS) == (
        [["STRICT_PACK", "g0", selector("n1")], ["STRICT_PACK", "g1", selector("n2")]],
        None,
    )


def test_without_an_assignment_ray_chooses() -> None:
    assert run(VERL, TWO_GROUPS, nodes=None)[0] == [["STRICT_PACK", "g0", None], ["STRICT_PACK", "g1", None]]


def test_what_others_ask_for_stays_as_it_is() -> None:
    assert run("vllm.executor", "placement_group([{}], 'PACK', 'x')") == ([["PACK", "x", None]], None)


@pytest.mark.parametrize(
    "code",
    ["placement_group([{}], strategy='SPREAD')", TWO_GROUPS.replace("range(2)", "range(3)")],
    ids=["another strategy", "a group too many"],
)
def test_a_verl_that_makes_its_groups_otherwise_is_refused(code: str) -> None:
    """It would take what is another gang's."""
    _, error = run(VERL, code)
    assert error is not None and "this verl is not the one that Argus knows" in error
