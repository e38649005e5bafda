"""What the command `argus` costs to start: CPU seconds of `argus --help` and of `argus tasks` against a server in this
process, beside a bare Python and one that imports click. In turns, so that all meet the same neighbours. All is
compiled before, as pip and the first start of argus.pyz leave it, whatever PYTHONDONTWRITEBYTECODE says here.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks import report, rounds

_TASK = {
    "task_id": "argus-alice-sft-20260101-000000-0000", "user_id": "alice", "workload": "sft", "state": "RUNNING",
    "reason": None, "reason_code": None, "position": None, "created_at": "2026-01-01T00:00:00.000Z",
    "updated_at": "2026-01-01T00:00:00.000Z", "started_at": "2026-01-01T00:00:00.000Z", "ended_at": None,
    "next_retry_at": None, "gang": {"nnodes": 2, "gpus_per_node": 8, "cpus_per_node": 24, "gpus": 16, "cpus": 48},
    "progress": {"step": 120, "total_steps": 200, "steps_per_s": 0.3, "seconds_left": 266.0, "headline": None},
    "stalled_since": None, "stalled_why": None, "files_at": "JOB_ROOT", "resubmitted_from": None,
}  # fmt: skip


class _Answers(BaseHTTPRequestHandler):
    """A list of twenty tasks, and their counts."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        listed: dict[str, Any] = {"tasks": [_TASK] * 20, "next_cursor": None}
        counts: dict[str, Any] = {"counts": {"RUNNING": 20}, "total": 20}
        body = json.dumps(counts if ":counts" in self.path else listed).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.set_defaults(rounds=7)
    options = parser.parse_args(argv)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    argus = (sys.executable, "-m", "argus_ray.cli")
    commands = {
        "a bare Python": (sys.executable, "-c", "pass"),
        "Python and click": (sys.executable, "-c", "import click"),
        "argus --help": (*argus, "--help"),
        "argus tasks": (*argus, "tasks"),
    }
    goals = {"argus --help": "< 150", "argus tasks": "< 250"}
    with report.recorded("cli", options) as found, tempfile.TemporaryDirectory() as compiled:
        sides = {name: partial(_cpu_ms, command, server.server_port, compiled) for name, command in commands.items()}
        for side in sides.values():
            side()  # the first start reads all from disk
        for name, values in rounds.alternate(options.rounds, sides).items():
            found.figure(f"CPU of {name}", "ms", values, goals.get(name, ""))
    server.shutdown()
    return 0


def _cpu_ms(command: tuple[str, ...], port: int, compiled: str) -> float:
    """User and system time of one start, in milliseconds. `compiled`: the folder of what is compiled."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {
        "PYTHONPYCACHEPREFIX": compiled,
        "ARGUS_URL": f"http://127.0.0.1:{port}",
        "ARGUS_TOKEN": "x" * 20,
        "ARGUS_CONFIG": "/nonexistent",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
