"""Argus on the hosts of a lab, as people run it: a head launcher on one host, a watchdog on each other one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from argus_ray.discovery import sentinel
from tests.support.lab import REPO, Host, Lab, Proc, wait_for
from tests.support.raycluster import ADMIN_TOKEN, Api
from tests.support.running import name_of

#: Seconds; shorter than the default, so that tests of its end take less time.
TTL_S = 6.0
#: Bytes. Ray would take 30 % of the memory for each host.
_OBJECT_STORE = "150000000"
PATIENCE_S = 180.0


class RayLab(Lab):
    """Shows the ends of Ray's own logs, too: they go with their host."""

    def describe(self) -> str:
        lines = [super().describe()]
        for host in self.hosts.values():
            if host.is_up:
                logs = "cd /tmp/ray/session_latest/logs 2>/dev/null && tail -n 12 raylet.out raylet.err gcs_server.out"
                lines += [f"--- Ray's logs on {host.name}", host.run("bash", "-c", logs, check=False).stdout]
        return "\n".join(lines)


@dataclass
class Pool:
    """The shared filesystem has the same path inside the hosts and outside."""

    lab: Lab
    heads: dict[str, Proc] = field(default_factory=dict)
    watchdogs: dict[str, Proc] = field(default_factory=dict)
    users: int = 0

    def __post_init__(self) -> None:
        (self.shared / "common" / "plans").mkdir(parents=True)
        sentinel.begin(self.discovery)
        shutil.copytree(REPO / "tests" / "standin", self.shared / "common" / "standin")
        # As it stands in the repository, but for the budget of losses: fifty faults would use up any task's.
        text = (REPO / "serve_config.yaml").read_text()
        assert "max_losses: 5 " in text
        losses = os.environ.get("ARGUS_TEST_MAX_LOSSES", "1000")
        self.serve_config.write_text(text.replace("max_losses: 5 ", f"max_losses: {losses} "))
        self.http = httpx2.Client(transport=_ToTheHead(self), base_url="http://head", timeout=10, trust_env=False)

    @property
    def shared(self) -> Path:
        return self.lab.shared

    @property
    def discovery(self) -> Path:
        return self.shared / "ray" / "discovery" / "argus"

    @property
    def serve_config(self) -> Path:
        return self.shared / "serve_config.yaml"

    @property
    def head_file(self) -> Path:
        return self.discovery / "head.json"

    @property
    def ray_environment(self) -> dict[str, str]:
        """With which Ray's own commands are let in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.shared / "ray" / "auth" / "argus.token")}

    # --- parts ---

    def start_head(self, host: Host, *flags: str) -> Proc:
        """A head launcher; a standby if another one has the lock."""
        command = [*_module("head"), *self._common(), f"--ttl={TTL_S}", f"--serve-config={self.serve_config}", *flags]
        self.heads[host.name] = host.spawn("head", *command, env={"ARGUS_ADMIN_TOKEN": ADMIN_TOKEN})
        return self.heads[host.name]

    def start_worker(self, host: Host, *flags: str) -> Proc:
        """A watchdog that is told no address."""
        # An earlier one that was killed has left its last word.
        host.run("rm", "-f", self._status_path(host, "worker"))
        command = [*_module("watchdog"), *self._common(), "--num-gpus=4", "--num-cpus=24", "--poll=1", "--stop-grace=5"]
        self.watchdogs[host.name] = host.spawn("watchdog", *command, *flags)
        return self.watchdogs[host.name]

    def _common(self) -> list[str]:
        return [f"--shared-root={self.shared}", "--run-dir=/run/argus", f"--object-store-memory={_OBJECT_STORE}"]

    # --- what is ---

    def record(self) -> dict[str, Any]:
        """head.json as it is; empty if it cannot be read."""
        try:
            found: dict[str, Any] = json.loads(self.head_file.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def epoch(self) -> int:
        return int(json.loads((self.discovery / "epoch.json").read_text())["epoch"])

    def status(self, host: Host, role: str = "worker") -> dict[str, Any]:
        """The status file of the host's watchdog or launcher; empty if there is none."""
        done = host.run("cat", self._status_path(host, role), check=False)
        found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 and done.stdout else {}
        return found

    def _status_path(self, host: Host, role: str) -> str:
        return f"/run/argus/{role}-argus-{host.name}.json"

    def wait_joined(self, host: Host, *, epoch: int | None = None, timeout_s: float = PATIENCE_S) -> None:
        def is_in() -> bool:
            status = self.status(host)
            return bool(status.get("joined")) and epoch in (None, status["epoch"])

        wait_for(f"{host.name} has joined (epoch {epoch})", is_in, timeout_s, lab=self.lab)

    def wait_ready(self, host: Host, timeout_s: float = PATIENCE_S) -> None:
        """Until the API on this host says that all of its parts are well."""
        wait_for(f"{host.name} serves", lambda: self.readiness(host).get("status") == "ready", timeout_s, lab=self.lab)

    def readiness(self, host: Host) -> dict[str, Any]:
        try:
            body: dict[str, Any] = httpx2.get(f"http://{host.ip}:8000/readyz", timeout=20, trust_env=False).json()
        except (httpx2.HTTPError, ValueError):
            return {}
        return body

    def nodes(self) -> list[dict[str, Any]]:
        """As the API's admin sees them."""
        answer = self.admin.request("GET", "/api/v2/nodes")
        return list(answer.json()["nodes"]) if answer.status_code == 200 else []

    def gpus(self) -> float:
        return sum(float(node["gpus_total"]) for node in self.nodes())

    def raylet(self, host: Host) -> list[int]:
        """Pids of the raylets on the host."""
        return [pid for pid, _ in host.pids() if name_of(pid) == "raylet"]

    # --- callers ---

    @property
    def admin(self) -> Api:
        return Api(self.http, self.shared, ADMIN_TOKEN)

    def user(self) -> Api:
        """A new user with a token."""
        self.users += 1
        return self.admin.new_user(f"user-{self.users}")

    def executions(self, view: dict[str, Any]) -> list[int]:
        """How often each attempt's program was started."""
        logs = [Path(attempt["job_root"]) / "executions.log" for attempt in view["attempts"]]
        return [len(log.read_text().splitlines()) if log.exists() else 0 for log in logs]

    def steps(self, view: dict[str, Any], attempt: int = -1) -> list[int]:
        """The steps in the metrics file of an attempt."""
        path = Path(view["attempts"][attempt]["job_root"]) / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line)["step"] for line in lines if line.endswith(b"\n")]

    def runs(self, view: dict[str, Any]) -> list[list[int]]:
        """The same of all attempts, the first one first."""
        return [self.steps(view, number) for number in range(len(view["attempts"]))]


class _ToTheHead(httpx2.BaseTransport):
    """Sends each request to the head that head.json names. A head that is not there is a 503, which callers retry."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        api = httpx2.URL(self._pool.record().get("api_url", "http://nobody.invalid"))
        request.url = request.url.copy_with(scheme=api.scheme, host=api.host, port=api.port)
        try:
            return self._inner.handle_request(request)
        except httpx2.TransportError as error:
            return httpx2.Response(503, text=f"no head answers: {error}", request=request)


def freeze(host: Host) -> list[int]:
    """Stop all processes of a host in their tracks, as a hypervisor does; the pids, for `thaw`."""
    stopped: list[int] = []
    # One may start another while the list is read.
    while new := [pid for pid, _ in host.pids() if pid not in stopped]:
        for pid in new:
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                continue
        stopped += new
    return stopped


def thaw(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue


def _module(name: str) -> list[str]:
    return ["python", "-m", f"argus_ray.node.{name}"]
