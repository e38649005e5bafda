"""What verl 0.9 reads and leaves, as names and bytes: inputs, checkpoints, progress bars. Pure; it opens nothing.

Taken from verl's source (utils/checkpoint, utils/dataset, trainer/sft_trainer.py, trainer/ppo/v1), with the settings of
`command`. `disk` and the gateway look at the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set

# --- inputs ---

#: The columns of a data set. A reward without its ground truth would be worth nothing.
_COLUMNS = {
    "sft": ("messages",),
    "ppo": ("prompt", "data_source", "reward_model"),
    "grpo": ("prompt", "data_source", "reward_model"),
}
_JSON = (".json", ".jsonl")
#: What transformers needs to load a model from a folder.
MODEL_CONFIG = "config.json"
_WEIGHTS = (".safetensors", ".bin")
#: Its names for all weights in one file; for several, an index tells their names.
_WHOLE_WEIGHTS = frozenset({"model.safetensors", "pytorch_model.bin"})
_INDEXES = (".safetensors.index.json", ".bin.index.json")


def missing_columns(workload: str, columns: Iterable[str]) -> list[str]:
    """Those that the workload reads and a data set with these columns lacks."""
    there = set(columns)
    return [name for name in _COLUMNS[workload] if name not in there]


def doubt_about_format(path: str, workload: str, *, is_parquet: bool) -> str | None:
    """What makes it doubtful that verl can read a data set that is not named `*.parquet`; None if nothing does.

    verl's sft reads Parquet, whatever the name; its ppo and grpo go by the name.
    """
    if workload == "sft":
        return None if is_parquet else "is no Parquet file, and verl's sft reads nothing else"
    if path.endswith(_JSON):
        return None
    return "ends in none of .parquet, .json and .jsonl, which verl goes by"


def weight_indexes(names: Set[str]) -> list[str]:
    """The names in a model's folder that are indexes of its weights: JSON with a `weight_map` from weight to file."""
    return sorted(name for name in names if name.endswith(_INDEXES))


def has_whole_weights(names: Set[str]) -> bool:
    """Whether a model's folder has a file with all weights."""
    return bool(names & _WHOLE_WEIGHTS)


def has_weights(names: Set[str]) -> bool:
    return any(name.endswith(_WEIGHTS) for name in names)


# --- checkpoints ---

#: verl takes the step out of the folder's name, and saves nothing before the first step.
_CHECKPOINT = re.compile(r"global_step_([1-9][0-9]{0,9})")
#: What each process of verl's FSDP saves of a model.
_SHARD = ("model", "optim", "extra_state")
#: The first bytes of a zip; the first ones of its end, and the last ones.
_LOCAL_HEADER, _END_OF_DIRECTORY, _NO_COMMENT = b"PK\3\4", b"PK\5\6", b"\0\0"
#: How many bytes of a file `is_whole_archive` wants of its beginning, and of its end.
HEAD_BYTES, END_BYTES = 4, 22


def checkpoint_name(step: int) -> str:
    return f"global_step_{step}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint's folder by its name; None for another name."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def checkpoint_parts(workload: str, world_size: int) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The folders of one checkpoint, as a way below it, and what verl loads from each on so many processes. Where a
    data loader's state is missing it only warns, and would train again on what it has seen; but then the save was cut
    short."""
    ranks = range(world_size)
    shards = [f"{what}_world_size_{world_size}_rank_{rank}.pt" for rank in ranks for what in _SHARD]
    if workload == "sft":
        yield (), [*shards, *(f"data_{rank}.pt" for rank in ranks)]
        return
    yield (), ["data.pt"]
    yield ("actor",), shards
    if workload == "ppo":
        yield ("critic",), shards


def model_folder(workload: str, part: str) -> tuple[str, ...]:
    """The way below a checkpoint to the folder of one model's shards. `part`: actor or critic."""
    return () if workload == "sft" else (part,)


def merger_files() -> Iterator[tuple[tuple[str, ...], str]]:
    """What verl's model merger reads beside the shards, as a way below their folder and a name."""
    yield (), "fsdp_config.json"
    yield ("huggingface",), MODEL_CONFIG


def is_whole_archive(head: bytes, end: bytes) -> bool:
    """Whether torch has saved a file with this beginning and end as a whole: a zip with both its ends. torch writes the
    archive's directory last, and no comment after it."""
    return head == _LOCAL_HEADER and end.startswith(_END_OF_DIRECTORY) and end.endswith(_NO_COMMENT)


# --- the log ---

#: verl's progress bars: of the run (ppo, grpo), and of each epoch (sft).
_RUN_BAR = re.compile(rb"Training Progress:[^\r\n]{0,300}?\| *\d{1,9}/(\d{1,9}) \[")
_EPOCH_BAR = re.compile(rb"Epoch \d{1,9}/(\d{1,9}):[^\r\n]{0,300}?\| *\d{1,9}/(\d{1,9}) \[")


def total_in_log(data: bytes) -> int | None:
    """Steps of the whole run by verl's own progress bar, if there is one in this part of the log."""
    if runs := _RUN_BAR.findall(data):
        return int(runs[-1])
    if epochs := _EPOCH_BAR.findall(data):
        count, steps = epochs[-1]
        return int(count) * int(steps)
    return None
