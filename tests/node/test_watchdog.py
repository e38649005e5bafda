"""The worker watchdog as a real process, with a `ray` that is ours."""

from __future__ import annotations

import itertools
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from argus_ray.discovery import sentinel
from tests.support.fakeray import ROOT, Machine, Program

RAYLET_OF_ANOTHER = (
    "import ctypes, signal; ctypes.CDLL(None).prctl(15, b'raylet', 0, 0, 0); print('up', flush=True); signal.pause()"
)


def joined(machine: Machine, *argv: str, **environ: str) -> Program:
    """A watchdog that is in the cluster of head.json's first record."""
    machine.publish()
    program = machine.watchdog(*argv, **environ)
    program.is_in_state("joined")
    return program


def is_gone(pid: int) -> bool:
    """Ended and collected."""
    return not Path(f"/proc/{pid}").exists()


# Joining.


def test_it_waits_for_head_json_joins_and_ends_on_request(machine: Machine) -> None:
    program = machine.watchdog("--num-gpus=4", "--", "--extra=1", ARGUS_LABELS="a=b", RAY_ADDRESS="elsewhere")
    status = program.is_in_state("waiting")
    assert status["reason"].startswith("missing: ")
    assert (status["joined"], status["address"], status["since"]) == (False, None, None)
    assert machine.starts() == []

    machine.order("hang")
    machine.publish(epoch=3)
    status = program.is_in_state("joining")
    assert (status["joined"], status["address"], status["epoch"]) == (False, "127.0.0.1:6379", 3)

    machine.withdraw("hang")
    status = program.is_in_state("joined")
    assert (status["joined"], status["address"], status["epoch"]) == (True, "127.0.0.1:6379", 3)
    assert status["session"] == "s1"
    assert status["since"] and status["pid"] == program.child.pid and status["node"] == "w"
    (start,) = machine.starts()
    assert start["argv"][:5] == [
        *("start", "--block", "--disable-usage-stats"),
        *("--address=127.0.0.1:6379", "--node-ip-address=127.0.0.1"),
    ]
    assert {'--resources={"worker_node": 100}', "--num-gpus=4", "--labels=a=b"} < set(start["argv"])
    assert start["argv"][-1] == "--extra=1"
    assert start["env"]["RAY_AUTH_MODE"] == "token"
    assert start["env"]["RAY_AUTH_TOKEN_PATH"] == str(machine.token)
    assert start["env"]["ARGUS_SHARED_ROOT"] == str(machine.shared)
    assert "RAY_ADDRESS" not in start["env"]

    program.terminate()
    assert machine.running() == []
    assert program.status["state"] == "stopped" and not program.status["joined"]
    for word in ("start: ", "wait: missing", "join: ", "joined: ", "leave: asked to by SIGTERM", "stopped: "):
        assert len(program.lines(f"argus-watchdog {word}")) == 1, program.text
    status_file = machine.run_dir / f"worker-{machine.cluster}-w.json"
    assert stat.S_IMODE(status_file.stat().st_mode) == 0o644


def test_tokens_of_the_api_do_not_reach_ray(machine: Machine) -> None:
    secrets = {"ARGUS_ADMIN_TOKEN": "a", "MVP_ADMIN_TOKEN": "b", "MVP_INTERNAL_TOKEN": "c"}
    joined(machine, **secrets, HF_HOME="/kept")
    (start,) = machine.starts()
    assert not set(secrets) & set(start["env"])
    assert start["env"]["HF_HOME"] == "/kept"


