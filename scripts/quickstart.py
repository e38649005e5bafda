"""Run Argus's main job for real on this machine: a head, two workers with four logical GPUs each, the service, a user
with a token, and two verl training tasks on the CPU that run to their end.

  scripts/quickstart           run it, show it, stop everything
  scripts/quickstart --keep    leave it up afterwards
  scripts/quickstart --stop    end what --keep, or a crash, has left

Everything lies in one folder (default /tmp/argus-quickstart-<user id>), made anew by each run.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from argus_ray.node import processes
from argus_ray.node.onemachine import NotStarted, OneMachine

HERE = Path(__file__).resolve().parent.parent
USER = "ada"
#: Seconds for both tasks; a busy machine with two cores takes about four minutes.
TASKS_TIMEOUT_S = 1200
SPEC = """\
workload: {workload}
code_path: {common}/code/verl
model_id: {common}/models/tiny
train_file: {common}/datasets/add/{data}_train.parquet
val_file: {common}/datasets/add/{data}_val.parquet
nnodes: 1
n_gpus_per_node: 1
total_epochs: {epochs}
total_training_steps: {steps}
save_freq: {save_freq}
test_freq: -1
trainer_device: cpu
"""


def main() -> int:
    arguments = _arguments()
    root = Path(arguments.dir)
    mark = f"quickstart-{root.resolve()}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes.end_marked(mark, grace_s=5)  # what a crash or --keep has left
    if arguments.stop:
        print("Everything of the quickstart has been stopped.")
        return 0
    shutil.rmtree(root, ignore_errors=True)
    admin = secrets.token_hex(24)
    machine = OneMachine(root, mark, environ={"ARGUS_ADMIN_TOKEN": admin})
    keep = False
    try:
        _start(machine)
        api = Api(machine.url, admin)
        token = _user_and_token(api)
        tasks = _submit(Api(machine.url, token), machine)
        succeeded = _follow(Api(machine.url, token), tasks)
        _show(machine, Api(machine.url, token), tasks, token, kept=arguments.keep)
        keep = arguments.keep
        return 0 if succeeded else 1
    except (NotStarted, ApiError, TimeoutError) as error:
        print(f"\nquickstart: {error}\nThe logs are in {machine.logs}.", file=sys.stderr)
        return 1
    finally:
        if not keep:
            _say("stopping everything that was started")
            machine.stop()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave it up afterwards")
    parser.add_argument("--stop", action="store_true", help="end what an earlier run has left, and nothing else")
    parser.add_argument("--dir", default=f"/tmp/argus-quickstart-{os.getuid()}", help="where everything lies")  # noqa: S108
    return parser.parse_args()


def _start(machine: OneMachine) -> None:
    _say("starting a head with 0 CPUs and 0 GPUs, and making a tiny model and data set")
    machine.start_head()
    common = machine.shared_root / "common"
    with subprocess.Popen(
        [sys.executable, str(HERE / "scripts" / "make_tiny.py"), str(common)], stdout=subprocess.DEVNULL
    ) as tiny:
        machine.wait_for_head()
        _say("starting two workers with 4 logical GPUs each, and the service (serve run serve_config.yaml)")
        for name in ("worker-1", "worker-2"):
            machine.start_worker(name)
        machine.serve(HERE / "serve_config.yaml")
        for name in ("worker-1", "worker-2"):
            machine.wait_for_worker(name)
        machine.wait_for_service()
        if tiny.wait(120) != 0:
            raise NotStarted("scripts/make_tiny.py failed")
    # verl is installed on the workers; a team's own copy would lie here and be found first.
    (common / "code" / "verl").mkdir(parents=True)


def _user_and_token(admin: Api) -> str:
    _say(f"creating the user {USER!r} and issuing a token (shown once; only its SHA-256 is stored)")
    admin.post("/api/v2/users", {"user_id": USER, "display_name": "Ada"})
    return str(admin.post(f"/api/v2/users/{USER}/tokens", {"label": "quickstart"})["token"])


def _submit(user: Api, machine: OneMachine) -> dict[str, str]:
    common = machine.shared_root / "common"
    specs = {
        "sft": SPEC.format(workload="sft", data="sft", common=common, epochs=2, steps=60, save_freq=30),
        "grpo": SPEC.format(workload="grpo", data="rl", common=common, epochs=1, steps=2, save_freq=2),
    }
    tasks = {}
    for workload, spec in specs.items():
        tasks[workload] = str(user.post("/api/v2/tasks", spec)["task_id"])
        _say(f"submitted {tasks[workload]} (real verl on the CPU)")
    return tasks


def _follow(user: Api, tasks: dict[str, str]) -> bool:
    """Print the states and the live log until both have ended; True if both succeeded."""
    threading.Thread(target=_print_log, args=(user, tasks["sft"]), daemon=True).start()
    shown: dict[str, str] = {}
    deadline = time.monotonic() + TASKS_TIMEOUT_S
    while time.monotonic() < deadline:
        views = {workload: user.get(f"/api/v2/tasks/{task}") for workload, task in tasks.items()}
        for workload, view in views.items():
            line = _one_line(view)
            if shown.get(workload) != line:
                shown[workload] = line
                _say(f"{workload:5} {line}")
        if all(view["state"] in ("SUCCEEDED", "FAILED", "CANCELED") for view in views.values()):
            return all(view["state"] == "SUCCEEDED" for view in views.values())
        time.sleep(1)
    raise TimeoutError(f"the tasks have not ended within {TASKS_TIMEOUT_S} s")


def _one_line(view: dict[str, Any]) -> str:
    words = [view["state"]]
    if view.get("position"):
        words.append(f"position {view['position']}")
    progress = view.get("progress") or {}
    if progress.get("step") is not None:
        words.append(f"step {progress['step']} of {progress.get('total_steps') or '?'}")
    if view.get("reason"):
        words.append(str(view["reason"]))
    return ", ".join(words)


def _print_log(user: Api, task: str) -> None:
    """The live log, as server-sent events: the lines with a training step only, since verl prints a lot."""
    try:
        for line in user.stream(f"/api/v2/tasks/{task}/logs/stream"):
            if "train/loss" in line:
                print(f"      | {line.removeprefix('data:').strip()[:140]}", flush=True)
    except OSError:
        return


def _show(machine: OneMachine, user: Api, tasks: dict[str, str], token: str, *, kept: bool) -> None:
    print()
    for workload, task in tasks.items():
        view = user.get(f"/api/v2/tasks/{task}")
        root = Path(view["attempts"][-1]["job_root"])
        saved = sorted(path.name for path in root.glob("checkpoints/global_step_*"))
        print(f"{workload}: {view['state']}\n  output      {root}\n  log         {root}/logs/driver.log")
        print(f"  checkpoints {', '.join(saved) or 'none'}")
        losses = _losses(root / "metrics.jsonl", "train/loss" if workload == "sft" else "actor/pg_loss")
        if losses and workload == "sft":
            print(f"  train/loss  {losses[0]:.3f} at the first step, {losses[-1]:.3f} at the last")
    if not kept:
        print("\nTry `scripts/quickstart --keep` to leave it up and use it.")
        return
    print(
        f"""
