"""A TaskSpec as verl sees it: the command line, the environment, and the gang that it will claim.

Pure: it knows verl 0.9.1 by its command line and by what its source asks of Ray, and imports neither. `layers` has
the values that a TaskSpec has no field for.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from argus_ray.core import paths
from argus_ray.core.model import Gang
from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import files, keys, layers, reserved, tracking, values
from argus_ray.core.verl.layers import Setting
from argus_ray.core.verl.values import Value

#: verl's ResourcePoolManager makes one bundle {GPU: 1, CPU: max_colocate_count} per GPU, and
#: max_colocate_count is 3 unless code sets it (single_controller/ray/base.py). The sft launcher asks for as
#: many: one process and two data loaders a GPU.
CPUS_PER_GPU = 3
#: The custom Ray resource that every worker offers and the head does not.
WORKER_RESOURCE = "worker_node"
#: Ray's own SIGKILL must come after the runner's, which may wait for what dies slowly, and for the disk.
RAY_STOP_MARGIN_S = 20

Overrides = list[str]
_TOTAL_STEPS = "trainer.total_training_steps="
_NODE_RESOURCE = "transfer_queue.backend.SimpleStorage.required_node_resource"


@dataclass(frozen=True)
class Site:
    """Where a worker finds things."""

    shared_root: str
    #: The versioned copy of argus_ray/payload on the shared filesystem.
    payload_dir: str
    worker_python: str
    #: Seconds between SIGTERM and SIGKILL when a run is stopped.
    stop_grace_s: int
    #: That an attempt's log may take on the disk.
    log_bytes: int
    #: With less free on the filesystem of its job root a run's log does not grow; 0: whatever is free.
    reserve_bytes: int = 0
    #: Of what a run makes in its job root.
    umask: int = 0o022
    #: By Weights & Biases; None: it is off.
    tracking: tracking.Tracking | None = None


@dataclass(frozen=True)
class Launch:
    """Everything that Ray Jobs needs to start one attempt."""

    #: What a user could type, given `env`.
    command: tuple[str, ...]
    #: The same under the runner, as the one string that Ray Jobs gives to a shell.
    entrypoint: str
    #: For `runtime_env.env_vars`: the driver's shell does not reach verl's other processes. Readable by
    #: anyone who can reach the Jobs API, so it holds no secret.
    env: dict[str, str]
    gang: Gang


def gang_of(spec: TaskSpec) -> Gang:
    """What the task holds in Ray's view while it runs.

    No CPU beyond the bundles: verl's other actors either ask for nothing while they run (task runner, agent
    loops, reward loops, rollout servers: `@ray.remote` without num_cpus), or are TransferQueue's controller
    and storage units, whose `num_cpus=1` argus_verl_placement.py takes away."""
    return Gang(
        nnodes=spec.nnodes,
        gpus_per_node=spec.n_gpus_per_node,
        cpus_per_node=float(CPUS_PER_GPU * spec.n_gpus_per_node),
    )


def launch(
    spec: TaskSpec,
    site: Site,
    *,
    submission_id: str,
    job_root: str,
    resume_from: str | None = None,
    chosen: tuple[Setting, ...] | None = None,
) -> Launch:
    """The attempt `submission_id`, writing under `job_root` only. `resume_from` is a `.../global_step_N` folder;
    `chosen` what `layers.resolve` said at acceptance, or None, for a task of an earlier version: the defaults."""
    if chosen is None:
        chosen = layers.resolve(spec, user_id="", recipes=layers.Recipes(), chosen=())
    overrides = _overrides(spec, site, submission_id, job_root, resume_from, chosen)
    python = (site.worker_python, "-u")
    if spec.workload == "sft":
        command = (
            *python,
            f"{site.payload_dir}/argus_sft_launcher.py",
            *("--name", f"argus-{submission_id}"),
            *("--nnodes", str(spec.nnodes)),
            *("--gpus-per-node", str(spec.n_gpus_per_node)),
            *("--cpus-per-node", str(CPUS_PER_GPU * spec.n_gpus_per_node)),
            *("--job-root", job_root),
            "--",
            *overrides,
        )
    else:
        command = (
            *python,
            "-m",
            "verl.trainer.main_ppo",
            *overrides,
        )
    env = _environment(spec, site, submission_id, job_root, resumes=resume_from is not None)
    if site.tracking is not None:
        command, env = tracking.add(site.tracking, command, env, job_root, spec.workload)
    return Launch(
        command=command,
        entrypoint=entrypoint(site, job_root, command),
        env=env,
        gang=gang_of(spec),
    )


#: Read by the payload.
_ASSIGNED = "ARGUS_NODES"


def assignment(nodes: Sequence[str]) -> dict[str, str]:
    """The variable that tells the payload on which nodes, by Ray's ids, each part of the gang goes. Not of the command
    that a user repeats by hand: the nodes are those of one attempt."""
    return {_ASSIGNED: ",".join(nodes)} if nodes else {}


def assigned(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The nodes of `assignment`, from the variables of a job; empty: it has none."""
    return tuple(filter(None, environ.get(_ASSIGNED, "").split(",")))


