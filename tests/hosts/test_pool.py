"""The pool heals itself: one story on real hosts, told in the order of the file. Each test leaves a pool that works.

The hosts: `ha` and `hb` for heads, `wa` and `wb` for workers with four logical GPUs each. Measured times are printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Page, expect

from argus_ray.cli import exits
from tests.support import browsing
from tests.support.gaps import Clients
from tests.support.lab import Host, wait_for
from tests.support.pool import PATIENCE_S, TTL_S, Pool, freeze, thaw
from tests.support.raycluster import ADMIN_TOKEN, ROOT, Api
from tests.support.running import name_of

#: Seconds that the head stays dead in the test of a long death; the full one is 300.
LONG_DEATH_S = float(os.environ.get("ARGUS_LONG_DEATH_S", 2.5 * TTL_S))

pytestmark = pytest.mark.timeout(900)


def test_workers_that_are_told_no_address_join(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    """A1. Within 60 s of its start, where a head is up."""
    wa = hosts["wa"]
    pool.watchdogs["wa"].signal(signal.SIGTERM)
    assert pool.watchdogs["wa"].wait(30) == 0
    assert [command for _, command in wa.pids()] == [], "it left nothing behind"
    begun = time.monotonic()
    pool.start_worker(wa)
    pool.wait_joined(wa)
    took = time.monotonic() - begun
    watchdog = pool.watchdogs["wa"].log_text()
    print(f"\nA1: joined {took:.1f} s after the watchdog's start; " + watchdog.split("joined: ")[1].splitlines()[0])
    wait_for("8 GPUs again", lambda: pool.gpus() == 8, PATIENCE_S, lab=pool.lab)


def test_no_driver_lands_on_the_head(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    """A3. The head offers 0 CPUs and 0 GPUs."""
    user = pool.user()
    tasks = [user.submit(n_gpus_per_node=2) for _ in range(3)]
    views = [user.wait_state(task, "SUCCEEDED") for task in tasks]
    workers = {hosts["wa"].ip, hosts["wb"].ip}
    assert {view["attempts"][0]["node_ip"] for view in views} <= workers
    head = next(node for node in pool.nodes() if node["is_head"])
    assert (head["ip"], head["gpus_total"], head["cpus_total"]) == (hosts["ha"].ip, 0, 0)


def test_rays_own_doors_are_closed_without_the_token(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    dashboard = f"http://{hosts['ha'].ip}:8265"
    token = (pool.shared / "ray" / "auth" / "argus.token").read_text()
    (path,) = (pool.shared / "ray" / "auth").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    for page in ("/api/jobs/", "/api/serve/applications/", "/nodes?view=summary", "/api/v0/actors"):
        assert httpx2.get(dashboard + page, timeout=60, trust_env=False).status_code == 401, page
    with_token = httpx2.get(
        f"{dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False
    )
    assert with_token.status_code == 200
    logs = {log.name: log.read_text(errors="replace") for log in pool.lab.logs.glob("*.log")}
    for host in hosts.values():
        found = host.run("grep", "-rl", token, "/tmp", "/run", check=False).stdout.split()
        assert found == [], f"{host.name}: the token lies in {found}"
    assert [name for name, text in logs.items() if token in text] == []
    assert token not in pool.head_file.read_text()


def _heads(pool: Pool, hosts: dict[str, Host]) -> tuple[Host, Host]:
    """The host of the head, and the other one, which is up and has no launcher, or a standby."""
    ip = pool.record()["head_ip"]
    live, other = sorted((hosts["ha"], hosts["hb"]), key=lambda host: host.ip != ip)
    if not other.is_up:
        other.boot()
    return live, other


def _standby(pool: Pool, host: Host) -> None:
    """A standby on this host."""
    if not pool.status(host, "head"):
        pool.start_head(host)
    wait_for(f"{host.name} is a standby", lambda: pool.status(host, "head").get("state") == "standby", 30, lab=pool.lab)


def _running(pool: Pool, user: Api, **plan: Any) -> tuple[str, dict[str, Any]]:
    """A task that runs until the end of its many steps, and its view once some steps are saved."""
    task = user.submit({"step_s": 0.2, **plan}, n_gpus_per_node=4, total_training_steps=plan["steps"])
    view = user.wait(task, lambda v: v["state"] == "RUNNING" and len(pool.steps(v)) > 9, "running, with steps")
    return task, view


def _pids(pool: Pool, host_list: list[Host], text: str) -> set[int]:
    return {pid for host in host_list for pid, _ in host.find(text)}


def test_the_head_dies_and_comes_back_at_its_address(
    pool: Pool, hosts: dict[str, Host], story: None, tmp_path: Path, console: contextlib.ExitStack
) -> None:
    """A2, and a head that is away for long with a stale head.json that then goes bad: training does not notice."""
    ha, workers = hosts["ha"], [hosts["wa"], hosts["wb"]]
    user = pool.user()
    task, before = _running(pool, user, steps=int((LONG_DEATH_S + 240) / 0.2))
    waiting = [user.submit(n_gpus_per_node=4, nnodes=2) for _ in range(2)]
    raylets = {host.name: pool.raylet(host) for host in workers}
    session = pool.record()["session"]
    drivers = _pids(pool, workers, "verl.trainer")
    assert drivers
    followed = tmp_path / "followed"
    follower = _follow(followed, user, pool.record()["api_url"], task)
    wait_for("the log is followed", lambda: b"step:9" in followed.read_bytes(), 60, lab=pool.lab)
    page = _console(console, pool, user, task)

    ha.power_off()
    time_of_death = time.monotonic()
    if page is not None:
        expect(page.get_by_text(browsing.AWAY)).to_be_visible()
        print(f"\nthe console says {time.monotonic() - time_of_death:.1f} s after the death that nobody answers")
    _bad_files(pool, workers)
    wait_for("the death has lasted", lambda: time.monotonic() - time_of_death > LONG_DEATH_S, LONG_DEATH_S + 10)
    assert {host.name: pool.raylet(host) for host in workers} == raylets, "no worker leaves for a stale file"
    at_death = len(pool.steps(before))

    ha.boot()
    begun = time.monotonic()
    pool.start_head(ha)
    answers = f"http://{ha.ip}:8000/api/v2/queue"
    header = {"Authorization": f"Bearer {user.token}"}
    wait_for("the API answers a user", lambda: _code(answers, header) == 200, PATIENCE_S, 0.1, lab=pool.lab)
    print(f"\nA2: the first answered request {time.monotonic() - begun:.1f} s after the head's start (no `serve run`)")
    pool.wait_ready(ha)
    if page is not None:
        _is_current_again(page, at_death)

    view = user.task(task)
    assert view["state"] == "RUNNING", view
    assert [attempt["submission_id"][-3:] for attempt in view["attempts"]] == ["a01"]
    assert pool.record()["session"] == session
    assert _pids(pool, workers, "verl.trainer") >= drivers, "the same process, still running"
    assert {host.name: pool.raylet(host) for host in workers} == raylets
    steps = pool.steps(view)
    assert len(steps) > at_death, "it went on while there was no head"
    assert steps == list(range(1, len(steps) + 1)), "no gap in its log"
    for each in waiting:
        user.wait_state(each, "PENDING_RESOURCES")  # no accepted task is missing

    # The same when it is asked to stop, as for an upgrade.
    pool.heads["ha"].signal(signal.SIGTERM)
    assert pool.heads["ha"].wait(60) == 0
    assert [command for _, command in ha.pids()] == []
    pool.start_head(ha)
    pool.wait_ready(ha)
    assert [attempt["submission_id"][-3:] for attempt in user.task(task)["attempts"]] == ["a01"]
    assert _pids(pool, workers, "verl.trainer") >= drivers, "the same process, still running"
    steps = pool.steps(view)
    assert steps == list(range(1, len(steps) + 1)), "no gap in its log"
    user.cancel(task)
    try:
        assert follower.wait(PATIENCE_S) == exits.CANCELED, followed.with_suffix(".err").read_text()
    finally:
        follower.kill()
        follower.wait()
    log = Path(view["attempts"][0]["job_root"]) / "logs" / "driver.log"
    lines = log.read_text().splitlines()
    print(f"`argus logs -f` through two restarts of the head: {len(lines)} lines, each once and in order")
    assert followed.read_text().splitlines() == lines
    for each in waiting:
        assert pool.executions(user.wait_state(each, "SUCCEEDED")) == [1]
    assert user.task(task)["state"] == "CANCELED"


@pytest.fixture
def console() -> Iterator[contextlib.ExitStack]:
    """What a browser that a test opens ends with."""
    with contextlib.ExitStack() as stack:
        yield stack


def _console(stack: contextlib.ExitStack, pool: Pool, user: Api, task: str) -> Page | None:
    """A task's page in somebody's browser; None: there is no browser here, which tests/console tells of."""
    if browsing.why_not() is not None:
        return None
    browser = stack.enter_context(browsing.a_browser())
    page = browsing.open_page(browser, browsing.Watched(pool.record()["api_url"]), f"task/{task}")
    browsing.sign_in(page, user.token)
    expect(page.get_by_role("progressbar")).to_be_visible()
    browsing.mark(page)
    return page


def _step(page: Page) -> int:
    """That the page tells of its task."""
    found = re.search(r"step ([\d,]+) of", page.locator(".task-head").inner_text())
    return int(found[1].replace(",", "")) if found else 0


def _is_current_again(page: Page, at_death: int) -> None:
    """Without a reload, soon after the head's return: how soon is printed."""
    begun = time.monotonic()
    expect(page.get_by_text(browsing.AWAY)).to_have_count(0)
    wait_for("the console tells newer steps", lambda: _step(page) > at_death, PATIENCE_S, 0.1)
    print(f"the console is current again {time.monotonic() - begun:.1f} s after the head is ready")
    browsing.is_marked(page)


