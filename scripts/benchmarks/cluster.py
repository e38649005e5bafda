"""A cluster of Argus on this machine for a benchmark, started as `scripts/argus-head` starts one, and its callers.

The only module here that knows how Argus is started and which processes it has. One cluster is kept for all benchmarks
of a run that want the same one; `ended` ends it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from argus_ray.local.cluster import OneMachine, free_port
from argus_ray.node import processes
from benchmarks import wrk
from benchmarks.report import ROOT

sys.path.append(str(ROOT / "scripts"))

USERS = 40
#: Seconds after which Ray gives a job up that cannot start, on a cluster without workers; its own default is 900.
JOB_START_S = 10
_STATE_ACTOR = "ray::StateActor"
#: The settings' maximum; the default for one user would stop a benchmark after a thousand tasks.
WAITING_LIMIT = 10_000

__all__ = ["USERS", "WAITING_LIMIT", "Answer", "Cluster", "free_port", "new_machine", "running"]


@dataclass(frozen=True)
class Answer:
    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Cluster:
    machine: OneMachine
    admin: str
    #: Of the benchmark's own: tokens, bodies, databases of peers.
    folder: Path
    #: Their number, and the GPUs of each.
    workers: tuple[int, int] = (0, 0)
    _tokens: list[str] = field(default_factory=list)
    _runs: int = 0

    @property
    def url(self) -> str:
        return self.machine.url

    @property
    def shared(self) -> Path:
        return self.machine.shared_root

    @property
    def ray_token(self) -> str:
        return (self.machine.root / "ray-token").read_text()

    def tokens(self) -> list[str]:
        """One each of 40 users."""
        for number in range(len(self._tokens), USERS):
            name = f"bench-{number}"
            self.ask("POST", "/api/v2/users", body={"user_id": name, "display_name": name})
            self._tokens.append(self.ask("POST", f"/api/v2/users/{name}/tokens").json()["token"])
        return self._tokens

    def file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path

    def ask(self, method: str, path: str, *, token: str | None = None, body: Any = None) -> Answer:
        """Raises OSError for any answer but a 2xx. `token` None: the admin's."""
        answer = self.try_once(method, path, token=token, body=body)
        if answer.status // 100 != 2:
            raise OSError(f"{method} {path}: {answer.status} {answer.text[:300]}")
        return answer

    def try_once(self, method: str, path: str, *, token: str | None = None, body: Any = None) -> Answer:
        """Raises OSError without an answer."""
        content = body if body is None or isinstance(body, str) else json.dumps(body)
        kind = "application/yaml" if isinstance(body, str) else "application/json"
        headers = {"Authorization": f"Bearer {token or self.admin}", "Content-Type": kind}
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(errors="replace"))
        except http.client.HTTPException as error:
            raise OSError(f"{method} {path}: {type(error).__name__} {error}") from error
        finally:
            connection.close()

    # --- submissions ---

    def spec(self, *, nnodes: int = 64, n_gpus_per_node: int = 8, **fields: Any) -> str:
        """A TaskSpec whose inputs are there, by default of a gang that no pool here has: it is accepted, and waits.
        @N@ stands for a number of its own."""
        common = self.shared / "common"
        all_fields = {
            "workload": "sft",
            "code_path": common / "code" / "verl",
            "model_id": common / "models" / "tiny",
            "train_file": common / "datasets" / "add" / "sft_train.parquet",
            "val_file": common / "datasets" / "add" / "sft_val.parquet",
            "nnodes": nnodes,
            "n_gpus_per_node": n_gpus_per_node,
            "total_epochs": 2,
            "total_training_steps": 50,
            "save_freq": 25,
            "test_freq": 25,
            "trainer_device": "cpu",
            "submission_id": "bench-@N@",
            **fields,
        }
        return "".join(f"{name}: {value}\n" for name, value in all_fields.items())

    def trivial_spec(self) -> str:
        """Of a program that prints one line and ends."""
        common = self.shared / "common"
        return self.spec(
            nnodes=1,
            n_gpus_per_node=1,
            workload="grpo",
            code_path=common / "trivial",
            train_file=common / "datasets" / "add" / "rl_train.parquet",
            val_file=common / "datasets" / "add" / "rl_val.parquet",
        ).replace("@N@", secrets.token_hex(8))

    def run_to_end(self, token: str, spec: str) -> str:
        """The id of a task that has SUCCEEDED."""
        task = str(self.ask("POST", "/api/v2/tasks", token=token, body=spec).json()["task_id"])
        if (state := self.wait_final(task, token)) != "SUCCEEDED":
            raise OSError(
                f"{task} is {state}: {self.ask('GET', f'/api/v2/tasks/{task}/logs', token=token).text[-500:]}"
            )
        return task

    def wait_final(self, task: str, token: str, timeout_s: float = 120) -> str:
        """Its state, once it has ended."""
        deadline = time.monotonic() + timeout_s
        while True:
            state = str(self.ask("GET", f"/api/v2/tasks/{task}", token=token).json()["state"])
            if state in ("SUCCEEDED", "FAILED", "CANCELED"):
                return state
            if time.monotonic() > deadline:
                raise OSError(f"{task} is still {state} after {timeout_s:g} s")
            time.sleep(0.1)

    def submissions(self, spec: str, name: str = "spec", record: Path | None = None) -> wrk.Load:
        """Of all users in turn."""
        return wrk.Load(
            f"{self.url}/api/v2/tasks",
            "POST",
            tokens=self.file("tokens", "\n".join(self.tokens()) + "\n"),
            body=self.file(f"{name}.yaml", spec),
            content_type="application/yaml",
            record=record,
        )

    def run(self, load: wrk.Load, *, connections: int, seconds: float) -> wrk.Counted:
        self._runs += 1
        return wrk.run(load, connections=connections, seconds=seconds, start=f"{self._runs}-")

    def waiting_ids(self) -> list[str]:
        return list(self.task_ids("QUEUED,PENDING_RESOURCES"))

    def task_ids(self, states: str = "") -> Iterator[str]:
        """Of all users."""
        cursor = ""
        while True:
            query = f"limit=500&state={states}&cursor={cursor}"
            page = self.ask("GET", f"/api/v2/tasks?{query}").json()
            yield from (task["task_id"] for task in page["tasks"])
            cursor = page["next_cursor"]
            if not cursor:
                return

    def fill(self, load: wrk.Load, count: int) -> int:
        """Submit until so many wait, at most a second's worth more; how many do."""
        waiting = len(self.waiting_ids())
        while waiting < count:
            got = self.run(load, connections=64, seconds=1)
            if not got.statuses.get(201):
                raise OSError(f"nothing was accepted: {wrk.others([got], (201,))}")
            waiting += got.statuses[201]
        return len(self.waiting_ids())

    def cancel_all(self) -> None:
        """So that the next round begins with an empty queue."""
        while ids := self.waiting_ids():
            paths = self.file("cancels", "".join(f"/api/v2/tasks/{task}:cancel\n" for task in ids))
            token = self.file("admin-token", f"{self.admin}\n")
            load = wrk.Load(self.url, "POST", tokens=token, paths=paths)
            self.run(load, connections=32, seconds=min(10, 1 + len(ids) / 500))
        time.sleep(1)  # the scheduler takes note

    # --- processes ---

    def wait_ready(self, timeout_s: float = 180) -> float:
        """Seconds until /readyz says so."""
        begun = time.monotonic()
        while not self._is_ready():
            if time.monotonic() - begun > timeout_s:
                raise OSError(f"not ready after {timeout_s:g} s; the logs are in {self.machine.logs}")
            time.sleep(0.05)
        return time.monotonic() - begun

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.try_once("GET", "/readyz").status == 200
        return False

    def head_pids(self) -> list[int]:
        """Of all that the head launcher has started: Ray, Serve, the proxy, the actors of Argus."""
        return processes.descendants(self.machine.children["head"].pid)

    def pids_of(self, title: str) -> list[int]:
        """The head's processes whose command line begins so."""
        return [pid for pid in self.head_pids() if command_of(pid).startswith(title)]

    def state_actor(self) -> int:
        """Its process id."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = self.pids_of(_STATE_ACTOR)
            return bool(found)

        if not processes.wait_until(is_there, 60):
            raise OSError("the state actor's process was not found")
        return found[0]


def command_of(pid: int) -> str:
    """Empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


