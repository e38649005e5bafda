"""What the machine holds already: folders of others, links, a Ray of our name that lives, addresses that do not work.

The launcher and the watchdog as real processes, with a `ray` that is ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from argus_ray.node import haproxy
from tests.support.fakeray import ROOT, Machine, Program

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
NOBODY = 65534


def both(machine: Machine) -> list[Callable[..., Program]]:
    return [machine.head, machine.watchdog]


def as_nobody(code: str) -> subprocess.CompletedProcess[str]:
    """Python with this code, as another user than root; it need not be able to read this checkout."""
    first = (
        "import os; from pathlib import Path; from argus_ray.node import cli, ports; os.setgid(65534); os.setuid(65534)"
    )
    environ = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{first}\n{code}"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


# Folders.


@needs_root
def test_a_run_dir_that_somebody_else_has_made_is_refused_and_nothing_in_it_is_touched(
    machine: Machine, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    machine.run_dir.mkdir()
    for name in (f"worker-{machine.cluster}-w", f"head-{machine.cluster}-h"):
        for end in ("ray.log", "deploy.log", "json", "lock"):
            (machine.run_dir / f"{name}.{end}").symlink_to(victim)
    os.chown(machine.run_dir, NOBODY, NOBODY)
    machine.publish()
    for start in both(machine):
        program = start()
        program.ends(2)
        assert f"--run-dir: {machine.run_dir} belongs to the user nobody: have it deleted" in program.text
    assert victim.read_text() == "years of work" and machine.starts() == []


def test_a_run_dir_that_others_can_write_or_that_is_a_link_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.run_dir.mkdir()
    machine.run_dir.chmod(0o777)
    for start in both(machine):
        program = start()
        program.ends(2)
        assert f"chmod go-w {machine.run_dir}" in program.text
    machine.run_dir.rename(tmp_path / "aside")
    machine.run_dir.symlink_to(tmp_path / "aside")
    for start in both(machine):
        program = start()
        program.ends(2)
        assert f"--run-dir {machine.run_dir} is a link" in program.text


def test_a_link_in_the_place_of_a_log_keeps_its_target(machine: Machine, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    machine.run_dir.mkdir(mode=0o755)
    log = machine.run_dir / f"worker-{machine.cluster}-w.ray.log"
    log.symlink_to(victim)
    machine.publish()
    program = machine.watchdog()
    program.says("symbolic links")
    log.unlink()
    program.is_in_state("joined")
    assert victim.read_text() == "years of work"


@needs_root
@pytest.mark.parametrize("kind", ["another user", "a link", "a file"])
def test_a_temp_dir_that_ray_could_not_use_is_refused_with_what_to_do(
    machine: Machine, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "tmp"
    if kind == "a link":
        folder.symlink_to(tmp_path)
    elif kind == "a file":
        folder.touch()
    else:
        folder.mkdir(mode=0o755)
        os.chown(folder, NOBODY, NOBODY)
    for start in both(machine):
        program = start()
        program.ends(2)
        (line,) = program.text.splitlines()
        assert f"--temp-dir {folder}" in line and "take another --temp-dir" in line
    assert machine.starts() == []


@needs_root
def test_a_temp_dir_of_root_is_refused_to_others() -> None:
    """/tmp/ray of a first start as root, and then as the user argus."""
    folder = Path(f"/tmp/argus-test-ray-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        done = as_nobody(f"cli.check_temp_dir({str(folder)!r})")
    finally:
        folder.rmdir()
    words = f"{folder} belongs to the user root and cannot be written by us: delete it, or take another --temp-dir"
    assert words in done.stderr


def test_where_ray_puts_its_files_does_not_hang_on_tmpdir(machine: Machine, tmp_path: Path) -> None:
    machine.publish()
    machine.watchdog(TMPDIR="/elsewhere").is_in_state("joined")
    (start,) = machine.starts()
    assert f"--temp-dir={tmp_path}/tmp" in start["argv"] and start["env"]["TMPDIR"] == "/elsewhere"


@needs_root
def test_a_folder_for_haproxy_that_is_not_ours_is_named(machine: Machine, tmp_path: Path) -> None:
    """It lies below /tmp, where the run dir has too long a path. Here it comes back as soon as it is deleted."""
    folder = haproxy.folder_of(machine.run_dir, f"head-{machine.cluster}-h")
    assert folder.parent == Path("/tmp")
    folder.symlink_to(tmp_path)
    try:
        program = machine.head()
        program.says(f"{folder} is a link: delete it, or name another folder, by a --run-dir with a shorter path")
        program.is_in_state("waiting")
        assert machine.starts() == []
    finally:
        folder.unlink()
    program.is_in_state("serving")


# A Ray of our name and folder that lives.


@pytest.mark.parametrize("role", ["worker", "head"])
def test_what_belongs_to_one_that_lives_is_not_ended(machine: Machine, role: str) -> None:
    """Its lock is gone: somebody has cleaned the run dir up."""
    machine.publish(ttl_s=0.3, age_s=100) if role == "head" else machine.publish()
    start, state = (machine.head, "serving") if role == "head" else (machine.watchdog, "joined")
    first = start()
    first.is_in_state(state)
    raylet = machine.raylet()
    shutil.rmtree(machine.run_dir)
    second = start()
    second.ends(2)
    assert f"process {first.child.pid} has started it" in second.text
    assert raylet in machine.running() and first.child.poll() is None
    # One that is dead is no owner, whoever has its id now.
    first.kill()
    third = start()
    third.is_in_state(state)
    assert raylet not in machine.running()


def test_two_that_have_both_found_nothing_do_not_end_each_other(machine: Machine) -> None:
    first = machine.watchdog()
    first.is_in_state("waiting")
    shutil.rmtree(machine.run_dir)
    second = machine.watchdog()
    second.is_in_state("waiting")
    os.kill(first.child.pid, signal.SIGSTOP)
    machine.publish()
    second.is_in_state("joined")
    raylet = machine.raylet()
    os.kill(first.child.pid, signal.SIGCONT)
    first.says(f"process {second.child.pid} has started it")
    assert raylet in machine.running()
    first.terminate()
    assert raylet in machine.running() and second.child.poll() is None


def test_one_folder_has_one_mark_whatever_leads_to_it(machine: Machine, tmp_path: Path) -> None:
    machine.publish()
    machine.order("grandchild")
    (tmp_path / "way").symlink_to(tmp_path)
    program = machine.watchdog(f"--run-dir={tmp_path}/way/run")
    program.says("joined: ")
    left = int((machine.orders / "grandchild.pid").read_text())
    program.kill()
    machine.watchdog("--stop-grace=0").says("joined: ")
    assert left not in machine.running()


@needs_root
def test_another_user_in_the_same_folder_is_refused(machine: Machine) -> None:
    machine.publish()
    machine.watchdog().is_in_state("joined")
    raylet = machine.raylet()
    code = f"with cli.alone('watchdog', Path({str(machine.run_dir)!r}), 'x', 'w'): print('it runs')"
    done = as_nobody(f"raise SystemExit(cli.run('watchdog', lambda: exec({code!r}) or 0))")
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert "argus-watchdog: --run-dir" in done.stderr and len(done.stderr.splitlines()) == 1
    assert raylet in machine.running()


@needs_root
def test_a_port_of_another_user_is_told_from_a_free_one() -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        done = as_nobody(f"print(ports.why_not('127.0.0.1', {port}))")
        other.kill()
    words = f"port {port} is taken by a process of another user, or that has just ended\n"
    assert done.stdout == words, done.stderr


# IPv6.


def test_an_ipv6_address_is_refused_by_the_flag(machine: Machine, tmp_path: Path) -> None:
    for start in both(machine):
        program = start("--node-ip=fd00::2")
        program.ends(2)
        assert "--node-ip must be an IPv4 address or a name, not 'fd00::2': Argus runs over IPv4 only" in program.text
    program = machine.head("--dashboard-host=::")
    program.ends(2)
    assert "--dashboard-host must be an IPv4 address" in program.text
    (tmp_path / "serve.yaml").write_text("http_options:\n  host: '::'\n  port: 8000\n")
    program = machine.head()
    program.ends(2)
    assert "http_options.host of --serve-config" in program.text


def test_a_head_at_an_ipv6_address_is_waited_for_with_that_reason(machine: Machine) -> None:
    machine.publish(head_ip="fd00::2")
    program = machine.watchdog()
    program.says("wait: head.json names the IPv6 address fd00::2, and Argus runs over IPv4 only")
    assert "IPv6" in program.is_in_state("waiting")["reason"]
    assert machine.starts() == []
    machine.publish()
    program.is_in_state("joined")
