"""scripts/gpu_check.py where there is no GPU: it says so, and what it would leave out."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from argus_ray.local.folder import Refused

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def run(*arguments: str, tools: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """With only these tools to be found."""
    return subprocess.run(
        [sys.executable, SCRIPTS / "gpu_check.py", *arguments, "--dir", str(tools / "work")],
        env={**os.environ, "PATH": str(tools), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def tool(folder: Path, text: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_without_a_gpu_it_says_so_and_starts_nothing(tmp_path: Path) -> None:
    done = run(tools=tmp_path)
    assert done.returncode == 2
    assert "there is no GPU here (no nvidia-smi); --device cpu runs the same without one" in done.stderr
    assert not (tmp_path / "work").exists()


def test_a_driver_that_fails_is_quoted(tmp_path: Path) -> None:
    tool(tmp_path, "echo 'NVIDIA-SMI has failed because it could not talk to the driver'; exit 9")
    done = run(tools=tmp_path)
    assert done.returncode == 2
    assert "nvidia-smi shows no GPU: NVIDIA-SMI has failed because" in done.stderr


def test_a_torch_that_cannot_use_the_gpu_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tool(tmp_path, "echo 'GPU 0: Some GPU (UUID: GPU-0)'")
    done = run(tools=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "cannot use the GPU" in done.stderr and "ARGUS_PYTHON" in done.stderr


def test_an_unknown_workload_is_refused(tmp_path: Path) -> None:
    done = run("--workloads", "sft,dpo", tools=tmp_path)
    assert done.returncode == 2
    assert "'dpo' is none of sft, grpo, ppo" in done.stderr


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, with a C compiler on the machine."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("CC", "/usr/bin/some-cc")
    return importlib.import_module("gpu_check")


def test_without_vllm_only_sft_is_left_and_the_others_are_named(
    gpu_check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "_version", lambda name: None if name == "vllm" else "1.0")
    assert gpu_check._possible(["sft", "grpo", "ppo"], "cuda") == ["sft"]
    assert "left out: grpo and ppo, since vLLM is not installed" in capsys.readouterr().out
    assert gpu_check._possible(["grpo"], "cpu") == ["grpo"]
    with pytest.raises(Refused, match="nothing is left to run"):
        gpu_check._possible(["ppo"], "cuda")


@pytest.mark.parametrize("version", ["0.8.3", "0.13.0", "0.14.0", "0.14.0.post1", "0.14.1rc1", "of unknown version"])
@pytest.mark.parametrize("workloads", [["sft"], ["sft", "grpo", "ppo"]])
def test_a_vllm_with_known_holes_is_refused_by_name(
    gpu_check: Any, monkeypatch: pytest.MonkeyPatch, version: str, workloads: list[str]
) -> None:
    """Also for sft alone: what is installed is what tasks will find."""
    monkeypatch.setattr(gpu_check, "_version", lambda name: version if name == "vllm" else "1.0")
    with pytest.raises(Refused, match=rf"^vLLM {version} has CVE-2026-22778 and CVE-2026-22807: .* 0\.14\.1 or newer"):
        gpu_check._possible(workloads, "cuda")


@pytest.mark.parametrize("version", ["0.14.1", "0.17.9"])
def test_a_vllm_that_verl_does_not_know_is_refused(
    gpu_check: Any, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(gpu_check, "_version", lambda name: version if name == "vllm" else "1.0")
    with pytest.raises(Refused, match=r"older than what verl 0\.9\.1 can use; install 0\.18\.0 or newer"):
        gpu_check._possible(["grpo"], "cuda")


@pytest.mark.parametrize("version", ["0.18.0", "0.29.0", "0.29.0+cu130", "1.0.0"])
def test_a_newer_vllm_is_taken(gpu_check: Any, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(gpu_check, "_version", lambda name: version if name == "vllm" else "1.0")
    assert gpu_check._possible(["grpo"], "cuda") == ["grpo"]


def test_without_a_c_compiler_it_is_refused(gpu_check: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_check, "_version", lambda name: "1.0")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match=r"there is no C compiler .* apt install gcc libc6-dev"):
        gpu_check._possible(["sft"], "cuda")
    assert gpu_check._possible(["sft"], "cpu") == ["sft"], "there is nothing to compile"
    (tmp_path / "gcc").write_text("#!/bin/sh\n")
    (tmp_path / "gcc").chmod(0o755)
    assert gpu_check._possible(["sft"], "cuda") == ["sft"]