It is up. Open:
  {machine.url}/docs   the API
  {machine.dashboard}        the Ray dashboard (its token is in {machine.root}/ray-token)
Try:
  export TOKEN={token}
  curl -H "Authorization: Bearer $TOKEN" {machine.url}/api/v2/queue
  curl -H "Authorization: Bearer $TOKEN" {machine.url}/api/v2/tasks/{tasks["sft"]}/logs?tail=20
Stop it with: scripts/quickstart --stop"""
    )


def _losses(metrics: Path, key: str) -> list[float]:
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    data = [json.loads(line)["data"] for line in lines]
    return [float(entry[key]) for entry in data if key in entry]


class ApiError(Exception):
    """The API refused a call."""


class Api:
    """Just enough of an HTTP client, with the standard library."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> dict[str, Any]:
        return self._json(urllib.request.Request(self._url + path, headers=self._headers))  # noqa: S310

    def post(self, path: str, body: dict[str, Any] | str) -> dict[str, Any]:
        is_yaml = isinstance(body, str)
        raw = body if is_yaml else json.dumps(body)
        headers = {**self._headers, "Content-Type": "application/yaml" if is_yaml else "application/json"}
        return self._json(urllib.request.Request(self._url + path, str(raw).encode(), headers))  # noqa: S310

    def stream(self, path: str) -> Any:
        request = urllib.request.Request(self._url + path, headers=self._headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=TASKS_TIMEOUT_S) as answer:  # noqa: S310
            for raw in answer:
                yield raw.decode(errors="replace")

    def _json(self, request: urllib.request.Request) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                answer_body: dict[str, Any] = json.load(answer)
                return answer_body
        except urllib.error.HTTPError as error:
            raise ApiError(f"{request.full_url}: {error.code} {error.read().decode(errors='replace')[:500]}") from None
        except OSError as error:
            raise ApiError(f"{request.full_url}: {error}") from None


_BEGUN = time.monotonic()


def _say(words: str) -> None:
    print(f"[{time.monotonic() - _BEGUN:5.0f} s] {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
