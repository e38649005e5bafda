"""Models as they come in life: each is made on a disk, and what Argus says of it stands beside what transformers does.

`tests/disk/test_against_libraries.py` loads the same folders with transformers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from argus_ray.core.taskspec import parse
from argus_ray.disk import inputs
from argus_ray.disk.inputs import Findings
from tests.support.builders import make_inputs, safetensors_file, spec_yaml
from tests.support.odd_inputs import MODELS, OddModel, make_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_inputs(tmp_path)
    return tmp_path


def look(root: Path, model: Path | str) -> Findings:
    spec = parse(spec_yaml(root, model_id=str(model)), shared_root=str(root))
    return inputs.inspect_surely(spec, str(root))


@pytest.mark.parametrize("odd", MODELS, ids=lambda odd: odd.name)
def test_an_odd_model_is_named_before_it_fails_on_the_gpus(root: Path, odd: OddModel) -> None:
    folder = make_model(root / "common" / "models" / "odd")
    odd.make(folder)
    found = look(root, folder)
    assert {item.field for item in (*found.errors, *found.warnings)} <= {"model_id"}
    errors, warnings = [item.rule for item in found.errors], [item.rule for item in found.warnings]
    if odd.error:
        assert len(errors) == 1 and odd.error in errors[0], found
    else:
        assert errors == []
    if odd.warning:
        assert len([rule for rule in warnings if odd.warning in rule]) == 1, found
    if not odd.error and not odd.warning:
        assert found == Findings()


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


#: What stands in the place of a file, and how it is made.
THINGS: dict[str, Callable[[Path], object]] = {
    "a link to zeros": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a link to a pipe": link_to_a_pipe,
    "a folder": lambda path: path.mkdir(),
    "a socket": lambda path: os.mknod(path, 0o140600),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
}
PLACES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "shard.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "refs/main",
    "blobs",
    "snapshots",
)


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["path", "hub id"])
def test_what_is_no_file_is_named_and_not_read(root: Path, place: str, thing: str, way: str, reads: list[int]) -> None:
    hub = root / "common" / "hf" / "hub" / "models--org--odd"
    snapshot = make_model(hub / "snapshots" / "abc")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc")
    if place.startswith("shard"):
        index = '{"metadata": {}, "weight_map": {"w": "shard.safetensors"}}'
        (snapshot / "model.safetensors.index.json").write_text(index)
    if place != "model.safetensors" and not place.startswith(("config", "tok", "vocab", "refs", "blobs", "snap")):
        (snapshot / "model.safetensors").unlink()
    path = (hub if place in ("refs/main", "blobs", "snapshots") else snapshot) / place
    if path.is_dir():
        path.rename(root / "away")
    path.unlink(missing_ok=True)
    THINGS[thing](path)
    found = look(root, "org/odd" if way == "hub id" else snapshot)
    is_of_the_cache = place in ("refs/main", "blobs", "snapshots")
    if way == "hub id":
        assert found.errors == ()
        assert found.warnings or place == "blobs", "it is named"
    elif not is_of_the_cache:
        assert place in str(found), "it is named"
    assert sum(reads) < 64 * 1024, "no more than some KiB are read"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each read has asked for and got."""
    sizes: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        got = pread(fd, size, offset)
        sizes.append(len(got))
        return got

    monkeypatch.setattr(os, "pread", counted)
    return sizes


def test_a_look_at_many_files_opens_few(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs at each submission, on a filesystem that is far away."""
    folder = make_model(root / "common" / "models" / "large")
    (folder / "model.safetensors").unlink()
    shards = [f"model-{i:05d}-of-02000.safetensors" for i in range(2000)]
    for shard in shards:
        (folder / shard).write_bytes(safetensors_file(2000))
    weights = ", ".join(f'"{i}": "{shard}"' for i, shard in enumerate(shards))
    (folder / "model.safetensors.index.json").write_text(f'{{"metadata": {{}}, "weight_map": {{{weights}}}}}')
    opened: list[str] = []
    stats: list[str] = []
    real_open, real_stat = os.open, os.stat

    def counted(path: str, *rest: object, **more: object) -> int:
        opened.append(str(path))
        return real_open(path, *rest, **more)  # type: ignore[arg-type]

    def counted_stat(path: str, *rest: object, **more: object) -> os.stat_result:
        stats.append(str(path))
        return real_stat(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", counted)
    monkeypatch.setattr(os, "stat", counted_stat)
    assert look(root, folder) == Findings()
    of_model = [path for path in opened if path.startswith(str(folder))]
    assert len(of_model) <= 12, of_model
    assert len([path for path in stats if path.startswith(str(folder))]) <= 270


def test_a_config_that_is_nested_deeply_or_is_huge_costs_little(root: Path, reads: list[int]) -> None:
    folder = make_model(root / "common" / "models" / "deep")
    (folder / "config.json").write_text('{"a":' * 100_000)
    assert "no JSON object" in look(root, folder).errors[0].rule
    with (folder / "config.json").open("wb") as file:
        file.truncate(2**40)
    reads.clear()
    found = look(root, folder)
    assert found.errors == () and "was not looked at" in found.warnings[0].rule
    assert sum(reads) < 64 * 1024
    make_model(folder, over=True)
    index = folder / "model.safetensors.index.json"
    (folder / "model.safetensors").unlink()
    index.write_text("[" * 100_000)
    assert "index that cannot be read" in look(root, folder).errors[0].rule
    with index.open("wb") as file:
        file.truncate(2**40)
    found = look(root, folder)
    assert found.errors == () and "was not looked at" in found.warnings[0].rule


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_a_header_that_lies_about_its_length_is_not_read(root: Path, length: int, reads: list[int]) -> None:
    folder = make_model(root / "common" / "models" / "liar")
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{" + b"x" * 100_000)
    [error] = look(root, folder).errors
    assert "model.safetensors" in error.rule and "is no safetensors file" in error.rule
    assert sum(reads) < 64 * 1024


def test_a_shard_that_leads_out_of_the_inputs_is_an_error_and_is_not_looked_at(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "w.safetensors").write_bytes(b"not looked at")
    folder = make_model(root / "common" / "models" / "out")
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    up = "/".join([".."] * len(folder.parts))
    for name in (f"{elsewhere}/w.safetensors", f"{up}{elsewhere}/w.safetensors"):
        index.write_text(f'{{"metadata": {{}}, "weight_map": {{"w": "{name}"}}}}')
        assert "leads out of" in look(root, folder).errors[0].rule
    index.unlink()
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(elsewhere / "w.safetensors")
        rule = look(root, folder).errors[0].rule
        assert f"has a {name} that leads out of" in rule and "not looked at" not in rule


def test_a_cache_whose_download_has_not_ended_says_so(root: Path) -> None:
    hub = root / "common" / "hf" / "hub" / "models--org--half"
    snapshot = hub / "snapshots" / "abc"
    for folder in (snapshot, hub / "refs", hub / "blobs"):
        folder.mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    (hub / "blobs" / "1f.incomplete").touch()
    [warning] = look(root, "org/half").warnings
    assert "holds no config.json" in warning.rule and "begun and not ended" in warning.rule
    (hub / "blobs" / "c").write_bytes((make_model(root / "common" / "m") / "config.json").read_bytes())
    (snapshot / "config.json").symlink_to("../../blobs/c")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1f")
    [warning] = look(root, "org/half").warnings
    assert "model.safetensors that does not exist" in warning.rule and "begun and not ended" in warning.rule
