"""Argus's own values of verl's settings that a TaskSpec has no field for: the lowest layer (`layers`).

They are safe ones: on GPUs those of verl's public GSM8K examples; on the CPU, which is for trial runs of small models,
tiny ones.
"""

from __future__ import annotations

from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl.values import Value

#: One torn save must leave a whole one behind; null, verl's default, fills the disk.
CHECKPOINTS_TO_KEEP = 2
#: Conversations, or prompts with their answers, that a GPU takes at once.
_MICRO_BATCH = 4

Layer = dict[str, Value]


def of(spec: TaskSpec) -> Layer:
    return _sft(spec) if spec.workload == "sft" else _rl(spec)


def _sft(spec: TaskSpec) -> Layer:
    cpu = spec.trainer_device == "cpu"
    layer: Layer = {
        # Divided among the processes, without a rest.
        "data.train_batch_size": _multiple(spec.nnodes * spec.n_gpus_per_node, at_least=16 if cpu else 256),
        "data.micro_batch_size_per_gpu": _MICRO_BATCH,
        "data.max_length": 256 if cpu else 2048,
        # One long conversation must not end the run ("error" is verl's default).
        "data.truncation": "right",
        "data.max_token_len_per_gpu": 2048 if cpu else 8192,
        "data.num_workers": 0 if cpu else 2,
        "optim.lr": 3e-3 if cpu else 1e-5,
    }
    if cpu:
        layer |= {"engine.strategy": "fsdp2", "engine.mixed_precision": _fp32(), **_sdpa("model")}
    return layer | {"trainer.max_ckpt_to_keep": CHECKPOINTS_TO_KEEP, "trainer.logger": _loggers()}


def _rl(spec: TaskSpec) -> Layer:
    """Of ppo, or else of grpo. Lengths in tokens."""
    cpu, ppo = spec.trainer_device == "cpu", spec.workload == "ppo"
    mini = _multiple(_MICRO_BATCH * spec.nnodes * spec.n_gpus_per_node, at_least=8 if cpu else 64)
    actor, rollout, ref = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "ref"))
    layer: Layer = {
        "algorithm.use_kl_in_reward": False,
        # Prompts of one step: whole mini batches.
        "data.train_batch_size": mini if cpu else 4 * mini,
        "data.max_prompt_length": 64 if cpu else 512,
        "data.max_response_length": 8 if cpu else 1024,
        "data.truncation": "left",
        "data.filter_overlong_prompts": not cpu,
        "data.dataloader_num_workers": 0 if cpu else 2,
        f"{actor}.optim.lr": 1e-3 if cpu else 1e-6,
        # Prompts of one update: each process's share of it is in whole micro batches.
        f"{actor}.ppo_mini_batch_size": mini,
        f"{actor}.ppo_micro_batch_size_per_gpu": _MICRO_BATCH,
        f"{actor}.use_kl_loss": not ppo and not cpu,
        f"{ref}.log_prob_micro_batch_size_per_gpu": _MICRO_BATCH,
        f"{rollout}.name": "hf_cpu" if cpu else "vllm",
        f"{rollout}.n": 1 if ppo else 4 if cpu else 5,
        f"{rollout}.tensor_model_parallel_size": 1,
        f"{rollout}.gpu_memory_utilization": 0.5,
        f"{rollout}.log_prob_micro_batch_size_per_gpu": _MICRO_BATCH,
        f"{rollout}.agent.num_workers": 1 if cpu else 4,
        "reward.num_workers": 1 if cpu else 4,
    }
    if ppo:
        layer |= {
            "critic.optim.lr": 1e-3 if cpu else 1e-5,
            "critic.ppo_micro_batch_size_per_gpu": _MICRO_BATCH,
        }
    if cpu:
        layer |= _rl_on_cpu(ppo=ppo)
    return layer | {
        "trainer.val_before_train": spec.test_freq != -1,
        "trainer.max_actor_ckpt_to_keep": CHECKPOINTS_TO_KEEP,
        "trainer.max_critic_ckpt_to_keep": CHECKPOINTS_TO_KEEP,
        "trainer.logger": _loggers(),
    }


def _rl_on_cpu(*, ppo: bool) -> Layer:
    parts = ("actor_rollout_ref.actor", "actor_rollout_ref.ref")
    layer: Layer = {"data.val_max_samples": 16, **_sdpa("actor_rollout_ref.model")}
    layer |= {f"{part}.strategy": "fsdp2" for part in parts}
    layer |= {f"{part}.fsdp_config.mixed_precision": _fp32() for part in parts}
    # Half a minute of the first step; the setting of the same name one level up does not reach it.
    layer |= {f"{part}.fsdp_config.use_torch_compile": False for part in parts}
    if ppo:
        layer |= {
            "critic.strategy": "fsdp2",
            "critic.fsdp.mixed_precision": _fp32(),
            "critic.fsdp.use_torch_compile": False,
            # Its value head has no weights yet: without this, no two runs are alike.
            "critic.fsdp.full_determinism": True,
            **_sdpa("critic.model"),
        }
    return layer


def _loggers() -> Value:
    # verl's wheel requires tensorboard, so it is there.
    return ["console", "file", "tensorboard"]


def _sdpa(part: str) -> Layer:
    return {f"{part}.override_config.attn_implementation": "sdpa"}


def _fp32() -> Value:
    return {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}


def _multiple(of: int, *, at_least: int) -> int:
    return -(-at_least // of) * of
