"""Run Argus's main job for real on this machine: a head, two workers with four logical GPUs each, the service, a user
with a token, and two verl training tasks on the CPU that run to their end.

  scripts/quickstart           run it, show it, stop everything
  scripts/quickstart --keep    leave it up afterwards
  scripts/quickstart --stop    end one that is running, and what --keep or a crash has left

Everything lies in one folder (default /tmp/argus-quickstart-<user id>), emptied by each run. A folder that holds
anything else is left alone. Exit codes: 0 all is well, 1 something failed, 2 refused.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from argus_ray.local.cluster import NotStarted, OneMachine
from argus_ray.node import processes

HERE = Path(__file__).resolve().parent.parent
USER = "ada"
#: Seconds for both tasks; a busy machine with two cores takes about four minutes.
TASKS_TIMEOUT_S = 1200


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)

    def run() -> int:
        root = usable_root(arguments.dir)
        if arguments.stop:
            return _stop(root)
        with held(root):
            return _run(root, keep=arguments.keep)

    return exit_code("quickstart", run)


def exit_code(program: str, run: Callable[[], int]) -> int:
    """What `run` returns; 2 if it was Refused, 1 if the system refused something. The reason goes to standard error."""
    try:
        return run()
    except Refused as refusal:
        print(f"{program}: {refusal}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave it up afterwards")
    parser.add_argument("--stop", action="store_true", help="end what is running there, and nothing else")
    parser.add_argument("--dir", default=f"/tmp/argus-quickstart-{os.getuid()}", help="where everything lies")  # noqa: S108
    return parser.parse_args(argv)


def _run(root: Path, *, keep: bool) -> int:
    def story(machine: OneMachine, admin: str) -> int:
        _start(machine)
        token = user_and_token(Api(machine.url, admin))
        user = Api(machine.url, token)
        tasks = _submit(user, machine)
        succeeded = _follow(user, tasks)
        _show(machine, user, tasks, token, kept=keep)
        return 0 if succeeded else 1

    return on_machine("quickstart", root, story, keep=keep)


def on_machine(program: str, root: Path, story: Callable[[OneMachine, str], int], *, keep: bool = False) -> int:
    """What `story` returns, told of a machine in the folder, which is emptied, and the admin's token; or 1 with the
    reason on standard error. What it has started there is ended, whatever comes of it; to `keep` it, the story must
    come to its end."""
    os.chdir(HERE)  # what we start takes its own folder for a place to import from
    admin = secrets.token_hex(24)
    machine = OneMachine(root, _claim(root), environ={"ARGUS_ADMIN_TOKEN": admin})
    stays = False
    try:
        try:
            code = story(machine, admin)
            stays = keep
            return code
        finally:
            ignore_signals()  # nothing may break off the cleanup
    except (NotStarted, ApiError, subprocess.SubprocessError, OSError) as error:
        print(f"\n{program}: {error}\nThe logs are in {machine.logs}.", file=sys.stderr)
        return 1
    finally:
        if not stays:
            with contextlib.suppress(OSError):  # whoever read our output may have gone
                say("stopping everything that was started")
            machine.stop()


def _stop(root: Path) -> int:
    """End a quickstart that runs there, and what --keep or a crash has left."""
    running = _end_running(root)
    mark = _mark_in(root)
    left = bool(mark) and bool(processes.marked(mark))
    if left:
        processes.end_marked(mark, grace_s=5)
    print(f"The quickstart in {root} has been stopped." if running or left else f"Nothing is running in {root}.")
    return 0


# --- the folder ---

#: Says that the folder is ours, and which processes belong to it.
MARKER = ".argus-quickstart"
_MARK = "quickstart-"


class Refused(Exception):
    """What was asked for could do harm; nothing has been done."""


def usable_root(folder: str) -> Path:
    """The folder, which may not be there yet. Raises Refused if it is not there for us alone."""
    path = Path(folder)
    if path.is_symlink():
        raise Refused(f"{path} is a link; name the folder itself")
    _check(path.resolve())
    return path.resolve()


def _check(root: Path) -> None:
    """Refuse a folder that is not there for us alone."""
    if not root.exists():
        return
    if not root.is_dir():
        raise Refused(f"{root} is not a folder")
    if root.stat().st_uid != os.getuid():
        raise Refused(f"{root} belongs to another user; take another --dir")
    if any(root.iterdir()) and not _is_file(root / MARKER):
        raise Refused(f"{root} holds something else than a quickstart; delete it yourself, or take another --dir")


def _claim(root: Path) -> str:
    """Make the folder, or end what runs in ours and empty it; the new mark of our processes. Raises Refused."""
    root.mkdir(mode=0o700, exist_ok=True)
    _check(root)  # again: someone may have been faster
    if old := _mark_in(root):
        processes.end_marked(old, grace_s=5)
    root.chmod(0o700)
    for entry in root.iterdir():
        # The marker stays: should this be broken off, the folder is still ours.
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    mark = _MARK + secrets.token_hex(8)
    (root / MARKER).write_text(mark)
    return mark


def _mark_in(root: Path) -> str:
    """The mark of the processes that were started in our folder; empty if there is none."""
    mark = (root / MARKER).read_text() if _is_file(root / MARKER) else ""
    return mark if mark.startswith(_MARK) else ""


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


# --- one at a time ---


def _lock_file(root: Path) -> Path:
    """Beside the folder, since the folder is emptied. It stays; what counts is who has locked it."""
    return root.parent / f"{root.name}.lock"


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold the folder for as long as this process runs. Raises Refused if another one does."""
    root.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_lock_file(root), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if not _try_lock(descriptor):
            raise Refused(f"another one is running in {root}; end it with --stop, or take another --dir")
        os.ftruncate(descriptor, 0)
        try:
            os.write(descriptor, str(os.getpid()).encode())  # whom --stop has to tell
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _end_running(root: Path) -> bool:
    """Have the quickstart that holds the folder stop what it has started; False if there is none."""
    try:
        descriptor = os.open(_lock_file(root), os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False

    def has_ended() -> bool:
        if _try_lock(descriptor):
            return True
        if holder := os.pread(descriptor, 20, 0):  # else it has just begun, or is about to end
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(holder), signal.SIGTERM)
        return False

    try:
        if _try_lock(descriptor):
            return False
        if not processes.wait_until(has_ended, 60, poll_s=0.5):
            raise TimeoutError("the one that is running does not end")
        return True
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --- what it shows ---


