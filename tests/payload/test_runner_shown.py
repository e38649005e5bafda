"""What a run writes is handed to the filesystem of other machines within a second, and not when a cache is full.

An NFS client sends what was written when a descriptor of the file is closed. No NFS is here, so what counts is that
close: of a duplicate of the log's descriptor, and of one of the metrics file that was opened for writing.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from argus_ray.core import paths
from tests.support.running import Start, content, finish, log_of, record, until

#: In the runner's own Python, and so in the scribe that it forks.
_SPY = """
import json, os, runpy, stat, sys, time
real_dup, real_open, real_close = os.dup, os.open, os.close
told = {told!r}
watched = {{}}
fails = {fails!r}

def tell(name, fd):
    if not os.path.exists(told):
        return
    status = os.fstat(fd)
    line = json.dumps({{"name": name, "size": status.st_size, "age": time.time() - status.st_mtime}})
    to = real_open(told, os.O_WRONLY | os.O_APPEND)
    os.write(to, line.encode() + b"\\n")
    real_close(to)

def dup(fd):
    new = real_dup(fd)
    watched[new] = "log"
    return new

def spied_open(path, flags, *args, **options):
    fd = real_open(path, flags, *args, **options)
    name = path if isinstance(path, str) else ""
    if os.path.basename(name) == "metrics.jsonl" and flags & os.O_WRONLY:
        watched[fd] = "metrics"
    if fails and os.path.basename(name).startswith("driver.log"):
        watched[fd] = "file"
    return fd

def close(fd):
    name = watched.pop(fd, None)
    if name in ("log", "metrics"):
        tell(name, fd)
    real_close(fd)
    if fails and name in ("log", "file"):
        raise OSError(fails, os.strerror(fails))

os.dup, os.open, os.close = dup, spied_open, close
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Spy:
    """Hears of each close that shows something to other machines."""

    def __init__(self, folder: Path, fails: int = 0) -> None:
        self.told = folder / "told"
        self.told.touch()
        self._shim = folder / "shim.py"
        self._shim.write_text(_SPY.format(told=str(self.told), fails=fails))
        self.python = (sys.executable, "-u", "-S", str(self._shim))

    def shown(self, name: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in content(self.told).splitlines()]
        return [each for each in found if each["name"] == name]


@pytest.fixture
def spy(tmp_path: Path) -> Spy:
    return Spy(tmp_path)


#: Prints a line and writes a metric at a time, each when it is asked for.
_ASKED = """
import os, time
def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)
for number in range(3):
    print(f"line {number}")
    with open("metrics.jsonl", "a") as metrics:
        metrics.write(f'{{"step": {number}, "data": {{}}}}\\n')
    wait_for(f"go{number}")
"""


def test_each_line_is_shown_within_a_second_while_the_run_goes_on(start: Start, job_root: Path, spy: Spy) -> None:
    process = start(_ASKED, python=spy.python)
    seen = 0
    for number in range(3):
        until(lambda number=number: f"line {number}\n" in log_of(job_root), "the line is written")  # type: ignore[misc]
        size = sum(len(f"line {n}\n") for n in range(number + 1))
        until(
            lambda size=size: any(each["size"] == size for each in spy.shown("log")),  # type: ignore[misc]
            "the line is shown",
        )
        metrics = sum(len(f'{{"step": {n}, "data": {{}}}}\n') for n in range(number + 1))
        until(
            lambda metrics=metrics: any(each["size"] == metrics for each in spy.shown("metrics")),  # type: ignore[misc]
            "the metrics are shown",
        )
        seen = len(spy.shown("log"))
        (job_root / f"go{number}").touch()
    assert finish(process)[0] == 0
    assert seen <= 6, "and not line by line, for nothing"


def test_a_flood_of_lines_is_shown_some_times_and_its_end_before_the_exit_record(
    start: Start, job_root: Path, spy: Spy
) -> None:
    process = start("for i in range(200_000): print(f'line {i:010}')", python=spy.python)
    assert finish(process)[0] == 0 and record(job_root)["exit_code"] == 0
    shown = spy.shown("log")
    assert shown[-1]["size"] == Path(paths.driver_log(str(job_root))).stat().st_size
    assert len(shown) < 100


def test_a_filesystem_that_says_at_the_close_that_it_is_full_ends_no_run(
    start: Start, job_root: Path, tmp_path: Path
) -> None:
    """NFS tells of a full disk there. The descriptor is gone all the same, and the log goes on in its next piece."""
    spy = Spy(tmp_path, fails=errno.EDQUOT)
    options = ("--log-bytes", str(1 << 20))
    process = start("for i in range(60_000): print(f'line {i:010}')", python=spy.python, options=options)
    code, output = finish(process)
    assert code == 0
    assert output.count(b"argus-runner: cannot write logs/driver.log") == 1
    pieces = sorted((job_root / "logs").glob("driver.log.0*"))
    assert sum(piece.stat().st_size for piece in pieces) > 400_000
    assert b"line 0000059999\n" in pieces[-1].read_bytes()


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_stands_in_the_place_of_the_metrics_is_left_alone(
    start: Start, job_root: Path, spy: Spy, tmp_path: Path, kind: str
) -> None:
    other = tmp_path / "other"
    other.write_text("x")
    make = {
        "pipe": "os.mkfifo('metrics.jsonl')",
        "link": f"os.symlink({str(other)!r}, 'metrics.jsonl')",
        "folder": "os.mkdir('metrics.jsonl')",
    }[kind]
    # Longer than two of the scribe's looks, each of which shows a line.
    program = f"import os, time\n{make}\nfor i in range(5):\n    print('line', i)\n    time.sleep(0.5)"
    assert finish(start(program, python=spy.python))[0] == 0
    assert len(spy.shown("log")) >= 2 and spy.shown("metrics") == []