def of_site(site: Site) -> dict[str, str]:
    """The variables that tell the payload how this site wants files. Not of that command either: a setting may change
    before the attempt is submitted."""
    reserve = {"ARGUS_RESERVE_BYTES": str(site.reserve_bytes)} if site.reserve_bytes else {}
    return {**reserve, "ARGUS_UMASK": f"{site.umask:03o}"}


def given_steps(command: Sequence[str]) -> int | None:
    """The total of steps that this command gives verl; None if verl is to work it out from the epochs."""
    values = [word.removeprefix(_TOTAL_STEPS) for word in command if word.startswith(_TOTAL_STEPS)]
    return int(values[-1]) if values and values[-1].isdecimal() else None


def entrypoint(site: Site, job_root: str, command: tuple[str, ...]) -> str:
    """The command under the runner, as one string for a shell: every word quoted."""
    # Isolated: it needs nothing that is installed, and what lies in the user's code under the name of a standard module
    # is not meant for it.
    python = (site.worker_python, "-I", "-S", "-u")
    runner = (f"{site.payload_dir}/argus_runner.py", "--job-root", job_root, "--log-bytes", str(site.log_bytes), "--")
    return shlex.join([*python, *runner, *command])


def _environment(spec: TaskSpec, site: Site, submission_id: str, job_root: str, *, resumes: bool) -> dict[str, str]:
    env = {
        # Put after the standard library by the payload's sitecustomize: before it, a `queue.py` of the user's would
        # stand in for Python's own, in Ray's processes too.
        "ARGUS_CODE_PATH": spec.code_path,
        "ARGUS_JOB_ROOT": job_root,
        "ARGUS_STOP_GRACE_S": str(site.stop_grace_s),
        "ARGUS_SUBMISSION_ID": submission_id,
        # The Hub cache is an input, shared and perhaps read-only; what libraries make of it is not.
        "HF_DATASETS_CACHE": f"{job_root}/cache/datasets",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": paths.hf_home(site.shared_root),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": f"{job_root}/cache/modules",
        "HYDRA_FULL_ERROR": "1",
        # All names in it begin with argus_, but for sitecustomize.
        "PYTHONPATH": site.payload_dir,
        "PYTHONUNBUFFERED": "1",
        "RAY_JOB_STOP_WAIT_TIME_S": str(site.stop_grace_s + RAY_STOP_MARGIN_S),
        "TENSORBOARD_DIR": f"{job_root}/tensorboard",
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_OFFLINE": "1",
        "VERL_FILE_LOGGER_PATH": paths.metrics_file(job_root),
        "WANDB_MODE": "disabled",
    }
    modules = []
    if spec.workload != "sft":
        modules += ["argus_verl_tq", "argus_verl_placement", "argus_verl_reserve"]
    if spec.trainer_device == "cpu":
        modules.append("argus_verl_cpu")
        if spec.workload != "sft":
            modules.append("argus_verl_hf_rollout")
        if spec.workload == "ppo":
            modules.append("argus_verl_critic")
        # The platform is the CPU; the engine class is the one that verl registers for "cuda" (it has none
        # for "cpu").
        env |= {"OMP_NUM_THREADS": "1", "VERL_ENGINE_DEVICE": "cuda", "VERL_PLATFORM": "cpu"}
    if resumes and spec.workload == "sft":
        modules.append("argus_verl_resume")
    if modules:
        env["VERL_USE_EXTERNAL_MODULES"] = ",".join(modules)
    return env


