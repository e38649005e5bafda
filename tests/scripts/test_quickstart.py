"""scripts/quickstart.py without Ray: what its options do, and what it shows. tests/local has the folder and the run."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from argus_ray.gateway.logs import stream
from argus_ray.local import folder
from argus_ray.node import processes

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "quickstart.py"
#: The script with children of another kind in the place of the cluster.
CHILD = f"""
import importlib.util, signal, subprocess, sys, time
spec = importlib.util.spec_from_file_location("quickstart", {str(SCRIPT)!r})
quickstart = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quickstart)

def start(machine):
    sleep = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    machine._spawn("deaf", sleep, machine.environment())
    print("up", machine.mark, flush=True)
    time.sleep(600)

quickstart._start = start
# Whoever runs the tests in the background has it ignored, and so do we.
signal.signal(signal.SIGINT, signal.default_int_handler)
quickstart.session.end_on_signals()
sys.exit(quickstart.main())
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


quickstart = load()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "quick"


@pytest.fixture
def running(root: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A quickstart that has got as far as a child which ignores SIGTERM; and its mark."""
    command = [sys.executable, "-c", CHILD, "--dir", str(root)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    word, _, mark = child.stdout.readline().strip().partition(" ")
    assert word == "up"
    yield child, mark
    child.kill()
    child.communicate(timeout=60)
    processes.end_marked(mark, grace_s=0)


def refuses(capsys: pytest.CaptureFixture[str], root: Path, *options: str) -> str:
    assert quickstart.main(["--dir", str(root), *options]) == 2
    return capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_left_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root.mkdir()
    (root / "thesis.tex").write_text("years")
    assert "holds something else" in refuses(capsys, root)
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]
    assert [path.name for path in root.parent.iterdir()] == ["quick"]


def test_another_users_folder_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.claim(root)
    own = os.getuid()
    monkeypatch.setattr(folder.os, "getuid", lambda: own + 1)  # type: ignore[attr-defined]
    assert "belongs to another user" in refuses(capsys, root)
    assert "belongs to another user" in refuses(capsys, root, "--stop")


def test_a_second_one_in_the_folder_is_refused(root: Path, capsys: pytest.CaptureFixture[str], running: Any) -> None:
    assert "another one is running" in refuses(capsys, root)
    assert processes.marked(running[1])


def test_stop_ends_one_that_is_running(root: Path, capsys: pytest.CaptureFixture[str], running: Any) -> None:
    child, mark = running
    assert quickstart.main(["--dir", str(root), "--stop"]) == 0
    assert "has been stopped" in capsys.readouterr().out
    assert child.wait(30) == 128 + signal.SIGTERM
    assert processes.marked(mark) == []


def test_stop_ends_what_a_crash_has_left(root: Path, capsys: pytest.CaptureFixture[str], running: Any) -> None:
    child, mark = running
    child.kill()
    child.wait(30)
    assert processes.marked(mark)
    assert quickstart.main(["--dir", str(root), "--stop"]) == 0
    assert "has been stopped" in capsys.readouterr().out
    assert processes.marked(mark) == []


def test_stop_with_nothing_there_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart.main(["--dir", str(root), "--stop"]) == 0
    assert "Nothing is running" in capsys.readouterr().out
    assert list(root.parent.iterdir()) == []


def test_the_lines_of_the_real_stream_are_understood() -> None:
    event = stream.encoded(
        data="loading\nEpoch 1/2: 0%\rstep:1 - perf/x:0.0 - train/loss:2.5 - train/lr:1e-3\n", id="1:40"
    ).decode()
    shown = [quickstart._training_step(line) for line in event.splitlines(keepends=True)]
    assert [line for line in shown if line] == ["step 1: train/loss 2.500"]


class Answers:
    """An API that knows one task, which has failed."""

    def __init__(self, job_root: Path | None) -> None:
        self.attempts = [{"job_root": str(job_root)}] if job_root else []

    def get(self, path: str) -> dict[str, Any]:
        return {"state": "FAILED", "reason": "no such model", "attempts": self.attempts}

    def text(self, path: str) -> str:
        return "Traceback\nOSError: tiny\n"


@pytest.mark.parametrize("has_run", [True, False])
def test_a_failed_task_shows_why(tmp_path: Path, capsys: pytest.CaptureFixture[str], has_run: bool) -> None:
    quickstart._show(Answers(tmp_path if has_run else None), {"sft": "argus-1"})
    shown = capsys.readouterr().out
    assert "no such model" in shown
    assert ("| OSError: tiny" in shown) == has_run
