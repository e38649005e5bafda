"""The files between the scheduler and the runner: missing, torn, foreign and hostile ones."""

from __future__ import annotations

import errno
import importlib.util
import marshal
import os
import tempfile
from pathlib import Path

import pytest

from argus_ray.core import paths
from argus_ray.core.observation import ExitRecord, FilesSeen
from argus_ray.core.stall import MetricsSeen
from argus_ray.disk import attempt_files, payload


def test_nothing_written_yet(tmp_path: Path) -> None:
    assert attempt_files.look(str(tmp_path / "none")) == FilesSeen()


def test_what_the_runner_wrote(tmp_path: Path) -> None:
    root = str(tmp_path)
    (tmp_path / "logs").mkdir()
    Path(paths.start_marker(root)).write_text("{}")
    Path(paths.exit_record(root)).write_text('{"exit_code": 143, "signal": 15}')
    Path(paths.driver_log(root)).write_bytes(b"line\xff\n")
    seen = attempt_files.look(root)
    assert seen == FilesSeen(True, ExitRecord(143, 15), "line�\n")


def test_whether_verl_has_made_a_step_is_seen_in_its_metrics(tmp_path: Path) -> None:
    file = Path(paths.metrics_file(str(tmp_path)))
    file.write_bytes(b"")  # verl opens it before its first step
    assert not attempt_files.look(str(tmp_path)).has_metrics
    file.write_text('{"step": 1, "data": {}}\n')
    assert attempt_files.look(str(tmp_path)).has_metrics


def test_the_metrics_file_is_measured(tmp_path: Path) -> None:
    file = Path(paths.metrics_file(str(tmp_path)))
    assert attempt_files.metrics(str(tmp_path)) == attempt_files.metrics(str(tmp_path / "none")) == MetricsSeen()
    file.write_text("{}\n")
    os.utime(file, (5.0, 7.0))
    assert attempt_files.metrics(str(tmp_path)) == MetricsSeen(3, 7.0)


def test_a_metrics_file_that_is_none_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * 100)
    for make in (
        lambda path: path.symlink_to(tmp_path / "long"),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
    ):
        root = Path(tempfile.mkdtemp(dir=tmp_path))
        make(Path(paths.metrics_file(str(root))))
        assert attempt_files.metrics(str(root)) == MetricsSeen()
    (tmp_path / "link").symlink_to(tmp_path)
    Path(paths.metrics_file(str(tmp_path))).write_text("x")
    assert attempt_files.metrics(str(tmp_path / "link")) == MetricsSeen()


def test_a_disk_that_fails_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(OSError, match="Input/output"):
        attempt_files.metrics(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"exit_code": 99999999999999999999}',
        '{"exit_code": -1}',
        '{"exit_code": "0"}',
        '{"exit_code": 0, "signal": "TERM"}',
        "null",
    ],
)
def test_a_torn_or_foreign_record_is_none(tmp_path: Path, content: str) -> None:
    Path(paths.exit_record(str(tmp_path))).write_text(content)
    assert attempt_files.look(str(tmp_path)).exit is None


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    Path(paths.driver_log(str(tmp_path))).write_bytes(b"x" * 10_000_000 + b"the end")
    tail = attempt_files.look(str(tmp_path)).log_tail
    assert tail.endswith("the end") and len(tail) == attempt_files.TAIL_BYTES


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("another user's log")
    root = tmp_path / "job"
    (root / "logs").mkdir(parents=True)
    Path(paths.driver_log(str(root))).symlink_to(secret)
    assert attempt_files.look(str(root)).log_tail == ""


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    import os

    os.mkfifo(paths.exit_record(str(tmp_path)))
    assert attempt_files.look(str(tmp_path)).exit is None


def test_the_cancel_marker_needs_no_job_root(tmp_path: Path) -> None:
    root = str(tmp_path / "not" / "there")
    attempt_files.forbid_start(root)
    attempt_files.forbid_start(root)
    assert Path(paths.cancel_marker(root)).exists()


def test_whatever_is_called_canceled_forbids_the_start(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("folder", "link", "file")]
    for root in roots:
        root.mkdir()
    Path(paths.cancel_marker(str(roots[0]))).mkdir()
    Path(paths.cancel_marker(str(roots[1]))).symlink_to("/nowhere")
    Path(paths.cancel_marker(str(roots[2]))).touch()
    for root in roots:
        attempt_files.forbid_start(str(root))


def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "logs").mkdir(parents=True)
    Path(paths.driver_log(str(victim))).write_text("another user's log")
    root = tmp_path / "job"
    root.mkdir()
    (root / "logs").symlink_to(victim / "logs")
    assert attempt_files.look(str(root)).log_tail == ""
    linked = tmp_path / "linked"
    linked.symlink_to(victim)
    assert attempt_files.look(str(linked)) == FilesSeen()
    with pytest.raises(OSError, match="no folder"):
        attempt_files.forbid_start(str(linked))
    assert not Path(paths.cancel_marker(str(victim))).exists()


def test_the_payload_is_published_once_and_complete(tmp_path: Path) -> None:
    first = payload.publish(str(tmp_path))
    assert payload.publish(str(tmp_path)) == first
    names = {path.name for path in Path(first).iterdir()}
    assert "argus_runner.py" in names and "__init__.py" not in names
    assert [path.name for path in Path(first).parent.iterdir()] == [Path(first).name], "no half-made folder is left"


def test_all_of_the_payload_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compiled is not compared with its source, so a half of it, after a crash, would stay for ever."""
    fsync, synced = os.fsync, set[str]()

    def note(fd: int) -> None:
        synced.add(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    folder = Path(payload.publish(str(tmp_path)))
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert any(name.endswith(".pyc") for name in files)
    assert files <= synced


def test_the_payload_is_compiled_for_workers_that_may_not_write_there(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        folder = Path(payload.publish(str(tmp_path)))
    finally:
        os.umask(previous)
    compiled = Path(importlib.util.cache_from_source(str(folder / "argus_guard.py")))
    assert compiled.stat().st_mode & 0o777 == 0o644
    assert compiled.parent.stat().st_mode & 0o777 == 0o755
    code = marshal.loads(compiled.read_bytes()[16:])  # noqa: S302
    assert code.co_filename == str(folder / "argus_guard.py"), "what a traceback names"


def test_another_content_is_another_version(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.py").write_text("1")
    first = payload.publish(str(tmp_path), source)
    (source / "a.py").write_text("2")
    second = payload.publish(str(tmp_path), source)
    assert first != second
    assert (Path(first) / "a.py").read_text() == "1", "a running job keeps its version"
