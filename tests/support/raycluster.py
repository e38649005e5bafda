"""A cluster on this machine and its callers, for tests over HTTP on real Ray."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from argus_ray.core.model import ClusterView
from argus_ray.local.cluster import OneMachine
from argus_ray.local.folder import mark_in
from argus_ray.node import processes

ROOT = Path(__file__).resolve().parents[2]
ADMIN_TOKEN = "admin-" + "0" * 40
INTERNAL_TOKEN = "internal-" + "1" * 40
#: Seconds. Generous, since the machine may be busy; no test waits this long when all is well.
PATIENCE_S = 180.0
FINAL = ("SUCCEEDED", "FAILED", "CANCELED")
#: Where each run of the tests has a folder `argus-t-<its process id>`, and `argus-q-...` for a quickstart of its own.
#: Short: Ray's Unix sockets lie below it.
FOLDERS = Path("/tmp")
#: Folders of this process. Another one that has our id in its name is of an earlier process that had it.
IN_USE: set[Path] = set()


def view_of_ray(ray_view: Any) -> ClusterView:
    """As Argus sees it, by a process that is attached to the cluster."""
    from argus_ray.cluster.view import look

    assert ray_view.is_initialized()
    return look()


def mark_of(folder: Path) -> str:
    return f"tests-{folder.name}"


def end_orphans(folders: Path = FOLDERS) -> None:
    """End and remove what runs of the tests have left that were killed."""
    for folder in (*folders.glob("argus-t-*"), *folders.glob("argus-q-*")):
        owner = folder.name.rpartition("-")[2]
        is_ours = folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()
        is_over = owner.isdigit() and (int(owner) == os.getpid() or not Path(f"/proc/{owner}").exists())
        if is_ours and is_over and folder not in IN_USE:
            for mark in (mark_of(folder), mark_in(folder)):
                if mark:
                    processes.end_marked(mark, grace_s=0)
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Api:
    """One caller of the HTTP API."""

    http: httpx2.Client
    shared: Path
    token: str
    gates: int = field(default=0)

    def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx2.Response:
        mine = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        return self.http.request(method, path, headers=mine, **options)

    def patiently(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """`request`, retried while the service restarts."""
        answers: list[httpx2.Response] = []

        def answered() -> bool:
            answers.append(self.request(method, path, **options))
            return answers[-1].status_code != 503

        assert processes.wait_until(answered, PATIENCE_S, 0.3), answers[-1].text
        return answers[-1]

    def get(self, path: str) -> Any:
        answer = self.patiently("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def new_user(self, name: str) -> Api:
        """A user with a token; for an admin."""
        made = self.patiently("POST", "/api/v2/users", json={"user_id": name, "display_name": name})
        # A try that was answered 503 may have made it.
        assert made.status_code in (201, 409), made.text
        issued = self.patiently("POST", f"/api/v2/users/{name}/tokens")
        assert issued.status_code == 201, issued.text
        return Api(self.http, self.shared, issued.json()["token"])

    def submit(self, plan: dict[str, Any] | None = None, *, key: str | None = None, **fields: Any) -> str:
        """A task that runs the stand-in verl with this plan."""
        # The same key stands for the same body, so the plan's name follows from it.
        key = key or os.urandom(8).hex()
        name = f"plan-{self.token[-8:]}-{key}.json"
        (self.shared / "common" / "plans" / name).write_text(json.dumps({"steps": 2, "step_s": 0.05, **(plan or {})}))
        path = str(self.shared / "common" / "plans" / name)
        spec = {
            "workload": "grpo",
            "code_path": str(self.shared / "common" / "standin"),
            "model_id": "tiny",
            "train_file": path,
            "val_file": path,
            "nnodes": 1,
            "n_gpus_per_node": 4,
            "total_epochs": 1,
            "save_freq": 1,
            "test_freq": -1,
            "trainer_device": "cpu",
            **fields,
        }
        return self._submit(spec, key)

    def submit_example(self, name: str, *, presets: Sequence[str] = (), **fields: Any) -> str:
        """One of examples/, with the paths of this pool, and other values for some fields."""
        text = (ROOT / "examples" / f"{name}.yaml").read_text().replace("/private/", f"{self.shared}/")
        return self._submit({**yaml.safe_load(text), **fields}, os.urandom(8).hex(), presets)

    def _submit(self, spec: dict[str, Any], key: str, presets: Sequence[str] = ()) -> str:
        """Retried with the key while the service restarts."""
        headers = {"Content-Type": "application/yaml", "Idempotency-Key": key}
        query = {"preset": list(presets)}
        answer = self.patiently("POST", "/api/v2/tasks", params=query, content=json.dumps(spec), headers=headers)
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["task_id"])

    def task(self, task_id: str) -> dict[str, Any]:
        """The task; retried while the service restarts."""
        answer = self.patiently("GET", f"/api/v2/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    def cancel(self, task_id: str) -> None:
        answer = self.request("POST", f"/api/v2/tasks/{task_id}:cancel")
        assert answer.status_code == 200, answer.text

    def wait(
        self, task_id: str, condition: Callable[[dict[str, Any]], bool], what: str, timeout_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Poll the task until the named condition holds."""
        seen: list[dict[str, Any]] = []

        def holds() -> bool:
            seen.append(self.task(task_id))
            return condition(seen[-1])

        if not processes.wait_until(holds, timeout_s, 0.2):
            log = self.request("GET", f"/api/v2/tasks/{task_id}/logs?tail=40")
            pytest.fail(f"{task_id} is not {what}: {json.dumps(seen[-1], indent=1)}\n{log.text}")
        return seen[-1]

    def wait_state(self, task_id: str, *states: str) -> dict[str, Any]:
        view = self.wait(task_id, lambda v: v["state"] in (*states, *FINAL), " or ".join(states))
        assert view["state"] in states, json.dumps(view, indent=1)
        return view

    def wait_final(self, task_id: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Its drivers ran where they were assigned to."""
        view = self.wait(task_id, lambda v: v["state"] in FINAL, "final", timeout_s)
        for attempt in view["attempts"]:
            assert len(set(attempt["nodes"])) == view["gang"]["nnodes"], attempt
            assert attempt["node_id"] in (None, attempt["nodes"][0]), attempt
        return view

    def wait_explained(self, task_id: str, word: str) -> dict[str, Any]:
        """Until the reason why it waits has this word."""
        seen: list[dict[str, Any]] = []

        def holds() -> bool:
            seen.append(self.get(f"/api/v2/tasks/{task_id}/explain"))
            return word in seen[-1]["summary"]

        assert processes.wait_until(holds, PATIENCE_S, 0.2), seen[-1]
        return seen[-1]

    def gate(self) -> Path:
        """A file that a stand-in can be told to wait for; create it to let it go on."""
        self.gates += 1
        return self.shared / "common" / "plans" / f"gate-{self.token[-8:]}-{self.gates}"


@dataclass
class Cluster:
    machine: OneMachine
    http: httpx2.Client
    users: int = 0

    @property
    def shared(self) -> Path:
        return self.machine.shared_root

    @property
    def admin(self) -> Api:
        return Api(self.http, self.shared, ADMIN_TOKEN)

    @property
    def internal(self) -> Api:
        return Api(self.http, self.shared, INTERNAL_TOKEN)

    def user(self) -> Api:
        """A new user with a token."""
        self.users += 1
        return self.admin.new_user(f"user-{self.users}")

    def job_root(self, view: dict[str, Any], attempt: int = -1) -> Path:
        return Path(view["attempts"][attempt]["job_root"])

    def executions(self, view: dict[str, Any]) -> list[int]:
        """How often each attempt's program was started."""
        logs = [self.job_root(view, i) / "executions.log" for i in range(len(view["attempts"]))]
        return [len(log.read_text().splitlines()) if log.exists() else 0 for log in logs]

    def saved(self, view: dict[str, Any]) -> int:
        """The step of the newest checkpoint of the last attempt; 0: none."""
        tracker = self.job_root(view) / "checkpoints" / "latest_checkpointed_iteration.txt"
        return int(tracker.read_text() or 0) if tracker.exists() else 0
