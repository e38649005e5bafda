"""verl's samples are left out while the shared filesystem is low; each case in a process of its own, as the payload
changes how verl is imported."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PAYLOAD = Path(__file__).parents[2] / "argus_ray" / "payload"
#: Everything is low, and nothing is.
LOW, ROOM = str(2**50), "1"
TRAINER = """
class Trainer:
    @staticmethod
    def _write_generations(rows, where):
        with open(where, "a") as file:
            file.write(rows)
class Unlike:
    pass
"""
PROGRAM = """
import argus_verl_reserve, sys
from {module} import Trainer
Trainer._write_generations("rows", sys.argv[1])
Trainer()._write_generations("rows", sys.argv[1])
"""
MODULES = ("verl.trainer.ppo.v1.trainer_base", "verl.trainer.ppo.ray_trainer")


def verl_in(folder: Path, module: str, text: str) -> None:
    *packages, name = module.split(".")
    at = folder
    for each in packages:
        at = at / each
        at.mkdir()
        (at / "__init__.py").touch()
    (at / f"{name}.py").write_text(text)


def run(program: str, path: Path, reserve: str, *arguments: str) -> str:
    """What it prints."""
    env = {**os.environ, "PYTHONPATH": f"{PAYLOAD}:{path}", "ARGUS_JOB_ROOT": str(path)}
    env.pop("VERL_USE_EXTERNAL_MODULES", None)
    env |= {"ARGUS_RESERVE_BYTES": reserve} if reserve else {}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("reserve", "written"), [(LOW, ""), (ROOM, "rowsrows"), ("", "rowsrows")])
def test_samples_are_written_while_there_is_room(tmp_path: Path, module: str, reserve: str, written: str) -> None:
    verl_in(tmp_path, module, TRAINER)
    samples = tmp_path / "samples"
    said = run(PROGRAM.format(module=module), tmp_path, reserve, str(samples))
    assert (samples.read_text() if samples.exists() else "") == written
    assert said.count("left out") == (0 if written else 2)


def test_a_trainer_that_is_not_known_runs_on_and_says_so(tmp_path: Path) -> None:
    verl_in(tmp_path, MODULES[0], "class Trainer: dumps = 7")
    said = run(f"import argus_verl_reserve\nfrom {MODULES[0]} import Trainer\nprint(Trainer.dumps)", tmp_path, LOW)
    assert "no reserve holds them" in said and said.endswith("7\n")


@pytest.mark.verl
def test_the_installed_verl_is_one_that_is_known(tmp_path: Path) -> None:
    if importlib.util.find_spec("verl") is None or importlib.util.find_spec("torch") is None:
        pytest.skip("verl is not installed")
    program = f"import argus_verl_reserve, sys\nfrom {MODULES[0]} import PPOTrainer\n"
    program += "PPOTrainer._write_generations(['a'], ['b'], ['c'], [1.0], {}, sys.argv[1], 7)"
    samples = tmp_path / "rollouts"
    assert "left out" in run(program, tmp_path, LOW, str(samples)) and not samples.exists()
    assert "left out" not in run(program, tmp_path, ROOM, str(samples))
    assert (samples / "7.jsonl").read_text()
