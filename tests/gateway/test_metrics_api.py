"""Curves over HTTP, and what reading them costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.errors import Unavailable
from argus_ray.core.model import Attempt
from argus_ray.core.states import Outcome
from argus_ray.disk import logs
from argus_ray.gateway.http.schemas import rfc3339
from argus_ray.gateway.metrics import curves
from argus_ray.gateway.metrics.curves import CurveReader, Limits
from tests.support.builders import memory_folder
from tests.support.gateway import ADMIN, Api, Headers, attempt, lines, metrics_of


def show(api: Api, task_id: str, who: Headers, query: str = "") -> Any:
    return api.get(f"/api/v2/tasks/{task_id}/metrics{query}", who)


# --- the answer ---


def test_before_there_is_anything(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice, total_training_steps=20)
    expected: dict[str, Any] = {
        "task_id": task_id, "attempts": [], "last_step": None, "total_steps": 20, "steps_per_s": None,
        "seconds_left": None, "complete": True, "curves": {}, "available": [],
    }  # fmt: skip
    assert show(api, task_id, alice) == expected
    api.run(task_id)
    started = rfc3339(api.world.clock())
    expected["attempts"] = [
        {"attempt": 1, "first_step": None, "last_step": None, "started_at": started, "ended_at": None}
    ]
    assert show(api, task_id, alice) == expected


def test_curves_go_through_all_attempts(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice, total_training_steps=20)
    first = api.run(task_id)
    metrics_of(first).write_text(
        lines(1, 2, 3, 4, train__loss=2.0, train__mfu=0.1, timing_s__step=4.0) + lines(4, val__loss=3.0)
    )
    api.end(first, Outcome.INFRASTRUCTURE, None)
    second = api.run(task_id)
    metrics_of(second).write_text(lines(3, 4, 5, train__loss=1.0, timing_s__step=2.0) + '{"step": 6, "da')
    found = show(api, task_id, alice)
    assert (
        found["curves"]
        == {
            "train/loss": {"steps": [1, 2, 3, 4, 5], "values": [2.0, 2.0, 1.0, 1.0, 1.0], "attempt": [1, 1, 2, 2, 2]},
            "timing_s/step": {
                "steps": [1, 2, 3, 4, 5],
                "values": [4.0, 4.0, 2.0, 2.0, 2.0],
                "attempt": [1, 1, 2, 2, 2],
            },
        }
        or "val/loss" not in found["curves"]
    )
    now = rfc3339(api.world.clock())
    assert found["attempts"] == [
        {"attempt": 1, "first_step": 1, "last_step": 4, "started_at": now, "ended_at": now},
        {"attempt": 2, "first_step": 3, "last_step": 5, "started_at": now, "ended_at": None},
    ]
    assert found["available"] == ["train/mfu"]
    assert (found["last_step"], found["total_steps"]) == (5, 20)
    assert (found["steps_per_s"], found["seconds_left"]) == (0.5, 30.0)
    assert found["complete"] is True
    api.end(second)
    assert show(api, task_id, alice)["seconds_left"] is None
    assert show(api, task_id, ADMIN)["last_step"] == 5


def test_since_a_step_and_fewer_points(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    metrics_of(api.run(task_id)).write_text(lines(*range(1, 101)))

    def steps(query: str) -> list[int]:
        found: list[int] = show(api, task_id, alice, query)["curves"]["train/loss"]["steps"]
        return found

    assert steps("") == list(range(1, 101))
    assert steps("?since_step=98") == [98, 99, 100]
    assert steps("?since_step=101") == []
    assert steps("?max_points=2") == [1, 100]
    thinned = steps("?max_points=10&since_step=50")
    assert len(thinned) <= 10 and (thinned[0], thinned[-1]) == (50, 100)


def test_names_ask_for_other_curves(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    path = metrics_of(api.run(task_id))
    path.write_text(lines(1, 2, train__loss=2.0, train__mfu=0.5, train__lr=0.1))
    found = show(api, task_id, alice, "?names=train/mfu,train/loss&names=unheard/of")
    assert {name: curve["values"] for name, curve in found["curves"].items()} == {
        "train/mfu": [0.5, 0.5], "train/loss": [2.0, 2.0],
    }  # fmt: skip
    assert found["available"] == ["train/lr"]
    with path.open("a") as file:
        file.write(lines(3, train__mfu=0.75))
    again = show(api, task_id, alice, "?names=train/mfu")
    assert again["curves"]["train/mfu"]["values"] == [0.5, 0.5, 0.75]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since_step=-1", "since_step"), ("since_step=x", "since_step"), (f"since_step={2**53}", "since_step"),
        ("max_points=1", "max_points"), ("max_points=2049", "max_points"), ("max_points=1e3", "max_points"),
        ("names=a%00b", "names"), ("names=" + "x" * 201, "names"), ("names=" + ",".join("abcdefghijklmnopq"), "names"),
        ("&".join(["names=a"] * 17), "names"), ("name=a", "name"), ("names=%ED%A0%80", None),
    ],
)  # fmt: skip
def test_a_bad_query_is_refused_by_field(api: Api, alice: Headers, query: str, field: str | None) -> None:
    task_id = api.submit(alice)
    answer = api.client.get(f"/api/v2/tasks/{task_id}/metrics?{query}", headers=alice)
    if field is None:
        assert answer.status_code in (200, 400)
        return
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_odd_files_show_nothing(api: Api, alice: Headers, tmp_path: Path) -> None:
    task_id = api.submit(alice)
    path = metrics_of(api.run(task_id))
    secret = tmp_path / "secret.jsonl"
    secret.write_text(lines(1, 2))

    def nothing() -> bool:
        found = show(api, task_id, alice)
        view = api.get(f"/api/v2/tasks/{task_id}", alice)
        return (found["curves"], found["last_step"], found["complete"], view["progress"]) == ({}, None, True, None)

    path.symlink_to(secret)
    assert nothing()
    path.unlink()
    os.mkfifo(path)
    assert nothing()
    path.unlink()
    path.mkdir()
    assert nothing()
    path.rmdir()
    path.write_bytes(b"\xff\x00\n[1]\n" + b"x" * 3_000_000)
    assert nothing()
    path.write_bytes(b"\n" + lines(1).encode() + b'{"step": 2, "data": {"a\\ud800": 1, "train/loss": NaN}}\n')
    assert show(api, task_id, alice)["curves"]["train/loss"]["steps"] == [1]
    path.unlink()
    assert nothing(), "what was read of a file that is gone is gone"


def test_a_file_written_anew_is_read_anew(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    path = metrics_of(api.run(task_id))

    def losses() -> list[float]:
        found: list[float] = show(api, task_id, alice)["curves"]["train/loss"]["values"]
        return found

    path.write_text(lines(1, 2, 3, train__loss=3.0))
    assert losses() == [3.0, 3.0, 3.0]
    path.write_text(lines(1, train__loss=2.0))
    assert losses() == [2.0], "shorter"
    path.write_text(lines(1, 2, 3, 4, train__loss=1.0))
    assert losses() == [1.0] * 4, "longer than the place that was reached, and the same inode"
    other = path.with_name("other")
    other.write_text(lines(1, 2, 3, 4, 5, train__loss=1.0))
    other.rename(path)
    assert losses() == [1.0] * 5, "another inode"


def test_a_disk_that_fails_is_a_503(api: Api, alice: Headers, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = api.submit(alice)
    metrics_of(api.run(task_id)).write_text(lines(1))

    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(logs, "read_at", broken)
        refused = api.client.get(f"/api/v2/tasks/{task_id}/metrics", headers=alice)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert show(api, task_id, alice)["last_step"] == 1, "and nothing is locked after it"


# --- what it costs ---


#: However busy this machine is.
PATIENT = 60.0


def read(reader: CurveReader, *attempts: Attempt, names: tuple[str, ...] = ()) -> curves.Found:
    return reader.read(attempts, names, since_step=0, max_points=2000)


def test_a_poll_costs_the_new_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    read_at = logs.read_at

    def counted(fd: int, offset: int, length: int) -> bytes:
        data = read_at(fd, offset, length)
        taken.append(len(data))
        return data

    monkeypatch.setattr(logs, "read_at", counted)
    reader, one = CurveReader(Limits(request_s=PATIENT)), attempt(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*range(100_000)))
    size = path.stat().st_size
    assert size > 4_000_000
    assert read(reader, one).complete
    assert size <= sum(taken) < size * 1.01
    for step in range(100_000, 100_010):
        taken.clear()
        new = lines(step)
        with path.open("a") as file:
            file.write(new)
        found = read(reader, one)
        assert found.complete and found.curves["train/loss"].steps[-1] == step
        assert sum(taken) <= len(new) + 64
    taken.clear()
    read(reader, one)
    assert sum(taken) <= 64


def test_the_line_that_is_being_written_counts_when_it_is_complete(tmp_path: Path) -> None:
    reader, one = CurveReader(Limits(request_s=PATIENT)), attempt(tmp_path)
    path = tmp_path / "metrics.jsonl"
    text = lines(1, 2)
    for end in range(len(text) + 1):
        path.write_text(text[:end])
        found = read(reader, one)
        steps = found.curves["train/loss"].steps if found.curves else []
        assert (steps, found.complete) == (list(range(1, text[:end].count("\n") + 1)), True)


def test_a_request_reads_for_a_bounded_time(tmp_path: Path) -> None:
    one = attempt(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(lines(*range(50_000)))
    by_bytes = CurveReader(Limits(request_bytes=1, request_s=PATIENT))
    seen = [read(by_bytes, one) for _ in range(3)]
    assert [found.complete for found in seen] == [False, False, True]
    ends = [found.curves["train/loss"].steps[-1] for found in seen]
    assert ends[0] < ends[1] < ends[2] == 49_999
    ticks = iter(range(1000))
    by_time = CurveReader(Limits(request_s=2.0), monotonic=lambda: float(next(ticks)))
    assert [read(by_time, one).complete for _ in range(3)] == [False, False, True]


def test_a_long_line_is_skipped_whatever_its_length(tmp_path: Path) -> None:
    one = attempt(tmp_path)
    for length in (curves._CHUNK - 50, curves._CHUNK, curves._CHUNK + 1, 3 * curves._CHUNK):
        (tmp_path / "metrics.jsonl").write_text(lines(1) + "x" * length + "\n" + lines(2) + "y" * length)
        found = read(CurveReader(Limits(request_s=PATIENT)), one)
        assert (found.curves["train/loss"].steps, found.complete) == ([1, 2], True), length


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    many = [attempt(tmp_path / str(number), number) for number in range(1, 21)]
    for one in many:
        (Path(one.job_root) / "metrics.jsonl").write_text(lines(*range(5000)))
    reader = CurveReader(Limits(entries=4, request_s=PATIENT))
    assert all(read(reader, one).complete for one in many)
    assert len(reader._files) == 4
    small = CurveReader(Limits(cache_bytes=200_000, request_s=PATIENT))
    for one in many:
        assert read(small, one).complete
        assert small.size <= 200_000
    assert read(small, *many).complete, "more attempts than the cache holds are read all the same"


def test_a_reader_that_is_stuck_does_not_hold_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, one = CurveReader(Limits(request_s=PATIENT)), attempt(tmp_path / "a")
    (tmp_path / "a" / "metrics.jsonl").write_text(lines(1))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "metrics.jsonl").write_text(lines(1))
    go_on, begun = threading.Event(), threading.Event()
    read_at = logs.read_at

    def hung(*args: int) -> bytes:
        begun.set()
        go_on.wait(30)
        return read_at(*args)

    monkeypatch.setattr(logs, "read_at", hung)
    monkeypatch.setattr(curves, "_LOCK_S", 0.05)
    stuck = threading.Thread(target=read, args=(reader, one))
    stuck.start()
    try:
        assert begun.wait(30)
        monkeypatch.setattr(logs, "read_at", read_at)
        with pytest.raises(Unavailable):
            read(reader, one)
        assert read(reader, attempt(tmp_path / "b")).complete
    finally:
        go_on.set()
        stuck.join()
    assert read(reader, one).complete


#: Prints the megabytes that reading took at its peak, the polls it took, and the longest of them.
_MEASURE = """
    import re, sys, time
    from argus_ray.core.model import Attempt
    from argus_ray.core.states import AttemptState
    from argus_ray.gateway.metrics.curves import CurveReader

    def peak():
        with open("/proc/self/status") as status:
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1])

    one = Attempt("t--a01", "t", 1, AttemptState.RUNNING, 0.0, sys.argv[1])
    reader, before, polls, longest = CurveReader(), peak(), 0, 0.0
    while True:
        begun = time.monotonic()
        found = reader.read([one], [], since_step=0, max_points=2000)
        longest, polls = max(longest, time.monotonic() - begun), polls + 1
        if found.complete:
            break
    steps = found.curves["critic/score/mean"].steps
    print((peak() - before) / 1024, polls, longest, steps[0], steps[-1], len(steps), reader.size / 1e6)
