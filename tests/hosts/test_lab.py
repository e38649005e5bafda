"""The lab itself: that its hosts are apart, die at once, and that nothing of it stays."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import (
    REPO,
    STATE,
    CommandFailed,
    Host,
    HostDown,
    Lab,
    LeftOver,
    Unsupported,
    require_root,
    wait_for,
)
from tests.support.running import kill

#: What each host has in /tmp: the way to this checkout, if it lies there.
KEPT = {REPO.parts[2]} if REPO.is_relative_to("/tmp") else set[str]()

PORT = 8123
DEADLINE_S = 20
# A process that leaves its parent and its session; only at its end does its command line begin with the mark.
DAEMON = """import os
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.execvp('sleep', ['{}', '1000'])
"""
WITH_CHILD = "import subprocess, sys\nsubprocess.Popen(['sleep', '1234'])\nprint('ready', flush=True)\nsys.stdin.read()"


@pytest.fixture
def root() -> Iterator[Path]:
    require_root()
    root = Path(f"/var/tmp/al-{secrets.token_hex(3)}")
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def lab(root: Path) -> Iterator[Lab]:
    with Lab(root) as lab:
        yield lab


def answers(ip: str, timeout_s: float = 1) -> bool:
    try:
        with socket.create_connection((ip, PORT), timeout_s):
            return True
    except OSError:
        return False


def answers_to(host: Host, ip: str) -> bool:
    probe = f"import socket; socket.create_connection(({ip!r}, {PORT}), 1)"
    return host.run(sys.executable, "-ISc", probe, check=False).returncode == 0


def listen(host: Host) -> None:
    host.spawn("web", sys.executable, "-m", "http.server", str(PORT), "--directory", "/private")
    wait_for(f"{host.name} listens", lambda: answers(host.ip), DEADLINE_S, poll_s=0.05, lab=host.lab)


def leave_daemon(host: Host, mark: str) -> int:
    """The pid outside of a process that left its session and its parents."""
    host.run(sys.executable, "-ISc", DAEMON.format(mark))
    [(pid, _)] = wait_for("the daemon is there", lambda: host.find(f"{mark} 1000"), DEADLINE_S, poll_s=0.02)
    return pid


def is_alive(pid: int) -> bool:
    """A zombie counts: whoever should reap it has not."""
    return Path(f"/proc/{pid}").exists()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def links_and_namespaces(lab_id: str) -> str:
    shown = [subprocess.check_output(["ip", *what], text=True, timeout=10) for what in (["-o", "link"], ["netns"])]
    return "\n".join(line for text in shown for line in text.splitlines() if f"al{lab_id}" in line)


def test_each_host_has_its_own_of_what_is_local(lab: Lab) -> None:
    one, two = lab.host("one", 11), lab.host("two", 12, mem_shm="64m")
    sleeper = one.spawn("sleeper", "sleep", "1000")
    assert [pid for pid, _ in one.find("sleep 1000")] == [sleeper.pid]
    assert two.pids() == []
    assert "sleep" not in two.run("ps", "-eo", "args").stdout
    for folder in ("/tmp", "/run", "/dev/shm"):
        one.run("touch", f"{folder}/of-one")
        assert "of-one" not in two.run("ls", folder).stdout
        assert not Path(folder, "of-one").exists()
    assert [host.run("hostname").stdout.strip() for host in (one, two)] == ["one", "two"]
    assert two.run("df", "--output=size", "-B1M", "/dev/shm").stdout.split()[-1] == "64"
    assert one.run("cat", "/proc/1/comm").stdout == two.run("cat", "/proc/1/comm").stdout


def test_private_and_the_repository_are_shared(lab: Lab) -> None:
    one, two = lab.host("one", 11), lab.host("two", 12)
    one.run("bash", "-c", "echo hello > /private/note")
    assert two.run("cat", "/private/note").stdout == "hello\n"
    assert (lab.shared / "note").read_text() == "hello\n"
    assert "pyproject.toml" in two.run("ls").stdout
    assert two.run("ls", str(lab.root)).stdout.split() == sorted(entry.name for entry in lab.root.iterdir())


def test_a_root_below_tmp_is_seen_by_its_hosts() -> None:
    require_root()
    root = Path(f"/tmp/al-{secrets.token_hex(3)}")
    try:
        with Lab(root) as lab:
            one = lab.host("one")
            assert set(one.run("ls", "-A", "/tmp").stdout.split()) == {root.name, *KEPT}
            (root / "config").write_text("seen")
            assert one.run("cat", str(root / "config")).stdout == "seen"
    finally:
        shutil.rmtree(root)


def test_hosts_reach_each_other_and_outside_reaches_them(lab: Lab) -> None:
    one, two = lab.host("one", 11), lab.host("two", 12)
    (lab.shared / "page").write_text("the page")
    listen(one)
    read = f"import urllib.request as u; print(u.urlopen('http://one:{PORT}/page', timeout=5).read().decode())"
    assert two.run(sys.executable, "-ISc", read).stdout == "the page\n"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{one.ip}:{PORT}/page", timeout=5) as page:
        assert page.read() == b"the page"
    assert answers_to(one, "127.0.0.1") and not answers_to(two, "127.0.0.1")


def test_a_host_finds_its_own_address_as_on_a_real_network(lab: Lab) -> None:
    one = lab.host("one", 77)
    probe = "from socket import *; s = socket(type=SOCK_DGRAM); s.connect(('8.8.8.8', 53)); print(s.getsockname()[0])"
    assert one.run(sys.executable, "-ISc", probe).stdout.strip() == one.ip
    name = "import socket; print(socket.gethostbyname(socket.gethostname()))"
    assert one.run(sys.executable, "-ISc", name).stdout.strip() == one.ip


def test_cut_and_mend(lab: Lab) -> None:
    one, two = lab.host("one", 11), lab.host("two", 12)
    listen(one)
    one.cut()
    assert not answers(one.ip, 0.3) and not answers_to(two, one.ip)
    assert answers_to(one, one.ip), "its own processes still reach each other"
    one.mend()
    wait_for("one is back", lambda: answers(one.ip) and answers_to(two, one.ip), DEADLINE_S, lab=lab)


def test_delay_and_loss_work_or_say_that_they_cannot(lab: Lab) -> None:
    one = lab.host("one")
    listen(one)
    try:
        one.delay(100)
        begun = time.monotonic()
        assert answers(one.ip)
        assert time.monotonic() - begun > 0.15
        one.lossy(100)
    except Unsupported as error:
        assert answers(one.ip)
        pytest.skip(str(error))
    assert not answers(one.ip, 0.5)
    one.mend()
    assert answers(one.ip)


def test_power_off_ends_all_even_a_daemon(lab: Lab) -> None:
    one, two = lab.host("one", 11), lab.host("two", 12)
    pids = [leave_daemon(one, "daemon-of-one"), one.spawn("sleeper", "sleep", "1000").pid, one.first_pid]
    other = two.spawn("sleeper", "sleep", "1000")
    one.power_off()
    assert not any(is_alive(pid) for pid in pids)
    assert not one.is_up and two.is_up and other.alive
    assert one.pids() == []
    one.power_off()  # again: nothing happens
    with pytest.raises(HostDown):
        one.run("true")


def test_power_off_ends_what_is_stopped(lab: Lab) -> None:
    one = lab.host("one")
    sleeper = one.spawn("sleeper", "sleep", "1000")
    sleeper.signal(signal.SIGSTOP)
    one.power_off()
    assert sleeper.wait(1) == -signal.SIGKILL


def test_a_host_that_goes_down_by_itself_is_seen_and_boots_again(lab: Lab) -> None:
    one = lab.host("one")
    sleeper = one.spawn("sleeper", "sleep", "1000")
    os.kill(one.first_pid, signal.SIGKILL)
    assert sleeper.wait(DEADLINE_S) == -signal.SIGKILL
    assert not one.is_up
    one.boot()
    assert one.is_up and one.pids() == []


def test_boot_at_another_address_with_nothing_left(lab: Lab) -> None:
    one, two = lab.host("one", 11), lab.host("two", 12)
    listen(one)
    one.run("touch", "/tmp/old", "/run/old", "/dev/shm/old", "/private/kept")
    old = one.ip
    one.power_off()
    with pytest.raises(ValueError, match="address of two"):
        one.boot(ip_last=12)
    one.boot(ip_last=21)
    assert set(one.run("ls", "-A", "/tmp", "/dev/shm").stdout.split()) == {"/dev/shm:", "/tmp:", *KEPT}
    assert "old" not in one.run("ls", "/run").stdout
    assert (lab.shared / "kept").exists()
    listen(one)
    assert one.ip != old and not answers(old, 0.3)
    assert answers_to(two, one.ip)


def test_another_host_takes_an_address_over_at_once(lab: Lab) -> None:
    one, two = lab.host("one", 11), lab.host("two", 12)
    listen(one)
    assert answers_to(two, one.ip)
    one.power_off()
    three = lab.host("three", 11)
    listen(three)
    assert answers_to(two, three.ip)


def test_killing_a_process_leaves_its_children(lab: Lab) -> None:
    one = lab.host("one")
    parent = one.spawn(
        "parent", sys.executable, "-ISc", WITH_CHILD.replace("sys.stdin.read()", "import time; time.sleep(1000)")
    )
    wait_for("it is ready", lambda: "ready" in parent.log_text(), DEADLINE_S, poll_s=0.02, lab=lab)
    parent.signal(signal.SIGKILL)
    assert parent.wait(DEADLINE_S) == -signal.SIGKILL
    assert not parent.alive and not is_alive(parent.pid)
    [(child, _)] = one.find("sleep 1234")
    os.kill(child, signal.SIGKILL)
    wait_for("its child is gone, and reaped", lambda: not is_alive(child), DEADLINE_S, poll_s=0.02)
    with pytest.raises(ProcessLookupError):
        parent.signal(signal.SIGTERM)


def test_spawn_reports_code_and_output_and_a_second_start_is_apart(lab: Lab) -> None:
    one = lab.host("one")
    first = one.spawn("job", "bash", "-c", "echo out; echo err >&2; exit 3")
    assert first.wait(DEADLINE_S) == 3
    assert first.log_text() == "out\nerr\n"
    second = one.spawn("job", "echo", "again")
    assert second.wait(DEADLINE_S) == 0
    assert second.log_text() == "again\n"
    assert (lab.logs / "one-job.log").read_text() == "out\nerr\nagain\n"


def test_a_process_that_was_stopped_goes_on_and_is_reaped(lab: Lab) -> None:
    one = lab.host("one")
    sleeper = one.spawn("sleeper", "sleep", "1000")
    sleeper.signal(signal.SIGSTOP)
    with pytest.raises(TimeoutError, match="sleeper ends"):
        sleeper.wait(0.1)
    sleeper.signal(signal.SIGCONT)
    sleeper.signal(signal.SIGTERM)
    assert sleeper.wait(DEADLINE_S) == -signal.SIGTERM
    assert one.pids() == [] and one.zombies() == []


def test_orphans_are_reaped_and_zombies_of_a_parent_are_seen(lab: Lab) -> None:
    one = lab.host("one")
    daemon = leave_daemon(one, "orphan")
    os.kill(daemon, signal.SIGKILL)
    wait_for("the orphan is reaped", lambda: not is_alive(daemon), DEADLINE_S, poll_s=0.02)
    careless = one.spawn("careless", sys.executable, "-ISc", "import os, time\nif os.fork(): time.sleep(1000)")
    [zombie] = wait_for("its child is a zombie", one.zombies, DEADLINE_S, poll_s=0.02)
    assert [pid for pid, _ in one.pids()] == [careless.pid]
    careless.kill()
    wait_for("it is reaped with its parent gone", lambda: not is_alive(zombie), DEADLINE_S, poll_s=0.02)


def test_run_fails_with_the_output_and_does_not_wait_for_a_daemon(lab: Lab) -> None:
    one = lab.host("one")
    with pytest.raises(CommandFailed, match="no such thing"):
        one.run("bash", "-c", "echo no such thing >&2; exit 4")
    assert one.run("bash", "-c", "exit 4", check=False).returncode == 4
    assert one.run("bash", "-c", "sleep 1000 & echo done", timeout_s=10).stdout == "done\n"
    with pytest.raises(OSError, match="cannot start"):
        one.run("no-such-command")
    with pytest.raises(subprocess.TimeoutExpired):
        one.run("bash", "-c", "sleep 2000; true", timeout_s=0.2)
    wait_for("what ran too long is gone", lambda: not one.find("sleep 2000"), DEADLINE_S, poll_s=0.02)


def test_many_commands_at_once(lab: Lab) -> None:
    one = lab.host("one")
    wrong: list[int] = []

    def repeat(mine: int) -> None:
        wrong.extend(mine for _ in range(10) if one.run("echo", str(mine)).stdout != f"{mine}\n")

    threads = [threading.Thread(target=repeat, args=(mine,)) for mine in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert wrong == [] and one.pids() == []


def test_the_environment_is_clean(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "ARGUS_NODE_IP", "http_proxy", "PYTHONPATH"):
        monkeypatch.setenv(name, "outer")
    one = lab.host("one")
    shown = one.run("env", env={"ARGUS_MINE": "inner"}).stdout
    assert "outer" not in shown and "ARGUS_MINE=inner" in shown
    assert one.run("bash", "-c", "command -v python").stdout.strip() == str(Path(sys.executable).with_name("python"))
    assert one.run("bash", "-c", "touch $HOME/x && echo $HOME").stdout == "/run/home\n"


def test_a_full_disk_is_one_hosts_own(lab: Lab) -> None:
    one, two = lab.host("one", 11), lab.host("two", 12)
    one.mount_small("/private/small")
    one.fill("/private/small")
    with pytest.raises(CommandFailed, match="No space left"):
        one.run("bash", "-c", "echo more > /private/small/more")
    one.run("rm", "/private/small/filler")
    one.run("bash", "-c", "echo more > /private/small/more")
    assert two.run("ls", "-A", "/private/small").stdout == ""


def test_two_labs_at_once_are_apart(lab: Lab) -> None:
    other_root = lab.root.with_name(f"{lab.root.name}-b")
    try:
        with Lab(other_root) as other:
            one, twin = lab.host("one"), other.host("one")
            assert one.ip != twin.ip
            listen(one)
            assert not answers_to(twin, one.ip)
        assert one.is_up and answers(one.ip)
    finally:
        shutil.rmtree(other_root)


def test_close_leaves_nothing(root: Path) -> None:
    with pytest.raises(ZeroDivisionError), Lab(root) as lab:
        one = lab.host("one")
        pids = [leave_daemon(one, "daemon-of-one"), one.first_pid]
        assert links_and_namespaces(lab.id)
        raise ZeroDivisionError
    assert not any(is_alive(pid) for pid in pids)
    assert links_and_namespaces(lab.id) == ""
    assert not (STATE / f"{lab.id}.json").exists()
    assert str(root) not in Path("/proc/mounts").read_text()
    assert not Path("/private").is_mount()
    lab.close()


def test_close_tells_of_what_it_had_to_force(root: Path) -> None:
    with pytest.raises(LeftOver, match="sleep 4321"), Lab(root) as lab:
        lab.host("one")
        intruder = subprocess.Popen(["ip", "netns", "exec", f"al{lab.id}-one", "sleep", "4321"])
        wait_for("it is in the namespace", lambda: _sleeps(intruder.pid), DEADLINE_S, poll_s=0.02)
        keeper = subprocess.Popen(["ip", "netns", "exec", f"al{lab.id}-switch", "sleep", "4321"])
        wait_for("it is in the switch", lambda: _sleeps(keeper.pid), DEADLINE_S, poll_s=0.02)
    for process in (intruder, keeper):
        process.kill()
        process.wait(DEADLINE_S)
    assert links_and_namespaces(lab.id) == ""


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


def test_a_boot_that_fails_says_why_and_leaves_nothing(root: Path) -> None:
    with Lab(root) as lab:
        with pytest.raises(HostDown, match="mount"):
            lab.host("one", mem_shm="nonsense")
        assert "al" + lab.id + "-one" not in links_and_namespaces(lab.id)
    assert links_and_namespaces(lab.id) == ""


OWNER = """
import os, sys, time
from pathlib import Path
from tests.support import lab
root, line = Path(sys.argv[1]), sys.argv[2]
lab.STATE = root / "state"
made = lab.Lab(root).__enter__()
one = made.host("one")
sleeper = one.spawn("sleeper", "sleep", "1000")
helper = os.fork() if line == "held" else -1  # it has the owner's end of the host's line
if helper:
    print(f"{made.id} {one.first_pid} {sleeper.pid} {helper}\\n", end="", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("line", ["closed", "held"])
def test_sweep_clears_up_after_a_killed_owner(root: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = root / "state"  # its own: another run's sweep would be first
    monkeypatch.setattr("tests.support.lab.STATE", state)
    environ = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", OWNER, str(root), line]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    helper = -1
    try:
        assert owner.stdout
        with owner.stdout:
            lab_id, *words = owner.stdout.readline().split()
        *pids, helper = map(int, words)
        Lab.sweep()
        assert all(is_alive(pid) for pid in pids), "the owner lives"
        owner.kill()
        owner.wait(DEADLINE_S)
        if line == "held":
            assert all(is_alive(pid) for pid in pids), "nobody told the host"
        else:
            wait_for("the host ends by itself", lambda: not any(map(runs, pids)), DEADLINE_S, poll_s=0.02)
        assert links_and_namespaces(lab_id)
        Lab.sweep()
        assert not any(map(runs, pids))  # they may wait as zombies for the machine's own first process
        assert links_and_namespaces(lab_id) == ""
        assert not (state / f"{lab_id}.json").exists()
    finally:
        owner.kill()
        owner.wait(DEADLINE_S)
        if helper > 0:
            kill([helper])


def test_wait_for_names_what_did_not_come(lab: Lab) -> None:
    lab.host("one").spawn("sleeper", "sleep", "1000")
    with pytest.raises(TimeoutError, match=re.compile("the moon falls.*one 10.*sleep 1000", re.DOTALL)):
        wait_for("the moon falls", lambda: False, 0.05, poll_s=0.01, lab=lab)
    assert wait_for("a value", lambda: 7, 1) == 7
