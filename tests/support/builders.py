"""What tests build again and again: a service on a real database, a valid TaskSpec, a clock that stands
still."""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from argus_ray.config import Settings
from argus_ray.core import actions, flat_yaml, ids, paths, taskspec
from argus_ray.core.actions import Credential, Role
from argus_ray.core.errors import FieldError
from argus_ray.core.lifecycle import Admit
from argus_ray.core.model import Gang, IssuedToken, Task, User
from argus_ray.core.taskspec import TaskSpec
from argus_ray.service import Service
from argus_ray.store import Store
from tests.support.fresh import put_database

ADMIN = Credential(Role.ADMIN)
INTERNAL = Credential(Role.INTERNAL)


@dataclass
class FakeClock:
    """Stands still until told. `now`: seconds since the Unix epoch."""

    now: float = 1_800_000_000.0
    #: Seconds of the clock that nobody sets.
    since_boot: float = 40_000.0

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.since_boot

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.since_boot += seconds

    def jump(self, seconds: float) -> None:
        """The wall clock is set, and no time passes."""
        self.now += seconds


def memory_folder() -> Path | None:
    """Where a file costs no disk: for tests that write much and ask about processes, not about disks."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else None


def counted_entropy(seed: str = "") -> Callable[[int], bytes]:
    """Bytes that differ at each call and are the same in each run."""
    numbers = itertools.count()
    return lambda n: sha256(f"{seed}{next(numbers)}".encode()).digest()[:n]


def gang_of(spec: TaskSpec) -> Gang:
    return Gang(spec.nnodes, spec.n_gpus_per_node, cpus_per_node=float(spec.n_gpus_per_node))


def spec_yaml(shared_root: str | Path, **overrides: Any) -> str:
    """A valid TaskSpec. A field that is None is left out."""
    common = paths.common_dir(str(shared_root))
    fields: dict[str, Any] = {
        "workload": "sft",
        "code_path": f"{common}/code/verl/verl_repo",
        "model_id": "Qwen/Qwen2.5-0.5B-Instruct",
        "train_file": f"{common}/datasets/gsm8k/train.parquet",
        "val_file": f"{common}/datasets/gsm8k/test.parquet",
        "nnodes": 1,
        "n_gpus_per_node": 4,
        "total_epochs": 1,
        "save_freq": 10,
        "test_freq": -1,
    }
    fields.update(overrides)
    return yaml.safe_dump({name: value for name, value in fields.items() if value is not None}, sort_keys=False)


def parquet_file(*columns: str, rows: int = 2) -> bytes:
    """A small whole Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(["x"] * rows, pa.string()) for name in columns}), sink)
    return sink.getvalue()