def _follow(to: Path, user: Api, url: str, task: str) -> subprocess.Popen[bytes]:
    """Somebody's `argus logs -f`; its output goes to this file, its words beside it."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(to.parent), "ARGUS_URL": url, "ARGUS_TOKEN": user.token}
    command = [sys.executable, "-m", "argus_ray.cli", "logs", "-f", "--raw", "-n", "100000", task]
    with to.open("wb") as out, to.with_suffix(".err").open("wb") as words:
        return subprocess.Popen(command, env=environ, cwd=ROOT, stdout=out, stderr=words)


def test_clients_are_told_to_come_back_while_the_head_starts_again(
    pool: Pool, hosts: dict[str, Host], story: None
) -> None:
    """The launcher is killed, and its Ray dies with it. Nothing of Serve's own is said, then or at the new start."""
    ha = hosts["ha"]
    with Clients(f"http://{ha.ip}:8000", ADMIN_TOKEN, 4) as clients:
        begun = time.monotonic()
        wait_for("clients are answered", lambda: clients.is_calm(begun, 2), PATIENCE_S, lab=pool.lab)
        begun = time.monotonic()
        pool.heads["ha"].kill()
        wait_for("HAProxy ends with the raylet", lambda: not ha.find("haproxy.cfg"), 60, lab=pool.lab)
        pool.start_head(ha)
        pool.wait_ready(ha)
        wait_for("clients are answered again", lambda: clients.is_calm(begun), PATIENCE_S, lab=pool.lab)
        wait_for("it serves", lambda: pool.status(ha, "head").get("state") == "serving", 30, lab=pool.lab)
        gap = clients.since("head", begun)
    print(f"\n{gap}")
    assert gap.forbidden == 0, gap.answers


