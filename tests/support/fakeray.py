"""A `ray` and a `serve` that start in milliseconds and fail on order; and the machine on which tests run them.

As a script this is the command itself (`ray`, `serve`), or the watchdog or launcher with short pauses and these
commands in place of the real ones (`run`). So it imports nothing of Argus before it must.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from argus_ray.discovery.head_json import HeadRecord

#: Names the folder with the orders, and marks each process of one test.
VARIABLE = "FAKERAY"
ROOT = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


# The commands.


def ray(argv: list[str], orders: Path) -> int:
    """`ray start --block`. The orders are files: `fail` (holds its last words), `hang` (until it is gone), `deaf` (to
    SIGTERM, of which it only leaves the file `asked`), `grandchild` (one in a session of its own, deaf), `orphans`
    (that end at once), `careless` (collects no child), `job` (an attempt runs). `api-port`: where its API answers, once
    `serve deploy` was well and while there is no `api-silent`."""
    is_deaf = (orders / "deaf").exists()
    signal.signal(signal.SIGTERM, (lambda *_: (orders / "asked").touch()) if is_deaf else signal.SIG_DFL)
    note(orders, "starts", argv)
    if (orders / "fail").exists():
        print((orders / "fail").read_text(), flush=True)
        return 1
    while (orders / "hang").exists():
        time.sleep(0.02)
    if store := os.environ.get("RAY_gcs_storage_path"):  # noqa: SIM112 - Ray reads it so
        (Path(store) / "CURRENT").touch()
    raylet = fork("raylet")
    (orders / "raylet.pid").write_text(str(raylet))
    (orders / "deployed").unlink(missing_ok=True)
    if "--head" in argv and (orders / "api-port").exists():
        (orders / "api.pid").write_text(str(fork_api(int((orders / "api-port").read_text()), orders)))
    if (orders / "grandchild").exists():
        (orders / "grandchild.pid").write_text(str(fork("worker", is_apart=True)))
    if (orders / "job").exists():
        os.posix_spawn("/bin/sleep", ["argus_runner.py", "600"], os.environ)  # comes back when it has that name
    for _ in range(3 if (orders / "orphans").exists() else 0):
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.05)
            os._exit(0)
    if not is_deaf:
        signal.signal(signal.SIGTERM, lambda *_: leave(raylet))
    print("Ray runtime started.", flush=True)
    while (orders / "careless").exists():
        time.sleep(0.02)
    status = collect(raylet)
    if status in (0, -signal.SIGTERM):
        # What Ray takes for a good end.
        while True:
            signal.pause()
    print("Some Ray subprocesses exited unexpectedly", flush=True)
    return 1


def fork(name: str, *, is_apart: bool = False) -> int:
    """A child of this name that only SIGKILL ends where its parent is deaf or it is apart."""
    rename(name)
    pid = os.fork()
    if pid == 0:
        if is_apart:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    rename("ray")
    return pid


def fork_api(port: int, orders: Path) -> int:
    """A child that answers at this port as the gateway does. No Python of its own: it would start too slowly."""
    import socket

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    rename("api")
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # as HAProxy ends with the raylet
        while True:
            peer, _ = listener.accept()
            is_up = (orders / "deployed").exists() and not (orders / "api-silent").exists()
            status = "200 OK" if is_up else "503 Service Unavailable"
            with peer, contextlib.suppress(OSError):
                peer.recv(4096)
                head_id = os.environ["ARGUS_HEAD_ID"]
                peer.sendall(f"HTTP/1.0 {status}\r\nX-Argus-Head: {head_id}\r\n\r\n{{}}".encode())
    listener.close()
    rename("ray")
    return pid


def rename(name: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def collect(pid: int) -> int:
    """The child's exit code; the other children are collected on the way."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def leave(raylet: int) -> None:
    os.kill(raylet, signal.SIGKILL)
    os._exit(0)


def serve(argv: list[str], orders: Path) -> int:
    """`serve deploy`. Orders: `serve-fail`, `serve-hang` (until they are gone)."""
    note(orders, "deploys", argv)
    while (orders / "serve-hang").exists():
        time.sleep(0.02)
    if (orders / "serve-fail").exists():
        return 1
    (orders / "deployed").touch()
    return 0


def note(orders: Path, name: str, argv: list[str]) -> None:
    line = json.dumps({"argv": argv, "env": dict(os.environ), "pid": os.getpid(), "at": time.time()}) + "\n"
    with (orders / name).open("a") as out:
        out.write(line)


