"""What `scripts/quickstart --keep` has left: its folder, its service, and how to start its parts by hand."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import httpx2

from argus_ray.core import paths
from argus_ray.local.cluster import free_port
from argus_ray.node import processes
from tests.support.raycluster import Api

#: Options of which the variable is no plain upper case of the option.
_VARIABLES = {"ttl": "ARGUS_HEAD_TTL_S", "stop-grace": "ARGUS_STOP_GRACE_S"}


@dataclass(frozen=True)
class Kept:
    """`token`: of the user that the quickstart has made."""

    root: Path
    url: str
    token: str
    spec: Path

    @classmethod
    def shown(cls, root: Path, screen: str) -> Kept:
        """From what the quickstart has told."""
        found = [
            re.search(pattern, screen)
            for pattern in (r"export ARGUS=(\S+)", r"The token of the user.*\n +(\S+)", r"cp (\S+)")
        ]
        url, token, spec = (match[1] if match else "" for match in found)
        assert url and token and spec, screen
        return cls(root, url, token, Path(spec))

    @property
    def shared(self) -> Path:
        return self.root / "shared"

    @property
    def admin_token(self) -> str:
        return (self.root / "admin-token").read_text().strip()

    @property
    def backups(self) -> Path:
        return Path(paths.backup_dir(str(self.shared), "argus"))

    @property
    def database(self) -> Path:
        return Path(paths.database_path(str(self.shared), "argus"))

    def api(self, http: httpx2.Client, token: str) -> Api:
        return Api(http, self.shared, token)

    def pid(self, part: str) -> int:
        """Of `head`, or of the watchdog of this name."""
        name = "head-argus-head" if part == "head" else f"worker-argus-{part}"
        return int(json.loads((self.root / "run" / f"{name}.json").read_text())["pid"])

    def settings(self, part: str, **changes: str) -> dict[str, str]:
        """The environment with which a person starts this part by hand, without an option: that of the quickstart's
        own, but for the admin's token."""
        pid = self.pid(part)
        environ = processes.environment(pid)
        environ.pop("ARGUS_ADMIN_TOKEN", None)
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        for option in words[: words.index("--")]:
            if match := re.fullmatch(r"--([a-z-]+)=(.*)", option):
                environ[_VARIABLES.get(match[1]) or "ARGUS_" + match[1].replace("-", "_").upper()] = match[2]
        return {**environ, **changes}

    def end(self, part: str, number: signal.Signals, within_s: float = 180) -> None:
        """Its program, and for a signal that it hears all that it has started."""
        pid = self.pid(part)
        who = processes.identity(pid)
        os.kill(pid, number)
        assert processes.wait_until(lambda: not processes.lives(who), within_s), f"{part} lives on after {number.name}"


def agent_option() -> str:
    """Ray's default is one fixed port, which a machine that runs several clusters has taken."""
    return f" -- --dashboard-agent-listen-port={free_port()}"


def scribble_over(database: Path) -> None:
    """A disk that has gone bad: eight bytes at the begin of each page, of the log beside it, too."""
    for path in (database, Path(f"{database}-wal")):
        if path.exists():
            content = bytearray(path.read_bytes())
            for page in range(0, len(content), 4096):
                content[page : page + 8] = bytes(byte ^ 0xFF for byte in content[page : page + 8])
            path.write_bytes(content)