# --- starting and ending one ---

_running: Cluster | None = None


def running(workers: int = 0, gpus: int = 0) -> Cluster:
    """A cluster that is ready: the one that runs if it has the same workers, else a new one in its place."""
    global _running
    if _running is not None and _running.workers != (workers, gpus):
        end()
    if _running is None:
        _running = _start(workers, gpus)
    return _running


def end() -> None:
    """End the cluster that runs, if there is one."""
    global _running
    if _running is not None:
        _running.machine.stop()
        shutil.rmtree(_running.machine.root, ignore_errors=True)
    _running = None


def _start(workers: int, gpus: int) -> Cluster:
    machine, admin = new_machine("argus", {} if workers else {"RAY_JOB_START_TIMEOUT_SECONDS": str(JOB_START_S)})
    made = Cluster(machine, admin, machine.root / "bench", (workers, gpus))
    try:
        made.folder.mkdir()
        _make_inputs(made.shared / "common")
        machine.launch_head(_config(machine.root))
        names = [f"worker-{number}" for number in range(1, workers + 1)]
        for name in names:
            machine.launch_worker(name, gpus=gpus, cpus=3 * gpus + 8)
        machine.wait_for_launch(names)
        _warm(made)
    except BaseException:
        machine.stop()
        raise
    return made