def run(role: str, argv: list[str], orders: Path) -> int:
    """The real program with the fake commands and short pauses."""
    from argus_ray.node import cli, decision, raychild

    environ = dict(os.environ)
    del os.environ[VARIABLE]  # what the program starts for itself is none of the test's

    def command(name: str) -> str:
        return str(orders / "bin" / name)

    def backoff_s(failures: int, _: float) -> float:
        return decision.backoff_s(failures, 0.0, first_s=0.1)

    def no_more_than_a_poll(seconds: float) -> float:
        return min(seconds, 0.05)

    raychild.command_beside_python = command
    cli.jitter = no_more_than_a_poll
    if role == "watchdog":
        from argus_ray.node import fitness, watchdog

        fitness.LOOK_EVERY_S, decision.LEAVE_AFTER_S = 0.05, 0.1
        watchdog.backoff_s = backoff_s  # type: ignore[attr-defined,assignment]
        code = watchdog.main(argv, environ)
    else:
        from argus_ray.node import head, serve_deploy

        serve_deploy.command_beside_python = command  # type: ignore[attr-defined]
        head.backoff_s = serve_deploy.backoff_s = backoff_s  # type: ignore[attr-defined,assignment]
        head._POLL_S, serve_deploy._COMES_BACK_S = 0.05, 0.3
        code = head.main(argv, environ)
    assert not {"ray", "pydantic", "fastapi"} & set(sys.modules)
    return code


# The machine that tests use.


def free_port() -> int:
    from argus_ray.local.cluster import free_port

    return free_port()


def free_ports(count: int) -> str:
    from argus_ray.local.cluster import free_ports

    return str(free_ports(count))


