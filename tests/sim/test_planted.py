"""Each fault that the scheduler once had, planted again in a copy of the code: its test must find it.

`planted/*.patch` say in their first lines which fault it is, what is planted and what finds it. By default each runs
only what finds it, once on the copy as it is and once with the fault. `ARGUS_PLANTED_ALL=1` runs all the histories that
CI makes for each, and prints which of them find it; many minutes.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.builders import memory_folder

ROOT = Path(__file__).resolve().parents[2]
PLANTED = Path(__file__).parent / "planted"
#: Of the list of faults by which the scheduler was made anew.
FAULTS = range(1, 23)
#: The histories that CI makes, whatever this run makes.
RUNS = 25
ALL = bool(os.environ.get("ARGUS_PLANTED_ALL"))
#: Of the messages of a test that has found something. What cannot be imported, say, has found nothing.
_FOUND = re.compile(r"AssertionError|assert |Failed: DID NOT RAISE")


@dataclass(frozen=True)
class Planted:
    path: Path
    fault: int
    what: str
    #: The id of a test; of a history without its seed.
    test: str
    seed: int | None
    #: Why no random history can find it.
    why_named: str
    #: How the message of the test begins that finds it by an error of the code, and not by an assertion of its own.
    error: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def command(self) -> str:
        return self.test if self.seed is None else f"{self.test}[{self.seed}]"

    @property
    def row(self) -> str:
        """Of the table in docs/development.md."""
        by = f"history {self.seed}" if self.seed is not None else f"`{self.test.removeprefix('tests/')}`"
        return f"| {self.fault} | {self.what} | `{self.name}` | {by} |"


def read(path: Path) -> Planted:
    head = dict(line.split(": ", 1) for line in path.read_text().partition("\n--- ")[0].splitlines() if ": " in line)
    seed = int(head["Seed"]) if "Seed" in head else None
    return Planted(
        path,
        int(head["Fault"]),
        head["Planted"],
        head["Found by"],
        seed,
        head.get("Named since", ""),
        head.get("Fails with", ""),
    )


FOUND = [read(path) for path in sorted(PLANTED.glob("*.patch"))]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package and the tests that need neither Ray nor hosts, compiled once."""
    leave = shutil.ignore_patterns(
        "__pycache__", "ray", "hosts", "planted", "standin", "golden", "node_modules", "dist"
    )
    with TemporaryDirectory(dir=memory_folder() or tmp_path_factory.mktemp("planted")) as made:
        copied = Path(made).resolve() / "base"
        for name in ("argus_ray", "tests"):
            shutil.copytree(ROOT / name, copied / name, ignore=leave)
        shutil.copy(ROOT / "pyproject.toml", copied)
        files = sorted({planted.test.partition("::")[0] for planted in FOUND})
        status, _ = run(copied, files, "--collect-only")
        assert status == 0
        yield copied


@pytest.fixture
def copy(base: Path) -> Iterator[Path]:
    # With its times, by which Python knows what is compiled.
    copied = base.with_name("copy")
    shutil.copytree(base, copied)
    yield copied
    shutil.rmtree(copied)


def run(copied: Path, tests: Sequence[str], *options: str) -> tuple[int, list[ET.Element]]:
    """The exit status, and the cases."""
    report, output = copied / "report.xml", copied / "output"
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", f"--junitxml={report}", *options, *tests]
    status = runner().run(copied, arguments)
    assert report.exists(), output.read_text()
    return status, ET.parse(report).getroot().findall(".//testcase")  # noqa: S314 - of our own pytest


class Runner:
    """Forks from a process that has imported what all runs need, and nothing of ours: to start costs more than to
    find."""

    def __init__(self) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ARGUS_"))}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        # To look for plugins in each package that is installed takes a second.
        environ |= {"ARGUS_SIM_RUNS": str(RUNS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        command = [sys.executable, "-c", _FORK]
        self._process = subprocess.Popen(
            command, env=environ, cwd="/", text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, folder: Path, arguments: Sequence[str]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([str(folder), list(arguments)]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


_FORK = """
import asyncio, json, os, sqlite3, sys, traceback
import filelock, hypothesis.strategies, pydantic, pytest, yaml
for line in sys.stdin:
    folder, arguments = json.loads(line)
    pid = os.fork()
    if not pid:
        os.chdir(folder)
        sys.path.insert(0, folder)
        output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = 70
        try:
            status = int(pytest.main(arguments))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@cache
def runner() -> Runner:
    made = Runner()
    atexit.register(made.close)
    return made


def plant(copied: Path, planted: Planted) -> None:
    environ = {**os.environ, "GIT_CEILING_DIRECTORIES": str(copied.parent)}
    command = ["git", "apply", "--whitespace=nowarn", str(planted.path)]
    done = subprocess.run(command, cwd=copied, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{planted.path.name} does not apply any more; plant it anew: {done.stderr}"


@pytest.mark.parametrize("planted", FOUND, ids=lambda planted: planted.name)
def test_a_planted_fault_is_found(copy: Path, planted: Planted) -> None:
    plant(copy, planted)
    all_of_it = ALL and planted.seed is not None
    status, cases = run(copy, [planted.test if all_of_it else planted.command], *([] if all_of_it else ["-x"]))
    failures = [(case.get("name", ""), found) for case in cases for found in case.findall("failure")]
    errors = [found for case in cases for found in case.findall("error")]
    assert status == 1 and failures and not errors, f"{planted.command} does not find it"
    for name, found in failures:
        message = found.get("message", "")
        is_named = bool(planted.error) and message.startswith(planted.error)
        assert is_named or _FOUND.match(message), f"{name} has not found it, but failed: {message}"
    if all_of_it:
        print(f"\n{planted.name}: {len(failures)} of {len(cases)}: {', '.join(name for name, _ in failures)}")
        assert f"[{planted.seed}]" in "".join(name for name, _ in failures)


def test_without_a_fault_the_same_tests_pass(copy: Path) -> None:
    """Of the histories the first one stands for all, which run on the code itself beside this."""
    named = {planted.test for planted in FOUND if planted.seed is None}
    histories = sorted({planted.command for planted in FOUND if planted.seed is not None})
    status, cases = run(copy, [*sorted(named), *(histories if ALL else histories[:1])])
    failed = [case.get("name") for case in cases if len(case) and case[0].tag != "skipped"]
    assert status == 0 and failed == [] and len(cases) > len(named), failed


def test_each_fault_is_planted_and_says_what_it_is() -> None:
    assert {planted.fault for planted in FOUND} == set(FAULTS)
    for planted in FOUND:
        assert planted.name.startswith(f"{planted.fault:02}"), planted.name
        assert (planted.seed is None) == bool(planted.why_named), f"{planted.name}: a history, or why none can find it"
        assert planted.seed is None or planted.seed < RUNS


def test_the_table_in_the_documents_is_theirs() -> None:
    rows = re.findall(r"^\| \d+ \| .* \|$", (ROOT / "docs" / "development.md").read_text(), re.MULTILINE)
    assert rows == [planted.row for planted in FOUND], "\n".join(planted.row for planted in FOUND)