def _start(machine: OneMachine) -> None:
    say("starting the head launcher and two watchdogs, which join by reading one file; making a tiny model and data")
    machine.launch_head(HERE / "serve_config.yaml")
    for name in ("worker-1", "worker-2"):
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
    machine.wait_for_launch(("worker-1", "worker-2"))
    say("the service is ready, and both workers are in: 1 + 2 nodes, 8 logical GPUs, none on the head")
    if not processes.wait_until(lambda: tiny.poll() is not None, 120) or tiny.returncode != 0:
        raise NotStarted("scripts/make_tiny.py failed, or took too long")


def user_and_token(admin: Api) -> str:
    say(f"creating the user {USER!r} and issuing a token (shown once; only its SHA-256 is stored)")
    admin.post("/api/v2/users", {"user_id": USER, "display_name": "Ada"})
    return str(admin.post(f"/api/v2/users/{USER}/tokens", {"label": "quickstart"})["token"])


def _submit(user: Api, machine: OneMachine) -> dict[str, str]:
    tasks = {}
    for workload in ("sft", "grpo"):
        tasks[workload] = str(user.post("/api/v2/tasks", example(workload, machine))["task_id"])
        say(f"submitted {tasks[workload]} (real verl on the CPU)")
    return tasks


def example(workload: str, machine: OneMachine) -> str:
    """The example for the CPU, with the paths of this machine."""
    return (HERE / "examples" / f"cpu-{workload}.yaml").read_text().replace("/private/", f"{machine.shared_root}/")


def _follow(user: Api, tasks: dict[str, str]) -> bool:
    """Print the states and the live log until both have ended; True if both succeeded."""
    threading.Thread(target=_print_log, args=(user, tasks["sft"]), daemon=True).start()
    shown: dict[str, str] = {}
    deadline = time.monotonic() + TASKS_TIMEOUT_S
    while time.monotonic() < deadline:
        views = {workload: user.get(f"/api/v2/tasks/{task}") for workload, task in tasks.items()}
        for workload, view in views.items():
            line = one_line(view)
            if shown.get(workload) != line:
                shown[workload] = line
                say(f"{workload:5} {line}")
        if all(view["state"] in ("SUCCEEDED", "FAILED", "CANCELED") for view in views.values()):
            return all(view["state"] == "SUCCEEDED" for view in views.values())
        time.sleep(1)
    raise TimeoutError(f"the tasks have not ended within {TASKS_TIMEOUT_S} s")


def one_line(view: dict[str, Any]) -> str:
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


def _show(machine: OneMachine, user: Api, tasks: dict[str, str], token: str, *, kept: bool) -> None:
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


#: Never by a proxy: the service is on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Api:
    """Just enough of an HTTP client, with the standard library."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> dict[str, Any]:
        return self._json(urllib.request.Request(self._url + path, headers=self._headers))  # noqa: S310

    def text(self, path: str) -> str:
        return self._send(urllib.request.Request(self._url + path, headers=self._headers)).decode(errors="replace")  # noqa: S310

    def post(self, path: str, body: dict[str, Any] | str) -> dict[str, Any]:
        is_yaml = isinstance(body, str)
        raw = body if is_yaml else json.dumps(body)
        headers = {**self._headers, "Content-Type": "application/yaml" if is_yaml else "application/json"}
        return self._json(urllib.request.Request(self._url + path, str(raw).encode(), headers))  # noqa: S310

    def stream(self, path: str) -> Any:
        request = urllib.request.Request(self._url + path, headers=self._headers)  # noqa: S310
        with _OPENER.open(request, timeout=TASKS_TIMEOUT_S) as answer:
            for raw in answer:
                yield raw.decode(errors="replace")

    def _json(self, request: urllib.request.Request) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self._send(request))
        return body

    def _send(self, request: urllib.request.Request) -> bytes:
        try:
            with _OPENER.open(request, timeout=60) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise ApiError(f"{request.full_url}: {error.code} {error.read().decode(errors='replace')[:500]}") from None
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{request.full_url}: {error}") from None


_BEGUN = time.monotonic()


def say(words: str) -> None:
    print(f"[{time.monotonic() - _BEGUN:5.0f} s] {words}", flush=True)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals() -> None:
    """Each ends us by way of the cleanup, and only the first one does: Ctrl-C may be pressed twice."""

    def end(number: int, _: object) -> None:
        ignore_signals()
        sys.exit(128 + number)

    for each in _SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:  # as under nohup
            signal.signal(each, end)


def ignore_signals() -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)


if __name__ == "__main__":
    end_on_signals()
    sys.exit(main())
