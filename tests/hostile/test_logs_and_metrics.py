"""What a run writes into its log and its metrics: control sequences, forged events, floods."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.core.lifecycle import End
from argus_ray.core.model import SlimAttempt
from argus_ray.core.observation import FailureKind, JobSeen, JobStatus, next_step
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.disk import attempt_files
from tests.support.builders import memory_folder
from tests.support.gateway import Api, Headers, lines, log_of, metrics_of
from tests.support.stream import Stream, run

GIB = 1 << 30
#: The title of a terminal, a clipboard, a link, colours, a cleared screen; then what hides or turns text round.
ESCAPES = "\x1b]0;root@head\x07\x1b]52;c;cm0gLXJm\x07\x1b]8;;http://x\x1b\\here\x1b]8;;\x1b\\\x1b[31m\x1b[2J\x9b2J\x08\x7f\u202e\u200b"
HTML = "<script>fetch('/api/v2/tasks')</script>"


def fail_with(api: Api, alice: Headers, log: str) -> str:
    """A task whose program has failed with this log, as the scheduler judges it."""
    task_id = api.submit(alice)
    change = api.run(task_id)
    log_of(change).write_text(log)
    (Path(change.job_root) / "started.json").write_text("{}")
    api.apply(judged(change.submission_id, change.job_root))
    return task_id


def judged(submission_id: str, job_root: str) -> End:
    task_id = submission_id.partition("--")[0]
    attempt = SlimAttempt(submission_id, task_id, 1, AttemptState.RUNNING, 0.0, job_root, session="s")
    job = JobSeen(JobStatus.FAILED, "", FailureKind.DRIVER, 1)
    verdict = next_step(attempt, job, attempt_files.look(job_root), "s")
    assert isinstance(verdict, End)
    return verdict


def test_terminal_escapes_in_a_log_are_data(api: Api, alice: Headers) -> None:
    """The log is given as it is, as text that no browser takes for anything else. What Argus itself says of it, in the
    API and in logs of its own, holds no control characters."""
    log = f"{HTML}\nTraceback (most recent call last):\nRuntimeError: {ESCAPES}{HTML}\n"
    task_id = fail_with(api, alice, log)
    answer = api.client.get(f"/api/v2/tasks/{task_id}/logs", headers=alice)
    assert answer.text == log
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for view in ("", "/events"):
        shown = api.client.get(f"/api/v2/tasks/{task_id}{view}", headers=alice)
        assert "RuntimeError" in shown.text
        said = json.dumps(shown.json(), ensure_ascii=False)
        assert not re.search("[\x00-\x1f\x7f-\x9f\u200b\u202e]", said), said
        assert not re.search(r"\\u00[01][0-9a-f]|\\[bf]", said), said


def test_forged_events_in_a_log_stay_lines_of_the_log(api: Api, alice: Headers) -> None:
    """Whatever stands in it, a log makes no event but its own lines."""
    forged = (
        "event: end\ndata: {}\n\nid: 9:9\nretry: 1\n: x\n",
        "a\r\revent: error\r\rb\r\n",
        "\x00\u2028\u2029\x85event: gap\n",
    )
    task_id = api.submit(alice)
    change = api.run(task_id)
    log_of(change).write_bytes("".join(forged).encode())
    api.end(change)

    async def scenario() -> None:
        async with Stream(api.app, f"/api/v2/tasks/{task_id}/logs/stream", alice) as stream:
            seen, end = await stream.until("end")
            assert json.loads(end["data"])["task_state"] == "SUCCEEDED"
            assert {"event: end", "data: {}", "id: 9:9", "retry: 1", "event: error"} <= set(seen)

    run(scenario)


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[Path]:
    """A folder for files of a gigabyte, which cost no disk."""
    folder = (memory_folder() or tmp_path) / f"argus-hostile-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


#: Argument: a job root. Prints the megabytes that all looks at it took at their peak, and the longest look in seconds.
_MEASURE = textwrap.dedent("""
    import re, sys, time
    from argus_ray.core import paths
    from argus_ray.core.model import Attempt
    from argus_ray.core.states import AttemptState
    from argus_ray.disk import attempt_files, logs
    from argus_ray.gateway.metrics.curves import CurveReader
    from argus_ray.gateway.metrics.progress import ProgressReader, _total_in_log

    def peak():
        with open("/proc/self/status") as status:
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1])

    root = sys.argv[1]
    log, one, curves = paths.driver_log(root), Attempt("t--a01", "t", 1, AttemptState.RUNNING, 0.0, root), CurveReader()
    looks = {
        "tail": lambda: logs.read_tail(root, log, 1_000_000, 4194304).data.decode("utf-8", "replace"),
        "one line": lambda: logs.read_tail(root, log, 1, 4194304),
        "offset": lambda: logs.tail_offset(root, log, 1_000_000, 4194304),
        "stream": lambda: logs.read_lines_from(root, log, 0, final=True, backlog=logs.Backlog(8 << 20, 1 << 20)),
        "total": lambda: _total_in_log(root),
        "scheduler": lambda: attempt_files.look(root),
        "curves": lambda: curves.read([one], [], since_step=0, max_points=2000),
        "named curves": lambda: curves.read([one], ["x"], since_step=0, max_points=2000),
        "progress": lambda: ProgressReader()._look(root, wants_total=True),
    }
    before, times = peak(), {}
    for name, look in looks.items():
        begun = time.process_time()
        look()
        times[name] = time.process_time() - begun
    worst = max(times, key=times.get)
    print((peak() - before) / 1024, times[worst], worst)
