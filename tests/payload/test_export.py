"""An export's program, with another program in the place of verl's merger: all or nothing, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkpoints import save

PAYLOAD = Path(__file__).parents[2] / "argus_ray" / "payload"
#: Of the merger's arguments these: what it reads, and where it writes.
MERGER = """
import os, pathlib, shutil, sys
source, target = (pathlib.Path(sys.argv[sys.argv.index(name) + 1]) for name in ("--local_dir", "--target_dir"))
target.mkdir()
"""
GOOD = """
shutil.copy(source / "model_world_size_2_rank_1.pt", target / "model.safetensors")
shutil.copy(source / "huggingface" / "config.json", target / "config.json")
(target / "lora_adapter").mkdir()
(target / "lora_adapter" / "a").write_text("a")
print("gpus:", repr(os.environ["CUDA_VISIBLE_DEVICES"]), "trust:", "--trust-remote-code" in sys.argv, flush=True)
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "old", [10], world=2)


def start(tmp_path: Path, checkpoint: Path, merger: str, *options: str) -> subprocess.Popen[str]:
    payload = tmp_path / "payload"
    shutil.copytree(PAYLOAD, payload, ignore=shutil.ignore_patterns("__pycache__"))
    (payload / "argus_merge.py").write_text(MERGER + merger)
    (tmp_path / "root").mkdir()
    target = tmp_path / "root" / "export"
    return subprocess.Popen(
        [sys.executable, payload / "argus_export.py", "--checkpoint", checkpoint, "--target", target, *options],
        env={**os.environ, "ARGUS_UMASK": "007", "CUDA_VISIBLE_DEVICES": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(tmp_path: Path, checkpoint: Path, merger: str, *options: str) -> tuple[int, str]:
    process = start(tmp_path, checkpoint, merger, *options)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "root").iterdir())


def test_a_whole_export_has_its_name_and_the_modes_of_the_site(tmp_path: Path, checkpoint: Path) -> None:
    code, output = run(tmp_path, checkpoint, GOOD)
    assert code == 0, output
    assert "gpus: '' trust: False" in output
    assert left(tmp_path) == ["export"]
    made = tmp_path / "root" / "export"
    assert (made / "model.safetensors").read_bytes() == (checkpoint / "model_world_size_2_rank_1.pt").read_bytes()
    assert {stat.S_IMODE(path.stat().st_mode) for path in [made, *made.rglob("*")] if path.is_dir()} == {0o770}
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.rglob("*") if path.is_file()} == {0o660}


def test_the_merger_trusts_code_if_it_is_told_to(tmp_path: Path, checkpoint: Path) -> None:
    assert "trust: True" in run(tmp_path, checkpoint, GOOD, "--trust-remote-code")[1]


@pytest.mark.parametrize(
    ("end", "expected"),
    [("sys.exit(3)", 3), ("raise RuntimeError", 1), ("os.kill(os.getpid(), 9)", 137)],
)
def test_a_merger_that_fails_leaves_nothing(tmp_path: Path, checkpoint: Path, end: str, expected: int) -> None:
    code, _ = run(tmp_path, checkpoint, f"{GOOD}\n{end}")
    assert (code, left(tmp_path)) == (expected, [])


def test_a_stop_leaves_nothing(tmp_path: Path, checkpoint: Path) -> None:
    process = start(tmp_path, checkpoint, f"{GOOD}\nimport signal\nsignal.pause()")
    assert process.stdout is not None
    assert "gpus" in process.stdout.readline()
    assert left(tmp_path) == ["export.part", "export.source"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    process.stdout.close()
    assert left(tmp_path) == []


def test_a_killed_one_leaves_nothing_that_looks_whole(tmp_path: Path, checkpoint: Path) -> None:
    process = start(tmp_path, checkpoint, f"{GOOD}\nsys.stdin.read()")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait(timeout=60)
    process.stdout.close()
    assert "export" not in left(tmp_path)


def test_a_run_that_goes_on_may_delete_the_checkpoint_meanwhile(tmp_path: Path, checkpoint: Path) -> None:
    code, output = run(tmp_path, checkpoint, f"shutil.rmtree({str(checkpoint)!r})\n{GOOD}")
    assert code == 0, output
    assert (tmp_path / "root" / "export" / "model.safetensors").exists()


@pytest.mark.parametrize("lost", ["", "huggingface", "fsdp_config.json", "model_world_size_2_rank_1.pt"])
def test_a_checkpoint_that_is_gone_is_told(tmp_path: Path, checkpoint: Path, lost: str) -> None:
    path = checkpoint / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, output = run(tmp_path, checkpoint, GOOD)
    assert (code, left(tmp_path)) == (1, [])
    assert "has deleted this checkpoint since it was chosen" in output
    assert str(path if lost in ("", "huggingface") else Path(lost).name) in output


def test_where_there_are_no_hard_links_others_will_do(tmp_path: Path, checkpoint: Path) -> None:
    memory = Path("/dev/shm")
    if memory.stat().st_dev == tmp_path.stat().st_dev or not os.access(memory, os.W_OK):
        pytest.skip("there is no second filesystem here")
    there = memory / f"argus-export-{os.getpid()}"
    try:
        shutil.copytree(checkpoint, there)
        code, output = run(tmp_path, there, GOOD)
    finally:
        shutil.rmtree(there, ignore_errors=True)
    assert code == 0, output


def test_a_critic_gets_the_name_of_its_model_in_a_copy(tmp_path: Path, checkpoint: Path) -> None:
    code, output = run(tmp_path, checkpoint, GOOD, "--value-model")
    assert code == 0, output
    made = json.loads((tmp_path / "root" / "export" / "config.json").read_text())
    assert made["architectures"] == ["Qwen2ForTokenClassification"]
    kept = json.loads((checkpoint / "huggingface" / "config.json").read_text())
    assert kept["architectures"] == ["Qwen2ForCausalLM"]


def test_only_what_the_merger_reads_is_linked(tmp_path: Path, checkpoint: Path) -> None:
    (checkpoint / "huggingface" / "model.safetensors").write_text("saved as a whole, too")
    (checkpoint / "huggingface" / "elsewhere.json").symlink_to("/etc/passwd")
    code, output = run(tmp_path, checkpoint, f"{GOOD}\nprint(sorted(p.name for p in source.rglob('*')), flush=True)")
    assert code == 0, output
    shards = ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"]
    assert str(["config.json", "fsdp_config.json", "huggingface", *shards]) in output


def test_what_is_there_already_is_not_touched(tmp_path: Path, checkpoint: Path) -> None:
    run(tmp_path, checkpoint, GOOD)
    target = tmp_path / "root" / "export"
    program: list[str | Path] = [
        sys.executable,
        tmp_path / "payload" / "argus_export.py",
        "--checkpoint",
        checkpoint,
        "--target",
        target,
    ]
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert subprocess.run(program, capture_output=True, timeout=120).returncode == 1
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
