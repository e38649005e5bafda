"""What is found by looking at the inputs, on real files; and that a disk in trouble is never the user's error."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.errors import FieldError
from argus_ray.core.taskspec import TaskSpec, parse
from argus_ray.disk import inputs
from argus_ray.disk.inputs import Findings, Preflight, inspect
from argus_ray.disk.threads import BoundedThreads
from tests.support.builders import MODEL_FILES, make_inputs, parquet_file, safetensors_file, spec_yaml


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_inputs(tmp_path)
    return tmp_path


def spec_of(root: Path, **fields: Any) -> TaskSpec:
    return parse(spec_yaml(root, **fields), shared_root=str(root))


def look(root: Path, **fields: Any) -> Findings:
    return inspect(spec_of(root, **fields), str(root))


def rules(found: tuple[FieldError, ...]) -> dict[str, str]:
    return {item.field: item.rule for item in found}


def test_inputs_that_are_well_leave_nothing_to_say(root: Path) -> None:
    assert look(root) == Findings()
    for workload in ("ppo", "grpo"):
        data = str(root / "common" / "datasets" / "gsm8k" / "rl.parquet")
        assert look(root, workload=workload, train_file=data, val_file=data) == Findings()


def test_everything_that_is_missing_comes_in_one_answer(root: Path) -> None:
    gone = str(root / "common" / "gone")
    found = look(root, code_path=gone, model_id=gone, train_file=gone, val_file=gone)
    assert rules(found.errors) == dict.fromkeys(("code_path", "model_id", "train_file", "val_file"), "does not exist")
    assert found.warnings == ()


def bound_socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")  # a socket's path must be short
    os.close(folder)


def data_cases() -> dict[str, tuple[str, Callable[[Path], object], str]]:
    """Name -> (workload, what makes the file, words of the error)."""
    whole = parquet_file("messages")
    return {
        "empty.parquet": ("sft", lambda p: p.write_bytes(b""), "is empty"),
        "text.parquet": ("sft", lambda p: p.write_text("{}" * 50), "PAR1"),
        "short.parquet": ("sft", lambda p: p.write_bytes(b"PAR1PAR1"), "PAR1"),
        "cut.parquet": ("sft", lambda p: p.write_bytes(whole[:-20]), "PAR1"),
        "no_beginning.parquet": ("sft", lambda p: p.write_bytes(whole[50:]), "PAR1"),
        "footer.parquet": ("sft", lambda p: p.write_bytes(b"PAR1" + b"\x07" * 400 + b"PAR1"), "footer does not fit"),
        "columns.parquet": ("sft", lambda p: p.write_bytes(parquet_file("prompt")), "the column messages"),
        "one_column.parquet": (
            "grpo",
            lambda p: p.write_bytes(parquet_file("prompt")),
            "the columns data_source, reward_model",
        ),
        "no_rows.parquet": ("sft", lambda p: p.write_bytes(parquet_file("messages", rows=0)), "no rows"),
        "folder.parquet": ("ppo", lambda p: p.mkdir(), "is a folder"),
        "pipe.parquet": ("sft", lambda p: os.mkfifo(p), "no plain file"),
        "socket.parquet": ("sft", bound_socket, "no plain file"),
        "link.parquet": ("sft", lambda p: p.symlink_to("nowhere"), "does not exist"),
    }


@pytest.mark.parametrize("name", data_cases())
def test_a_data_set_that_no_verl_can_read_is_an_error(root: Path, name: str) -> None:
    workload, make, words = data_cases()[name]
    path = root / "common" / name
    make(path)
    found = look(root, workload=workload, train_file=str(path))
    assert words in rules(found.errors)["train_file"], found


@pytest.mark.parametrize(
    ("workload", "name", "words"),
    [
        ("sft", "plan.json", "no Parquet file"),
        ("grpo", "plan.json", None),
        ("ppo", "plan.jsonl", None),
        ("grpo", "plan.txt", "none of .parquet, .json and .jsonl"),
        ("sft", "folder", "is a folder with the folder"),
    ],
)
def test_what_depends_on_the_verl_that_reads_it_is_a_warning(
    root: Path, workload: str, name: str, words: str | None
) -> None:
    path = root / "common" / name
    (path / "below").mkdir(parents=True) if name == "folder" else path.write_text("{}")
    found = look(root, workload=workload, train_file=str(path), val_file=str(path))
    assert found.errors == ()
    if words is None:
        assert found.warnings == ()
    else:
        assert all(words in rules(found.warnings)[name] for name in ("train_file", "val_file"))


def test_a_footer_that_we_cannot_read_is_no_error(root: Path) -> None:
    path = root / "common" / "odd.parquet"
    path.write_bytes(b"PAR1" + b"\xff" * 40 + (40).to_bytes(4, "little") + b"PAR1")
    found = look(root, train_file=str(path))
    assert found.errors == () and "columns were not checked" in rules(found.warnings)["train_file"]


def model(root: Path, *names: str) -> Path:
    folder = root / "common" / "models" / "mine"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(MODEL_FILES[name])
    return folder


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "no config.json"),
        (("model.safetensors",), "no config.json"),
        (("config.json", "tokenizer.json"), "no weights"),
        (("config.json", "model.safetensors", "tokenizer.json"), None),
        (("config.json", "pytorch_model.bin", "tokenizer.json"), None),
    ],
)
def test_a_model_folder_holds_a_config_and_weights(root: Path, names: tuple[str, ...], words: str | None) -> None:
    found = look(root, model_id=str(model(root, *names)))
    assert ["torch 2.6" in item.rule for item in found.warnings] == [True] * ("pytorch_model.bin" in names)
    assert rules(found.errors) == {} if words is None else words in rules(found.errors)["model_id"]


def test_a_download_that_is_not_complete_is_an_error(root: Path) -> None:
    shards = [f"model-{i:05d}-of-00006.safetensors" for i in range(1, 7)]
    folder = model(root, "config.json", "tokenizer.json")
    (folder / shards[0]).write_bytes(safetensors_file())
    index = folder / "model.safetensors.index.json"
    layers = {f"layer{i}": shard for i, shard in enumerate(shards)}
    index.write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": layers}))
    rule = rules(look(root, model_id=str(folder)).errors)["model_id"]
    assert shards[1] in rule and "and 2 more" in rule
    (folder / "model.safetensors").write_bytes(safetensors_file())
    assert look(root, model_id=str(folder)) == Findings(), "transformers takes what is whole"
    (folder / "model.safetensors").unlink()
    for shard in shards:
        (folder / shard).write_bytes(safetensors_file())
    assert look(root, model_id=str(folder)) == Findings()
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"layer": "half-\ud800\0.safetensors"}}))
    assert rules(look(root, model_id=str(folder)).errors)["model_id"].endswith("half-??.safetensors")
    index.write_text("[]")
    assert "index" in rules(look(root, model_id=str(folder)).errors)["model_id"]


def test_a_model_that_is_a_file_is_an_error(root: Path) -> None:
    path = root / "common" / "model"
    path.touch()
    assert rules(look(root, model_id=str(path), code_path=str(path)).errors) == {
        "model_id": "is no folder",
        "code_path": "is no folder",
    }


def test_a_hub_id_that_is_not_in_the_cache_is_a_warning(root: Path) -> None:
    found = look(root, model_id="someone/else")
    assert found.errors == () and "not in the shared cache" in rules(found.warnings)["model_id"]
    hub = root / "common" / "hf" / "hub" / "models--someone--else"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("0123abc")
    assert "not in the shared cache" in rules(look(root, model_id="someone/else").warnings)["model_id"]
    (hub / "snapshots" / "0123abc").mkdir(parents=True)
    assert "snapshot holds no config.json" in rules(look(root, model_id="someone/else").warnings)["model_id"]
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (hub / "snapshots" / "0123abc" / name).write_bytes(MODEL_FILES[name])
    assert look(root, model_id="someone/else") == Findings()


def test_code_without_a_verl_is_a_warning(root: Path) -> None:
    (root / "common" / "code" / "none").mkdir()
    found = look(root, code_path=str(root / "common" / "code" / "none"))
    assert found.errors == () and "installed on the workers" in rules(found.warnings)["code_path"]


@pytest.mark.parametrize("name", ["secrets.py", "selectors.py", "queue.py", "json.py", "ray.py", "json.cpython-311.so"])
def test_code_with_the_name_of_a_module_that_comes_first_is_a_warning(root: Path, name: str) -> None:
    code = root / "common" / "code" / "shadows"
    (code / "verl").mkdir(parents=True)
    for harmless in ("README.md", "queue.md", "my_queue.py", "test.py", "setup.py"):
        (code / harmless).touch()
    for folder in ("docs", "json", "tests", "email"):  # no packages
        (code / folder).mkdir()
    assert look(root, code_path=str(code)) == Findings()
    (code / name).touch()
    (code / "email" / "__init__.py").touch()
    told = rules(look(root, code_path=str(code)).warnings)["code_path"]
    assert ", ".join(sorted((name, "email"))) in told and "Rename" in told and "verl" not in told
    assert look(root, code_path=str(code)).errors == ()


def test_many_hidden_files_are_told_in_few_words(root: Path) -> None:
    code = root / "common" / "code" / "shadows"
    code.mkdir()
    for name in sorted(sys.stdlib_module_names):
        (code / f"{name}.py").touch()
    told = rules(look(root, code_path=str(code)).warnings)["code_path"]
    assert "holds no folder verl" in told and f"and {len(sys.stdlib_module_names) - 5} more" in told
    assert len(told) < 500


def test_a_path_through_a_file_leads_nowhere(root: Path) -> None:
    path = str(root / "common" / "file" / "x.parquet")
    (root / "common" / "file").touch()
    assert rules(look(root, model_id=path, train_file=path).errors) == dict.fromkeys(
        ("model_id", "train_file"), "leads through something that is no folder"
    )


def test_an_input_may_be_a_link(root: Path) -> None:
    data, weights = root / "common" / "train.parquet", root / "common" / "model"
    data.symlink_to(spec_of(root).train_file)
    weights.symlink_to(model(root, "config.json", "model.safetensors", "tokenizer.json"))
    assert look(root, train_file=str(data), model_id=str(weights)) == Findings()


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ETIMEDOUT, errno.EPERM, errno.ELOOP]
)
def test_a_disk_in_trouble_is_never_an_error(root: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    spec = spec_of(root)
    for name in ("open", "stat", "scandir"):
        monkeypatch.setattr(os, name, fails)
    found = inspect(spec, str(root))
    assert found.errors == ()
    assert set(rules(found.warnings)) >= {"code_path", "train_file", "val_file"}
    assert os.strerror(number) in rules(found.warnings)["train_file"]


def test_a_disk_that_hangs_is_never_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(inputs, "inspect", lambda *_: release.wait(120))
    spec = spec_of(root)

    async def all_at_once() -> list[Findings]:
        looks = Preflight(BoundedThreads("preflight-test", 1), 0.2, str(root))
        return await asyncio.wait_for(asyncio.gather(*(looks.look(spec) for _ in range(3))), 60)

    try:
        for found in asyncio.run(all_at_once()):
            assert found.errors == () and "does not answer" in found.warnings[0].rule
    finally:
        release.set()


def look_surely(root: Path, **fields: Any) -> Findings:
    return inputs.inspect_surely(spec_of(root, **fields), str(root))


ROOT_IN_TROUBLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda p: None, "No such file"),
    "a bare mount point": (lambda p: p.mkdir(), "is its filesystem mounted?"),
    "a file": (lambda p: p.touch(), "Not a directory"),
    "a link to nowhere": (lambda p: p.symlink_to("nowhere"), "No such file"),
}


@pytest.mark.parametrize("what", ROOT_IN_TROUBLE)
def test_what_is_missing_below_a_root_without_life_is_unknown(root: Path, what: str) -> None:
    put, why = ROOT_IN_TROUBLE[what]
    common = root / "common"
    common.rename(root / "away")
    put(common)
    found = look_surely(root)
    assert found.errors == () and str(common) in found.unknown and why in found.unknown


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN])
def test_a_root_that_cannot_be_read_proves_nothing(root: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOENT of what lies below, as a mount that is just going may say."""
    scandir = os.scandir

    def fails(path: Any) -> Any:
        if path == f"{root}/common":
            raise OSError(number, os.strerror(number))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fails)
    found = look_surely(root, train_file=f"{root}/common/gone")
    assert found.errors == () and os.strerror(number) in found.unknown


