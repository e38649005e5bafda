"""HAProxy before the API on real Ray: what is killed, what clients are told meanwhile, and two machines at once."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from argus_ray.local.cluster import NotStarted, OneMachine
from argus_ray.node import ports, processes
from tests.support import gaps
from tests.support.gaps import Clients
from tests.support.raycluster import ADMIN_TOKEN, FOLDERS, PATIENCE_S, ROOT, Api, Cluster


@pytest.fixture
def clients(cluster: Cluster) -> Iterator[Clients]:
    with Clients(cluster.machine.url, ADMIN_TOKEN, 4) as made:
        calm(made)
        yield made


def calm(clients: Clients) -> None:
    begun = time.monotonic()
    assert processes.wait_until(lambda: clients.is_calm(begun, 2), PATIENCE_S), clients.since("nothing", begun)


def pids(mark: str, part: str) -> set[int]:
    """Of the processes of this part."""
    found = set()
    for pid in processes.marked(mark):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if re.search(gaps.PARTS[part], command):
                found.add(pid)
    return found


@pytest.mark.parametrize("part", ["gateway replica", "HAProxy", "proxy actor", "Serve's controller"])
def test_clients_are_refused_or_told_to_come_back_while_a_killed_part_is_away(
    cluster: Cluster, clients: Clients, part: str
) -> None:
    gap = gaps.measure(cluster.machine.mark, clients, part)
    print(f"\n{gap}")
    assert gap.forbidden == 0, gap.answers
    if part == "proxy actor":
        assert not [what for what in gap.answers if not gaps.is_well(what)], "HAProxy outlives it"


def test_both_replicas_at_once(cluster: Cluster, clients: Clients) -> None:
    begun = time.monotonic()
    before = pids(cluster.machine.mark, "gateway replica")
    for pid in before:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert processes.wait_until(lambda: clients.is_calm(begun), PATIENCE_S)
    gap = clients.since("both replicas", begun)
    print(f"\n{gap}")
    assert gap.forbidden == 0, gap.answers
    assert any(what.startswith("503 unavailable") for what in gap.answers)


def follow(user: Api, task: str, lines: list[str]) -> bool:
    """Read the live log from where `lines` end; whether it came to its end, and did not break off."""
    headers = {"Authorization": f"Bearer {user.token}"}
    ids = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
    if ids:
        headers["Last-Event-ID"] = ids[-1]
    try:
        with user.http.stream("GET", f"/api/v2/tasks/{task}/logs/stream", headers=headers, timeout=60) as answer:
            if answer.status_code != 200:
                assert answer.status_code == 503 and answer.headers["retry-after"], answer.read()
                return False
            for line in answer.iter_lines():
                lines.append(line)
                if line == "event: end":
                    return True
    except httpx2.TransportError:
        pass
    return False


def steps(lines: list[str]) -> list[str]:
    return [line.removeprefix("data: ") for line in lines if "step:" in line]


@pytest.mark.parametrize("kills", ["proxy actor", "gateway replica"])
def test_a_stream_lasts_through_a_new_haproxy_and_goes_on_after_its_replica(cluster: Cluster, kills: str) -> None:
    """A task that waits is a stream that is quiet. With the proxy actor HAProxy is replaced, and the old one keeps the
    stream; with its replica a stream ends, and its client goes on from the last event."""
    user = cluster.user()
    gate = user.gate()
    task = user.submit({"steps": 4, "wait_for_file": str(gate), "wait_at_step": 2}, n_gpus_per_node=1)
    user.wait(task, lambda view: bool(view["attempts"]) and view["state"] == "RUNNING", "running")
    mark = cluster.machine.mark
    before = {part: pids(mark, part) for part in ("HAProxy", "gateway replica")}
    lines: list[str] = []
    done: list[bool] = []

    def read() -> None:
        while not done or not done[-1]:
            done.append(follow(user, task, lines))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert processes.wait_until(lambda: bool(steps(lines)), PATIENCE_S)
    try:
        for _ in range(len(before["gateway replica"]) if kills == "gateway replica" else 1):
            gaps.kill(mark, kills)
        watched = "HAProxy" if kills == "proxy actor" else "gateway replica"
        assert processes.wait_until(lambda: bool(pids(mark, watched) - before[watched]), PATIENCE_S)
    finally:
        gate.touch()
    reader.join(PATIENCE_S)
    assert done[-1], lines
    log = (cluster.job_root(user.wait_final(task)) / "logs" / "driver.log").read_text()
    assert steps(lines) == [line for line in log.splitlines() if "step:" in line], "each once"
    if kills == "proxy actor":
        assert done == [True], "it never broke off"


def listening(mark: str) -> set[int]:
    """The ports at which the processes with this mark listen."""
    inodes = set()
    for pid in processes.marked(mark):
        with contextlib.suppress(OSError):
            for file in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(str(file.readlink()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


@contextlib.contextmanager
def second_machine(**settings: int) -> Iterator[OneMachine]:
    root = FOLDERS / f"argus-u-{os.getpid()}"
    root.mkdir(mode=0o700)
    machine = OneMachine(root, f"tests-{root.name}", environ={"ARGUS_ADMIN_TOKEN": ADMIN_TOKEN}, **settings)  # type: ignore[arg-type]
    try:
        yield machine
    finally:
        machine.stop()
        shutil.rmtree(root, ignore_errors=True)


def test_two_machines_at_once_do_not_meet(cluster: Cluster, clients: Clients) -> None:
    first = cluster.machine
    with second_machine() as second, Clients(second.url, ADMIN_TOKEN, 2) as early:
        begun = time.monotonic()
        second.launch_head(ROOT / "serve_config.yaml")
        second.wait_for_launch(())
        calm(early)
        start = early.since("start of the head", begun)
        print(f"\n{start}")
        assert start.forbidden == 0, "from the first connection that is taken"
        pages = [httpx2.get(f"{second.url}/-/{page}", trust_env=False, timeout=60) for page in ("healthz", "routes")]
        assert {(page.status_code, page.json()["code"]) for page in pages} == {(404, "not_found")}
        heads = {
            httpx2.get(f"{each.url}/healthz", trust_env=False, timeout=60).headers["x-argus-head"]
            for each in (first, second)
        }
        assert len(heads) == 2
        assert listening(first.mark) & listening(second.mark) == set()
        # HAProxy's fixed ports, and Serve's own for the replicas.
        assert not {9101, 8404, 8500, 30000} & (listening(first.mark) | listening(second.mark))
        folders = [first.root, second.root]
        for machine, other in (folders, folders[::-1]):
            configs = list(machine.glob("run/h-*/*/haproxy.cfg"))
            assert configs and not any(str(other) in config.read_text() for config in configs)
        # The one's death is not the other's.
        assert processes.wait_until(lambda: len(pids(first.mark, "gateway replica")) == 2, PATIENCE_S)
        before = pids(first.mark, "gateway replica")
        for part in ("HAProxy", "gateway replica"):
            gaps.kill(second.mark, part)
        assert processes.wait_until(lambda: bool(pids(second.mark, "HAProxy")), PATIENCE_S)
        gap = clients.since("of another machine", begun)
        assert gap.forbidden == 0, gap
        assert pids(first.mark, "gateway replica") == before
        calm(early)
        assert early.since("two parts", begun).forbidden == 0


def test_a_port_of_another_machine_is_said_by_name(cluster: Cluster) -> None:
    taken = cluster.machine.http_port
    with second_machine(http_port=taken) as second:
        words = rf"port {taken} is taken by haproxy \(process \d+\)"
        second.launch_head(ROOT / "serve_config.yaml")
        with pytest.raises(NotStarted, match=words):
            second.wait_for_launch(())
        with pytest.raises(NotStarted, match=words):
            second.start_head()
        assert ports.listeners(second.gcs_port) == [], "nothing was started"


def test_a_redeploy_tells_clients_nothing_of_serves_own(cluster: Cluster, clients: Clients) -> None:
    """The last one of this file: the other setting, of no other test's concern, stays."""
    config = cluster.machine.root / "serve_config.yaml"
    text = config.read_text()
    other = text.replace("tokens_per_user: 100", "tokens_per_user: 99")
    assert other != text
    begun = time.monotonic()
    before = pids(cluster.machine.mark, "gateway replica")
    config.write_text(other)
    cluster.machine.deploy(config)
    assert processes.wait_until(lambda: not before & pids(cluster.machine.mark, "gateway replica"), PATIENCE_S)
    calm(clients)
    gap = clients.since("redeploy", begun)
    print(f"\n{gap}")
    assert gap.forbidden == 0, gap.answers