def test_without_the_cluster_token_it_waits_and_says_so(machine: Machine) -> None:
    machine.token.unlink()
    machine.publish()
    program = machine.watchdog()
    program.says("cluster token")
    program.looks_again()
    assert str(machine.token) in program.is_in_state("waiting")["reason"]
    assert len(program.lines("cluster token")) == 1
    assert machine.starts() == []
    machine.token.touch()
    program.is_in_state("joined")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"ray_version": "2.1.0"}, "other Ray version: the head has 2.1.0"),
        ({"python_version": "3.1.0"}, "other Python version: the head has 3.1.0"),
        ({"cluster_name": "another"}, "wrong cluster"),
        ({"updated_at": time.time() + 3600, "expires_at": time.time() + 3660}, "clock skew"),
    ],
)
def test_a_head_that_it_must_not_join(machine: Machine, change: dict[str, Any], word: str) -> None:
    machine.publish(**change)
    program = machine.watchdog()
    program.says(word)
    program.looks_again()
    assert len(program.lines("wait: ")) == 1, program.text
    assert machine.starts() == []


def test_no_way_to_the_head_is_retried(machine: Machine) -> None:
    machine.publish(head_ip="255.255.255.255")
    program = machine.watchdog()
    program.says("no way to 255.255.255.255:6379", 2)
    machine.publish()
    program.is_in_state("joined")


# Staying.


def test_whatever_becomes_of_the_file_it_stays_and_says_why_once(machine: Machine) -> None:
    program = joined(machine)
    raylet = machine.raylet()
    program.says("stay: in the cluster")

    def stays(word: str, times: int = 1) -> None:
        program.says(f"stay: {word}", times)
        program.looks_again()
        assert len(program.lines(f"stay: {word}")) == times, program.text
        assert program.status["state"] == "joined"

    machine.head_file.write_bytes(b"")
    stays("torn")
    machine.head_file.write_bytes(b"\xff garbage")
    stays("malformed")
    machine.head_file.unlink()
    stays("missing")
    machine.head_file.mkdir()
    stays("not a file")
    machine.head_file.rmdir()
    machine.publish(ttl_s=0.3, age_s=100)  # only just changed, so skew for 0.3 s
    stays("expired")
    machine.publish(cluster_name="another")
    stays("wrong cluster")
    # A head that came back on its durable store: another epoch, the same session.
    machine.publish(epoch=5)
    stays("in the cluster", 2)
    machine.publish(epoch=5, ray_version="2.1.0")
    program.looks_again()
    assert machine.raylet() == raylet and not is_gone(raylet)
    assert len(machine.starts()) == 1


def test_an_old_head_that_does_not_know_yet_is_not_followed(machine: Machine) -> None:
    machine.publish(epoch=5)
    program = machine.watchdog()
    program.is_in_state("joined")
    machine.publish(epoch=4, head_ip="127.0.0.9")
    program.says("stay: head.json has epoch 4, older than 5")
    assert len(machine.starts()) == 1


# Leaving and coming back.


def test_it_follows_a_head_that_has_moved_or_has_a_new_session(machine: Machine) -> None:
    program = joined(machine)
    first = machine.raylet()
    machine.publish(epoch=2, head_ip="127.0.0.2")
    program.says("the head has moved from 127.0.0.1:6379 to 127.0.0.2:6379")
    program.says("joined: 127.0.0.2:6379, epoch 2")
    assert is_gone(first)
    second = machine.raylet()
    machine.publish(epoch=3, head_ip="127.0.0.2", session="s2")
    program.says("has a new Ray session, s2")
    program.says("joined: 127.0.0.2:6379, epoch 3")
    assert is_gone(second)
    assert program.is_in_state("joined")["session"] == "s2"
    assert [start["argv"][3] for start in machine.starts()] == [
        f"--address=127.0.0.{number}:6379" for number in (1, 2, 2)
    ]
    assert not program.lines("retry"), "that was no failure"


def test_a_raylet_that_dies_is_replaced_after_a_pause_that_grows(machine: Machine) -> None:
    program = joined(machine)
    for number in (1, 2, 3):
        os.kill(machine.raylet(), signal.SIGKILL)
        program.says("joined: ", number + 1)
        program.is_in_state("joined")
    assert pauses(program) == [0.1, 0.1, 0.2]  # 0.05, rounded
    assert len(machine.starts()) == 4


