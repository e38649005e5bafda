"""The tail of a log, and that nothing but the log can be read through it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from argus_ray.core.states import Outcome
from argus_ray.disk import logs
from tests.support.descriptors import open_below
from tests.support.gateway import Api, log_of, make_api, metrics_of


def tail(root: Path, lines: int, max_bytes: int = 1 << 20) -> bytes:
    return logs.read_tail(str(root), f"{root}/logs/driver.log", lines, max_bytes).data


def lines_from(root: Path, offset: int, *, final: bool = False, max_bytes: int = 1 << 16) -> bytes:
    path = f"{root}/logs/driver.log"
    return logs.read_lines_from(str(root), path, offset, final=final, max_bytes=max_bytes).data


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "logs" / "driver.log"
    path.parent.mkdir()
    return path


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("lines", [1, 2, 5, 9_999, 10_000, 10_001, 50_000])
def test_a_tail_is_the_last_lines(log: Path, lines: int, end: bytes) -> None:
    content = [b"line %d of the log" % number for number in range(10_000)]
    log.write_bytes(b"\n".join(content) + end)
    assert tail(log.parent.parent, lines) == b"\n".join(content[-lines:]) + end


def test_a_tail_of_odd_files(log: Path) -> None:
    root = log.parent.parent
    for content, lines, expected in [
        (b"", 5, b""), (b"\n", 1, b"\n"), (b"\n\n\n", 2, b"\n\n"), (b"x", 1, b"x"), (b"a\n\nb", 2, b"\nb"),
        (b"x" * 200_000, 1, b"x" * 200_000), (b"a\nb\n", 0, b""),
    ]:  # fmt: skip
        log.write_bytes(content)
        assert tail(root, lines) == expected


def test_a_tail_is_bounded_in_bytes_and_begins_with_a_line(log: Path) -> None:
    log.write_bytes(b"".join(b"%06d\n" % number for number in range(100_000)))
    found = tail(log.parent.parent, 100_000, max_bytes=100)
    assert found == b"".join(b"%06d\n" % number for number in range(99_986, 100_000))
    log.write_bytes(b"x" * 1000)
    assert tail(log.parent.parent, 1, max_bytes=100) == b"x" * 100


def test_following_takes_whole_lines(log: Path) -> None:
    root = log.parent.parent
    log.write_bytes(b"one\ntwo\nthr")
    assert lines_from(root, 0) == b"one\ntwo\n"
    assert lines_from(root, 8) == b""
    assert lines_from(root, 8, final=True) == b"thr"
    assert lines_from(root, 99) == b""
    log.write_bytes(b"10%\r20%\r30%\r")
    assert lines_from(root, 0) == b"10%\r20%\r"
    log.write_bytes("é".encode() * 10)
    assert lines_from(root, 0, max_bytes=5) == "éé".encode()
    log.write_bytes(b"\xff" * 10)
    assert lines_from(root, 0, max_bytes=5) == b"\xff" * 5


def test_nothing_outside_the_job_root_is_read(log: Path, tmp_path: Path) -> None:
    root = tmp_path / "job"
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "driver.log").write_text("secret")
    root.mkdir()
    path = f"{root}/logs/driver.log"

    (root / "logs").symlink_to(secret)
    with pytest.raises(logs.NotReadable):
        logs.read_tail(str(root), path, 10, 100)
    (root / "logs").unlink()
    (root / "logs").mkdir()
    with pytest.raises(FileNotFoundError):
        logs.read_tail(str(root), path, 10, 100)
    (root / "logs" / "driver.log").symlink_to(secret / "driver.log")
    with pytest.raises(logs.NotReadable):
        logs.read_tail(str(root), path, 10, 100)
    (root / "logs" / "driver.log").unlink()
    os.mkfifo(root / "logs" / "driver.log")
    with pytest.raises(logs.NotReadable):
        logs.read_tail(str(root), path, 10, 100)
    (tmp_path / "linked-job").symlink_to(root)
    with pytest.raises(logs.NotReadable):
        logs.read_tail(str(tmp_path / "linked-job"), f"{tmp_path}/linked-job/logs/driver.log", 10, 100)


def test_no_descriptor_is_left_open(log: Path) -> None:
    log.write_bytes(b"x\n")
    for _ in range(50):
        tail(log.parent.parent, 1)
        with pytest.raises(logs.NotReadable):
            logs.read_tail(str(log.parent.parent), f"{log.parent.parent}/logs/driver.log/x", 1, 1)
    assert open_below(log.parent.parent) == []


def test_logs_over_http(api: Api) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    path = f"/api/v2/tasks/{task_id}/logs"
    empty = api.client.get(path, headers=alice)
    assert (empty.status_code, empty.text, empty.headers["x-argus-task-state"]) == (200, "", "QUEUED")
    first = api.run(task_id)
    not_yet = api.client.get(path, headers=alice)
    assert (not_yet.text, not_yet.headers["x-argus-task-state"]) == ("", "RUNNING")

    log_of(first).write_bytes(b"first\nlast \xff\xc3\n")
    answer = api.client.get(path, headers=alice)
    assert answer.text == "first\nlast \ufffd\ufffd\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-argus-log-position"] == "1:14"
    assert api.client.get(path + "?tail=1", headers=alice).text == "last \ufffd\ufffd\n"

    api.end(first, Outcome.INFRASTRUCTURE, None)
    log_of(api.run(task_id)).write_text("second\n")
    assert api.client.get(path, headers=alice).text == "second\n"
    assert api.client.get(path + "?attempt=latest", headers=alice).text == "second\n"
    assert api.client.get(path + "?attempt=1&tail=1", headers=alice).text == "last \ufffd\ufffd\n"
    missing = api.client.get(path + "?attempt=3", headers=alice)
    assert (missing.status_code, missing.json()["code"]) == (404, "log_not_found")
    for query in ("attempt=0", "attempt=01", "attempt=-1", "attempt=../x", "tail=0", "tail=-1", "lines=1"):
        assert api.client.get(f"{path}?{query}", headers=alice).status_code == 400, query


def test_a_log_that_is_a_link_is_not_served(api: Api, tmp_path: Path) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    (tmp_path / "secret").write_text("SECRET")
    log_of(api.run(task_id)).symlink_to(tmp_path / "secret")
    for path in ("logs", "logs/stream"):
        refused = api.client.get(f"/api/v2/tasks/{task_id}/{path}", headers=alice)
        assert (refused.status_code, refused.json()["code"]) == (404, "log_not_found")
        assert "SECRET" not in refused.text


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_disk_that_does_not_answer_is_no_missing_log(api: Api, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = api.user("alice")
    task_id = api.submit(alice)
    change = api.run(task_id)
    log_of(change).write_text("line\n")
    metrics_of(change).write_text(json.dumps({"step": 1, "data": {}}) + "\n")
    really = os.open

    def fails(name: str, *args: int, **options: int | None) -> int:
        if str(name) in ("driver.log", "metrics.jsonl"):
            raise OSError(number, os.strerror(number), name)
        return really(name, *args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", fails)
        for path in ("logs", "logs/stream", "logs/download", "logs/search?q=l", "metrics"):
            for extra in ({}, {"Range": "bytes=0-1"}):
                refused = api.client.get(f"/api/v2/tasks/{task_id}/{path}", headers={**alice, **extra})
                assert (refused.status_code, refused.json()["code"]) == (503, "unavailable"), path
        assert api.get(f"/api/v2/tasks/{task_id}", alice)["progress"] is None
    assert api.client.get(f"/api/v2/tasks/{task_id}/logs", headers=alice).text == "line\n"


def test_the_tail_is_bounded_by_the_settings(tmp_path: Path) -> None:
    api = make_api(tmp_path, settings={"limits": {"log_tail_bytes": 1024}})
    alice = api.user("alice")
    task_id = api.submit(alice)
    log_of(api.run(task_id)).write_bytes(b"0123456\n" * 1000)
    text = api.client.get(f"/api/v2/tasks/{task_id}/logs", headers=alice).text
    assert text == "0123456\n" * 127
    api.world.close()
