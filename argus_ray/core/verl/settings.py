"""The values of verl's settings that a TaskSpec has no field for: batch sizes, lengths, memory, worker counts.

They are safe ones: on GPUs those of verl's public GSM8K examples; on the CPU, which is for trial runs of small models,
tiny ones. `command` writes them under verl's names.
"""

from __future__ import annotations

from dataclasses import dataclass

#: One torn save must leave a whole one behind; null, verl's default, fills the disk.
CHECKPOINTS_TO_KEEP = 2
#: Conversations, or prompts with their answers, that a GPU takes at once.
_MICRO_BATCH = 4


@dataclass(frozen=True)
class SftSettings:
    """Lengths in tokens."""

    #: Divided among the processes, without a rest.
    train_batch: int
    micro_batch: int
    max_length: int
    max_tokens_per_gpu: int
    data_workers: int
    learning_rate: float


@dataclass(frozen=True)
class RlSettings:
    """Lengths in tokens."""

    #: Prompts of one step: whole mini batches.
    train_batch: int
    #: Prompts of one update: each process's share of it is in whole micro batches.
    mini_batch: int
    micro_batch: int
    max_prompt_length: int
    max_response_length: int
    drops_overlong_prompts: bool
    data_workers: int
    learning_rate: float
    critic_learning_rate: float
    uses_kl_loss: bool
    rollout: str
    #: Answers to each prompt.
    answers: int
    tensor_parallel: int
    #: Of a GPU's memory, for the rollout.
    rollout_memory: float
    agent_workers: int
    reward_workers: int
    #: Units of TransferQueue's storage; not eight, its default, on a small pool.
    storage_units: int
    #: None: all of them.
    validation_samples: int | None


def sft(*, cpu: bool, world: int) -> SftSettings:
    """`world`: processes of the run."""
    return SftSettings(
        train_batch=_multiple(world, at_least=16 if cpu else 256),
        micro_batch=_MICRO_BATCH,
        max_length=256 if cpu else 2048,
        max_tokens_per_gpu=2048 if cpu else 8192,
        data_workers=0 if cpu else 2,
        learning_rate=3e-3 if cpu else 1e-5,
    )


def rl(*, ppo: bool, cpu: bool, nnodes: int, world: int) -> RlSettings:
    """Of ppo, or else of grpo. `world`: processes of the run."""
    mini = _multiple(_MICRO_BATCH * world, at_least=8 if cpu else 64)
    return RlSettings(
        train_batch=mini if cpu else 4 * mini,
        mini_batch=mini,
        micro_batch=_MICRO_BATCH,
        max_prompt_length=64 if cpu else 512,
        max_response_length=8 if cpu else 1024,
        drops_overlong_prompts=not cpu,
        data_workers=0 if cpu else 2,
        learning_rate=1e-3 if cpu else 1e-6,
        critic_learning_rate=1e-3 if cpu else 1e-5,
        uses_kl_loss=not ppo and not cpu,
        rollout="hf_cpu" if cpu else "vllm",
        answers=1 if ppo else 4 if cpu else 5,
        tensor_parallel=1,
        rollout_memory=0.5,
        agent_workers=1 if cpu else 4,
        reward_workers=1 if cpu else 4,
        storage_units=1 if cpu else min(nnodes, 8),
        validation_samples=16 if cpu else None,
    )


def _multiple(of: int, *, at_least: int) -> int:
    return -(-at_least // of) * of
