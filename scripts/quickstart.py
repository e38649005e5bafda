"""The whole of Argus on this machine: a head, two workers with four logical GPUs each, the service, and a user with a
token.

  scripts/quickstart           submit two verl trainings on the CPU, follow them to their end, and stop everything
  scripts/quickstart --keep    submit nothing, and leave the service up for you: it prints what to type
  scripts/quickstart --stop    end one that is running, and what --keep or a crash has left

Everything lies in one folder (default /tmp/argus-quickstart-<user id>), emptied by each run. A folder that holds
anything else is left alone. Exit codes: 0 all is well, 1 something failed, 2 refused.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from argus_ray.local import folder, session
from argus_ray.local.client import FINAL, Api, ApiError, in_one_line
from argus_ray.local.cluster import NotStarted, OneMachine
from argus_ray.local.session import say
from argus_ray.node import processes

HERE = Path(__file__).resolve().parent.parent
USER = "ada"
WORKERS = ("worker-1", "worker-2")
#: Seconds for both tasks; a busy machine with two cores takes about four minutes.
TASKS_TIMEOUT_S = 1200


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)

    def run() -> int:
        root = folder.usable_root(arguments.dir)
        if arguments.stop:
            return _stop(root)
        with folder.held(root):
            return session.on_machine("quickstart", root, story, home=HERE, keep=arguments.keep)

    def story(machine: OneMachine, admin: str) -> int:
        _start(machine)
        token = _new_user(Api(machine.url, admin))
        if arguments.keep:
            _hand_over(machine, token, admin)
            return session.OK
        user = Api(machine.url, token)
        tasks = _submit(user, machine)
        succeeded = _follow(user, tasks)
        _show(user, tasks)
        return session.OK if succeeded else session.FAILED

    return session.exit_code("quickstart", run)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="train nothing, and leave the service up")
    parser.add_argument("--stop", action="store_true", help="end what is running there, and nothing else")
    parser.add_argument("--dir", default=f"/tmp/argus-quickstart-{os.getuid()}", help="where everything lies")  # noqa: S108
    return parser.parse_args(argv)


def _stop(root: Path) -> int:
    stopped = folder.end(root)
    print(f"The quickstart in {root} has been stopped." if stopped else f"Nothing is running in {root}.")
    return session.OK


def _start(machine: OneMachine) -> None:
    say("starting the head launcher and two watchdogs, which join by reading one file; making a tiny model and data")
    machine.launch_head(HERE / "serve_config.yaml")
    for name in WORKERS:
        machine.launch_worker(name)
    common = machine.shared_root / "common"
    # In a session of its own, so that Ctrl-C reaches us alone; the mark ends it.
    tiny = subprocess.Popen(
        [sys.executable, str(HERE / "scripts" / "make_tiny.py"), str(common)],
        stdout=subprocess.DEVNULL,
        stderr=(machine.logs / "make_tiny.log").open("wb"),
        env={**os.environ, processes.MARK: machine.mark},
        start_new_session=True,
    )
    machine.wait_for_launch(WORKERS)
    say("the service is ready, and both workers are in: 1 + 2 nodes, 8 logical GPUs, none on the head")
    if not processes.wait_until(lambda: tiny.poll() is not None, 120) or tiny.returncode != 0:
        raise NotStarted("scripts/make_tiny.py failed, or took too long")


def _new_user(admin: Api) -> str:
    say(f"creating the user {USER!r} and issuing a token (shown once; only its SHA-256 is stored)")
    return admin.new_user(USER, "Ada", "quickstart")


def _submit(user: Api, machine: OneMachine) -> dict[str, str]:
    tasks = {}
    for workload in ("sft", "grpo"):
        tasks[workload] = str(user.post("/api/v2/tasks", _example(machine, workload))["task_id"])
        say(f"submitted {tasks[workload]} (real verl on the CPU)")
    return tasks


def _example(machine: OneMachine, workload: str) -> str:
    """The example, whose paths are those of a pool's shared filesystem, with those of this machine."""
    spec = (HERE / "examples" / f"cpu-{workload}.yaml").read_text()
    return spec.replace("/private/", f"{machine.shared_root}/")


