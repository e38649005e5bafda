"""What verl reads and leaves, by names and bytes."""

from __future__ import annotations

import io
import zipfile

import pytest

from argus_ray.core.verl import files
from argus_ray.core.verl.files import total_in_log


@pytest.mark.parametrize(
    ("workload", "columns", "missing"),
    [
        ("sft", ("messages", "id"), []),
        ("sft", ("prompt",), ["messages"]),
        ("ppo", ("reward_model", "prompt", "data_source"), []),
        ("grpo", ("prompt",), ["data_source", "reward_model"]),
    ],
)
def test_the_columns_that_a_workload_reads(workload: str, columns: tuple[str, ...], missing: list[str]) -> None:
    assert files.missing_columns(workload, columns) == missing


@pytest.mark.parametrize(
    ("path", "workload", "is_parquet", "word"),
    [
        ("/x/data", "sft", True, None),
        ("/x/data.json", "sft", False, "no Parquet file"),
        ("/x/data.json", "ppo", False, None),
        ("/x/data.jsonl", "grpo", False, None),
        ("/x/data", "grpo", True, "none of .parquet, .json and .jsonl"),
        ("/x/data.jsonl.gz", "grpo", False, "unpack it"),
    ],
)
def test_a_format_that_is_in_doubt(path: str, workload: str, is_parquet: bool, word: str | None) -> None:
    doubt = files.doubt_about_format(path, workload, is_parquet=is_parquet)
    assert doubt is None if word is None else word in (doubt or "")


@pytest.mark.parametrize("step", [1, 9, 10, 9_999_999_999])
def test_a_checkpoint_is_named_by_its_step(step: int) -> None:
    assert files.step_of(files.checkpoint_name(step)) == step


@pytest.mark.parametrize(
    "name", ["global_step_0", "global_step_01", "global_step_1.tmp", "argus_pruned_global_step_1", ""]
)
def test_another_name_has_no_step(name: str) -> None:
    assert files.step_of(name) is None


@pytest.mark.parametrize(
    ("workload", "folders", "count"),
    [("sft", [()], 8), ("grpo", [(), ("actor",)], 7), ("ppo", [(), ("actor",), ("critic",)], 13)],
)
def test_the_parts_of_a_checkpoint_on_two_processes(workload: str, folders: list[tuple[str, ...]], count: int) -> None:
    parts = list(files.checkpoint_parts(workload, 2))
    assert [folder for folder, _ in parts] == folders
    assert sum(len(names) for _, names in parts) == count


def test_a_whole_archive_has_both_its_ends() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 100)
    data = made.getvalue()

    def is_whole(content: bytes) -> bool:
        return files.is_whole_archive(content[: files.HEAD_BYTES], content[-files.END_BYTES :])

    assert is_whole(data)
    for torn in (data[:-1], data[:50], b"", b"\0" * len(data), data[:-30] + b"\0" * 30):
        assert not is_whole(torn)


def bar(description: str, done: int, total: int) -> bytes:
    """As verl's progress bars look in a log."""
    tqdm = pytest.importorskip("tqdm").tqdm
    out = io.StringIO()
    with tqdm(total=total, initial=done - 1, desc=description, file=out, mininterval=0) as shown:
        shown.update(1)
    return b"(TaskRunner pid=17) step:3 - train/loss:0.5\n" + out.getvalue().encode()


def test_total_steps_by_verls_progress_bars() -> None:
    assert total_in_log(bar("Training Progress", 3, 20)) == 20
    assert total_in_log(bar("Epoch 2/3", 7, 50)) == 150
    assert total_in_log(b"Epoch 1/2: nothing\nTraining Progress: soon\n") is None
    assert total_in_log(b"Training Progress: " + b"|" * 100_000) is None
