"""Runs that are tracked by Weights & Biases: the real wandb package, through verl's own Tracking, on the disk and
against a server that keeps what it is sent. Each attempt is a process of its own, as the payload changes wandb."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core.verl import tracking
from argus_ray.core.verl.tracking import Tracking
from argus_ray.disk import secrets
from argus_ray.payload import argus_secrets
from tests.support.running import is_alive, until
from tests.support.wandbfile import Kept, runs_in
from tests.support.wandbserver import ENTITY, Server

PAYLOAD = Path(__file__).parents[2] / "argus_ray" / "payload"
KEY = "0123456789abcdef0123456789abcdef01234567"
TASK = "argus-ada-grpo-20260101-000000-abcd"
#: As verl makes it, from its own source, without importing all of verl.
PROGRAM = """
import importlib.util, json, os, sys, time
import argus_verl_wandb
spec = importlib.util.spec_from_file_location("tracking", sys.argv[1])
tracking = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tracking)
own = tracking.Tracking("argus", os.environ["ARGUS_SUBMISSION_ID"], ["file", "wandb"], {"trainer": {"total_epochs": 3}})
for step in json.loads(sys.argv[2]):
    own.log({"train/loss": 10.0 - step}, step)
    own.log({"val/loss": 20.0 - step}, step)
print("logged", flush=True)
if len(sys.argv) > 3:
    open(sys.argv[3] + ".made", "w").close()
    while True:
        time.sleep(1)
del own
print("ended", flush=True)
"""


@pytest.fixture(scope="module")
def source() -> str:
    pytest.importorskip("wandb")
    verl = importlib.util.find_spec("verl")
    if verl is None or not verl.origin or "standin" in verl.origin:
        pytest.skip("verl is not installed")
    return str(Path(verl.origin).parent / "utils" / "tracking.py")


class Attempts:
    """Of one task."""

    def __init__(self, folder: Path, source: str, own: Tracking) -> None:
        self.jobs, self._source, self._tracking = folder / "users" / "ada" / "jobs", source, own
        self.number = 0

    @property
    def root(self) -> Path:
        """Of the newest one."""
        return self.jobs / f"{TASK}--a{self.number:02d}"

    def start(self, steps: range, *, key: str | None = KEY, stays: bool = False, **more: str) -> subprocess.Popen[str]:
        self.number += 1
        self.root.mkdir(parents=True)
        if key is not None:
            secrets.hand_over(str(self.root), argus_secrets.WANDB, key)
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WANDB_")},
            **tracking.environment(self._tracking, str(self.root), "grpo"),
            "HOME": str(self.root),
            "PYTHONPATH": str(PAYLOAD),
            "ARGUS_JOB_ROOT": str(self.root),
            "ARGUS_SUBMISSION_ID": self.root.name,
            "VERL_FILE_LOGGER_PATH": str(self.root / "metrics.jsonl"),
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.1",
            **more,
        }
        arguments = [self._source, json.dumps(list(steps)), *([str(self.root / "stays")] if stays else [])]
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=env,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, steps: range, **more: Any) -> str:
        """What it prints; it ends well."""
        process = self.start(steps, **more)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        assert output.rstrip().splitlines()[-1] == "ended" or "ended\n" in output, output
        return output

    def kept(self) -> Kept:
        (kept,) = runs_in(self.root)
        return kept

    def in_file(self) -> list[int]:
        """Steps of verl's own file logger, whose training nothing has disturbed."""
        return [json.loads(line)["step"] for line in (self.root / "metrics.jsonl").read_text().splitlines()]


def test_offline_a_run_is_on_the_disk_as_the_task_that_it_is(tmp_path: Path, source: str) -> None:
    own = Attempts(tmp_path, source, Tracking("{user}-{workload}", "offline", "https://api.wandb.ai"))
    own.run(range(1, 4), key=None)
    kept = own.kept()
    assert (kept.project, kept.run_id, kept.name) == ("ada-grpo", TASK, TASK)
    assert kept.config["trainer"] == {"total_epochs": 3}
    assert kept.of("_step", "trainer/global_step", "train/loss", "val/loss") == [
        (1, 1, 9.0, 19.0),
        (2, 2, 8.0, 18.0),
        (3, 3, 7.0, 17.0),
    ]
    assert kept.exit_code == 0
    assert own.in_file() == [1, 1, 2, 2, 3, 3]


def test_one_task_is_one_run_and_steps_that_go_back_are_kept(tmp_path: Path, source: str) -> None:
    with Server() as server:
        own = Attempts(tmp_path, source, Tracking("{user}-{workload}", "online", server.url, "team"))
        first = own.start(range(1, 6), stays=True)
        rows = ("_step", "trainer/global_step", "train/loss")

        def arrived() -> Any:  # W&B holds the last step until it knows that no more of it comes
            found = server.runs.get(("ada-grpo", TASK))
            return found if found and len(found.rows(*rows)) >= 4 else None

        until(lambda: (own.root / "stays.made").exists() or first.poll() is not None, "it logs", within_s=200)
        run = until(arrived, "the server has the steps", within_s=60)
        assert not (own.root / "secrets" / "wandb").exists()
        seen = everything_of(first.pid)
        first.send_signal(signal.SIGKILL)  # the machine is lost, or its memory is full
        output, _ = first.communicate(timeout=60)
        until(lambda: not [pid for pid in seen if is_alive(pid)], "nothing of it is left", within_s=60)
        assert run.rows(*rows) == [(step, step, 10.0 - step) for step in range(1, 5)]

        output += own.run(range(3, 8))  # from the checkpoint of step 2
        second = [(step + 2, step, 10.0 - step) for step in range(3, 8)]
        assert run.rows(*rows) == [(step, step, 10.0 - step) for step in range(1, 5)] + second
        assert run.rows("train/loss", "val/loss") == [(10 - step, 20 - step) for step in (1, 2, 3, 4, 3, 4, 5, 6, 7)]
        assert list(server.runs) == [("ada-grpo", TASK)]
        assert (run.entity, run.display_name, run.exit_code) == ("team", TASK, 0)
        assert ENTITY != "team"
        assert own.in_file() == [step for step in range(3, 8) for _ in range(2)]

        assert server.keys == {KEY}
        assert KEY not in output
        assert files_with_the_key(tmp_path) == []