def _follow(user: Api, tasks: dict[str, str]) -> bool:
    """Print the states and the live log until both have ended; True if both succeeded."""
    threading.Thread(target=_print_log, args=(user, tasks["sft"]), daemon=True).start()
    shown: dict[str, str] = {}
    deadline = time.monotonic() + TASKS_TIMEOUT_S
    while time.monotonic() < deadline:
        views = {workload: user.get(f"/api/v2/tasks/{task}") for workload, task in tasks.items()}
        for workload, view in views.items():
            line = in_one_line(view)
            if shown.get(workload) != line:
                shown[workload] = line
                say(f"{workload:5} {line}")
        if all(view["state"] in FINAL for view in views.values()):
            return all(view["state"] == "SUCCEEDED" for view in views.values())
        time.sleep(1)
    raise TimeoutError(f"the tasks have not ended within {TASKS_TIMEOUT_S} s")


def _print_log(user: Api, task: str) -> None:
    """The live log, as server-sent events."""
    # It ends when the stream does, however that is: the log is not needed for the rest.
    with contextlib.suppress(ApiError, OSError, http.client.HTTPException):
        for line in user.stream(f"/api/v2/tasks/{task}/logs/stream"):
            if shown := _training_step(line):
                print(f"      | {shown}", flush=True)


#: verl's console logger: `step:12 - name:value - name:value ...`.
_STEP = re.compile(r"step:(\d+) - .*?\btrain/loss:(-?[0-9.]+(?:e-?[0-9]+)?)")


def _training_step(line: str) -> str | None:
    """What to show of a line of the stream: the loss in a line of the log (`data: ...`) with a training step, since
    verl prints a lot; nothing of the others (`event: ...`, `id: ...`, keep-alives)."""
    step = _STEP.search(line) if line.startswith("data: ") else None
    return f"step {step[1]}: train/loss {float(step[2]):.3f}" if step else None


def _show(user: Api, tasks: dict[str, str]) -> None:
    print()
    for workload, task in tasks.items():
        view = user.get(f"/api/v2/tasks/{task}")
        print(f"{workload}: {view['state']}")
        if view["state"] != "SUCCEEDED":
            print(f"  reason      {view['reason']}")
        if not view["attempts"]:
            continue
        root = Path(view["attempts"][-1]["job_root"])
        saved = sorted(path.name for path in root.glob("checkpoints/global_step_*"))
        print(f"  output      {root}\n  log         {root}/logs/driver.log")
        print(f"  checkpoints {', '.join(saved) or 'none'}")
        losses = _losses(root / "metrics.jsonl", "train/loss" if workload == "sft" else "actor/pg_loss")
        if losses and workload == "sft":
            print(f"  train/loss  {losses[0]:.3f} at the first step, {losses[-1]:.3f} at the last")
        if view["state"] != "SUCCEEDED":
            print("  its last lines:")
            print("".join(f"    | {line}\n" for line in user.text(f"/api/v2/tasks/{task}/logs?tail=20").splitlines()))
    print("\nTry `scripts/quickstart --keep`: it leaves the service up for tasks of yours.")


def _hand_over(machine: OneMachine, token: str, admin: str) -> None:
    """The service is left to whoever has called us."""
    spec, key = machine.root / "task.yaml", machine.root / "admin-token"
    spec.write_text(_example(machine, "sft"))
    key.touch(mode=0o600)
    key.write_text(admin + "\n")
    print(
        f"""
It is up. The token of the user {USER!r}:
  {token}
What to type now, in any folder:
  export ARGUS={machine.url}
  curl -fsSO $ARGUS/argus.pyz
  python3 argus.pyz login $ARGUS
  alias argus="python3 $PWD/argus.pyz"
  cp {spec} .
  argus submit task.yaml --watch
docs/getting-started.md goes on from there. The API is shown at {machine.url}/docs,
the Ray dashboard at {machine.dashboard} (its token: {machine.root}/ray-token).
The admin's token: {key}
Stop it with: scripts/quickstart --stop"""
    )


def _losses(metrics: Path, key: str) -> list[float]:
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    data = [json.loads(line)["data"] for line in lines]
    return [float(entry[key]) for entry in data if key in entry]


if __name__ == "__main__":
    session.end_on_signals()
    sys.exit(main())
