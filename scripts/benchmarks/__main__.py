"""scripts/bench NAME|all [options of the benchmark] [--json FILE]; see docs/performance.md."""

from __future__ import annotations

import importlib
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from benchmarks import cluster
from benchmarks.wrk import NoWrk

#: In this order a cluster without workers, and then one with a worker, serves several of them.
NAMES = (
    "accept",
    "waiting",
    "crafted",
    "durable",
    "gaps",
    "unread",
    "streams",
    "logs",
    "latency",
    "recovery",
    "decide",
    "tick",
    "forecast",
    "history",
    "cli",
)
#: Only when they are asked for by name: they take long, and make hosts or need a browser.
BY_NAME = ("ettr", "console")
_USAGE = f"""scripts/bench NAME|all [options] [--json FILE]

NAME: {", ".join((*NAMES, *BY_NAME))}
`scripts/bench NAME --help` tells its options; `all` takes --json alone, and leaves out {", ".join(BY_NAME)}."""


def main(argv: list[str]) -> int:
    if not argv or argv[0] not in (*NAMES, *BY_NAME, "all"):
        print(_USAGE)
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    name, options = argv[0], argv[1:]
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _end)
    failed = []
    try:
        for one in NAMES if name == "all" else (name,):
            if not _run(one, options):
                failed.append(one)
    finally:
        cluster.end()
    if failed:
        print(f"\nnot measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, options: list[str]) -> bool:
    """False: it could not be measured. The others go on."""
    measure: Callable[[list[str]], int] = importlib.import_module(f"benchmarks.{name}").main
    try:
        return measure(options) == 0
    except NoWrk as error:
        print(f"{name}: skipped: {error}", file=sys.stderr)
    except Exception:
        traceback.print_exc()
    return False


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)  # by way of the cleanup


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
