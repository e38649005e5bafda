"""What the commands of the watchdog and the head launcher share: settings, exit codes, signals, one at a time."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import platform
import re
import secrets
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from argus_ray.disk import own
from argus_ray.disk.lock import KernelLock, LockBusy
from argus_ray.node import environment
from argus_ray.node.decision import Versions

#: Exit codes: 0 ended on request, 1 something of ours is broken, 2 a setting is wrong.
OK, BROKEN, BAD_SETTINGS = 0, 1, 2

#: Ray's own default. Said to Ray in any case: by itself it would go by TMPDIR, which is for programs.
TEMP_DIR = "/tmp/ray"  # noqa: S108
NO_IPV6 = "Argus runs over IPv4 only: with Ray 2.60 nobody has tried Serve, HAProxy and the runs over IPv6"

_CLUSTER = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
#: As the service's own settings have it.
_ROOT = re.compile(r"(/[A-Za-z0-9._+@=][A-Za-z0-9._+@=-]*)+/?")
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


class BadSetting(Exception):
    """A setting breaks a rule; the message names both."""


class Parser(argparse.ArgumentParser):
    """A wrong flag is a wrong setting."""

    def error(self, message: str) -> NoReturn:
        raise BadSetting(message)


def add(
    parser: argparse.ArgumentParser,
    environ: Mapping[str, str],
    flag: str,
    variable: str,
    default: str | None,
    text: str,
) -> None:
    """A setting by flag, else by environment variable, else the default. An empty variable counts as not set."""
    parser.add_argument(flag, default=environ.get(variable) or default, help=f"{text} [{variable}]")


def add_common(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """The settings that each machine of a pool has."""

    def setting(flag: str, variable: str, default: str | None, text: str) -> None:
        add(parser, environ, flag, variable, default, text)

    setting("--shared-root", "ARGUS_SHARED_ROOT", "/private", "the shared filesystem, mounted here")
    setting("--cluster", "ARGUS_CLUSTER", "argus", "the cluster's name")
    setting("--node-name", "ARGUS_NODE_NAME", socket.gethostname(), "this node's name; unique on its machine")
    setting("--node-ip", "ARGUS_NODE_IP", None, "this machine's address for Ray; found by itself if not given")
    setting("--run-dir", "ARGUS_RUN_DIR", _default_run_dir(), "where status and logs lie, on this machine")
    setting("--temp-dir", "ARGUS_TEMP_DIR", TEMP_DIR, "Ray's --temp-dir (a short path)")
    setting("--object-store-memory", "ARGUS_OBJECT_STORE_MEMORY", None, "bytes; Ray takes 30 %% of the memory else")
    setting("--pass-env", environment.VARIABLE, "", "environment variables that Ray gets, too: NAME,PREFIX_*")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The settings, and what follows `--`. Raises BadSetting."""
    own, rest = list(argv), []
    if "--" in own:
        cut = own.index("--")
        own, rest = own[:cut], own[cut + 1 :]
    return parser.parse_args(own), rest


def check_common(arguments: argparse.Namespace) -> None:
    """Raises BadSetting."""
    check_root_and_cluster(arguments)
    if not _NODE.fullmatch(arguments.node_name):
        raise BadSetting(f"--node-name must be 1 to 64 of A-Z a-z 0-9 . _ -, not {arguments.node_name!r}")
    if arguments.object_store_memory is not None:
        whole("--object-store-memory", arguments.object_store_memory, least=80_000_000)
    if arguments.node_ip:
        refuse_ipv6("--node-ip", arguments.node_ip)
    run_dir = Path(arguments.run_dir).absolute()
    if run_dir.is_symlink():
        raise BadSetting(f"--run-dir {run_dir} is a link: name the folder itself")
    # One folder has one name, whatever links lead to it: it is part of the mark of this node's processes.
    arguments.run_dir = str(run_dir.resolve())
    try:
        arguments.pass_env = environment.entries(arguments.pass_env)
    except environment.BadEntry as error:
        raise BadSetting(f"--pass-env {error}") from None


def check_root_and_cluster(arguments: argparse.Namespace) -> None:
    """Raises BadSetting."""
    if not _ROOT.fullmatch(arguments.shared_root) or ".." in Path(arguments.shared_root).parts:
        rule = "an absolute path without '..', of the characters A-Z a-z 0-9 . _ + @ = - and /"
        raise BadSetting(f"--shared-root must be {rule}, not {arguments.shared_root!r}")
    arguments.shared_root = str(Path(arguments.shared_root))
    if not _CLUSTER.fullmatch(arguments.cluster):
        raise BadSetting(f"--cluster must be 1 to 64 of a-z, 0-9 and '-', not {arguments.cluster!r}")


