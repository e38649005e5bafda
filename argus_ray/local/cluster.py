"""A whole cluster on one machine, without root: a head that offers nothing, and workers with logical GPUs.

For trying Argus out (the launcher and the watchdogs, as on real machines), and for tests that kill single nodes (each a
plain `ray start --block` child). Several raylets on one host are several nodes to Ray. Never imports ray: it runs the
`ray` and `serve` commands that lie beside this Python.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from argus_ray.discovery import head_json, head_secrets, sentinel
from argus_ray.disk import own
from argus_ray.local.folder import Refused
from argus_ray.node import environment, haproxy, ports, processes
from argus_ray.node.environment import Inherited
from argus_ray.node.serve_deploy import ApiState, answers, look

#: Each node gets a loopback address of its own: several raylets on one host, and yet each driver finds its own.
_HOST = "127.0.0.1"
_HEAD = "127.0.0.10"
_WORKERS = tuple(f"127.0.0.{last}" for last in range(11, 20))
_CLUSTER = "argus"
_BIN = Path(sys.executable).parent
#: Bytes. Enough for tests and tiny models; Ray would take 30 % of the memory for each node.
_OBJECT_STORE = 200_000_000
#: For the head alone, behind HAProxy.
_PROXY_PORTS = 40
#: Seconds for a port that somebody has to come free.
_TAKEN_S = 5.0
#: What `ray start` prints when its node has joined.
_STARTED = b"Ray runtime started"
#: What Serve's controller logs when an application cannot be built; `serve run` itself goes on waiting.
_REFUSED = "Deploying app 'argus' failed"


class NotStarted(Exception):
    """A part did not come up in time; the message names its log."""


@dataclass
class OneMachine:
    """Everything lies under `root` (a short path: Unix sockets allow some 100 characters). Call `stop` in the end."""

    root: Path
    mark: str
    #: For the head and the service only (the tokens): what a worker has, the users' programs inherit.
    environ: Mapping[str, str] = field(default_factory=dict)
    gcs_port: int = 0
    dashboard_port: int = 0
    http_port: int = 0
    #: What stands before the API: `haproxy` or `ray`.
    http_proxy: str = field(default_factory=lambda: os.environ.get("ARGUS_HTTP_PROXY") or haproxy.HAPROXY)
    proxy_ports: haproxy.Ports = field(default_factory=lambda: free_ports(_PROXY_PORTS))
    #: Of Serve, beside the tokens.
    _serve_environ: dict[str, str] = field(default_factory=dict)
    #: With which the gateway answers where there is no launcher.
    _head_id: str = field(default_factory=lambda: secrets.token_hex(8))
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    #: Of the workers that have not been ended: the address and the options of `ray start`.
    _workers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Since when the launcher says so of a port.
    _taken_since: float | None = None
    #: In turn, so that a new worker gets the address of one just ended as late as possible.
    _addresses: Iterator[str] = field(default_factory=lambda: itertools.cycle(_WORKERS))

    def __post_init__(self) -> None:
        for name in ("gcs_port", "dashboard_port", "http_port"):
            setattr(self, name, getattr(self, name) or free_port())
        self.logs.mkdir(parents=True, exist_ok=True)
        (self.logs / "environment.log").write_text(f"{self._inherited().words}\n")
        self.shared_root.mkdir(parents=True, exist_ok=True)
        # A folder of ours and no mount point, so the one who begins here may begin anew.
        sentinel.begin(head_json.folder(str(self.shared_root), _CLUSTER))
        token = self.root / "ray-token"
        if not token.exists():
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32))

    @property
    def shared_root(self) -> Path:
        return self.root / "shared"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def address(self) -> str:
        return f"{_HEAD}:{self.gcs_port}"

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self.http_port}"

    @property
    def dashboard(self) -> str:
        return f"http://{_HOST}:{self.dashboard_port}"

    def environment(self) -> dict[str, str]:
        """What every process of this cluster, and every client of its Ray, needs in its environment; a worker has
        this and no more."""
        inherited = self._inherited()
        return {
            **{name: value for name, value in inherited.kept.items() if name not in self.environ},
            **environment.around_proxies(inherited.kept, [_HOST, _HEAD, *_WORKERS]),
            "PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            processes.MARK: self.mark,
            "ARGUS_SHARED_ROOT": str(self.shared_root),
            "ARGUS_CLUSTER": _CLUSTER,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.root / "ray-token"),
            "RAY_ADDRESS": self.address,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }

    def head_environment(self) -> dict[str, str]:
        """The same for the launcher, which holds the tokens and calls nobody but us."""
        return {**environment.direct(self.environment()), "ARGUS_HTTP_PROXY": self.http_proxy, **self.environ}

    def _service_environment(self) -> dict[str, str]:
        """The same for Ray's head and the service where there is no launcher: digests in the place of the tokens."""
        digests, _ = head_secrets.digests(head_secrets.TOKEN_VARIABLES, self.environ)
        environ = {**self.head_environment(), **head_secrets.as_variables(digests)}
        return {name: value for name, value in environ.items() if name not in head_secrets.TOKEN_VARIABLES}

    def _inherited(self) -> Inherited:
        """Raises Refused."""
        try:
            return environment.for_worker(os.environ, environment.entries(os.environ.get(environment.VARIABLE, "")))
        except environment.BadEntry as error:
            raise Refused(f"{environment.VARIABLE} {error}") from None

    def launch_head(self, config: Path) -> None:
        """The head launcher, which runs Ray's head and deploys this file; see `wait_for_launch`."""
        options = [
            f"--node-ip={_HEAD}",
            f"--gcs-port={self.gcs_port}",
            f"--dashboard-port={self.dashboard_port}",
            f"--dashboard-host={_HOST}",
            f"--serve-config={self._own_config(config)}",
            f"--api-url={self.url}",
            f"--http-proxy={self.http_proxy}",
            f"--proxy-ports={self.proxy_ports}",
            f"--temp-dir={self.root / 'ray'}",
        ]
        self._spawn_module("head", "head", options, self.head_environment())

    def launch_worker(self, name: str, *, gpus: int = 4, cpus: int = 24, python: str = sys.executable) -> None:
        """A watchdog, which finds the head by itself. `python`: with which it, and all that runs there, is run."""
        options = [
            "--stop-grace=5",
            f"--node-ip={next(self._addresses)}",
            f"--num-gpus={gpus}",
            f"--num-cpus={cpus}",
            f"--temp-dir={self.root / name}",
        ]
        self._spawn_module(name, "watchdog", options, self.environment(), python)

    def wait_for_launch(self, workers: Collection[str], timeout_s: float = 300) -> None:
        """Until the service is ready and these workers have joined. Raises NotStarted, soon where somebody else
        has a port that the head needs."""
        self._wait("head", lambda: self._serves() and answers(f"{self.url}/readyz"), timeout_s)
        for name in workers:
            status = self._run_dir / f"worker-{_CLUSTER}-{name}.json"
            self._wait(name, functools.partial(_has_joined, status), timeout_s)

    def _serves(self) -> bool:
        """Whether the launcher says that the API answers. Raises NotStarted if a port is taken, and stays so: who has
        one for a moment, as a program that looks for a free one, is nobody."""
        status = _read_status(self._run_dir / f"head-{_CLUSTER}-head.json")
        if status.get("state") != "port_taken":
            self._taken_since = None
        elif self._taken_since is None:
            self._taken_since = time.monotonic()
        elif time.monotonic() - self._taken_since > _TAKEN_S:
            raise NotStarted(f"the head cannot start here: {status['reason']}")
        return status.get("state") == "serving"

    def _spawn_module(
        self, name: str, module: str, options: list[str], environ: dict[str, str], python: str = sys.executable
    ) -> None:
        command = [
            python,
            "-m",
            f"argus_ray.node.{module}",
            f"--node-name={name}",
            f"--run-dir={self._run_dir}",
        ]
        command += [f"--object-store-memory={_OBJECT_STORE}", *options]
        self._spawn(name, [*command, "--", f"--dashboard-agent-listen-port={free_port()}"], environ)

    @property
    def _run_dir(self) -> Path:
        return self.root / "run"

    def start_head(self) -> None:
        """Raises NotStarted if somebody else has a port that it needs."""
        needed = [(_HEAD, self.gcs_port), (_HOST, self.dashboard_port), (_HOST, self.http_port)]

        def taken() -> list[str]:
            return [why for host, port in needed if (why := ports.why_not(host, port))]

        if not processes.wait_until(lambda: not taken(), _TAKEN_S) and (found := taken()):
            raise NotStarted(f"the head cannot start here: {'; '.join(found)}")
        folder = haproxy.make_folder(self._run_dir, self.mark)
        environ = self._service_environment()
        own.make_folder(self._run_dir, 0o700)
        head_secrets.make_key(self._run_dir / "calls.key")
        self._serve_environ = {
            **haproxy.environment(self.http_proxy, folder, self.proxy_ports, environ),
            head_json.HEAD_ID_VARIABLE: self._head_id,
            head_secrets.KEY_VARIABLE: str(self._run_dir / "calls.key"),
        }
        self._ray_start(
            "head",
            {**environ, **self._serve_environ},
            _HEAD,
            "--head",
            f"--port={self.gcs_port}",
            f"--dashboard-port={self.dashboard_port}",
            f"--dashboard-host={_HOST}",
            f"--temp-dir={self.root / 'ray'}",
            "--num-cpus=0",
            "--num-gpus=0",
        )

    def wait_for_head(self, timeout_s: float = 90) -> None:
        # The GCS answers before the head's own raylet has started, and a client needs that one.
        self._wait("head", lambda: _STARTED in self._log("head").read_bytes(), timeout_s)
        self._wait("head", lambda: answers(f"{self.dashboard}/api/gcs_healthz"), timeout_s)

    def start_worker(self, name: str, *, gpus: int = 4, cpus: int = 24) -> None:
        """A worker with so many logical GPUs and CPUs; it joins in the background (see `wait_for_worker`). The name of
        one that was ended may be used again."""
        if name in self._workers:
            raise ValueError(f"there is a worker {name} already")
        self._workers[name] = (
            self._free_address(),
            f"--address={self.address}",
            f"--node-name={name}",
            f"--num-cpus={cpus}",
            f"--num-gpus={gpus}",
            f"--resources={json.dumps({'worker_node': 100})}",
            # Of its own: else each node's log monitor ships the lines of all of them.
            f"--temp-dir={self.root / name}",
        )
        self._ray_start(name, self.environment(), *self._workers[name])

    def wait_for_worker(self, name: str, timeout_s: float = 180) -> None:
        """Until it has joined. Ray gives up a start after 30 s (ray 2.60, _private/node.py), which a busy machine may
        well take; so a start that failed is made again, until the time is over."""
        deadline = time.monotonic() + timeout_s
        while _STARTED not in self._log(name).read_bytes():
            if time.monotonic() > deadline:
                raise NotStarted(f"{name} has not joined after {timeout_s:g} s:\n{self._tail(name)}")
            if self.children[name].poll() is not None:
                self._ray_start(name, self.environment(), *self._workers[name])
            time.sleep(0.2)

    def worker_at(self, ip: str) -> str:
        """The name of the living worker with this address. KeyError if there is none."""
        return {self._workers[name][0]: name for name in self.children if name in self._workers}[ip]

    def end_worker(self, name: str) -> None:
        """Kill a worker's raylet and all that it runs, as a machine that loses power would. Raises TimeoutError if it
        does not die."""
        child = self.children.pop(name)
        if child.poll() is None:  # else its id may be another's by now
            processes.kill_tree(child.pid)
            processes.collect(child)
        del self._workers[name]  # its address is free again

    def serve(self, config: Path) -> None:
        """`serve run` with this file, whose HTTP port is set to ours."""
        environ = {**self._service_environment(), **self._serve_environ}
        self._spawn("serve", [str(_BIN / "serve"), "run", str(self._own_config(config))], environ)

    def _own_config(self, config: Path) -> Path:
        text = config.read_text().replace("port: 8000", f"port: {self.http_port}").replace("0.0.0.0", _HOST)  # noqa: S104
        ours = self.root / "serve_config.yaml"
        ours.write_text(text)
        return ours

    def deploy(self, config: Path, timeout_s: float = 120) -> None:
        """`serve deploy`: replace the running application by what this file says, and return at once."""
        command = [str(_BIN / "serve"), "deploy", str(config), "--address", self.dashboard]
        environ = environment.direct(self.environment())
        try:
            done = subprocess.run(command, env=environ, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise NotStarted(f"serve deploy: no answer in {timeout_s:g} s") from None
        if done.returncode:
            raise NotStarted(f"serve deploy: {done.stderr.decode(errors='replace')[-2000:]}")

    def wait_for_service(self, timeout_s: float = 180) -> None:
        """Until /readyz says so, and it is ours."""

        def is_ready() -> bool:
            return look(self.url, self._head_id).state is ApiState.OURS and answers(f"{self.url}/readyz")

        self._wait("serve", is_ready, timeout_s)

    def stop(self, grace_s: float = 5) -> None:
        """End everything that carries the mark, the service first. May be called at any time, and again."""
        serve = self.children.pop("serve", None)
        if serve is not None and serve.poll() is None:
            serve.terminate()
            processes.wait_until(lambda: serve.poll() is not None, 5)
        # Not those that have ended: their ids may be others' by now.
        alive = [child.pid for child in self.children.values() if child.poll() is None]
        processes.end_marked(self.mark, grace_s=grace_s, first=alive)
        for child in self.children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
        self.children.clear()
        self._workers.clear()
        shutil.rmtree(haproxy.folder_of(self._run_dir, self.mark), ignore_errors=True)

    def _free_address(self) -> str:
        taken = {worker[0] for worker in self._workers.values()}
        for address in itertools.islice(self._addresses, len(_WORKERS)):
            if address not in taken:
                return address
        raise ValueError(f"no more than {len(_WORKERS)} workers")

    def _ray_start(self, name: str, environ: Mapping[str, str], ip: str, *options: str) -> None:
        environ = {**environ, "ARGUS_NODE_IP": ip}
        environ.pop("RAY_ADDRESS")  # `ray start` would join this instead of what its options say
        command = [str(_BIN / "ray"), "start", "--block", "--disable-usage-stats", f"--node-ip-address={ip}"]
        # Its default is one fixed port, and without its agent the head takes no jobs.
        command += [f"--dashboard-agent-listen-port={free_port()}", f"--object-store-memory={_OBJECT_STORE}"]
        self._spawn(name, [*command, *options], environ)

    def _spawn(self, name: str, command: list[str], environ: dict[str, str]) -> None:
        with self._log(name).open("wb") as out:
            self.children[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ, start_new_session=True
            )

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _wait(self, name: str, condition: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            code = self.children[name].poll()
            if code is not None:
                raise NotStarted(f"{name} ended with exit code {code}:\n{self._tail(name)}")
            if name == "serve" and _REFUSED in self._log(name).read_text(errors="replace"):
                raise NotStarted(f"Serve could not deploy the application:\n{self._tail(name)}")
            if time.monotonic() > deadline:
                raise NotStarted(f"{name} was not ready after {timeout_s:g} s:\n{self._tail(name)}")
            time.sleep(0.2)

    def _tail(self, name: str) -> str:
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-30:])