def test_what_is_missing_below_a_root_that_lives_is_missing(root: Path) -> None:
    found = look_surely(root, train_file=f"{root}/common/gone")
    assert rules(found.errors) == {"train_file": "does not exist"} and found.unknown == ""


def test_a_root_that_comes_back_between_two_looks_is_an_error_of_nobody(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common, away = root / "common", root / "away"
    looks: list[Findings] = []

    def inspect_and_mount(spec: TaskSpec, shared_root: str, _: object) -> Findings:
        looks.append(inspect(spec, shared_root))
        if away.exists():
            away.rename(common)
        return looks[-1]

    common.rename(away)
    monkeypatch.setattr(inputs, "inspect", inspect_and_mount)
    assert look_surely(root) == Findings()
    assert [bool(found.errors) for found in looks] == [True, False]


def test_a_root_that_goes_during_the_second_look_is_unknown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unmount_and_inspect(spec: TaskSpec, shared_root: str, _: object) -> Findings:
        looks.append(spec)
        if len(looks) == 2:
            (root / "common").rename(root / "away")
        return inspect(spec, shared_root)

    looks: list[TaskSpec] = []
    monkeypatch.setattr(inputs, "inspect", unmount_and_inspect)
    found = look_surely(root, train_file=f"{root}/common/gone")
    assert len(looks) == 2 and found.errors == () and found.unknown


def test_what_a_link_leads_out_to_is_an_error_and_is_not_looked_at(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    common = root / "common"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "pipe").touch()
    (common / "out").symlink_to(elsewhere)
    (common / "inside").symlink_to(common / "datasets")
    fields = dict.fromkeys(("code_path", "model_id", "train_file", "val_file"), f"{common}/out/not-there")
    found = look(root, **fields)
    assert set(rules(found.errors)) == set(fields)
    assert all("symbolic link" in rule for rule in rules(found.errors).values())
    assert look(root, train_file=f"{common}/inside/gsm8k/train.parquet") == Findings()