def _warm(argus: Cluster) -> None:
    """The first calls import and connect; no benchmark is about them."""
    spec, token = argus.spec(), argus.tokens()[0]
    for number in range(20):
        argus.ask("POST", "/api/v2/tasks", token=token, body=spec.replace("@N@", f"warm-{number}"))
        argus.ask("GET", "/api/v2/me", token=token)
    if shutil.which("wrk"):
        for load in (argus.submissions(spec), wrk.Load(f"{argus.url}/healthz")):
            argus.run(load, connections=64, seconds=2)
    argus.cancel_all()


def new_machine(name: str, environ: Mapping[str, str] | None = None) -> tuple[OneMachine, str]:
    """With the admin's token. Nothing runs on it yet. What is left in its folder after a failure is logs."""
    root = Path(f"/tmp/argus-bench-{name}-{os.getpid()}")  # noqa: S108 - short: Ray's sockets lie below it
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o700)
    admin = secrets.token_hex(24)
    environ = {"ARGUS_ADMIN_TOKEN": admin, **(environ or {})}
    return OneMachine(root, f"bench-{name}-{os.getpid()}", environ=environ), admin


def _config(root: Path) -> Path:
    text = (ROOT / "serve_config.yaml").read_text()
    changed = text.replace("waiting_tasks_per_user: 1000", f"waiting_tasks_per_user: {WAITING_LIMIT}")
    if changed == text:
        raise ValueError("serve_config.yaml has no waiting_tasks_per_user to raise")
    path = root / "bench_config.yaml"
    path.write_text(changed)
    return path


def _make_inputs(common: Path) -> None:
    """What `spec` names: real Parquet files, and a model that passes a look."""
    import make_tiny

    for folder in ("code/verl/verl", "models/tiny", "datasets/add"):
        (common / folder).mkdir(parents=True)
    header = b'{"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}'
    model = {
        "config.json": b'{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}',
        "tokenizer.json": b'{"model": {}}',
        "model.safetensors": len(header).to_bytes(8, "little") + header + b"1",
    }
    for name, content in model.items():
        (common / "models" / "tiny" / name).write_bytes(content)
    make_tiny.make_data(common / "datasets" / "add")
    trainer = common / "trivial" / "verl" / "trainer"
    trainer.mkdir(parents=True)
    for name in ("../__init__.py", "__init__.py"):
        (trainer / name).touch()
    (trainer / "main_ppo.py").write_text("print('a line', flush=True)\n")


def wait_until(condition: Callable[[], bool], timeout_s: float, poll_s: float = 0.1) -> bool:
    """False if it did not hold within the time."""
    return processes.wait_until(condition, timeout_s, poll_s)