def files_with_the_key(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def everything_of(pid: int) -> list[int]:
    """The process and what it has started, none of which shows the key to its neighbours."""
    found = [pid]
    for each in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it, or a thread of it, has just ended
            for shown in ("environ", "cmdline"):
                assert KEY.encode() not in Path(f"/proc/{each}/{shown}").read_bytes()
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    assert len(found) > 1  # wandb's own
    return found


@pytest.mark.parametrize("listens", [False, True], ids=["refuses", "never answers"])
def test_a_server_that_is_away_costs_a_wait_and_nothing_else(tmp_path: Path, source: str, listens: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listens:
            taken.listen(64)
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        own = Attempts(tmp_path, source, Tracking("{user}-{workload}", "online", url))
        output = own.run(range(1, 4), WANDB_INIT_TIMEOUT="10", WANDB_FINISH_TIMEOUT="10")
    assert "argus: W&B: the server cannot be used: " in output
    assert "argus: W&B: the run is kept on the disk, for `wandb sync`; the training goes on" in output
    (began, kept) = runs_in(own.root)
    assert began.rows == []
    assert kept.of("trainer/global_step", "train/loss") == [(1, 9.0), (2, 8.0), (3, 7.0)]
    assert (kept.project, kept.run_id, kept.exit_code) == ("ada-grpo", TASK, 0)
    assert own.in_file() == [1, 1, 2, 2, 3, 3]
    assert KEY not in output
    assert files_with_the_key(tmp_path) == []


def test_a_server_that_hangs_while_a_run_is_tracked_holds_up_its_end_for_a_while_only(
    tmp_path: Path, source: str
) -> None:
    with Server(takes_history=False) as server:
        own = Attempts(tmp_path, source, Tracking("{user}-{workload}", "online", server.url))
        own.run(range(1, 4), WANDB_FINISH_TIMEOUT="10")
    assert server.run("ada-grpo", TASK).history == {}
    assert own.kept().of("trainer/global_step", "train/loss") == [(1, 9.0), (2, 8.0), (3, 7.0)]
    assert own.in_file() == [1, 1, 2, 2, 3, 3]


def test_a_run_without_a_key_is_kept_on_the_disk(tmp_path: Path, source: str) -> None:
    own = Attempts(tmp_path, source, Tracking("{user}", "online", "http://127.0.0.1:9"))
    output = own.run(range(1, 3), key=None)
    assert "argus: W&B: no key was handed to this run; it is kept on the disk" in output
    assert own.kept().of("_step", "train/loss") == [(1, 9.0), (2, 8.0)]


#: As a worker may have it: its settings are of another kind (before 0.19), or refuse the key and say so.
ODD_WANDB = """
class Run:
    def define_metric(self, *given, **more): pass
    def log(self, data, step): print("kept:", sorted(data), step)
class Settings:
    {body}
def init(**given):
    return Run() if given["mode"] == "offline" else None
def finish(): pass
"""


@pytest.mark.parametrize(
    "body", ["pass", "def model_copy(self): return self\n    def __setattr__(self, *given): raise ValueError(given)"]
)
def test_a_wandb_that_takes_no_key_in_its_settings_fails_no_training(tmp_path: Path, body: str) -> None:
    (tmp_path / "wandb.py").write_text(ODD_WANDB.format(body=body))
    own = tracking.environment(Tracking("{user}", "online", "http://127.0.0.1:9"), root := _root(tmp_path), "grpo")
    secrets.hand_over(root, argus_secrets.WANDB, KEY)
    program = (
        "import argus_verl_wandb, wandb; wandb.init(project='argus'); wandb.log({'loss': 1}, step=3); wandb.finish()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **own, "ARGUS_JOB_ROOT": root, "PYTHONPATH": f"{PAYLOAD}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "argus: W&B: the server cannot be used: " in done.stdout
    assert "kept: ['loss', 'trainer/global_step'] 3" in done.stdout
    assert KEY not in done.stdout + done.stderr


def _root(folder: Path) -> str:
    root = folder / "users" / "ada" / "jobs" / f"{TASK}--a01"
    root.mkdir(parents=True)
    return str(root)


def test_what_was_kept_on_the_disk_is_sent_by_wandb_sync(tmp_path: Path, source: str) -> None:
    with Server() as server:
        own = Attempts(tmp_path, source, Tracking("{user}-{workload}", "offline", server.url))
        own.run(range(1, 6), key=None)
        own.run(range(3, 8), key=None)
        env = {**os.environ, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "HOME": str(tmp_path)}
        for number in (1, 2):  # as docs/operations.md says it
            folder = own.jobs / f"{TASK}--a{number:02d}" / "wandb"
            argv = [sys.executable, "-m", "wandb", "sync", str(folder)]
            done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=240)
            assert done.returncode == 0, done.stdout + done.stderr
        run = server.run("ada-grpo", TASK)
        steps = [*range(1, 6), *range(3, 8)]
        assert run.rows("trainer/global_step", "train/loss") == [(step, 10 - step) for step in steps]
        assert list(server.runs) == [("ada-grpo", TASK)]
