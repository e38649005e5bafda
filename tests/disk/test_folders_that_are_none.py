"""Below a user's folder no link is followed, whoever opens what is there; and no file counts that has a second name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from argus_ray.core import paths
from argus_ray.core.observation import FilesSeen
from argus_ray.core.stall import MetricsSeen
from argus_ray.disk import attempt_files, beneath, checkpoints, logs, trash
from argus_ray.disk.beneath import Meaning
from tests.disk.test_checkpoints import save

NAME = "argus-ada-sft-20261126-120000-abcd--a01"
LINKED = ("users/ada", "users/ada/jobs", f"users/ada/jobs/{NAME}")


def job_root(shared: Path) -> str:
    return paths.job_root(str(shared), "ada", NAME)


def fill(root: str) -> None:
    Path(root, "logs").mkdir(parents=True)
    Path(paths.driver_log(root)).write_text("another user's log\n")
    Path(paths.start_marker(root)).write_text("{}")
    Path(paths.exit_record(root)).write_text('{"exit_code": 0}')
    Path(paths.metrics_file(root)).write_text("{}\n")
    save(Path(root), 5)


READERS: dict[str, Callable[[str], bool]] = {
    "the attempt's files": lambda root: attempt_files.look(root) != FilesSeen(),
    "its metrics": lambda root: attempt_files.metrics(root) != MetricsSeen(),
    "its log": lambda root: logs.read_tail(root, paths.driver_log(root), 9, 999).data != b"",
    "its checkpoints": lambda root: checkpoints.newest_complete([root], "sft", 2) is not None,
    "its size": lambda root: bool(trash.disk_bytes(root, trash.Budget(10**6, float("inf")), 10**6)),
}


def takes(reader: str, root: str) -> bool:
    try:
        return READERS[reader](root)
    except (logs.NotReadable, OSError) as error:
        assert isinstance(error, (logs.NotReadable, FileNotFoundError)), error
        return False


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A shared root whose whole content is elsewhere; `link` puts links to it."""
    fill(job_root(tmp_path / "real"))
    return tmp_path / "shared"


def link(shared: Path, linked: str) -> None:
    (shared / linked).parent.mkdir(parents=True)
    (shared / linked).symlink_to(shared.with_name("real") / linked)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_there_is_read(moved: Path, reader: str) -> None:
    assert takes(reader, job_root(moved.with_name("real")))


@pytest.mark.parametrize("linked", LINKED)
@pytest.mark.parametrize("reader", READERS)
def test_nothing_is_read_behind_a_link(moved: Path, reader: str, linked: str) -> None:
    link(moved, linked)
    assert Path(job_root(moved)).is_dir(), "it would be found by following the link"
    assert not takes(reader, job_root(moved))


@pytest.mark.parametrize("linked", LINKED)
def test_no_cancel_marker_is_written_behind_a_link(tmp_path: Path, linked: str) -> None:
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (shared / linked).parent.mkdir(parents=True)
    (shared / linked).symlink_to(elsewhere)
    with pytest.raises(OSError, match="no folder"):
        attempt_files.forbid_start(job_root(shared))
    assert list(elsewhere.iterdir()) == []


def test_users_itself_may_be_a_link(moved: Path) -> None:
    """It is the operator's, as all above it."""
    link(moved, "users")
    for reader in READERS:
        assert takes(reader, job_root(moved)), reader
    attempt_files.forbid_start(job_root(moved))
    assert Path(paths.cancel_marker(job_root(moved.with_name("real")))).exists()


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_what_the_scheduler_makes_has_the_modes_of_the_setting(tmp_path: Path, umask: int) -> None:
    (tmp_path / "users").mkdir()
    before = os.umask(0o077)
    try:
        attempt_files.forbid_start(job_root(tmp_path), umask)
    finally:
        os.umask(before)
    folders = {path.stat().st_mode & 0o777 for path in (tmp_path / "users").rglob("*") if path.is_dir()}
    marker = Path(paths.cancel_marker(job_root(tmp_path)))
    assert (folders, marker.stat().st_mode & 0o777) == ({0o777 & ~umask}, 0o666 & ~umask)


SECOND_NAMES: dict[str, Callable[[str], str]] = {
    "the attempt's files": paths.exit_record,
    "its metrics": paths.metrics_file,
    "its log": paths.driver_log,
}


@pytest.mark.parametrize("reader", SECOND_NAMES)
def test_a_hard_link_to_anothers_file_is_not_read(tmp_path: Path, reader: str) -> None:
    victim, root = job_root(tmp_path / "victim"), job_root(tmp_path / "shared")
    fill(victim)
    Path(root, "logs").mkdir(parents=True)
    name = SECOND_NAMES[reader]
    os.link(name(victim), name(root))
    assert not takes(reader, root)
    Path(name(victim)).unlink()
    assert takes(reader, root), "with one name it is the job root's own"


@pytest.mark.parametrize(
    "name", [paths.start_marker, paths.exit_record, paths.driver_log], ids=lambda name: name.__name__
)
def test_each_file_of_the_runners_with_a_second_name_counts_as_not_written(
    tmp_path: Path, name: Callable[[str], str]
) -> None:
    root = job_root(tmp_path)
    fill(root)
    whole = attempt_files.look(root)
    os.link(name(root), tmp_path / "second")
    seen = attempt_files.look(root)
    assert seen != whole and seen.has_metrics


def test_a_second_name_says_that_it_is_foreign(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    os.link(tmp_path / "a", tmp_path / "b")
    with (
        pytest.raises(OSError, match="more than one name") as refused,
        beneath.plain_file(str(tmp_path), "a", own=True),
    ):
        pass
    assert beneath.meaning(refused.value) is Meaning.FOREIGN
    with beneath.plain_file(str(tmp_path), "a"):
        pass


def test_a_file_that_was_deleted_while_it_was_open_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with beneath.plain_file(str(tmp_path), "a", own=True) as fd:
        (tmp_path / "a").unlink()
        assert os.read(fd, 9) == b"x"
