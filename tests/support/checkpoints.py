"""Files as verl leaves them, for what looks at names and both ends of them only."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from argus_ray.core.verl import files


def write_archive(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", os.urandom(300))


def save(job_root: str | Path, steps: Iterable[int], workload: str = "sft", world: int = 4) -> Path:
    """Complete checkpoints, with what the merger needs; the folder of the last one."""
    folder = Path(job_root)
    for step in steps:
        folder = Path(job_root) / "checkpoints" / files.checkpoint_name(step)
        for way, names in files.checkpoint_parts(workload, world):
            for name in names:
                write_archive(folder.joinpath(*way, name))
        for part in ("actor", "critic") if workload == "ppo" else ("actor",):
            model = folder.joinpath(*files.model_folder(workload, part))
            (model / "huggingface").mkdir()
            (model / "huggingface" / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"]}))
            (model / "fsdp_config.json").write_text(json.dumps({"world_size": world}))
    return folder
