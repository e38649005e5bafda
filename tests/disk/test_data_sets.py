"""Data sets as they come in life. `test_against_libraries.py` has pandas and datasets read the same files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from argus_ray.core.taskspec import parse
from argus_ray.disk import inputs
from argus_ray.disk.inputs import Findings
from tests.support.builders import make_inputs, parquet_file, spec_yaml
from tests.support.odd_data import DATA, OddData


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_inputs(tmp_path)
    return tmp_path


def look(root: Path, workload: str, path: Path) -> Findings:
    spec = parse(spec_yaml(root, workload=workload, train_file=str(path), val_file=str(path)), shared_root=str(root))
    return inputs.inspect_surely(spec, str(root))


@pytest.mark.parametrize("odd", DATA, ids=lambda odd: odd.id)
def test_odd_data_is_named_before_it_fails_on_the_gpus(root: Path, odd: OddData) -> None:
    path = root / "common" / odd.name
    odd.make(path)
    found = look(root, odd.workload, path)
    errors, warnings = [item.rule for item in found.errors], [item.rule for item in found.warnings]
    for kind, words in ((errors, odd.error), (warnings, odd.warning)):
        # The validation data is the same file, which is all right, so each thing is said twice.
        assert len(kind) == (2 if words else 0) and all(words in rule for rule in kind), found


def test_a_folder_of_many_files_is_looked_at_in_part_and_says_so(root: Path) -> None:
    folder = root / "common" / "many"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:03d}.parquet").write_bytes(parquet_file("messages"))
    found = look(root, "sft", folder)
    assert found.errors == () and "8 of its 20 files" in found.warnings[0].rule


def test_a_file_of_a_folder_that_leads_out_is_an_error(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.parquet"
    elsewhere.write_bytes(parquet_file("messages"))
    folder = root / "common" / "folder"
    folder.mkdir()
    (folder / "a.parquet").symlink_to(elsewhere)
    assert "leads out of" in look(root, "sft", folder).errors[0].rule


def test_a_link_that_leads_out_is_found_behind_the_files_that_are_looked_into(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """pandas reads all files of the folder, also those of which no part is looked at here."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.parquet"
    elsewhere.write_bytes(parquet_file("messages"))
    folder = root / "common" / "many"
    folder.mkdir()
    for number in range(19):
        (folder / f"{number:03d}.parquet").write_bytes(parquet_file("messages"))
    (folder / "019.parquet").symlink_to(elsewhere)
    (error, _) = look(root, "sft", folder).errors
    assert "a file 019.parquet that leads out of" in error.rule


def test_a_packed_file_by_the_name_of_json_is_read_by_its_bytes(root: Path) -> None:
    path = root / "common" / "rows.jsonl"
    path.write_bytes(gzip.compress(b'{"prompt": "x"}\n'))
    assert look(root, "grpo", path) == Findings()
