"""The TaskSpec of a command line: read from its file or from stdin, and changed by `--set`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from argus_ray.cli import spec_text
from argus_ray.cli.exits import REFUSED, USAGE, CliError

#: More than the service takes, so that it is the service that says how much it takes.
_MOST = 64 * 1024


def read(file: str, changes: Sequence[str]) -> str:
    """Raises CliError."""
    pairs = []
    for each in changes:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise CliError(f"--set {each}: must be NAME=VALUE", USAGE)
        pairs.append((name.strip(), value.strip()))
    try:
        if file == "-":
            raw = sys.stdin.buffer.read(_MOST + 1)
        else:
            with Path(file).open("rb") as opened:
                raw = opened.read(_MOST + 1)
    except OSError as error:
        raise CliError(f"{file}: {error.strerror}", USAGE) from None
    if len(raw) > _MOST:
        raise CliError(f"{file} is far longer than a TaskSpec: at most {spec_text.MAX_BYTES} bytes are taken", REFUSED)
    try:
        return spec_text.with_fields(raw.decode("utf-8"), pairs)
    except UnicodeDecodeError:
        raise CliError(f"{file}: a TaskSpec must be UTF-8", REFUSED) from None