class Program:
    """A watchdog or launcher that runs, with what it has said so far."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path, status: Path) -> None:
        self.child = child
        self._log = log
        self._status = status

    @property
    def text(self) -> str:
        return self._log.read_text()

    def lines(self, word: str) -> list[str]:
        return [line for line in self.text.splitlines() if word in line]

    def says(self, word: str, times: int = 1) -> None:
        """Wait until it has said this so many times."""
        self.until(lambda: len(self.lines(word)) >= times, f"says {word!r} {times} times")

    @property
    def status(self) -> dict[str, Any]:
        """What its status file says; empty while that is still of the one before."""
        try:
            found: dict[str, Any] = json.loads(self._status.read_text())
        except FileNotFoundError:
            return {}
        return found if found["pid"] == self.child.pid else {}

    def is_in_state(self, state: str) -> dict[str, Any]:
        """Wait for it; the whole status."""
        self.until(lambda: self.status.get("state") == state, f"state {state!r}")
        return self.status

    def looks_again(self) -> None:
        """Wait until its loop has gone round a few times: each round waits once, and so gives the processor up."""
        before = self._rounds()
        self.until(lambda: self._rounds() >= before + 10, "looks again")

    def ends(self, code: int, timeout_s: float = 60) -> None:
        self.until(lambda: self.child.poll() is not None, "ends", timeout_s)
        assert self.child.returncode == code, self.text

    def until(self, condition: Callable[[], bool], words: str, timeout_s: float = 60) -> None:
        from argus_ray.node.processes import wait_until

        assert wait_until(condition, timeout_s, poll_s=0.01), f"not within {timeout_s} s: {words}\n{self.text}"

    def terminate(self) -> None:
        """SIGTERM; it must end well, and before the grace that Ray has by default is over."""
        self.child.terminate()
        self.ends(0, 25)

    def kill(self) -> None:
        self.child.kill()
        self.child.wait(30)

    def _rounds(self) -> int:
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(text.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])


def whole_lines(text: str) -> list[str]:
    """Without one that is being written."""
    return text.rpartition("\n")[0].splitlines()


class Machine:
    """Folders, orders and programs of one test. Its cluster's name is its own: marks are looked for machine-wide."""

    def __init__(self, folder: Path) -> None:
        self.cluster = f"t{os.urandom(4).hex()}"
        self.shared = folder / "shared"
        self.run_dir = folder / "run"
        self.orders = folder / "orders"
        self._folder = folder
        self._programs: list[Program] = []
        bin_ = self.orders / "bin"
        bin_.mkdir(parents=True)
        self.discovery.mkdir(parents=True)
        self.init()
        for name in ("ray", "serve"):
            (bin_ / name).write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {__file__} {name} "$@"\n')
            (bin_ / name).chmod(0o755)
        self.http_port = free_port()
        self.order("api-port", str(self.http_port))
        self.serve_config = folder / "serve.yaml"
        self.serve_config.write_text(f"http_options:\n  host: 127.0.0.1\n  port: {self.http_port}\n")
        # Others than the defaults, whatever else runs on this machine.
        self.ports = {name: free_port() for name in ("gcs", "dashboard")}
        self.proxy_ports = free_ports(20)
        self.ports["proxy"] = int(self.proxy_ports.partition("-")[0])

    def init(self) -> None:
        """The explicit first start of the shared root."""
        from argus_ray.discovery import sentinel

        sentinel.begin(self.discovery)

    @property
    def discovery(self) -> Path:
        return self.shared / "ray" / "discovery" / self.cluster

    @property
    def head_file(self) -> Path:
        return self.discovery / "head.json"

    @property
    def token(self) -> Path:
        return self.shared / "ray" / "auth" / f"{self.cluster}.token"

    def environ(self, **more: str) -> dict[str, str]:
        return {"PATH": os.defpath, "PYTHONPATH": str(ROOT), VARIABLE: str(self.orders), **more}

    def order(self, name: str, text: str = "") -> None:
        (self.orders / name).write_text(text)

    def withdraw(self, name: str) -> None:
        (self.orders / name).unlink()

    def make_token(self) -> None:
        self.token.parent.mkdir(parents=True)
        self.token.write_text("0" * 64)

    def starts(self, name: str = "starts") -> list[dict[str, Any]]:
        """What `ray start` (or `deploys`: `serve deploy`) was called with, in order."""
        path = self.orders / name
        return [json.loads(line) for line in whole_lines(path.read_text())] if path.exists() else []

    def raylet(self) -> int:
        """The id of the newest one."""
        return int((self.orders / "raylet.pid").read_text())

    def running(self) -> list[int]:
        """The processes of this test, without the programs themselves."""
        from argus_ray.node.processes import with_variable

        own = {program.child.pid for program in self._programs}
        return [pid for pid in with_variable(VARIABLE, str(self.orders)) if pid not in own]

    def watchdog(self, *argv: str, node: str = "w", **environ: str) -> Program:
        return self._run("watchdog", f"worker-{self.cluster}-{node}", node, ["--poll=0.05", *argv], environ)

    def head(self, *argv: str, node: str = "h", ip: str = "127.0.0.1", **environ: str) -> Program:
        fixed = [f"--node-ip={ip}", f"--serve-config={self.serve_config}", "--api-url=http://127.0.0.1:9"]
        fixed += [f"--gcs-port={self.ports['gcs']}", f"--dashboard-port={self.ports['dashboard']}"]
        fixed += [f"--proxy-ports={self.proxy_ports}"]
        return self._run("head", f"head-{self.cluster}-{node}", node, [*fixed, *argv], environ)

    def publish(self, ttl_s: float = 600.0, age_s: float = 0.0, **change: Any) -> HeadRecord:
        """Write head.json as the publisher does."""
        from argus_ray.discovery.head_json import HeadRecord
        from argus_ray.disk import atomic
        from argus_ray.node import cli

        mine, now = cli.versions(), time.time() - age_s
        fields: dict[str, Any] = {
            "cluster_name": self.cluster,
            "head_ip": "127.0.0.1",
            "gcs_port": 6379,
            "dashboard_port": 8265,
            "api_url": "http://127.0.0.1:9",
            "epoch": 1,
            "session": "s1",
            "ray_version": mine.ray,
            "python_version": mine.python,
            "updated_at": now,
            "expires_at": now + ttl_s,
        }
        record = HeadRecord(**{**fields, **change})
        atomic.write_atomically(self.head_file, record.to_json(), mode=0o644)
        return record

    def close(self) -> None:
        """Nothing of this test lives on."""
        from argus_ray.node.processes import wait_until

        for program in self._programs:
            program.kill()

        def is_empty() -> bool:
            for pid in self.running():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not self.running()

        assert wait_until(is_empty, 60, poll_s=0.01)
        for start in self.starts():  # of those that were killed, where the run dir's path was too long
            if socket := start["env"].get("RAY_SERVE_HAPROXY_SOCKET_PATH"):
                shutil.rmtree(Path(socket).parent, ignore_errors=True)

    def _run(self, role: str, name: str, node: str, argv: list[str], environ: dict[str, str]) -> Program:
        import subprocess

        log = self._folder / f"{name}.{len(self._programs)}.log"
        fixed = [f"--shared-root={self.shared}", f"--cluster={self.cluster}", f"--node-name={node}"]
        fixed += [f"--run-dir={self.run_dir}", f"--temp-dir={self._folder}/tmp"]
        environ.setdefault("ARGUS_PASS_ENV", VARIABLE)
        out: IO[bytes]
        with log.open("wb") as out:
            child = subprocess.Popen(
                [sys.executable, __file__, "run", role, *fixed, *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environ(**environ),
                start_new_session=True,
            )
        program = Program(child, log, self.run_dir / f"{name}.json")
        self._programs.append(program)
        return program


def main() -> int:
    command, argv, orders = sys.argv[1], sys.argv[2:], Path(os.environ[VARIABLE])
    if command == "run":
        return run(argv[0], argv[1:], orders)
    return {"ray": ray, "serve": serve}[command](argv, orders)


if __name__ == "__main__":
    sys.exit(main())