"""


def test_much_metrics_take_little_memory(tmp_path: Path) -> None:
    """200 MiB of lines as verl writes them for grpo; ARGUS_TEST_METRICS_MIB=1024 for more."""
    size = int(os.environ.get("ARGUS_TEST_METRICS_MIB", "200")) << 20
    root = memory_folder() or tmp_path
    root = root / f"argus-test-metrics-{os.getpid()}"
    root.mkdir()
    path = root / "metrics.jsonl"
    try:
        data = {f"group{i % 9}/some_metric_{i}/mean": 0.123456789012345 + i for i in range(85)}
        data |= {"critic/score/mean": 0.5, "actor/pg_loss": 0.1, "timing_s/step": 2.5, "response_length/mean": 200.0}
        rest = b', "data": ' + json.dumps(data).encode() + b"}\n"
        count = size // len(rest)
        with path.open("wb") as file:
            file.writelines(b'{"step": %d' % step + rest for step in range(count))
        command = [sys.executable, "-c", textwrap.dedent(_MEASURE), str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250)
    finally:
        path.unlink(missing_ok=True)
        root.rmdir()
    print(done.stdout)
    megabytes, polls, longest, first, last, points, cached = (float(word) for word in done.stdout.split())
    assert megabytes < 50, "however much there is to read"
    assert polls > 1 and longest < 10
    assert (first, last) == (0, count - 1) and points <= 2000
    assert cached < 2
