"""One node's processes of the sft launcher, without Ray: exit codes, output, and that nothing is left
running."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.payload.argus_sft_launcher import MAX_LINE, MEETING_S, PORT_TAKEN, Gang, Node
from tests.support.running import is_alive

DEADLINE_S = 30.0
WORLD = {"WORLD_SIZE": "2"}


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node(ip="127.0.0.1")
    yield node
    node.stop(grace_s=0.0)
    follow(node)


def start(node: Node, program: str, cwd: Path, count: int = 2) -> None:
    node.start([sys.executable, "-u", "-S", "-c", program], str(cwd), WORLD, first_rank=4, count=count)


def follow(node: Node, until: bytes | None = None) -> tuple[bytes, int | None]:
    """All output and the exit code; or what came up to the line `until`."""
    output = b""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        more, code = node.poll(0.05)
        output += more
        if code is not None or (until is not None and until in output):
            return output, code
    raise AssertionError(f"not within {DEADLINE_S} s; so far: {output!r}")


def test_each_process_knows_its_rank(node: Node, tmp_path: Path) -> None:
    start(
        node,
        "import os; e = os.environ; print(e['RANK'], e['LOCAL_RANK'], e['WORLD_SIZE'], os.getcwd())",
        tmp_path,
    )
    output, code = follow(node)
    assert code == 0
    assert sorted(output.decode().splitlines()) == [f"4 0 2 {tmp_path}", f"5 1 2 {tmp_path}"]


def test_lines_of_two_processes_do_not_mix(node: Node, tmp_path: Path) -> None:
    start(node, "import os; [os.write(1, b'x' * 500 + b'\\n') for _ in range(400)]", tmp_path)
    output, _ = follow(node)
    assert output.splitlines() == [b"x" * 500] * 800


def test_a_huge_line_comes_whole(node: Node, tmp_path: Path) -> None:
    start(node, f"import sys; sys.stdout.write('x' * {3 * MAX_LINE + 5})", tmp_path, count=1)
    assert follow(node) == (b"x" * (3 * MAX_LINE + 5), 0)


def test_the_first_failure_ends_the_others_and_gives_the_code(node: Node, tmp_path: Path) -> None:
    program = "import os, time; print(os.getpid()); time.sleep(600 if os.environ['RANK'] == '4' else 0); os._exit(9)"
    start(node, program, tmp_path)
    output, code = follow(node)
    assert code == 9
    assert not any(is_alive(int(pid)) for pid in output.split())


def test_death_by_signal(node: Node, tmp_path: Path) -> None:
    start(node, "import os; os.kill(os.getpid(), 11)", tmp_path, count=1)
    assert follow(node)[1] == 128 + 11


def test_a_process_that_cannot_be_started_is_a_failure(node: Node, tmp_path: Path) -> None:
    start(node, "", tmp_path / "missing", count=1)
    output, code = follow(node)
    assert code == 127
    assert output.startswith(b"cannot start a process")


def test_stop_reaches_a_program_that_does_not_listen(node: Node, tmp_path: Path) -> None:
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)"
    start(node, program, tmp_path, count=1)
    follow(node, until=b"up")
    node.stop(grace_s=0.1)
    assert follow(node)[1] == 128 + signal.SIGKILL


def test_children_of_a_process_are_ended_with_it(node: Node, tmp_path: Path) -> None:
    program = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    start(node, program, tmp_path, count=1)
    output, code = follow(node)
    assert code == 0
    assert not is_alive(int(output))


def test_a_second_run_starts_clean(node: Node, tmp_path: Path) -> None:
    start(node, "raise SystemExit(3)", tmp_path, count=1)
    assert follow(node)[1] == 3
    start(node, "print('again')", tmp_path, count=1)
    assert follow(node) == (b"again\n", 0)


def test_processes_die_with_the_one_that_keeps_them(tmp_path: Path) -> None:
    keeper = (
        "import sys, time; from argus_sft_launcher import Node; n = Node('127.0.0.1');"
        "n.start([sys.executable, '-u', '-S', '-c', 'import os, time; print(os.getpid()); time.sleep(600)'],"
        f"{str(tmp_path)!r}, {{}}, 0, 1);\n"
        "while True: sys.stdout.write(n.poll(1)[0].decode()); sys.stdout.flush()"
    )
    payload = Path(sys.modules[Node.__module__].__file__ or "").parent
    env = {**os.environ, "PYTHONPATH": str(payload)}
    process = subprocess.Popen([sys.executable, "-S", "-c", keeper], stdout=subprocess.PIPE, env=env)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert is_alive(pid)
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    deadline = time.monotonic() + DEADLINE_S
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not is_alive(pid)


def test_rendezvous_is_on_the_nodes_own_address(node: Node) -> None:
    address, port = node.rendezvous()
    assert address == "127.0.0.1"
    assert 0 < port < 65536


class Runs(Gang):
    """A gang whose runs fail with these words, so many seconds after they began."""

    def __init__(self, words: bytes, after_s: float) -> None:
        super().__init__(argparse.Namespace(nnodes=2))
        self.words = words
        self.after_s = after_s
        self.runs = 0

    def _place(self) -> bool:
        return True

    def _run_once(self) -> int:
        self.runs += 1
        self._print(0, self.words)
        self._failed_after_s = self.after_s
        return 1


@pytest.mark.parametrize(
    ("words", "after_s", "metrics", "runs"),
    [
        (PORT_TAKEN, 3.0, None, 2),
        (PORT_TAKEN, 3.0, "", 2),
        (PORT_TAKEN, 3.0, '{"step": 1}\n', 1),
        (PORT_TAKEN, MEETING_S + 1, None, 1),
        (b"out of memory", 3.0, None, 1),
    ],
)
def test_only_a_run_that_could_not_meet_is_made_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    words: bytes,
    after_s: float,
    metrics: str | None,
    runs: int,
) -> None:
    file = tmp_path / "metrics.jsonl"
    if metrics is not None:
        file.write_text(metrics)
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(file))
    gang = Runs(words, after_s)
    assert gang.run() == 1
    assert gang.runs == runs
