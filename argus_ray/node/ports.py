"""Whether a TCP port of this machine is taken, and by whom. Linux only: it reads /proc."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable
from pathlib import Path

_LISTENS = "0A"


def why_not(host: str, port: int) -> str:
    """Why nothing of ours can listen there; empty if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: connections that have ended are nobody's.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} is taken by {holder(port)}"
            return f"port {port} of {host} cannot be used: {error.strerror}"
    return ""


def holder(port: int) -> str:
    """Who listens at this port, on whatever address, in words."""
    return names(listeners(port)) or "a process of another user, or that has just ended"


def names(pids: Iterable[int]) -> str:
    return " and ".join(f"{_name(pid)} (process {pid})" for pid in pids)


def listeners(port: int) -> list[int]:
    """Ids of the processes that listen at this port, on whatever address; without those that we may not look at."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    found = []
    for entry in Path("/proc").iterdir() if sockets else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended, or is another user's
                if any(_target(file) in sockets for file in (entry / "fd").iterdir()):
                    found.append(int(entry.name))
    return found


def _target(file: Path) -> str:
    """What an open file is; empty if it was closed meanwhile."""
    try:
        return str(file.readlink())
    except FileNotFoundError:
        return ""


def _inodes(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "somebody"
