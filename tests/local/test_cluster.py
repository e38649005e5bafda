"""What one machine's processes are given, and that they are ended; plain children in the place of Ray's."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.discovery import head_json, sentinel
from argus_ray.local import cluster
from argus_ray.local.cluster import NotStarted, OneMachine
from argus_ray.local.folder import Refused
from argus_ray.node import processes
from tests.support.raycluster import IN_USE, end_orphans, mark_of

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
SLEEP_UP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


class Plain(OneMachine):
    """Starts sleepers, and notes what would have been started."""

    def _spawn(self, name: str, command: list[str], environ: dict[str, str]) -> None:
        self.spawned = {**getattr(self, "spawned", {}), name: (command, environ)}
        super()._spawn(name, SLEEP, environ)

    def given(self, name: str) -> dict[str, str]:
        environ: dict[str, str] = self.spawned[name][1]
        return environ


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Plain]:
    machine = Plain(tmp_path, f"test-{os.urandom(6).hex()}", environ={"ARGUS_ADMIN_TOKEN": "s" * 20})
    yield machine
    machine.stop(grace_s=0.1)


def test_the_tokens_reach_the_head_and_the_service_only(machine: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGUS_ADMIN_TOKEN", "of the caller, and just as secret")
    machine.start_head()
    machine.start_worker("w")
    config = machine.root / "config.yaml"
    config.write_text("")
    machine.serve(config)
    for name in ("head", "serve"):
        assert machine.given(name)["ARGUS_ADMIN_TOKEN_SHA256"] == hashlib.sha256(b"s" * 20).hexdigest()
        assert "s" * 20 not in machine.given(name).values(), "plain in neither"
    machine.launch_head(config)
    assert machine.given("head")["ARGUS_ADMIN_TOKEN"] == "s" * 20, "the launcher makes the digest"
    assert "ARGUS_ADMIN_TOKEN" not in machine.given("w")
    assert "ARGUS_ADMIN_TOKEN" not in machine.environment()
    assert machine.given("w")["ARGUS_SHARED_ROOT"] == str(machine.shared_root)


def test_its_own_folder_is_a_root_that_it_may_begin_on(machine: Plain) -> None:
    folder = head_json.folder(str(machine.shared_root), machine.environment()["ARGUS_CLUSTER"])
    first = sentinel.read(folder)
    again = Plain(machine.root, machine.mark)
    assert sentinel.read(folder) == first and again.children == {}


def test_haproxy_is_set_for_the_head_and_the_service_and_may_be_switched_back(
    machine: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.start_head()
    machine.start_worker("w")
    config = machine.root / "config.yaml"
    config.write_text("")
    machine.serve(config)
    for name in ("head", "serve"):
        assert machine.given(name)["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert machine.given(name)["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] == str(machine.proxy_ports.first)
    assert not [name for name in machine.given("w") if name.startswith("RAY_SERVE_")]
    monkeypatch.setenv("ARGUS_HTTP_PROXY", "ray")
    other = Plain(tmp_path / "other", machine.mark)
    other.start_head()
    assert other.given("head")["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    other.launch_head(config)
    assert "--http-proxy=ray" in other.spawned["head"][0]
    other.stop(grace_s=0.1)


def test_no_port_is_given_twice() -> None:
    ranges = [cluster.free_ports(40) for _ in range(6)]
    given = [port for each in ranges for port in range(each.first, each.last + 1)]
    given += [cluster.free_port() for _ in range(200)]
    assert len(set(given)) == 6 * 40 + 200


#: Whether this process may have a port, or gives one out and waits.
RESERVES = "print(cluster._reserve(int(sys.argv[2]), 1))"
GIVES = "print(cluster.free_port(), flush=True); sys.stdin.read()"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of this test alone: others draw ports meanwhile."""
    monkeypatch.setattr(cluster, "_GIVEN", deque())
    monkeypatch.setattr(cluster, "_RESERVATIONS", str(tmp_path / "ports"))
    cluster._reservations.cache_clear()
    yield tmp_path / "ports"
    opened = cluster._reservations()
    cluster._reservations.cache_clear()
    if opened is not None:
        os.close(opened)


