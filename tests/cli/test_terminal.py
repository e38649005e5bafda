"""Real processes at a real terminal: colours, redrawing, Ctrl-C, a changed size, pipes that break."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus_ray.cli import exits
from argus_ray.core.states import Outcome
from argus_ray.node.processes import wait_until
from tests.cli.conftest import Person
from tests.support.gateway import lines, log_of, metrics_of
from tests.support.terminal import BOUND_S, Terminal, as_at_login

_ARGUS = (sys.executable, "-m", "argus_ray.cli")


@contextlib.contextmanager
def terminal(person: Person, *words: str, columns: int = 80, rows: int = 24, **env: Any) -> Iterator[Terminal]:
    environ = {name: value for name, value in person.environ.items() if value is not None and name != "COLUMNS"}
    environ = {**os.environ, **environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path.cwd()), **env}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        if name not in env:
            environ.pop(name, None)
    made = Terminal([*_ARGUS, *words], environ, columns=columns, rows=rows)
    try:
        yield made
    finally:
        made.close()


def test_the_token_is_asked_for_and_not_shown(alice: Person) -> None:
    assert alice.token
    with terminal(alice, "login", alice.url, ARGUS_URL="", ARGUS_TOKEN="") as shown:
        shown.until("Token for http")
        shown.send(alice.token + "\r")
        assert shown.end() == exits.OK
        assert "logged in to" in shown.text and alice.token not in shown.seen
    with terminal(alice, "login", alice.url, ARGUS_URL="", ARGUS_TOKEN="") as shown:
        shown.until("Token for http")
        shown.interrupt()
        assert shown.end() == exits.INTERRUPTED


def test_ctrl_c_leaves_a_followed_log_at_once_and_the_task_goes_on(alice: Person) -> None:
    task_id = alice.submit()
    with terminal(alice, "logs", "-f", task_id) as shown:
        shown.until("it waits to start")
        change = alice.api.run(task_id)
        with log_of(change).open("a") as log:
            log.write("\x1b[31mfirst\x1b[0m line\n")
        shown.until("first line")
        shown.interrupt()
        assert shown.end() == exits.INTERRUPTED
        assert "the task goes on" in shown.text and "Traceback" not in shown.text
    assert alice.api.task(task_id).state.value == "RUNNING"


def test_a_followed_log_shows_what_comes_to_its_last_line(alice: Person) -> None:
    task_id = alice.submit()
    change = alice.api.run(task_id)
    with terminal(alice, "logs", "-f", task_id) as shown:
        for number in range(3):
            with log_of(change).open("a") as log:
                log.write(f"line {number}\n")
            shown.until(f"line {number}")
        with log_of(change).open("a") as log:
            log.write("the last, without an end")
        alice.api.end(change, Outcome.APPLICATION, 1)
        assert shown.end() == exits.FAILED
        assert "the last, without an end" in shown.text and "FAILED" in shown.text


def test_from_nothing_to_the_first_curve_and_the_end(alice: Person) -> None:
    with terminal(alice, "submit", alice.spec(total_training_steps=10), "--watch") as shown:
        shown.until("WAITING")
        task_id = re.findall(r"argus-\S+-sft-\S+", shown.text)[0]
        change = alice.api.run(task_id)
        shown.until("RUNNING")
        with metrics_of(change).open("a") as file:
            file.write("".join(lines(step, train__loss=1 / step, timing_s__step=2.0) for step in range(1, 6)))
        shown.until("5/10")
        shown.until("train/loss 0.2")
        assert "████████████░" in shown.text and "0.5 steps/s" in shown.text and "10s left" in shown.text
        # In the same place: the states before are not there any more.
        assert "WAITING" not in shown.text
        columns_before = shown.screen.columns
        shown.resize(40, 12)
        with metrics_of(change).open("a") as file:
            file.write(lines(6, train__loss=0.1, timing_s__step=2.0))
        shown.until("6/10")
        assert all(len(line) <= 40 for line in shown.screen.display) and columns_before == 80
        assert sum("RUNNING" in line for line in shown.screen.display) == 1
        alice.api.end(change)
        assert shown.end() == exits.OK
        assert "SUCCEEDED" in shown.text
        # The cursor is back.
        assert shown.seen.rindex("\x1b[?25h") > shown.seen.rindex("\x1b[?25l")


def test_ctrl_c_leaves_a_watched_task_and_the_cursor_comes_back(alice: Person) -> None:
    task_id = alice.submit()
    with terminal(alice, "watch", task_id) as shown:
        shown.until("WAITING")
        shown.interrupt()
        assert shown.end() == exits.INTERRUPTED
        assert "the task goes on" in shown.text
        assert shown.seen.rindex("\x1b[?25h") > shown.seen.rindex("\x1b[?25l")
    assert alice.api.task(task_id).state.is_waiting


@pytest.mark.parametrize(
    ("words", "env", "coloured"),
    [
        ((), {}, True),
        ((), {"NO_COLOR": "1"}, False),
        (("--color", "always"), {"NO_COLOR": "1"}, True),
        (("--color", "never"), {}, False),
        ((), {"TERM": "dumb"}, False),
    ],
    ids=["terminal", "NO_COLOR", "always", "never", "dumb"],
)
def test_colours(alice: Person, words: tuple[str, ...], env: dict[str, Any], coloured: bool) -> None:
    task_id = alice.submit()
    with terminal(alice, "show", task_id, *words, **env) as shown:
        assert shown.end() == exits.OK
        assert ("\x1b[33m" in shown.seen or "\x1b[2m" in shown.seen) == coloured
        # Relative times for people.
        assert re.search(r"created +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(", shown.text)


def run(person: Person, *words: str, **options: Any) -> subprocess.Popen[str]:
    environ = {name: value for name, value in person.environ.items() if value is not None}
    return subprocess.Popen(
        [*_ARGUS, *words],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_at_login,
        **options,
    )


def test_a_reader_that_leaves_ends_the_command_without_a_word(alice: Person) -> None:
    task_id = alice.submit()
    change = alice.api.run(task_id)
    log_of(change).write_text("a line\n" * 200_000)
    with run(alice, "logs", task_id, "-n", "200000") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(BOUND_S) == -signal.SIGPIPE


def test_a_pipe_has_no_escape_sequence_and_times_that_a_program_reads(alice: Person) -> None:
    task_id = alice.submit()
    with run(alice, "watch", task_id) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert re.match(rf"\d{{4}}-\d\d-\d\dT\S+Z {task_id} QUEUED position=\d+ ", first) and "\x1b" not in first
        alice.api.end(alice.api.run(task_id))
        assert process.stdout.read().splitlines()[-1].split()[2] == "SUCCEEDED"
        assert process.wait(BOUND_S) == exits.OK


def test_a_bug_is_told_in_a_line_and_debug_shows_where(alice: Person, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from argus_ray.cli import config\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        "config.target = broken\n"
    )
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "ARGUS_CONFIG": str(tmp_path / "none")}
    for more in ((), ("--debug",)):
        ran = subprocess.run(
            [*_ARGUS, "whoami", *more], env=environ, capture_output=True, text=True, timeout=BOUND_S, check=False
        )
        assert ran.returncode == exits.BUG
        assert "this is a bug of argus: RuntimeError: broken on purpose" in ran.stderr
        assert ("Traceback" in ran.stderr) == bool(more)


def test_a_stdout_that_is_no_utf_8_takes_all_the_same(alice: Person) -> None:
    task_id = alice.submit()
    log_of(alice.api.run(task_id)).write_text("\u2581 Gr\u00fc\u00dfe\n")
    alice.env["PYTHONIOENCODING"] = "ascii"
    with run(alice, "logs", task_id) as process:
        assert process.communicate(timeout=BOUND_S) == ("\\u2581 Gr\\xfc\\xdfe\n", "")
    with run(alice, "logs", task_id, "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["text"] == "\u2581 Gr\u00fc\u00dfe"


def test_a_closed_stdout_is_no_bug(alice: Person) -> None:
    shell = f"{' '.join(_ARGUS)} version >&-"
    environ = {**os.environ, "ARGUS_CONFIG": str(alice.home / "none"), "ARGUS_URL": ""}
    ran = subprocess.run(["sh", "-c", shell], env=environ, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert (ran.returncode, ran.stderr) == (exits.OK, "")


def test_completion_asks_no_server(alice: Person) -> None:
    """Of a server that does not answer, and with a context that is in the file."""
    config = Path(alice.environ["ARGUS_CONFIG"] or "")
    config.touch(0o600)
    config.write_text("contexts:\n  lab-one:\n    url: http://192.0.2.1:9\n")

    def completed(typed: str) -> list[str]:
        environ = {name: value for name, value in alice.environ.items() if value is not None}
        words = typed.split(" ")
        asked = {"_ARGUS_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
        ran = subprocess.run(
            [*_ARGUS], env={**os.environ, **environ, **asked, "ARGUS_URL": "http://192.0.2.1:9"},
            capture_output=True, text=True, timeout=BOUND_S, check=False,
        )  # fmt: skip
        assert ran.stderr == ""
        return [line.split(",", 1)[1] for line in ran.stdout.splitlines() if line]

    assert completed("argus re") == ["resubmit"]
    assert completed("argus --context la") == ["lab-one"]
    assert completed("argus tasks --state RUNNING,QU") == ["RUNNING,QUEUED"]
    assert completed("argus context u") == ["use"]
    assert completed("argus show ar") == []


def test_the_audit_is_followed(admin: Person, alice: Person) -> None:
    with run(admin, "audit", "-f", "--user", alice.home.name, "--json") as process:
        assert process.stdout is not None
        # It shows what comes after it has begun: until something is shown, something is done.
        seen: list[str] = []
        reader = threading.Thread(target=lambda: seen.append(process.stdout.readline()))  # type: ignore[union-attr]
        reader.start()
        made = []
        assert wait_until(lambda: made.append(alice.submit()) or bool(seen), BOUND_S, 0.5)  # type: ignore[func-returns-value]
        assert seen[0], process.communicate()[1]
        entry = json.loads(seen[0])
        assert (entry["action"], entry["actor"]) == ("task.submit", alice.home.name) and entry["target"] in made
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND_S) == exits.INTERRUPTED
        reader.join(BOUND_S)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [("tasks",), ("tasks", "--json"), ("--help",), ("metrics", "ID", "--csv")])
def test_a_full_disk_is_no_bug(alice: Person, words: tuple[str, ...]) -> None:
    task_id = alice.submit()
    words = tuple(task_id if word == "ID" else word for word in words)
    environ = {name: value for name, value in alice.environ.items() if value is not None}
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [*_ARGUS, *words],
            env={**os.environ, **environ},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
    assert ran.returncode == exits.USAGE, ran.stderr
    assert "stdout cannot be written: No space left on device" in ran.stderr
    assert "bug" not in ran.stderr and "Traceback" not in ran.stderr and "Exception ignored" not in ran.stderr


def test_words_that_cannot_be_written_do_not_fail_the_command(alice: Person) -> None:
    with Path("/dev/full").open("w") as full:
        environ = {name: value for name, value in alice.environ.items() if value is not None}
        ran = subprocess.run(
            [*_ARGUS, "tasks"], env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=full, timeout=BOUND_S,
            check=False,
        )  # fmt: skip
    assert ran.returncode == exits.OK


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_table_with_pictures_fits_the_terminal(alice: Person, admin: Person, columns: int) -> None:
    for who in (alice, admin):
        task_id = alice.submit(total_training_steps=20_000)
        with metrics_of(alice.api.run(task_id)).open("a") as file:
            file.write("".join(lines(step, train__loss=1 / (7 * step), timing_s__step=2.0) for step in range(1, 60)))
        for words in (("tasks",), ("metrics", task_id), ("metrics", task_id, alice.submit())):
            with terminal(who, *words, columns=columns, rows=40) as shown:
                assert shown.end() == exits.OK
                # A line that is too long goes on at the left edge.
                broken = [line for line in shown.text.splitlines() if line[:1] in tuple("▁▂▃▄▅▆▇█")]
                assert broken == [], shown.text
                assert columns < 80 or "▁" in shown.text, shown.text
