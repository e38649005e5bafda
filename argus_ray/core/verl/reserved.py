"""What no preset and no rule may set, what only rules may, and which values are allowed where Argus relies on them.

All names here are of leaves, as `keys.leaves` makes them; `*` stands for any characters, dots too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate

from argus_ray.core import paths
from argus_ray.core.verl.values import Value

_SPEC = "is not to be set: it comes from the TaskSpec ({})"
_GANG = "is not to be set: the TaskSpec decides which GPUs a task holds"
_OWN = "is not to be set: Argus sets it, so that runs stay apart and can be resumed"
_SHARED = "is not to be set: it writes, listens or runs commands outside the job root"
_COLUMN = "is not to be set: the columns of a data set are those of docs/taskspec.md"
_OLD = "is verl's old name; set {} in its place"

#: Pattern -> why.
_NEVER: dict[str, str] = {
    # From the TaskSpec and its gang.
    "data.train_files": _SPEC.format("train_file"),
    "data.val_files": _SPEC.format("val_file"),
    "model.path": _SPEC.format("model_id"),
    "*.model.path": _SPEC.format("model_id"),
    "algorithm.adv_estimator": _SPEC.format("workload"),
    "critic.enable": _SPEC.format("workload"),
    **{
        f"trainer.{name}": _SPEC.format(name)
        for name in ("nnodes", "n_gpus_per_node", "total_epochs", "total_training_steps", "save_freq", "test_freq")
    },
    "trainer.device": _SPEC.format("trainer_device"),
    "*.total_training_steps": _SPEC.format("total_training_steps"),
    "*.nnodes": _GANG,
    "*.n_gpus_per_node": _GANG,
    "*.enable_resource_pool": _GANG,
    "distillation": _GANG,
    "distillation.*": _GANG,
    "actor_rollout_ref.hybrid_engine": _GANG,
    "data.prompt_key": _COLUMN,
    "data.messages_key": _COLUMN,
    "data.reward_fn_key": _COLUMN,
    # Isolation and recovery.
    **{
        f"trainer.{name}": _OWN
        for name in (
            *("project_name", "experiment_name", "default_local_dir", "default_hdfs_dir", "resume_*", "val_only"),
            *("rollout_data_dir", "validation_data_dir", "checkpoint_callback_class", "del_local_ckpt_after_load"),
            *("use_v1", "v1", "v1.*"),
        )
    },
    "*.trace.project_name": _OWN,
    "*.trace.experiment_name": _OWN,
    "*checkpoint.async_save": _OWN,
    "*checkpoint.load_contents": _OWN,
    "*checkpoint.save_lora_only": _OWN,
    "*.forward_only": _OWN,
    "*.rollout_n": _OWN,
    **dict.fromkeys(("model_engine", "hydra", "hydra.*", "ray_kwargs", "ray_kwargs.*", "defaults", "defaults.*"), _OWN),
    **dict.fromkeys(("transfer_queue", "transfer_queue.*", "skip", "skip.*"), _OWN),
    **dict.fromkeys(("global_profiler", "global_profiler.*", "profiler", "profiler.*", "*.profiler.*"), _SHARED),
    **dict.fromkeys(("*.prometheus.*", "trainer.profile_interval", "*.use_shm"), _SHARED),
    # One name for one thing.
    "*.ppo_micro_batch_size": _OLD.format("ppo_micro_batch_size_per_gpu"),
    "*.log_prob_micro_batch_size": _OLD.format("log_prob_micro_batch_size_per_gpu"),
    "*.forward_micro_batch_size": _OLD.format("forward_micro_batch_size_per_gpu"),
    "critic.forward_max_token_len_per_gpu": _OLD.format("critic.ppo_max_token_len_per_gpu"),
    "actor_rollout_ref.rollout.mode": _OWN,
    **{
        pattern: _OLD.format(f"reward.{name}.*")
        for name in ("custom_reward_function", "reward_model", "sandbox_fusion")
        for pattern in (name, f"{name}.*")
    },
}

#: Code and files that a run loads, and addresses that it calls: for rules, and for presets that only rules use.
_RULES_ONLY = (
    *("*trust_remote_code", "*external_lib", "data.custom_cls.*", "*custom_sampler*", "data.sampler*"),
    *("reward.custom_reward_function.*", "reward.reward_manager.*", "*reward_loop_*", "reward.sandbox_fusion.*"),
    *("*agent_loop_config_path", "*custom_async_server*", "*agent_loop_manager_class", "*tool_config_path"),
    *("*function_tool_path", "*custom_backend_module", "*checkpoint_manager_class", "*tokenizer_path"),
    *("data.tokenizer", "*hf_config_path", "*adapter_path", "*quantization_config_file"),
    *("*quantization_config_path", "*router_config_path", "*engine_kwargs*", "*optimizer_impl"),
    *("*override_optimizer_config", "*.rollout.custom", "reward.reward_model.*", "*.bootstrap_port", "*.trace.*"),
    *("*record_file", "*replay_file"),
)

_LOGGERS = frozenset(
    ("console", "file", "tensorboard", "wandb", "mlflow", "swanlab", "clearml", "trackio", "vemlp_wandb")
)
_CONTENTS = ("model", "optimizer", "extra")
_ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
_ROLLOUTS = ("vllm", "sglang", "trtllm", "hf_cpu")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/-]*)?")


def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{translate(pattern)})" for pattern in patterns))


_NEVER_NAMES = _any_of(tuple(_NEVER))
_WHY = [(re.compile(translate(pattern)), why) for pattern, why in _NEVER.items()]
_RULES_ONLY_NAMES = _any_of(_RULES_ONLY)


def never(name: str) -> str | None:
    """Why nobody may set this key, or None."""
    if not _NEVER_NAMES.fullmatch(name):
        return None
    return next(why for pattern, why in _WHY if pattern.fullmatch(name))


def rules_only(name: str) -> bool:
    """Whether no preset that a user may choose can set this key."""
    return _RULES_ONLY_NAMES.fullmatch(name) is not None


def value_rule(name: str, value: Value, shared_root: str) -> str | None:
    """Why this key may not have this value, or None. The value is of the right kind."""
    for pattern, check in _CHECKS:
        if pattern.fullmatch(name):
            return check(value, shared_root)
    return None


def device_rule(name: str, value: Value, device: str) -> str | None:
    """Why this value is nothing for the tasks of this `trainer_device`, or None."""
    if device == "cpu" and name.endswith(".strategy") and value != "fsdp2":
        return "on the CPU verl trains with fsdp2 only"
    if device != "cpu" and name.endswith("rollout.name") and value == "hf_cpu":
        return "is the rollout of Argus for the CPU"
    return None


def _logger(value: Value, _: str) -> str | None:
    if not isinstance(value, list) or "file" not in value:
        return "must be a list that holds file: Argus reads its curves and its progress there"
    unknown = [each for each in value if each not in _LOGGERS]
    return f"may hold {', '.join(sorted(_LOGGERS))}; not {unknown[0]!r:.60}" if unknown else None


def _contents(value: Value, _: str) -> str | None:
    if not isinstance(value, list) or any(each not in value for each in _CONTENTS):
        return f"must hold {', '.join(_CONTENTS)}: without all of them a run cannot be resumed"
    unknown = [each for each in value if each not in (*_CONTENTS, "hf_model")]
    return f"may hold hf_model beside {', '.join(_CONTENTS)}; not {unknown[0]!r:.60}" if unknown else None


def _kept(value: Value, _: str) -> str | None:
    if value is None or (isinstance(value, int) and value >= 2):
        return None
    return "must be at least 2, or null for all: one torn save must leave a whole checkpoint behind"


def _path(value: Value, shared_root: str) -> str | None:
    return None if value is None else paths.broken_rule(str(value), shared_root, is_dir=True)


def _module(value: Value, shared_root: str) -> str | None:
    if value is None or _MODULE.fullmatch(str(value)):
        return None
    return _path(value, shared_root) and "must be the dotted name of a module, or a path under common"


def _name(value: Value, _: str) -> str | None:
    return None if value is None or _MODULE.fullmatch(str(value)) else "must be the dotted name of a class"


def _url(value: Value, _: str) -> str | None:
    return None if value is None or _URL.fullmatch(str(value)) else "must be an http or https address"


def _one_of(*allowed: str) -> Callable[[Value, str], str | None]:
    return lambda value, _: None if value in allowed else f"must be one of {', '.join(allowed)}"


def _number(rule: str, holds: Callable[[float], bool]) -> Callable[[Value, str], str | None]:
    def check(value: Value, _: str) -> str | None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if not is_number or holds(value) else f"must be {rule}"  # type: ignore[arg-type]

    return check


_positive = _number("positive", lambda number: number > 0)
_not_negative = _number("0 or more", lambda number: number >= 0)
_share = _number("more than 0 and at most 1", lambda number: 0 < number <= 1)

_CHECKS: list[tuple[re.Pattern[str], Callable[[Value, str], str | None]]] = [
    (re.compile(translate(pattern)), check)
    for patterns, check in (
        (("trainer.logger",), _logger),
        (("*checkpoint.save_contents",), _contents),
        (("trainer.max_*ckpt_to_keep",), _kept),
        (("*external_lib", "*custom_backend_module"), _module),
        (("*optimizer_impl", "*_manager_class", "*.custom_async_server.name", "*.custom_cls.name"), _name),
        (("reward.sandbox_fusion.url",), _url),
        (("data.custom_cls.path", "reward.custom_reward_function.path", "reward.reward_manager.module.path"), _path),
        (("*custom_async_server.path", "*agent_loop_config_path", "*tool_config_path", "*function_tool_path"), _path),
        (("*tokenizer_path", "data.tokenizer", "*hf_config_path", "*adapter_path", "*router_config_path"), _path),
        (("*quantization_config_file", "*quantization_config_path", "*model.model_path", "*.model_path"), _path),
        (("*record_file", "*replay_file", "*reward_model.model_path"), _path),
        (("*.strategy",), _one_of("fsdp", "fsdp2")),
        (("actor_rollout_ref.rollout.name", "reward.reward_model.rollout.name"), _one_of(*_ROLLOUTS)),
        (("*override_config.attn_implementation",), _one_of(*_ATTENTION)),
        (("*gpu_memory_utilization", "*.rollout.top_p", "*.val_kwargs.top_p"), _share),
        (("*batch_size", "*batch_size_per_gpu", "*max_token_len_per_gpu", "*.rollout.n", "*.val_kwargs.n"), _positive),
        (("data.max_length", "data.max_*_length", "*parallel_size", "*.ppo_epochs", "*.max_num_seqs"), _positive),
        (
            (
                "*.max_num_batched_tokens",
                "*.agent.num_workers",
                "reward.num_workers",
                "*.lora_alpha",
                "*.max_model_len",
            ),
            _positive,
        ),
        (("*.optim.lr", "optim.lr", "*num_workers", "*lora_rank", "*.temperature", "*.weight_decay"), _not_negative),
        (("*.clip_ratio*", "*.clip_grad", "*.grad_clip", "*_coef", "trainer.critic_warmup"), _not_negative),
    )
    for pattern in patterns
]