def _overrides(
    spec: TaskSpec, site: Site, submission_id: str, job_root: str, resume_from: str | None, chosen: tuple[Setting, ...]
) -> Overrides:
    """Each key once: the chosen settings, then what the TaskSpec says, then what is nobody's to choose. What was stored
    by a version that let more be chosen is held to the rules of this one."""
    above = _of_spec(spec, resume_from) | _reserved(spec, site, submission_id, job_root, resume_from, chosen)
    below = {each.key: each.value for each in chosen if each.key not in above and not reserved.never(each.key)}
    return [f"{_sign(key)}{key}={values.written(value)}" for key, value in (below | above).items()]


def _sign(key: str) -> str:
    """Hydra's, for a key that verl's own configuration does not have."""
    if key == _NODE_RESOURCE:
        return "++"
    return "" if key == "hydra.run.dir" else keys.prefix(key)


def _of_spec(spec: TaskSpec, resume_from: str | None) -> dict[str, Value]:
    found: dict[str, Value] = {}
    if spec.workload == "sft":
        models = ["model.path"]
    else:
        found["algorithm.adv_estimator"] = "gae" if spec.workload == "ppo" else "grpo"
        models = ["actor_rollout_ref.model.path", *(["critic.model.path"] if spec.workload == "ppo" else [])]
    found |= {"data.train_files": spec.train_file, "data.val_files": spec.val_file}
    found |= dict.fromkeys(models, spec.model_id)
    found |= {
        "trainer.nnodes": spec.nnodes,
        "trainer.n_gpus_per_node": spec.n_gpus_per_node,
        "trainer.device": spec.trainer_device,
        "trainer.total_epochs": 0 if _has_all_steps(spec, resume_from) else spec.total_epochs,
    }
    if spec.total_training_steps is not None:
        found[_TOTAL_STEPS.removesuffix("=")] = spec.total_training_steps
    return found | {"trainer.save_freq": spec.save_freq, "trainer.test_freq": spec.test_freq}


def _reserved(
    spec: TaskSpec, site: Site, submission_id: str, job_root: str, resume_from: str | None, chosen: tuple[Setting, ...]
) -> dict[str, Value]:
    """Every path is absolute: verl resolves relative ones on whichever node it runs."""
    found: dict[str, Value] = {}
    if spec.workload == "sft":
        found["data.messages_key"] = "messages"
    else:
        found["data.prompt_key"] = "prompt"
        if "reward.custom_reward_function.path" not in {each.key for each in chosen}:
            # What a model writes is compared, never run; verl's default would run it for some data sources.
            found["reward.custom_reward_function.path"] = f"{site.payload_dir}/argus_verl_reward.py"
            found["reward.custom_reward_function.name"] = "compute_score"
        found |= {
            # TransferQueue spreads its storage over all nodes, and fails on a head without CPUs.
            _NODE_RESOURCE: WORKER_RESOURCE,
            # Not eight, verl's default, on a small pool.
            "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1
            if spec.trainer_device == "cpu"
            else min(spec.nnodes, 8),
            "trainer.rollout_data_dir": f"{job_root}/rollouts",
            "trainer.validation_data_dir": f"{job_root}/validation",
        }
    found |= {
        # Two runs with the same names would resume each other's checkpoints in verl's default folders.
        "trainer.project_name": "argus",
        "trainer.experiment_name": submission_id,
        "trainer.default_local_dir": paths.checkpoints_dir(job_root),
    }
    if resume_from is None:
        found["trainer.resume_mode"] = "disable"
    else:
        # By path, not "auto": the tracker file can be torn, and a missing folder would start from scratch
        # silently.
        found |= {"trainer.resume_mode": "resume_path", "trainer.resume_from_path": resume_from}
    return found | {"hydra.run.dir": f"{job_root}/hydra"}


def _has_all_steps(spec: TaskSpec, resume_from: str | None) -> bool:
    """Of sft, which died after its last checkpoint: verl's trainer would train one step more than it was told, where
    those of ppo and grpo stop."""
    if spec.workload != "sft" or spec.total_training_steps is None or resume_from is None:
        return False
    step = files.step_of(PurePosixPath(resume_from).name)
    return step is not None and step >= spec.total_training_steps
