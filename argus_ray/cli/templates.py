"""Commented TaskSpecs to start from. `FOLDER` stands for the shared root of the service, which `template` cannot know;
it is `/private` unless the operator has chosen another."""

from __future__ import annotations

_HEAD = {
    "sft": """\
# Supervised fine-tuning with verl. Change what is marked with (*), then:
#   argus validate FILE && argus submit FILE --watch
workload: sft

# (*) The folder with verl, as your operator has laid it below
# FOLDER/common/.
code_path: FOLDER/common/code/verl
# (*) A model of the shared cache by its Hub id, or a folder below
# FOLDER/common/.
model_id: Qwen/Qwen2.5-0.5B-Instruct
# (*) Parquet files with a column `messages`: a list of {role, content}.
train_file: FOLDER/common/datasets/gsm8k-sft/train.parquet
val_file: FOLDER/common/datasets/gsm8k-sft/test.parquet
""",
    "grpo": """\
# GRPO with verl: several answers to each prompt, scored by a rule; no critic.
# Change what is marked with (*), then:
#   argus validate FILE && argus submit FILE --watch
workload: grpo

# (*) The folder with verl, as your operator has laid it below
# FOLDER/common/.
code_path: FOLDER/common/code/verl
# (*) A model of the shared cache by its Hub id, or a folder below
# FOLDER/common/.
model_id: Qwen/Qwen2.5-0.5B-Instruct
# (*) Parquet files with the columns `prompt`, `data_source` and `reward_model`
# with its `ground_truth`. `data_source` says which rule scores the answers.
train_file: FOLDER/common/datasets/gsm8k/train.parquet
val_file: FOLDER/common/datasets/gsm8k/test.parquet
""",
    "ppo": """\
# PPO with verl: a critic is trained beside the model, from the same weights.
# Change what is marked with (*), then:
#   argus validate FILE && argus submit FILE --watch
workload: ppo

# (*) The folder with verl, as your operator has laid it below
# FOLDER/common/.
code_path: FOLDER/common/code/verl
# (*) A model of the shared cache by its Hub id, or a folder below
# FOLDER/common/.
model_id: Qwen/Qwen2.5-0.5B-Instruct
# (*) Parquet files with the columns `prompt`, `data_source` and `reward_model`
# with its `ground_truth`. `data_source` says which rule scores the answers.
train_file: FOLDER/common/datasets/gsm8k/train.parquet
val_file: FOLDER/common/datasets/gsm8k/test.parquet
""",
}
_GPUS = {"sft": 1, "grpo": 4, "ppo": 4}
_TAIL = """\

# (*) The gang: so many machines with so many GPUs each. All of them start
# together.
nnodes: 1
n_gpus_per_node: {gpus}

# The run ends after the epochs, or after the steps if these are over first.
total_epochs: 1
# total_training_steps: 100

# Every so many steps: a checkpoint to resume from, and a validation. -1: none.
save_freq: {every}
test_freq: {every}

# cpu: a trial of a tiny model on machines without GPUs.
trainer_device: cuda
"""


def text_of(workload: str, shared_root: str) -> str:
    """The TaskSpec for `sft`, `grpo` or `ppo`."""
    tail = _TAIL.format(gpus=_GPUS[workload], every=100 if workload == "sft" else 20)
    return (_HEAD[workload] + tail).replace("FOLDER", shared_root.rstrip("/"))