def test_a_worker_that_dies_while_there_is_no_head_is_missed_when_it_is_back(
    pool: Pool, hosts: dict[str, Host], story: None
) -> None:
    """And nothing else happens that would make Ray look at its jobs: nobody submits anything."""
    ha = hosts["ha"]
    user = pool.user()
    gate = user.gate()
    task, view = _running(pool, user, steps=20, step_s=0.05, wait_for_file=str(gate), wait_at_step=11)
    victim = next(hosts[name] for name in ("wa", "wb") if hosts[name].ip == view["attempts"][0]["node_ip"])
    ha.power_off()
    victim.power_off()
    ha.boot()
    pool.start_head(ha)
    pool.wait_ready(ha)
    gate.touch()
    view = user.wait_state(task, "SUCCEEDED")
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["INFRASTRUCTURE", "SUCCEEDED"]
    assert pool.steps(view) == list(range(11, 21))
    victim.boot()
    pool.start_worker(victim)
    wait_for("8 GPUs", lambda: pool.gpus() == 8, PATIENCE_S, lab=pool.lab)


def _code(url: str, headers: dict[str, str]) -> int:
    try:
        return httpx2.get(url, headers=headers, timeout=5, trust_env=False).status_code
    except httpx2.HTTPError:
        return 0


def _bad_files(pool: Pool, workers: list[Host]) -> None:
    """While nobody writes head.json: everything bad in turn. Each watchdog says what it is and stays."""
    path = pool.head_file
    good = path.read_bytes()

    def said(words: str) -> None:
        for host in workers:
            log = pool.watchdogs[host.name]
            wait_for(f"{host.name} says {words!r}", lambda log=log: words in log.log_text(), 30, lab=pool.lab)  # type: ignore[misc]

    said("stay: expired")
    path.write_bytes(good[: len(good) // 2])
    said("ends in the middle")
    path.write_bytes(b"\x00garbage")
    said("head.json is not JSON")
    path.unlink()
    said("stay: missing")
    path.mkdir()
    said("is not a plain file")
    path.rmdir()
    path.symlink_to(path)  # for root, modes are no obstacle
    said("stay: unreadable")
    path.unlink()
    future = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 3600))
    later = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 3615))
    text = good.decode()
    record = json.loads(text)
    path.write_text(text.replace(record["updated_at"], future).replace(record["expires_at"], later))
    said("stay: clock skew")
    path.write_bytes(good)


