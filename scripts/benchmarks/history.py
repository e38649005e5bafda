"""What a long past costs: reads and housekeeping's questions beside a million tasks, in turn with the same beside a
thousand, and the start of the service on each database. In process: no Ray, no HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from argus_ray.core.retention import Chore
from argus_ray.core.task_filter import TaskFilter
from benchmarks import inside, report, rounds
from benchmarks.inside import World, actions
from benchmarks.report import Report

_FEW = 1000
#: In a process of its own.
_START = "import sys; from benchmarks import history; history.start(sys.argv[1])"


def main(argv: list[str]) -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="tasks that have ended")
    parser.add_argument("--reads", type=int, default=1000, help="of each kind in a round")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="of the databases: 3 GB for a million tasks")  # noqa: S108
    options = parser.parse_args(argv)
    with (
        report.recorded("history", options) as found,
        inside.world(options.dir) as few,
        inside.world(options.dir) as many,
    ):
        begun = time.monotonic()
        sides = [_Side.grown(few, _FEW), _Side.grown(many, options.rows)]
        found.note(f"the databases were made in {time.monotonic() - begun:.0f} s")
        _reads(found, sides, options.rounds, options.reads)
        _chores(found, sides, options.rounds)
        _starts(found, sides, min(3, options.rounds))
    return 0


@dataclass
class _Side:
    world: World
    rows: int
    who: Any
    task: str

    @classmethod
    def grown(cls, world: World, rows: int) -> _Side:
        task = inside.grow(world, rows)
        return cls(world, rows, world.issue("user-7")[0], task)

    @property
    def name(self) -> str:
        return f"{self.rows:,} tasks"

    def p99_ms(self, who: Any, action: Any, count: int) -> float:
        took = []
        for _ in range(count):
            begun = time.perf_counter()
            self.world.service.handle(who, action)
            took.append((time.perf_counter() - begun) * 1e3)
        return rounds.percentile(took, 0.99)

    def chores_ms(self, chore: Chore, count: int) -> float:
        took = []
        for _ in range(count):
            begun = time.perf_counter()
            self.world.service.chores(chore)
            took.append((time.perf_counter() - begun) * 1e3)
        return rounds.percentile(took, 0.5)


def _reads(found: Report, sides: list[_Side], count: int, reads: int) -> None:
    few, many = sides
    kinds: dict[str, Callable[[_Side], tuple[Any, Any]]] = {
        "GET /me": lambda side: (side.who, actions.WhoAmI()),
        "GET /tasks/{id}": lambda side: (side.who, actions.GetTask(side.task)),
        "GET /tasks": lambda side: (side.who, actions.ListTasks()),
        "GET /tasks?state=FAILED": lambda side: (side.who, actions.ListTasks(TaskFilter(states=_failed()))),
        "GET /tasks?workload=grpo": lambda side: (side.who, actions.ListTasks(TaskFilter(workloads=("grpo",)))),
        "GET /tasks?id_suffix": lambda side: (side.who, actions.ListTasks(TaskFilter(id_suffix=side.task[-4:]))),
        "GET /tasks:counts": lambda side: (side.who, actions.CountTasks()),
        "GET /tasks, admin": lambda _: (inside.ADMIN, actions.ListTasks()),
        "GET /tasks/{id}/events": lambda side: (side.who, actions.TaskEvents(side.task)),
        "GET /queue": lambda side: (side.who, actions.ShowQueue()),
    }
    for kind, call in kinds.items():
        for side in sides:
            side.p99_ms(*call(side), 20)  # warm
        runs = rounds.alternate(count, {side.name: partial(side.p99_ms, *call(side), reads) for side in sides})
        for side in sides:
            found.figure(f"{kind}, {side.name}: p99", "ms", runs[side.name])
        found.ratio(f"{kind}: p99 at {many.name} / at {few.name}", runs[many.name], runs[few.name], "<= 1.5")


def _chores(found: Report, sides: list[_Side], count: int) -> None:
    """What housekeeping asks the state actor: all tasks are due, as after a change of the settings; then none is, as in
    most passes."""
    few, many = sides
    for what, due in (("all due", 0.0), ("none due", 1e12)):
        for side in sides:
            with side.world.store.transaction() as db:
                # A third is in the trash, and a third deleted.
                db.execute(
                    "UPDATE tasks SET look_after = :due, files_at = iif(seq % 3, iif(seq % 3 = 1, 'TRASH', 'DELETED'),"
                    " 'JOB_ROOT'), trashed_at = iif(seq % 3, :due, NULL) WHERE ended_at IS NOT NULL",
                    {"due": due},
                )
        for chore in Chore:
            runs = rounds.alternate(count, {side.name: partial(side.chores_ms, chore, 20) for side in sides})
            for side in sides:
                found.figure(f"chores, {chore.value}, {what}, {side.name}: median", "ms", runs[side.name])
            found.ratio(f"chores, {chore.value}, {what}: {many.name} / {few.name}", runs[many.name], runs[few.name], "")


def _failed() -> tuple[Any, ...]:
    from argus_ray.core.states import TaskState

    return (TaskState.FAILED,)


def _starts(found: Report, sides: list[_Side], count: int) -> None:
    for side in sides:
        side.world.close()
    runs = rounds.alternate(count, {side.name: partial(_start, side.world.root) for side in sides})
    for side in sides:
        seconds, mb, grown = zip(*runs[side.name], strict=True)
        is_long = side.rows != _FEW
        found.figure(f"start beside {side.name}", "s", seconds, "< 3" if is_long else "")
        found.figure(f"start beside {side.name}: memory of the process", "MB", mb, "< 300" if is_long else "")
        found.figure(f"start beside {side.name}: memory that it took", "MB", grown)


def _start(root: Path) -> tuple[float, float, float]:
    command = [sys.executable, "-c", _START, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    seconds, mb, grown = json.loads(done.stdout)
    return seconds, mb, grown


def start(root: str) -> None:
    """In a process of its own: open the database, and answer what the scheduler asks first. Prints seconds, MB of the
    process, and MB that it grew by."""
    before, begun = _rss_mb(), time.perf_counter()
    world = inside.open_world(Path(root))
    tick, _ = inside.scheduler(world, inside.Pool())
    tick()
    seconds, mb = time.perf_counter() - begun, _rss_mb()
    world.close()
    print(json.dumps([seconds, mb, mb - before]))


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6