@pytest.mark.parametrize("way", ["by SIGTERM, which Ray takes for a good end", "and nobody collects it"])
def test_a_raylet_that_dies_in_silence_is_noticed(machine: Machine, way: str) -> None:
    if "collects" in way:
        machine.order("careless")
    program = joined(machine)
    os.kill(machine.raylet(), signal.SIGTERM if "SIGTERM" in way else signal.SIGKILL)
    program.says("leave: the raylet that joined 127.0.0.1:6379 has died")
    program.says("joined: ", 2)


def test_a_ray_start_that_fails_is_tried_again_and_its_last_words_are_shown(machine: Machine) -> None:
    machine.order("fail", "a long story\nRuntimeError: the disk is full")
    machine.publish()
    program = machine.watchdog()
    program.says("retry: failure 4 in a row")
    assert len(program.lines("RuntimeError: the disk is full")) >= 4
    assert pauses(program)[:4] == [0.1, 0.1, 0.2, 0.4]  # 0.05, rounded
    assert not program.status["joined"]
    times = [start["at"] for start in machine.starts()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(gap >= pause for gap, pause in zip(gaps, (0.05, 0.1, 0.2), strict=False)), "it did wait that long"
    machine.withdraw("fail")
    program.is_in_state("joined")
    program.terminate()


def pauses(program: Program) -> list[float]:
    return [float(text) for text in re.findall(r"in a row: .*, in ([\d.]+) s at the earliest", program.text)]


def test_a_ray_start_that_hangs_is_given_up_on(machine: Machine) -> None:
    machine.order("hang")
    machine.publish()
    program = machine.watchdog("--join-timeout=1")
    program.says("it did not join within 1 s")
    program.says("join: ", 2)
    assert len(machine.running()) <= 1, "the first one was ended"
    machine.withdraw("hang")
    program.is_in_state("joined")


def test_a_head_that_moves_while_ray_start_hangs_is_followed_at_once(machine: Machine) -> None:
    machine.order("hang")
    machine.publish()
    program = machine.watchdog()
    program.says("join: 127.0.0.1:6379")
    program.until(lambda: len(machine.starts()) == 1, "ray has begun")
    machine.publish(epoch=2, gcs_port=6380)
    program.says("join: 127.0.0.1:6380")
    machine.withdraw("hang")
    assert program.is_in_state("joined")["address"] == "127.0.0.1:6380"


def test_a_ray_that_cannot_be_run_is_tried_again(machine: Machine) -> None:
    (machine.orders / "bin" / "ray").chmod(0o644)
    machine.publish()
    program = machine.watchdog()
    program.says("failure 2 in a row: PermissionError")
    assert program.status["state"] == "waiting"
    (machine.orders / "bin" / "ray").chmod(0o755)
    program.is_in_state("joined")


# Ending.


def test_a_deaf_ray_and_its_children_end_within_the_grace(machine: Machine) -> None:
    machine.order("deaf")
    machine.order("grandchild")
    program = joined(machine, "--stop-grace=5")  # without it more than `terminate` waits for
    assert len(machine.running()) == 3
    begun = time.monotonic()
    program.terminate()
    assert time.monotonic() - begun >= 5, program.text
    assert (machine.orders / "asked").exists() and machine.running() == []


def test_it_ends_at_once_while_ray_start_hangs(machine: Machine) -> None:
    machine.order("hang")
    machine.publish()
    program = machine.watchdog()
    program.is_in_state("joining")
    program.until(lambda: len(machine.starts()) == 1, "ray has begun")
    program.child.send_signal(signal.SIGHUP)
    program.child.send_signal(signal.SIGINT)
    program.ends(0)
    assert "asked to by SIGINT" in program.text, "and SIGHUP is nothing"
    assert machine.running() == []


def test_killing_it_ends_ray_start_and_the_next_one_cleans_up_before_it_joins(machine: Machine) -> None:
    machine.order("grandchild")
    program = joined(machine)
    (start,) = machine.starts()
    old = machine.raylet(), int((machine.orders / "grandchild.pid").read_text())
    program.kill()
    program.until(lambda: start["pid"] not in machine.running(), "`ray start` has died with it")
    assert set(machine.running()) == set(old), "the worst case: nothing else has"

    successor = machine.watchdog("--stop-grace=0.2")
    successor.says("clean: ending what an earlier watchdog of this node has left")
    successor.says("joined: ")
    assert not set(old) & set(machine.running())
    text = successor.text
    assert text.index(" clean: ") < text.index(" join: ")
    successor.terminate()
    assert machine.running() == []


def test_a_ray_of_somebody_else_is_never_touched(machine: Machine) -> None:
    machine.order("deaf")
    others = [
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", RAYLET_OF_ANOTHER],
            stdout=subprocess.PIPE,
            env=machine.environ(**mark),
        )
        for mark in (
            {},
            {"ARGUS_NODE": f"worker-{machine.cluster}-w2 {machine.run_dir}"},
            {"ARGUS_NODE": f"head-{machine.cluster}-w {machine.run_dir}"},
            {"ARGUS_NODE": f"worker-{machine.cluster}-w /elsewhere"},
        )
    ]
    for other in others:
        assert other.stdout is not None and other.stdout.readline() == b"up\n"
    program = joined(machine, "--stop-grace=0.1")
    machine.publish(epoch=2, session="s2")
    program.says("joined: ", 2)
    program.kill()
    program = machine.watchdog("--stop-grace=0.1")
    program.says("clean: ")
    program.says("joined: ")
    program.terminate()
    assert set(machine.running()) == {other.pid for other in others}
    assert all(other.poll() is None for other in others)
    for other in others:
        other.kill()
        other.communicate(timeout=30)