def safetensors_file(size: int = 8) -> bytes:
    """A whole file with one tensor of so many bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\1" * size


#: Of a model, small, and good enough for a look at it.
MODEL_FILES = {
    "config.json": b'{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}',
    "model.safetensors": safetensors_file(),
    "pytorch_model.bin": b"PK\3\4" + b"PK\5\6" + bytes(18),
    "tokenizer.json": b'{"model": {}}',
}


def make_inputs(shared_root: str | Path) -> None:
    """What `spec_yaml` names: small, and good enough for a look at it."""
    common = Path(paths.common_dir(str(shared_root)))
    data = common / "datasets" / "gsm8k"
    hub = common / "hf" / "hub" / "models--Qwen--Qwen2.5-0.5B-Instruct"
    snapshot = hub / "snapshots" / "7ae557604adf67be50417f59c2c2f167def9a775"
    for folder in (common / "code" / "verl" / "verl_repo" / "verl", data, hub / "refs", snapshot):
        folder.mkdir(parents=True)
    for name in ("train", "test"):
        (data / f"{name}.parquet").write_bytes(parquet_file("messages", "prompt", "data_source", "reward_model"))
    (data / "rl.parquet").write_bytes(parquet_file("prompt", "data_source", "reward_model"))
    (hub / "refs" / "main").write_text(snapshot.name)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (snapshot / name).write_bytes(MODEL_FILES[name])


@dataclass
class World:
    """A service with its clock; `close` and `reopen` are a restart of the process."""

    root: Path
    service: Service
    store: Store
    settings: Settings
    clock: FakeClock
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def shared_root(self) -> str:
        return self.settings.shared_root

    @property
    def database(self) -> Path:
        return self.store.path

    def close(self) -> None:
        self.service.close()

    def reopen(self, **changes: Any) -> None:
        """The same files, a new process. `changes` are those of `make_service`."""
        self.close()
        new = make_service(self.root, clock=self.clock, **{**self.options, **changes})
        self.service, self.store, self.settings, self.options = (
            new.service,
            new.store,
            new.settings,
            new.options,
        )

    def user(self, user_id: str) -> Credential:
        """A new user, and its credential."""
        created = self.service.handle(ADMIN, actions.CreateUser(user_id, user_id.title()))
        assert isinstance(created, User)
        return self.issue(user_id)[0]

    def issue(self, user_id: str, **options: Any) -> tuple[Credential, IssuedToken]:
        issued = self.service.handle(ADMIN, actions.IssueToken(user_id, **options))
        assert isinstance(issued, IssuedToken)
        return bearer(issued.token), issued

    def spec(self, **overrides: Any) -> str:
        return spec_yaml(self.shared_root, **overrides)

    def submit(self, who: Credential, key: str | None = None, **overrides: Any) -> Task:
        answer = self.service.handle(who, self.submission(self.spec(**overrides), key))
        return self.task(answer.task_id)

    def submission(
        self, text: str, key: str | None = None, warnings: tuple[FieldError, ...] = ()
    ) -> actions.SubmitTask:
        """The action that the gateway makes of this text. Raises InvalidSpec."""
        spec = taskspec.parse(text, shared_root=self.shared_root)
        return actions.SubmitTask(text, spec.workload, gang_of(spec), key, warnings)

    def task(self, task_id: str) -> Task:
        task = self.service.task(task_id)
        assert task is not None
        return task

    def all_tasks(self) -> tuple[Task, ...]:
        """In the order of their acceptance."""
        with self.store.transaction() as db:
            names = [row[0] for row in db.execute("SELECT task_id FROM tasks ORDER BY seq").fetchall()]
        return self.service.tasks(names)

    def waiting(self, limit: int = 1_000_000) -> tuple[Task, ...]:
        """From the head of the queue."""
        return self._tasks("state IN ('QUEUED', 'PENDING_RESOURCES')", limit)

    def active(self) -> tuple[Task, ...]:
        """With an attempt that is not over, those of CANCELED tasks included."""
        return self._tasks("task_id IN (SELECT task_id FROM attempts WHERE state <> 'ENDED')", 1_000_000)

    def _tasks(self, where: str, limit: int) -> tuple[Task, ...]:
        query = f"SELECT task_id FROM tasks WHERE {where} ORDER BY seq LIMIT ?"  # noqa: S608 - a constant
        with self.store.transaction() as db:
            names = [row[0] for row in db.execute(query, (limit,)).fetchall()]
        return self.service.tasks(names)

    def admission(self, task: Task) -> Admit:
        """The change that admits this task now."""
        number = len(task.attempts) + 1
        submission_id = ids.submission_id(task.task_id, number)
        root = paths.job_root(self.shared_root, task.user_id, submission_id)
        steps = flat_yaml.read(task.spec_yaml.encode(), TaskSpec.model_fields)[0].get("total_training_steps")
        command = ("python3", "-m", "verl", *(() if steps is None else (f"trainer.total_training_steps={steps}",)))
        return Admit(task.task_id, number, submission_id, root, command, (("A", "b"),))


def bearer(token: str) -> Credential:
    return Credential(Role.USER, ids.token_digest(token))


def make_service(
    tmp_path: Path,
    *,
    clock: FakeClock | None = None,
    settings: dict[str, Any] | None = None,
    entropy: Callable[[int], bytes] | None = None,
    epoch: int | None = None,
    migrates: bool = False,
) -> World:
    """A service on a database under `tmp_path`, which is also the shared root. `settings` are overrides, as
    in serve_config.yaml. `migrates`: a database that is not there is made by all its migrations, which leaves a long
    write-ahead log; else it is a copy of one that was. Close it with `world.close()`."""
    clock = clock or FakeClock()
    chosen = Settings.model_validate({"shared_root": str(tmp_path), **(settings or {})})
    path = paths.database_path(chosen.shared_root, chosen.cluster_name)
    if not migrates:
        put_database(path)
    store = Store.open(path, epoch=epoch, lock_timeout_s=2.0, clock=clock)
    service = Service(
        store,
        chosen,
        clock=clock,
        monotonic=clock.monotonic,
        entropy=entropy or counted_entropy(str(store.epoch)),
    )
    return World(tmp_path, service, store, chosen, clock, {"settings": settings, "entropy": entropy})