def beside(table: Path, program: str, *argv: str) -> subprocess.Popen[str]:
    program = f"import sys; from argus_ray.local import cluster; cluster._RESERVATIONS = sys.argv[1]; {program}"
    command = [sys.executable, "-c", program, str(table), *argv]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def may_have(table: Path, port: int) -> bool:
    with beside(table, RESERVES, str(port)) as other:
        return other.communicate(timeout=60)[0] == "True\n"


def test_what_one_process_has_given_no_other_gives_until_it_was_long_ago(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_MOST_GIVEN", 3)
    first = cluster.free_port()
    assert not may_have(table, first)
    for _ in range(3):
        cluster.free_port()
    assert may_have(table, first)


def test_what_a_process_has_given_is_free_when_it_has_ended(table: Path) -> None:
    with beside(table, GIVES) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        assert not may_have(table, port)
        other.communicate(timeout=60)
    assert may_have(table, port)


def test_where_there_are_no_locks_ports_are_given_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    assert cluster.free_port()
    monkeypatch.setattr(cluster, "_reserve", lambda first, count: False)
    with pytest.raises(NotStarted, match="no 40 free ports"):
        cluster.free_ports(40)


def test_a_port_that_is_taken_is_said_soon(machine: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_TAKEN_S", 0.3)
    with socket.create_server(("127.0.0.1", machine.http_port)):
        with pytest.raises(NotStarted, match=f"port {machine.http_port} is taken by"):
            machine.start_head()
        assert machine.children == {}
    config = machine.root / "config.yaml"
    config.write_text("")
    machine.launch_head(config)
    status = machine.root / "run" / "head-argus-head.json"
    status.parent.mkdir()
    status.write_text('{"state": "port_taken", "reason": "port 8000 is taken by python3 (process 7)"}')
    with pytest.raises(NotStarted, match=r"cannot start here: port 8000 is taken by python3 \(process 7\)"):
        machine.wait_for_launch(())


def test_who_has_a_port_for_a_moment_is_nobody(machine: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_TAKEN_S", 60.0)
    holder = socket.create_server(("127.0.0.1", machine.http_port))
    threading.Timer(0.5, holder.close).start()
    machine.start_head()
    assert "head" in machine.children


def test_a_worker_never_gets_the_address_of_a_living_one(machine: Plain) -> None:
    for name in ("a", "b", "c"):
        machine.start_worker(name)
    machine.end_worker("a")
    machine.start_worker("a")  # the name again
    machine.end_worker("b")
    for i in range(6):
        machine.start_worker(f"more-{i}")
    living = [machine.given(name)["ARGUS_NODE_IP"] for name in machine.children]
    assert len(living) == len(set(living)) == 8
    machine.start_worker("ninth")
    with pytest.raises(ValueError, match="no more than 9"):
        machine.start_worker("tenth")
    with pytest.raises(ValueError, match="already"):
        machine.start_worker("a")


def test_stop_may_be_called_at_any_time(machine: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.stop()
    machine.start_head()
    machine.children["head"].kill()
    machine.children["head"].wait(30)
    machine.start_worker("w")
    machine.stop(grace_s=5)
    assert processes.marked(machine.mark) == [] and machine.children == {}
    machine.stop()
    monkeypatch.setattr(subprocess, "Popen", _missing)
    with pytest.raises(FileNotFoundError):
        machine.start_head()
    machine.stop()


def _missing(*_: object, **__: object) -> None:
    raise FileNotFoundError("ray")


@pytest.mark.parametrize("said", ["", "corp.example", "10.0.0.0/8, .corp.example"])
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_our_addresses_need_no_proxy(machine: Plain, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    for each in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, said)
    environ = machine.environment()
    assert environ["no_proxy"] == environ["NO_PROXY"]
    assert environ["no_proxy"].startswith(said)
    for host in ("localhost", "127.0.0.1", "127.0.0.10", "127.0.0.19", *(["x.corp.example"] if said else [])):
        proxies = {"http": "http://proxy.invalid", "no": environ["no_proxy"]}
        assert urllib.request.proxy_bypass_environment(host, proxies), host  # type: ignore[attr-defined]


def test_what_is_started_inherits_a_list(machine: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_RUNTIME_ENV_HOOK", "NOBODY_HAS_THOUGHT_OF_IT", "MVP_ADMIN_TOKEN", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", "/hf")
    monkeypatch.setenv("SITE_A", "1")
    monkeypatch.setenv("ARGUS_PASS_ENV", "SITE_*")
    made = Plain(machine.root, machine.mark)
    made.start_head()
    made.start_worker("w")
    config = made.root / "config.yaml"
    config.write_text("")
    made.launch_head(config)
    made.launch_worker("launched")
    for name in ("head", "w", "launched"):
        given = made.given(name)
        assert not {"RAY_AUTH_TOKEN", "RAY_RUNTIME_ENV_HOOK", "NOBODY_HAS_THOUGHT_OF_IT", "MVP_ADMIN_TOKEN"} & set(
            given
        )
        assert given["SITE_A"] == "1"
        assert ("http_proxy" in given) is (name != "head"), "jobs may need it, the head's calls do not"
    assert made.given("head")["NETRC"] == os.devnull
    assert made.given("w")["HF_HOME"] == "/hf"
    said = (made.logs / "environment.log").read_text()
    assert "RAY_AUTH_TOKEN" in said and "NOBODY_HAS_THOUGHT_OF_IT" in said and "127.0.0.1:9" not in said
    monkeypatch.setenv("ARGUS_PASS_ENV", "*")
    with pytest.raises(Refused, match="ARGUS_PASS_ENV must be names"):
        Plain(machine.root, machine.mark)
    made.stop(grace_s=0.1)


def test_no_proxy_at_all_stays_so(machine: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    assert machine.environment()["NO_PROXY"] == "*"


def test_a_proxy_is_not_asked_whether_we_are_up() -> None:
    code = """
import http.server, threading
from argus_ray.node.serve_deploy import answers
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(answers(f"http://127.0.0.1:{server.server_port}/"))
"""
    environ = {"PATH": os.environ["PATH"], "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True", done.stderr


def test_what_this_run_of_the_tests_uses_is_left_alone(tmp_path: Path) -> None:
    """A module that starts a quickstart of its own looks for orphans while the session's cluster runs."""
    mine, of_an_earlier_one = tmp_path / f"argus-t-{os.getpid()}", tmp_path / f"argus-q-{os.getpid()}"
    mine.mkdir()
    of_an_earlier_one.mkdir()
    IN_USE.add(mine)
    try:
        end_orphans(tmp_path)
    finally:
        IN_USE.remove(mine)
    assert mine.exists()
    assert not of_an_earlier_one.exists()


def test_a_killed_run_of_the_tests_is_cleaned_up(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait(30)
    dead, alive, other = tmp_path / f"argus-t-{ended.pid}", tmp_path / "argus-t-1", tmp_path / "argus-t-notes"
    link = tmp_path / f"argus-t-{ended.pid}0000000"
    link.symlink_to(other)
    for folder in (dead, alive, other):
        folder.mkdir()
        (folder / "file").touch()
    environ = {**os.environ, processes.MARK: mark_of(dead)}
    left = subprocess.Popen(SLEEP_UP, env=environ, stdout=subprocess.PIPE)
    try:
        assert left.stdout is not None and left.stdout.readline() == b"up\n"  # its mark can be seen from now on
        end_orphans(tmp_path)
        assert left.wait(30) < 0
    finally:
        left.kill()
    assert not dead.exists()
    assert alive.exists() and (other / "file").exists()
