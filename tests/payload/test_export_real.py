"""Real checkpoints of verl's, sharded over two processes, as Hugging Face folders that transformers loads."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from argus_ray.local.cluster import free_port
from tests.support.raycluster import ROOT
from tests.support.realverl import make_inputs, needs_verl

pytestmark = [pytest.mark.verl, pytest.mark.timeout(900), needs_verl]

EXPORT = ROOT / "argus_ray" / "payload" / "argus_export.py"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shared = tmp_path_factory.mktemp("shared")
    make_inputs(shared)
    folder = shared / "global_step_3"
    folder.mkdir()
    port = free_port()
    program: list[str | Path] = [sys.executable, ROOT / "tests" / "support" / "realcheckpoint.py"]
    ranks = [
        subprocess.Popen([*program, str(rank), "2", str(port), shared / "common" / "models" / "tiny", folder])
        for rank in range(2)
    ]
    assert [rank.wait(timeout=600) for rank in ranks] == [0, 0]
    assert (folder / "actor" / "model_world_size_2_rank_1.pt").exists()
    return folder


def export(checkpoint: Path, part: str, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [
        sys.executable,
        EXPORT,
        "--checkpoint",
        checkpoint / part,
        "--target",
        root / "export",
        *options,
    ]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "ARGUS_UMASK": "027"}
    return subprocess.run(
        command, env=env, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600
    )


@pytest.mark.parametrize("part", ["actor", "critic"])
def test_transformers_loads_each_weight_of_the_checkpoint(checkpoint: Path, tmp_path: Path, part: str) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

    config = (checkpoint / part / "huggingface" / "config.json").read_text()
    done = export(checkpoint, part, tmp_path, *(["--value-model"] if part == "critic" else []))
    assert done.returncode == 0, done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["export"], "nothing else is left"
    auto: Any = AutoModelForCausalLM if part == "actor" else AutoModelForTokenClassification
    model, info = auto.from_pretrained(tmp_path / "export", output_loading_info=True, dtype="auto")
    assert not any(info[f"{what}_keys"] for what in ("missing", "unexpected", "mismatched"))
    wanted = torch.load(checkpoint / "whole.pt")[part]
    loaded = model.state_dict()
    assert loaded.keys() == wanted.keys()
    for name, weight in loaded.items():
        assert torch.equal(weight.bfloat16(), wanted[name].bfloat16()), name
    with safe_open(tmp_path / "export" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118 - no mapping
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert tokenizer.decode(tokenizer("1+2=")["input_ids"]) == "1+2="
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "export", *tmp_path.glob("export/*")]}
    assert modes.pop("export") == 0o750
    assert set(modes.values()) == {0o640}
    # The checkpoint is as it was: also the configuration, which a critic's export changes in its copy.
    assert (checkpoint / part / "huggingface" / "config.json").read_text() == config
    assert (checkpoint / part / "model_world_size_2_rank_0.pt").stat().st_nlink == 1


def test_a_critic_that_is_taken_for_an_actor_makes_no_export(checkpoint: Path, tmp_path: Path) -> None:
    """verl's merger is content with it: it looks at the names of files. So an adapter alone would pass for a model."""
    config = checkpoint / "critic" / "huggingface" / "config.json"
    text = config.read_text()
    config.write_text(json.dumps({**json.loads(text), "architectures": ["Qwen2ForCausalLM"]}))
    try:
        done = export(checkpoint, "critic", tmp_path)
    finally:
        config.write_text(text)
    assert done.returncode == 1, done.stdout
    assert "2 unexpected weights: score.bias, score.weight" in done.stdout
    assert list(tmp_path.iterdir()) == []