def test_a_standby_takes_over_on_another_host(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    """A2' and A2'': the live head dies while a standby waits at another address. Nobody touches anything."""
    (ha, hb), workers = _heads(pool, hosts), [hosts["wa"], hosts["wb"]]
    _standby(pool, hb)
    user, other = pool.user(), pool.user()
    gate = user.gate()
    plan = {"steps": 20, "step_s": 0.05, "wait_for_file": str(gate), "wait_at_step": 11}
    task, _ = _running(pool, user, **plan)
    blocker, _ = _running(pool, other, **plan)
    queued = [user.submit(n_gpus_per_node=4, nnodes=2), other.submit(n_gpus_per_node=4, nnodes=2)]
    epoch = pool.epoch()

    begun = time.monotonic()
    ha.power_off()
    wait_for("hb is the head", lambda: pool.record().get("head_ip") == hb.ip, PATIENCE_S, lab=pool.lab)
    pool.wait_ready(hb)
    print(f"\nA2'': the standby serves {time.monotonic() - begun:.1f} s after the head's death")
    for host in workers:
        pool.wait_joined(host, epoch=epoch + 1)
    print(f"A2': both workers are back {time.monotonic() - begun:.1f} s after it, by themselves")
    assert pool.epoch() == pool.record()["epoch"] == epoch + 1

    view = user.wait(task, lambda v: len(v["attempts"]) == 2, "in its second attempt")
    assert view["attempts"][0]["outcome"] == "INFRASTRUCTURE"
    gate.touch()
    for caller, each in ((user, task), (other, blocker)):
        view = caller.wait_state(each, "SUCCEEDED")
        assert pool.executions(view) == [1, 1]
        assert pool.steps(view, 0) == list(range(1, 11))
        assert pool.steps(view) == list(range(11, 21)), "from its last checkpoint: no step twice, none left out"
    ended = [caller.wait_state(each, "SUCCEEDED") for caller, each in zip((user, other), queued, strict=True)]
    assert ended[0]["started_at"] <= ended[1]["started_at"], "in their old order"


def test_a_paused_head_cannot_write_when_it_wakes(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    """Its host is stopped for longer than the ttl, and the filesystem gives its lock away (as a network filesystem
    does when a lease ends). Then it goes on, with another head in office."""
    (hb, ha), workers = _heads(pool, hosts), [hosts["wa"], hosts["wb"]]
    _standby(pool, ha)
    user = pool.user()
    epoch = pool.epoch()
    stopped = freeze(hb)
    try:
        # A lock file that is not there any more is a lock that the filesystem has given away.
        for lock in pool.discovery.glob("*.lock"):
            lock.unlink()
        wait_for("ha is the head", lambda: pool.record().get("head_ip") == ha.ip, PATIENCE_S, lab=pool.lab)
        assert pool.epoch() == pool.record()["epoch"] == epoch + 1
        # The sleeper still holds the database's own lock here: nobody writes beside it.
        parts = wait_for("ha says what it waits for", lambda: pool.readiness(ha).get("parts", {}), 60, lab=pool.lab)
        assert set(parts.values()) != {"ok"}
    finally:
        thaw(stopped)
    pool.wait_ready(ha)
    wait_for("hb says so", lambda: "superseded: " in pool.heads[hb.name].log_text(), 60, lab=pool.lab)
    wait_for("hb has ended its Ray", lambda: not hb.find("gcs_server"), 60, lab=pool.lab)
    wait_for("hb is a standby", lambda: pool.status(hb, "head").get("state") == "standby", 60, lab=pool.lab)
    for _ in range(3):
        written = pool.record()["updated_at"]
        wait_for("head.json is renewed", lambda was=written: pool.record().get("updated_at") != was, 30)  # type: ignore[misc]
        assert pool.record()["head_ip"] == ha.ip
    for host in workers:
        pool.wait_joined(host, epoch=epoch + 1)
    assert pool.executions(user.wait_state(user.submit(), "SUCCEEDED")) == [1]


def test_a_killed_watchdog_leaves_no_raylet_and_a_new_one_brings_a_clean_node(
    pool: Pool, hosts: dict[str, Host], story: None
) -> None:
    """With a foreign Ray cluster on the same machine, which nobody touches."""
    wa = hosts["wa"]
    foreign = wa.spawn(
        "foreign", "ray", "start", "--head", "--block", "--port=7777", "--temp-dir=/tmp/foreign", "--num-cpus=1",
        "--include-dashboard=false", "--object-store-memory=100000000", "--dashboard-agent-listen-port=52777",
        env={"RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    wait_for("the foreign cluster is up", lambda: "Ray runtime started" in foreign.log_text(), PATIENCE_S, lab=pool.lab)
    foreign_pids = {pid for pid, _ in wa.find("/tmp/foreign") if name_of(pid) in ("gcs_server", "raylet")}
    ours = [pid for pid in pool.raylet(wa) if pid not in foreign_pids]
    assert len(ours) == 1
    user = pool.user()
    gate = user.gate()
    tasks = [
        user.submit({"wait_for_file": str(gate), "wait_at_step": 2}, n_gpus_per_node=4, total_training_steps=2)
        for _ in range(2)
    ]
    for task in tasks:
        user.wait(task, lambda v: bool(v["attempts"]) and pool.steps(v) == [1], "at its first step")

    pool.watchdogs["wa"].kill()
    wait_for("its raylet is gone", lambda: not _alive(ours), 30, lab=pool.lab)
    pool.start_worker(wa)
    pool.wait_joined(wa)
    again = [pid for pid in pool.raylet(wa) if pid not in foreign_pids]
    assert len(again) == 1
    assert all(_alive([pid]) for pid in foreign_pids), "the foreign cluster was not touched"
    wait_for("8 GPUs", lambda: pool.gpus() == 8, PATIENCE_S, lab=pool.lab)
    gate.touch()
    views = [user.wait_state(task, "SUCCEEDED") for task in tasks]
    assert all(set(pool.executions(view)) == {1} for view in views)
    for view in views:
        was_there = view["attempts"][0]["node_ip"] == wa.ip
        assert len(view["attempts"]) == 2 or not was_there, "its driver was on that machine"
    foreign.signal(signal.SIGTERM)
    wait_for("the foreign cluster has ended", lambda: not wa.find("/tmp/foreign"), 30, lab=pool.lab)


def _alive(pids: list[int]) -> bool:
    return any(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: PTH110


def test_head_json_on_a_full_disk_is_said_and_heals(pool: Pool, hosts: dict[str, Host], story: None) -> None:
    """The publisher cannot write: /readyz says so; it goes on trying."""
    ha, _ = _heads(pool, hosts)
    folder = str(pool.discovery)
    ha.run("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder)
    try:
        ha.fill(folder)
        words: Callable[[], str] = lambda: pool.readiness(ha).get("parts", {}).get("publisher", "")  # noqa: E731
        wait_for("/readyz names it", lambda: "cannot be written" in words(), 60, lab=pool.lab)
    finally:
        ha.run("umount", "-l", folder)
    pool.wait_ready(ha, 60)