#: What this process has given out last: it may be that nobody listens there yet.
_GIVEN: deque[int] = deque()
_MOST_GIVEN = 500
_DRAWS = 10_000
#: On this machine, whatever TMPDIR says.
_RESERVATIONS = f"/tmp/argus-ports-{os.getuid()}"  # noqa: S108


def free_port() -> int:
    """A port that nobody listens on and that no process of this user gave out lately, below the range from which the
    kernel and Ray pick theirs."""
    return free_ports(1).first


def free_ports(count: int) -> haproxy.Ports:
    """So many in a row, each like that of `free_port`. Raises NotStarted if none are found."""
    for _ in range(_DRAWS):
        first = random.randrange(20000, 32000 - count)  # noqa: S311
        found = range(first, first + count)
        if not set(_GIVEN).isdisjoint(found) or not _reserve(first, count):
            continue
        if any(ports.why_not("", port) for port in found):
            _give_back(first, count)
            continue
        _GIVEN.extend(found)
        while len(_GIVEN) > _MOST_GIVEN:
            _give_back(_GIVEN.popleft(), 1)
        return haproxy.Ports(first, first + count - 1)
    raise NotStarted(f"no {count} free ports in a row were found from 20000 to 32000")


@functools.cache
def _reservations() -> int | None:
    """A file of this user, which stays, empty: its locks stand for the ports, a byte for each, and the kernel ends them
    with their process. None: somebody has taken the name."""
    try:
        table = os.open(_RESERVATIONS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError:
        return None
    if os.fstat(table).st_uid == os.getuid():
        return table
    os.close(table)
    return None


def _reserve(first: int, count: int) -> bool:
    """False if another process of this user has given out one of them, and may not use it yet."""
    if (table := _reservations()) is not None:
        try:
            fcntl.lockf(table, fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)  # else this filesystem has no locks
    return True


def _give_back(first: int, count: int) -> None:
    if (table := _reservations()) is not None:
        with contextlib.suppress(OSError):
            fcntl.lockf(table, fcntl.LOCK_UN, count, first)


def _has_joined(status: Path) -> bool:
    return bool(_read_status(status).get("joined"))


def _read_status(path: Path) -> dict[str, Any]:
    """Empty if there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found