def test_a_second_one_of_the_same_name_is_refused_and_one_of_another_name_is_not(machine: Machine) -> None:
    program = joined(machine)
    second = machine.watchdog()
    second.ends(2)
    (line,) = second.text.splitlines()
    assert "another watchdog runs as --node-name w on this machine" in line
    beside = machine.watchdog(node="w2")
    beside.is_in_state("joined")
    beside.terminate()
    assert program.child.poll() is None and program.status["state"] == "joined"
    assert set(machine.running()) >= {machine.starts()[0]["pid"]}


@pytest.mark.parametrize("runs", [False, True])
def test_a_machine_that_cannot_start_programs_leaves_only_when_nothing_runs(machine: Machine, runs: bool) -> None:
    if runs:
        machine.order("job")
    program = joined(machine)
    root = sentinel.path_in(machine.discovery)
    root.rename(hidden := root.with_name("hidden"))
    if not runs:
        program.says("leave: programs cannot start here, and none runs")
    program.says("stay: programs cannot start here" if runs else "wait: programs cannot start here")
    for _ in range(5):  # for longer than it waits for an idle machine
        program.looks_again()
    assert len(machine.starts()) == 1 and bool(machine.running()) is runs
    hidden.rename(root)
    program.says("stay: in the cluster", times=2)
    assert len(machine.starts()) == (1 if runs else 2)


def test_orphans_of_ray_are_collected(machine: Machine) -> None:
    machine.order("orphans")
    program = joined(machine)
    children = Path(f"/proc/{program.child.pid}/task/{program.child.pid}/children")
    program.until(lambda: len(children.read_text().split()) == 1, "only `ray start` is left")
    program.looks_again()
    assert program.status["state"] == "joined", "the exit codes of others are not taken for that of Ray"


def test_the_first_that_it_says_is_what_it_waits_for(machine: Machine) -> None:
    begun = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "argus_ray.node.watchdog"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=machine.environ(
            ARGUS_SHARED_ROOT=str(machine.shared), ARGUS_CLUSTER=machine.cluster, ARGUS_RUN_DIR=str(machine.run_dir)
        ),
    )
    assert child.stdout is not None
    while b" wait: " not in (line := child.stdout.readline()):
        assert line
    print(f"{time.monotonic() - begun:.2f} s after its start")
    child.terminate()
    child.communicate(timeout=30)
    assert child.returncode == 0
