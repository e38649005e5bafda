"""For how long clients that retry wait when a part of the service is killed with SIGKILL, and what they are told.

Each of the clients asks `GET /api/v2/me`, and repeats a call that fails after 50 ms, until it is answered. The gap is
the longest time from the first try of a call to its answer; what was told on the way is in the notes.
"""

from __future__ import annotations

import time
from collections import Counter

from argus_ray.node import processes
from benchmarks import cluster, report
from tests.support import gaps

_GOALS = {"gateway replica": "< 3", "HAProxy": "< 10", "proxy actor": "< 10"}


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args(argv)
    argus = cluster.running()
    with (
        report.recorded("gaps", options) as found,
        gaps.Clients(argus.url, argus.admin, options.clients, pause_s=0) as clients,
    ):
        begun = time.monotonic()
        processes.wait_until(lambda: clients.is_calm(begun), 60)
        forbidden = 0
        for part in gaps.PARTS:
            runs = [gaps.measure(argus.machine.mark, clients, part) for _ in range(options.rounds)]
            found.figure(f"kill of the {part}: gap", "s", [run.gap_s for run in runs], _GOALS.get(part, ""))
            told: Counter[str] = Counter()
            for run in runs:
                told.update(run.answers)
                forbidden += run.forbidden
            found.note(f"{part}: {', '.join(f'{count} x {what}' for what, count in sorted(told.items()))}")
        found.figure("answers that no client may get", "", forbidden, "0")
    return 0
