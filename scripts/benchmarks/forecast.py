"""Whether the starts that are told come true: simulated days of a busy pool, each round with another seed. A whole week
of one seed is `--days 7 --rounds 1`. A minute or two of CPU for each day.
"""

from __future__ import annotations

import time

from benchmarks import report
from tests.support.week import Table, played

#: Futures of each forecast, as in the scheduler.
_DRAWS = 100


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--days", type=float, default=2.0, help="simulated days of each round")
    parser.add_argument("--seed", type=int, default=100, help="of the first round; each next one has the next number")
    options = parser.parse_args(argv)
    with report.recorded("forecast", options) as found:
        tables: list[Table] = []
        cpu: list[float] = []
        for seed in range(options.seed, options.seed + options.rounds):
            begun = time.process_time()
            tables.append(played(options.days, _DRAWS, seed))
            cpu.append(time.process_time() - begun)
            found.note(f"seed {seed}, {options.days:g} days: {tables[-1]}")
        found.figure("had to wait", "tasks", [each.waited for each in tables])
        found.figure("told a range", "%", [_part(each.told, each.waited) for each in tables], ">= 60")
        found.figure("started inside it", "%", [_part(each.inside, each.told) for each in tables], ">= 90")
        told, inside = sum(each.told for each in tables), sum(each.inside for each in tables)
        found.figure("started inside it, all rounds", "%", _part(inside, told), ">= 90")
        found.figure("firm ranges", "ranges", [each.firm for each in tables])
        found.figure("later than a firm range, losses aside", "ranges", [len(each.firm_late) for each in tables], "0")
        found.figure("median width of a range", "min", [each.width_min for each in tables])
        found.figure("median wait after it was told", "min", [each.wait_min for each in tables])
        found.figure("CPU of a day", "s", [each / options.days for each in cpu])
        for table in tables:
            for late in table.firm_late:
                found.note(late)
    return 0


def _part(some: int, of: int) -> float:
    return 100.0 * some / max(1, of)
