"""An export as verl sees it: its own model merger, the environment, and the gang.

Pure, as `command`. verl 0.9.1, `verl.model_merger merge --backend fsdp`: it reads the `model_world_size_*` files of all
processes into the memory of one, casts to bfloat16, and writes what transformers reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from argus_ray.core import paths
from argus_ray.core.exports import Export, Part
from argus_ray.core.model import Gang
from argus_ray.core.verl import files
from argus_ray.core.verl.command import RAY_STOP_MARGIN_S, Launch, Site, entrypoint

#: It reads, casts and writes: more would not make it faster. Memory is counted for no task.
CPUS = 2
GANG = Gang(nnodes=1, gpus_per_node=0, cpus_per_node=float(CPUS))

#: verl's name for each part's model.
_MODEL = {Part.ACTOR: ("model", "actor_rollout_ref.model"), Part.CRITIC: ("critic.model",)}


def trusts_code(command: Sequence[str], part: Part) -> bool:
    """Whether verl was told by this command to run code that comes with the model of this part."""
    keys = {f"{model}.trust_remote_code" for model in _MODEL[part]}
    for word in command:
        key, _, value = word.lstrip("+").partition("=")
        if key in keys and value.lower() == "true":
            return True
    return False


def launch(export: Export, site: Site, *, submission_id: str, job_root: str) -> Launch:
    """The attempt `submission_id`, writing under `job_root` only."""
    folder = "/".join((export.checkpoint, *files.model_folder(export.workload, export.part.value)))
    command = (
        *(site.worker_python, "-u", f"{site.payload_dir}/argus_export.py"),
        *("--checkpoint", folder),
        *("--target", paths.export_dir(job_root)),
        *(("--value-model",) if export.part is Part.CRITIC else ()),
        *(("--trust-remote-code",) if export.trusts_code else ()),
    )
    # No code of a user's is on the path: verl is the worker's own.
    env = {
        "ARGUS_JOB_ROOT": job_root,
        "ARGUS_STOP_GRACE_S": str(site.stop_grace_s),
        "ARGUS_SUBMISSION_ID": submission_id,
        "HF_HOME": paths.hf_home(site.shared_root),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": f"{job_root}/cache/modules",
        "OMP_NUM_THREADS": str(CPUS),
        "PYTHONPATH": site.payload_dir,
        "PYTHONUNBUFFERED": "1",
        "RAY_JOB_STOP_WAIT_TIME_S": str(site.stop_grace_s + RAY_STOP_MARGIN_S),
        "TRANSFORMERS_OFFLINE": "1",
    }
    return Launch(command, entrypoint(site, job_root, command), env, GANG)
