"""A TaskSpec as verl sees it: the command line, the environment, and the gang that it will claim.

Pure: it knows verl 0.9.1 by its command line and by what its source asks of Ray, and imports neither. `settings` has
the values that a TaskSpec has no field for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from argus_ray.core import paths
from argus_ray.core.model import Gang
from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import files, settings

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


def launch(spec: TaskSpec, site: Site, *, submission_id: str, job_root: str, resume_from: str | None = None) -> Launch:
    """The attempt `submission_id`, writing under `job_root` only. `resume_from` is a `.../global_step_N`
    folder."""
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
            *_sft(spec, submission_id, job_root, resume_from),
        )
    else:
        command = (
            *python,
            "-m",
            "verl.trainer.main_ppo",
            *_rl(spec, site, submission_id, job_root, resume_from),
        )
    return Launch(
        command=command,
        entrypoint=entrypoint(site, job_root, command),
        env=_environment(spec, site, submission_id, job_root, resumes=resume_from is not None),
        gang=gang_of(spec),
    )


def assignment(nodes: Sequence[str]) -> dict[str, str]:
    """The variable that tells the payload on which nodes, by Ray's ids, each part of the gang goes. Not of the command
    that a user repeats by hand: the nodes are those of one attempt."""
    return {"ARGUS_NODES": ",".join(nodes)} if nodes else {}


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


def _sft(spec: TaskSpec, submission_id: str, job_root: str, resume_from: str | None) -> Overrides:
    """verl.trainer.sft_trainer, verl/trainer/config/sft_trainer_engine.yaml."""
    cpu = spec.trainer_device == "cpu"
    chosen = settings.sft(cpu=cpu, world=spec.nnodes * spec.n_gpus_per_node)
    lines = [
        _set("data.train_files", spec.train_file),
        _set("data.val_files", spec.val_file),
        _set("data.messages_key", "messages"),
        _set("data.train_batch_size", chosen.train_batch),
        _set("data.micro_batch_size_per_gpu", chosen.micro_batch),
        _set("data.max_length", chosen.max_length),
        # One long conversation must not end the run ("error" is verl's default).
        _set("data.truncation", "right"),
        _set("data.max_token_len_per_gpu", chosen.max_tokens_per_gpu),
        _set("data.num_workers", chosen.data_workers),
        _set("model.path", spec.model_id),
        _set("optim.lr", chosen.learning_rate),
    ]
    if cpu:
        lines += [
            _set("engine.strategy", "fsdp2"),
            _FP32.format("engine"),
            _SDPA.format("model"),
        ]
    lines.append(_set("trainer.max_ckpt_to_keep", settings.CHECKPOINTS_TO_KEEP))
    return lines + _trainer(spec, submission_id, job_root, resume_from)


def _rl(spec: TaskSpec, site: Site, submission_id: str, job_root: str, resume_from: str | None) -> Overrides:
    """verl.trainer.main_ppo, verl/trainer/config/ppo_trainer.yaml."""
    cpu = spec.trainer_device == "cpu"
    ppo = spec.workload == "ppo"
    chosen = settings.rl(ppo=ppo, cpu=cpu, nnodes=spec.nnodes, world=spec.nnodes * spec.n_gpus_per_node)
    actor, rollout, ref = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "ref"))
    lines = [
        _set("algorithm.adv_estimator", "gae" if ppo else "grpo"),
        _set("algorithm.use_kl_in_reward", False),
        _set("data.train_files", spec.train_file),
        _set("data.val_files", spec.val_file),
        _set("data.prompt_key", "prompt"),
        _set("data.train_batch_size", chosen.train_batch),
        _set("data.max_prompt_length", chosen.max_prompt_length),
        _set("data.max_response_length", chosen.max_response_length),
        _set("data.truncation", "left"),
        _set("data.filter_overlong_prompts", chosen.drops_overlong_prompts),
        _set("data.dataloader_num_workers", chosen.data_workers),
        _set("actor_rollout_ref.model.path", spec.model_id),
        _set(f"{actor}.optim.lr", chosen.learning_rate),
        _set(f"{actor}.ppo_mini_batch_size", chosen.mini_batch),
        _set(f"{actor}.ppo_micro_batch_size_per_gpu", chosen.micro_batch),
        _set(f"{actor}.use_kl_loss", chosen.uses_kl_loss),
        _set(f"{ref}.log_prob_micro_batch_size_per_gpu", chosen.micro_batch),
        _set(f"{rollout}.name", chosen.rollout),
        _set(f"{rollout}.n", chosen.answers),
        _set(f"{rollout}.tensor_model_parallel_size", chosen.tensor_parallel),
        _set(f"{rollout}.gpu_memory_utilization", chosen.rollout_memory),
        _set(f"{rollout}.log_prob_micro_batch_size_per_gpu", chosen.micro_batch),
        _set(f"{rollout}.agent.num_workers", chosen.agent_workers),
        # What a model writes is compared, never run; verl's default would run it for some data sources.
        _set("reward.custom_reward_function.path", f"{site.payload_dir}/argus_verl_reward.py"),
        _set("reward.custom_reward_function.name", "compute_score"),
        _set("reward.num_workers", chosen.reward_workers),
    ]
    if ppo:
        lines += [
            _set("critic.model.path", spec.model_id),
            _set("critic.optim.lr", chosen.critic_learning_rate),
            _set("critic.ppo_micro_batch_size_per_gpu", chosen.micro_batch),
        ]
    if chosen.validation_samples is not None:
        lines.append(_set("data.val_max_samples", chosen.validation_samples))
    if cpu:
        lines += [
            _SDPA.format("actor_rollout_ref.model"),
            *(_set(f"{part}.strategy", "fsdp2") for part in (actor, ref)),
            *(_FP32.format(f"{part}.fsdp_config") for part in (actor, ref)),
            # Half a minute of the first step; the setting of the same name one level up does not reach it.
            *(_set(f"{part}.fsdp_config.use_torch_compile", False) for part in (actor, ref)),
        ]
        if ppo:
            lines += [
                _set("critic.strategy", "fsdp2"),
                _FP32.format("critic.fsdp"),
                _set("critic.fsdp.use_torch_compile", False),
                # Its value head has no weights yet: without this, no two runs are alike.
                _set("critic.fsdp.full_determinism", True),
                _SDPA.format("critic.model"),
            ]
    storage = "transfer_queue.backend.SimpleStorage"
    lines += [
        # TransferQueue spreads its storage over all nodes, and fails on a head without CPUs.
        f"++{_set(f'{storage}.required_node_resource', WORKER_RESOURCE)}",
        _set(f"{storage}.num_data_storage_units", chosen.storage_units),
        _set("trainer.val_before_train", spec.test_freq != -1),
        _set("trainer.max_actor_ckpt_to_keep", settings.CHECKPOINTS_TO_KEEP),
        _set("trainer.max_critic_ckpt_to_keep", settings.CHECKPOINTS_TO_KEEP),
        _set("trainer.rollout_data_dir", f"{job_root}/rollouts"),
        _set("trainer.validation_data_dir", f"{job_root}/validation"),
    ]
    return lines + _trainer(spec, submission_id, job_root, resume_from)


def _trainer(spec: TaskSpec, submission_id: str, job_root: str, resume_from: str | None) -> Overrides:
    """What all workloads share. Every path is absolute: verl resolves relative ones on whichever node it
    runs."""
    lines = [
        # Two runs with the same names would resume each other's checkpoints in verl's default folders.
        _set("trainer.project_name", "argus"),
        _set("trainer.experiment_name", submission_id),
        _set("trainer.default_local_dir", paths.checkpoints_dir(job_root)),
        # verl's wheel requires tensorboard, so it is there.
        'trainer.logger=["console","file","tensorboard"]',
        _set("trainer.nnodes", spec.nnodes),
        _set("trainer.n_gpus_per_node", spec.n_gpus_per_node),
        _set("trainer.device", spec.trainer_device),
        _set("trainer.total_epochs", 0 if _has_all_steps(spec, resume_from) else spec.total_epochs),
    ]
    if spec.total_training_steps is not None:
        lines.append(_set(_TOTAL_STEPS.removesuffix("="), spec.total_training_steps))
    lines += [_set("trainer.save_freq", spec.save_freq), _set("trainer.test_freq", spec.test_freq)]
    if resume_from is None:
        lines.append(_set("trainer.resume_mode", "disable"))
    else:
        # By path, not "auto": the tracker file can be torn, and a missing folder would start from scratch
        # silently.
        lines += [_set("trainer.resume_mode", "resume_path"), _set("trainer.resume_from_path", resume_from)]
    return [*lines, _set("hydra.run.dir", f"{job_root}/hydra")]


def _has_all_steps(spec: TaskSpec, resume_from: str | None) -> bool:
    """Of sft, which died after its last checkpoint: verl's trainer would train one step more than it was told, where
    those of ppo and grpo stop."""
    if spec.workload != "sft" or spec.total_training_steps is None or resume_from is None:
        return False
    step = files.step_of(PurePosixPath(resume_from).name)
    return step is not None and step >= spec.total_training_steps


_SDPA = "+{}.override_config.attn_implementation=sdpa"
_FP32 = "+{}.mixed_precision={{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}}"

#: Words that Hydra's grammar reads as the text that they are: an absolute path, or a name with a letter in
#: front that is none of its literals.
_PLAIN = re.compile(r"/[A-Za-z0-9._/-]+|(?!(?:null|true|false|inf|nan)$)[A-Za-z][A-Za-z0-9_-]*", re.IGNORECASE)
#: Inside quotes these would still mean something to Hydra (escape) or OmegaConf (interpolation).
_NEVER = re.compile(r"['\"\\$]|[^ -~]")


def _set(key: str, value: str | float | bool) -> str:
    """One override in Hydra's grammar, which reads the value as exactly this one."""
    if isinstance(value, str):
        if _NEVER.search(value):
            raise ValueError(f"cannot stand in a verl command line: {value!r}")
        return f"{key}={value}" if _PLAIN.fullmatch(value) else f"{key}='{value}'"
    return f"{key}={value}"
