"""By the sentinel a root of ours is told from a bare mount point, and a lost file from one that never was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from argus_ray.core import paths
from argus_ray.discovery import epoch, head_json, sentinel
from argus_ray.discovery.epoch import EpochUnknown, HeadClaim
from argus_ray.discovery.sentinel import DATABASE, EPOCH, RootUnknown

CLAIM = HeadClaim(0, "host-a", "10.0.0.1", 6379)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return head_json.folder(str(tmp_path), "argus")


def everything_below(root: Path) -> list[Path]:
    return sorted(root.rglob("*"))


def test_it_lies_where_the_others_are(folder: Path, tmp_path: Path) -> None:
    assert str(sentinel.database_of(folder)) == paths.database_path(str(tmp_path), "argus")
    assert sentinel.path_in(folder).parent == epoch.path_in(folder).parent


def test_on_a_bare_root_nothing_is_known_and_nothing_is_made(folder: Path, tmp_path: Path) -> None:
    for ask in (sentinel.read, sentinel.adopt):
        with pytest.raises(RootUnknown, match=r"is not mounted, or Argus was never started on it .*--init"):
            ask(folder)
    with pytest.raises(RootUnknown):
        sentinel.note(folder, DATABASE)
    assert not sentinel.has_held(folder, EPOCH)
    assert everything_below(tmp_path) == []


def test_a_first_start_is_made_once(folder: Path) -> None:
    first = sentinel.begin(folder)
    assert first == sentinel.begin(folder) == sentinel.read(folder) == sentinel.adopt(folder)
    assert first.holds == frozenset() and sentinel.path_in(folder).stat().st_mode & 0o777 == 0o644


def test_two_roots_of_one_name_are_told_apart(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in "ab"]
    for root in roots:
        root.mkdir()
    assert len({sentinel.begin(head_json.folder(str(root), "argus")).id for root in roots}) == 2


def test_no_root_is_made_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(RootUnknown, match="is it mounted"):
        sentinel.begin(head_json.folder(str(tmp_path / "gone"), "argus"))
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("held", [{DATABASE}, {EPOCH}, {DATABASE, EPOCH}])
def test_a_root_of_an_earlier_version_is_taken_over(folder: Path, held: set[str]) -> None:
    for path in (sentinel.database_of(folder), epoch.path_in(folder)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name in held:
            path.touch()
    assert sentinel.adopt(folder).holds == held
    assert sentinel.read(folder) == sentinel.adopt(folder)


def test_what_a_root_has_held_is_noted_for_good(folder: Path) -> None:
    first = sentinel.begin(folder)
    for name in (DATABASE, EPOCH, DATABASE):
        sentinel.note(folder, name)
    assert sentinel.read(folder) == sentinel.Sentinel(first.id, frozenset({DATABASE, EPOCH}))
    assert sentinel.begin(folder) == sentinel.read(folder)


def test_a_name_of_a_root_of_another_cluster_is_refused(folder: Path) -> None:
    sentinel.begin(folder)
    other = folder.with_name("other")
    other.mkdir()
    sentinel.path_in(other).write_bytes(sentinel.path_in(folder).read_bytes())
    with pytest.raises(RootUnknown, match="'argus'"):
        sentinel.read(other)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"{}", b'{"cluster": "argus"}', b"[" * 100_000, b"\xff"]
)
def test_a_damaged_one_is_unknown_and_left_for_people_to_look_at(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    sentinel.path_in(folder).write_bytes(content)
    for ask in (sentinel.read, sentinel.adopt, sentinel.begin):
        with pytest.raises(RootUnknown, match="cannot be used"):
            ask(folder)
    with pytest.raises(EpochUnknown):
        epoch.current(folder)
    assert sentinel.path_in(folder).read_bytes() == content


def test_one_cut_anywhere_is_unknown(folder: Path) -> None:
    sentinel.begin(folder)
    whole = sentinel.path_in(folder).read_bytes().rstrip()
    for length in range(len(whole)):
        sentinel.path_in(folder).write_bytes(whole[:length])
        with pytest.raises(RootUnknown):
            sentinel.read(folder)


def test_an_epoch_that_was_there_is_unknown_and_does_not_begin_anew(folder: Path) -> None:
    sentinel.begin(folder)
    assert epoch.current(folder) is None, "there was none yet"
    for _ in range(3):
        epoch.take(folder, CLAIM)
    lost = epoch.path_in(folder).read_bytes()
    epoch.path_in(folder).unlink()
    with pytest.raises(EpochUnknown):
        epoch.current(folder)
    with pytest.raises(EpochUnknown):
        epoch.check(folder, 3)
    with pytest.raises(EpochUnknown):
        epoch.take(folder, CLAIM)
    assert not epoch.path_in(folder).exists()
    epoch.path_in(folder).write_bytes(lost)
    assert epoch.take(folder, CLAIM).epoch == 4


def test_on_a_bare_mount_point_nobody_makes_the_folder_of_head_json(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), epoch.writing(folder):
        pass
    assert everything_below(tmp_path) == []


def test_the_file_is_what_the_documents_say(folder: Path) -> None:
    made = sentinel.begin(folder)
    sentinel.note(folder, EPOCH)
    found = json.loads(sentinel.path_in(folder).read_bytes())
    assert found == {"cluster": "argus", "id": made.id, "holds": ["epoch.json"]}
