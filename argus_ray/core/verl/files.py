"""What verl 0.9 reads and leaves, as names and bytes: inputs, checkpoints, progress bars. Pure; it opens nothing.

Taken from verl's source (utils/checkpoint, utils/dataset, trainer/sft_trainer.py, trainer/ppo/v1), with the settings of
`command`. `disk` and the gateway look at the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# --- inputs ---

#: The columns of a data set. A reward without its ground truth would be worth nothing.
_COLUMNS = {
    "sft": ("messages",),
    "ppo": ("prompt", "data_source", "reward_model"),
    "grpo": ("prompt", "data_source", "reward_model"),
}
_JSON = (".json", ".jsonl")
#: Packed files, which `datasets` unpacks by their first bytes: gzip, zstd, xz, bzip2, zip, lz4.
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"PK\3\4", b"\x04\x22\x4d\x18")
_PACKED_ENDS = (".gz", ".zst", ".xz", ".bz2", ".zip", ".lz4")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: How many bytes of a data set's beginning tell whether it can be JSON.
MAX_FORMAT_BYTES = 1024


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
    rule = "ends in none of .parquet, .json and .jsonl, which verl goes by"
    if path.endswith(_PACKED_ENDS):
        return f"{rule}: unpack it"
    return rule


def rule_of_json(path: str, workload: str, begin: bytes) -> str | None:
    """The rule that a data set breaks which is named as JSON, for a workload that goes by the name, and begins with
    these bytes as no JSON of objects does; None if it may be some."""
    if workload == "sft" or not path.endswith(_JSON) or begin.startswith(_PACKED):
        return None
    text = begin.removeprefix(_BYTE_ORDER_MARK).lstrip()
    return None if text[:1] in (b"{", b"[", b"") else "is no JSON: it begins with neither { nor ["


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
    yield ("huggingface",), "config.json"


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