def ray_options(arguments: argparse.Namespace) -> list[str]:
    """The common settings that are options of `ray start`."""
    found = [f"--temp-dir={arguments.temp_dir}"]
    if arguments.object_store_memory is not None:
        size = whole("--object-store-memory", arguments.object_store_memory)
        found.append(f"--object-store-memory={size}")
    return found


def refuse_ipv6(flag: str, host: str) -> None:
    """Raises BadSetting."""
    if ":" in host:
        raise BadSetting(f"{flag} must be an IPv4 address or a name, not {host!r}: {NO_IPV6}")


def make_run_dir(path: Path) -> None:
    """Raises BadSetting, also for a folder in which others could put links."""
    try:
        own.make_folder(path)
    except own.NotOurs as error:
        raise BadSetting(f"--run-dir: {error}") from None
    except OSError as error:
        raise BadSetting(f"--run-dir {path} cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise BadSetting(f"--run-dir {path} cannot be written")


def check_temp_dir(folder: str) -> None:
    """Raises BadSetting for one that Ray could not use, or that somebody else could turn round. Ray makes one that is
    not there, and lets everybody write in it."""
    path = Path(folder)
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadSetting(f"--temp-dir {path} cannot be looked at: {error.strerror}") from None
    other = f"delete it, or take another --temp-dir (a short path, such as {TEMP_DIR}-{os.getuid()})"
    if not stat.S_ISDIR(found.st_mode):
        raise BadSetting(f"--temp-dir {path} is {'a link' if path.is_symlink() else 'no folder'}: {other}")
    if found.st_uid not in (0, os.geteuid()):
        raise BadSetting(f"--temp-dir {path} belongs to {own.user(found.st_uid)}: {other}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise BadSetting(f"--temp-dir {path} belongs to {own.user(found.st_uid)} and cannot be written by us: {other}")


@contextlib.contextmanager
def alone(what: str, run_dir: Path, name: str, node_name: str) -> Iterator[None]:
    """While it lasts no second one of this node's name runs on this machine. Makes the run dir; raises BadSetting."""
    make_run_dir(run_dir)
    lock = KernelLock(run_dir / f"{name}.lock")
    try:
        lock.acquire(timeout_s=0)
    except LockBusy:
        raise BadSetting(f"another {what} runs as --node-name {node_name} on this machine") from None
    except OSError as error:  # NoLocks among them
        raise BadSetting(f"--run-dir {run_dir} cannot be used: {lock.path}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def number(flag: str, value: Any, *, least: float, most: float = float("inf")) -> float:
    """The value as a number in the range; raises BadSetting."""
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if not (math.isfinite(found) and least <= found <= most):
        raise BadSetting(f"{flag} must be a number from {least:g}{'' if most == float('inf') else f' to {most:g}'}")
    return found


def whole(flag: str, value: Any, *, least: int = 0, most: float = float("inf")) -> int:
    """The same, for a whole number."""
    found = number(flag, value, least=least, most=most)
    if found != int(found):
        raise BadSetting(f"{flag} must be a whole number, not {value}")
    return int(found)


def versions() -> Versions:
    """Of this machine, without importing Ray. Raises BadSetting if Ray is not installed."""
    try:
        return Versions(metadata.version("ray"), platform.python_version())
    except metadata.PackageNotFoundError:
        raise BadSetting(f"Ray is not installed for {sys.executable}") from None


def ray_token(shared_root: str, cluster: str, environ: Mapping[str, str]) -> Path:
    """The file with Ray's cluster token: one for all machines, on the shared filesystem unless told otherwise."""
    return Path(environ.get("RAY_AUTH_TOKEN_PATH") or f"{shared_root}/ray/auth/{cluster}.token")


def own_address(toward: str, port: int) -> str:
    """The address by which this machine reaches another one. A UDP socket that sends nothing."""
    family = socket.AF_INET6 if ":" in toward else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((toward, port))
        return str(probe.getsockname()[0])


class Stop:
    """Set by SIGTERM and SIGINT; waiting for it is how the loops pace themselves."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signal: str | None = None
        for number_ in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number_, self._ask)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _ask(self, number_: int, _frame: object) -> None:
        self.signal = signal.Signals(number_).name
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """True if asked to stop."""
        return self._event.wait(seconds)


def jitter(seconds: float) -> float:
    """About so many seconds: 0.8 to 1.2 times."""
    return seconds * (0.8 + 0.4 * secrets.randbelow(1000) / 1000)


def run(role: str, main: Callable[[], int]) -> int:
    """The exit code of a command; a wrong setting is one clear line."""
    try:
        return main()
    except BadSetting as error:
        sys.stderr.write(f"argus-{role}: {error}\n")
        return BAD_SETTINGS


def _default_run_dir() -> str:
    return "/run/argus" if os.getuid() == 0 else f"/tmp/argus-{os.getuid()}"  # noqa: S108