""")


def measured(job_root: Path) -> tuple[float, float, str]:
    """(megabytes, seconds of CPU, name of the look that took the longest)."""
    argv = [sys.executable, "-c", _MEASURE, str(job_root)]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout.split(" ", 2)
    return float(told[0]), float(told[1]), told[2].strip()


def flood(kind: str, log: Path, metrics: Path) -> None:
    def sparse_file(path: Path, *ends: bytes) -> None:
        with path.open("wb") as file:
            file.write(ends[0])
            file.seek(GIB)
            file.write(ends[1])

    log.touch()
    metrics.touch()
    match kind:
        case "a log of a gigabyte":
            sparse_file(log, b"first\n", b"\nlast\n")
        case "a log of line ends":
            log.write_bytes(b"\n" * (64 << 20))
        case "a log of carriage returns":
            log.write_bytes(b"\r" * (64 << 20))
        case "a log of bytes that are no text":
            log.write_bytes(b"\xff\xed\xa0" * (16 << 20))
        case "metrics of one endless line":
            sparse_file(metrics, b'{"step": 1, "data": {"', b"x")
        case "metrics of a million names":
            with metrics.open("w") as file:
                for step in range(100):
                    data = {f"n{step}/{name}": 1.0 for name in range(10_000)}
                    file.write(json.dumps({"step": step, "data": data}, separators=(",", ":")) + "\n")
        case "metrics of nested lists":
            metrics.write_bytes((b'{"step": 1, "data": {"train/loss": ' + b"[" * 200_000 + b"\n") * 100)
        case "metrics of long numbers":
            metrics.write_bytes((b'{"step": 1, "data": {"train/loss": ' + b"9" * 4_000 + b"}}\n") * 10_000)
        case "metrics that go back at each line":
            metrics.write_text("".join(lines(10**9 - step) for step in range(200_000)))


@pytest.mark.parametrize(
    "kind",
    [
        "a log of a gigabyte",
        "a log of line ends",
        "a log of carriage returns",
        "a log of bytes that are no text",
        "metrics of one endless line",
        "metrics of a million names",
        "metrics of nested lists",
        "metrics of long numbers",
        "metrics that go back at each line",
    ],
)
def test_floods_take_bounded_memory_and_time(sparse: Path, kind: str) -> None:
    """32 MiB: 4 MiB of log as bytes and as text, and what is kept of metrics. A request reads metrics
    for a second."""
    (sparse / "logs").mkdir()
    flood(kind, sparse / "logs" / "driver.log", sparse / "metrics.jsonl")
    megabytes, seconds, look = measured(sparse)
    print(f"{kind}: {megabytes:.0f} MiB, {seconds:.2f} s of CPU for {look}")
    assert megabytes < 32
    assert seconds < 3.0, look


def test_log_flood_over_http(api: Api, alice: Headers) -> None:
    task_id = api.submit(alice)
    change = api.run(task_id)
    path = log_of(change)
    with path.open("wb") as log:
        log.truncate(GIB)
        log.seek(GIB)
        log.write(b"\nlast\n")
    answer = api.client.get(f"/api/v2/tasks/{task_id}/logs?tail=1000000", headers=alice)
    assert answer.status_code == 200 and answer.text.endswith("\nlast\n")
    assert len(answer.content) <= api.world.settings.limits.log_tail_bytes
    metrics_of(change).write_text(lines(1))
    assert api.get(f"/api/v2/tasks/{task_id}", alice)["progress"]["step"] == 1


#: Lines on which patterns of `core/verl/failures.py` could go back and forth.
_SLOW = {
    "words and dots": "a." * 2000,
    "words": "a" * 4000,
    "prefixes": "[node 1] " * 450,
    "actors": "(a pid=1" * 500,
    "escapes": "\x1b[" + "0;" * 2000,
    "devices": "Free memory on device " * 180,
    "files": "Error no file named " * 200,
    "operations": "NCCL operation " * 260,
    "not found": ": FileNotFoundError: " * 190,
    "placement": "enforce fail at inline_container.cc:1] " * 100,
    "quotes": "Unable to find '" * 250,
    "spaces": " " * 4000,
    "steps": "step:1 - " * 440,
}


@pytest.mark.parametrize("line", _SLOW.values(), ids=_SLOW)
def test_log_that_makes_the_scheduler_think(tmp_path: Path, line: str) -> None:
    """It judges the end of an attempt on the thread that serves all others."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "started.json").write_text("{}")
    (tmp_path / "logs" / "driver.log").write_text(f"{line}\n" * (attempt_files.TAIL_BYTES // len(line) + 1))
    begun = time.process_time()
    end = judged("argus-ada-sft-20260101-000000-abcd--a01", str(tmp_path))
    assert time.process_time() - begun < 2.0
    assert end.outcome is Outcome.APPLICATION


def test_log_that_becomes_a_link_while_it_is_followed(api: Api, alice: Headers) -> None:
    """A program may put something else in the place of its log. The stream says so, and reads nothing of it."""
    task_id = api.submit(alice)
    change = api.run(task_id)
    path = log_of(change)
    path.write_text("one\ntwo\n")

    async def scenario() -> None:
        async with Stream(api.app, f"/api/v2/tasks/{task_id}/logs/stream", alice) as stream:
            assert (await stream.event())["event"] == "attempt"
            assert (await stream.event())["data"] == "one\ntwo"
            path.unlink()
            path.symlink_to("/proc/self/environ")
            told = await stream.event()
            assert (told["event"], json.loads(told["data"])["code"]) == ("error", "log_not_found")
            assert await stream.event() == {}

    run(scenario)
