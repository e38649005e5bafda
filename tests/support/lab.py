"""Several real hosts on one machine, for tests of all that crosses machines. Needs root; knows nothing of Ray or Argus.

A host is a network namespace with an address of its own, and PID, mount and UTS namespaces below one first process.
So /tmp, /run, /dev/shm, 127.0.0.1, the host's name and the sight of processes are each host's own, and killing its
first process is a power cut. The rest of the filesystem is the machine's; `Lab.shared` is /private on each host.

The switch is a bridge in a namespace of its own: no firewall of the machine stands between two hosts, and nothing but
one link shows outside. The test process reaches a host by its address through that link; no packet goes further.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

REPO = Path(__file__).resolve().parents[2]
#: Who made which lab, for `Lab.sweep`. Below /run, since namespaces do not outlive the machine either.
STATE = Path("/run/argus-lab")
_BIN = Path(sys.executable).parent
_TOOL_TIMEOUT_S = 30
_END_TIMEOUT_S = 60  # of a whole host: a large process takes a while to give its memory back
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid

T = TypeVar("T")

# Runs as the host's pid 1 until its exec. A new root is put together, so that /private, /tmp and the like are the
# host's own and the machine gets no folder from us. Unbindable: else the copy of its parent's tree would hold it again.
_SET_UP = """
set -eu
host=$1 new=$2 shared=$3 hosts=$4 shm=$5 address=$6 python=$7 first=$8; shift 8
hostname "$host"
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$new"
mount --make-unbindable "$new"
for entry in /*; do
  case $entry in /tmp|/run|/private) continue;; esac
  if [ -L "$entry" ]; then cp -P "$entry" "$new$entry"
  elif [ -d "$entry" ]; then mkdir "$new$entry"; mount --rbind "$entry" "$new$entry"
  fi
done
mkdir "$new/tmp" "$new/run" "$new/private"
mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"
mount -t tmpfs -o mode=755 tmpfs "$new/run"
mkdir -p "$new/run/lock" "$new/run/home"
mount -t tmpfs -o mode=1777,size="$shm" tmpfs "$new/dev/shm"
mount --bind "$shared" "$new/private"
if [ -e /etc/hosts ]; then mount --bind "$hosts" "$new/etc/hosts"; fi
# No name server: that of the machine is out of reach, and each look-up would wait for it.
if [ -f /etc/resolv.conf ]; then mount --bind /dev/null "$new/etc/resolv.conf"; fi
for kept in "$@"; do  # what the host's own folders would hide
  case $kept in /tmp/*|/run/*|/dev/shm/*) mkdir -p "$new$kept"; mount --rbind "$kept" "$new$kept";; esac
done
# A route to everywhere, so that a program finds its own address as on a real network, but without a gateway: nothing
# leaves the switch. A cloud's metadata service, which Ray asks for, is refused at once: else each start takes 3 s more.
ip -batch - <<END
link set lo up
address add $address/24 dev eth0
link set eth0 up
route add default dev eth0
route add unreachable 169.254.0.0/16
END
cd "$new"
pivot_root . .
umount -l .
mount --make-private /
cd /
exec "$python" -I -S "$first"
"""


class Unsupported(Exception):
    """This machine's kernel or tools cannot do that; a test skips."""


class HostDown(Exception):
    """The host is not up."""


class LeftOver(AssertionError):
    """A lab that was closed has left something behind."""


class CommandFailed(subprocess.CalledProcessError):
    """A command inside a host failed; the text has the end of its output."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{str(self.stdout)[-2000:]}\n{str(self.stderr)[-4000:]}"


def wait_for(what: str, condition: Callable[[], T], timeout_s: float, poll_s: float = 0.2, lab: Lab | None = None) -> T:
    """The first true value of the condition. After the timeout: TimeoutError that names it, and shows the lab."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}" + (f"\n{lab.describe()}" if lab else ""))
        time.sleep(poll_s)
    return value


def require_root() -> None:
    """Skip the test, with the reason, where no host can be made."""
    import pytest

    if reason := why_not():
        pytest.skip(f"hosts cannot be made here: {reason}")


@functools.cache
def why_not() -> str | None:
    """Why no host can be made here. It is tried, since some containers forbid it even to root."""
    if os.geteuid() != 0:
        return "not root"
    if missing := [tool for tool in ("ip", "unshare", "nsenter", "pivot_root", "mount") if not shutil.which(tool)]:
        return f"not installed: {', '.join(missing)}"
    name = f"al-try-{os.getpid()}"
    try:
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "add", "br0", "type", "bridge")
            _tool(
                "ip", "netns", "exec", name, "unshare", "-p", "-f", "--mount-proc", "-m", "-u", "--kill-child", "true"
            )
        finally:
            _ip("netns", "delete", name)
    except (subprocess.SubprocessError, OSError) as error:
        return f"{error} {str(getattr(error, 'stderr', '') or '').strip()}"
    return None


class Lab:
    """Hosts on one switch. `with Lab(root) as lab`; what is below `root` stays, for its logs: the caller removes it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.shared = self.root / "shared"
        self.logs = self.root / "logs"
        self.id = secrets.token_hex(4)
        self.hosts: dict[str, Host] = {}
        self._record = STATE / f"{self.id}.json"
        self._network = ""

    @property
    def outside_ip(self) -> str:
        """The test process's own address on the switch."""
        return self.address(1)

    def address(self, last: int) -> str:
        return f"{self._network}.{last}"

    def __enter__(self) -> Lab:
        Lab.sweep()
        for folder in (self.shared, self.logs, self.root / "new"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.root / "tools").mkdir(exist_ok=True)
        self.write_names()
        try:
            with _state_lock():
                owner = {"pid": os.getpid(), "started": _started(os.getpid()), "root": str(self.root)}
                self._record.write_text(json.dumps(owner))
                self._network = _unused_network()
                self._make_switch()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def host(self, name: str, ip_last: int = 11, mem_shm: str = "1g") -> Host:
        """A new host, up. Its address is the lab's network with `ip_last`; `mem_shm` is the size of its /dev/shm."""
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,11}", name) or name == "switch":
            raise ValueError(f"a host's name is up to 12 of a-z, 0-9 and -, and not {name!r}")
        if name in self.hosts:
            raise ValueError(f"there is a host {name} already")
        host = self.hosts[name] = Host(self, name, ip_last, mem_shm)
        host.boot()
        return host

    def close(self) -> None:
        """End all hosts and take the network away. Raises LeftOver if anything had to be forced or is still there."""
        left: list[str] = []
        for host in self.hosts.values():
            try:
                host.power_off()
            except Exception as error:  # the other hosts must end too
                left.append(f"host {host.name}: {error!r}")
        left += _clear(self.id)
        left += [f"namespace {name}" for name in _namespaces(self.id)]
        left += [f"link {_link(self.id)}"] if _link_exists(_link(self.id)) else []
        self._record.unlink(missing_ok=True)
        if left:
            raise LeftOver("the lab left behind: " + "; ".join(left))

    @staticmethod
    def sweep() -> None:
        """Remove what labs left whose process died without closing them. Labs of living processes stay."""
        with _state_lock():
            for record in STATE.glob("*.json"):
                try:
                    owner = json.loads(record.read_text())
                except ValueError:  # its writer died while writing
                    owner = {"pid": 0, "started": ""}
                if not owner["started"] or _started(owner["pid"]) != owner["started"]:
                    _clear(record.stem)
                    record.unlink()

    def describe(self) -> str:
        """Hosts, their processes and the ends of their logs, for a failure's message."""
        lines = []
        for host in self.hosts.values():
            lines.append(f"--- {host.name} {host.ip} {'up' if host.is_up else 'down'}")
            lines += [f"{pid:8} {command[:200]}" for pid, command in host.pids()]
        for log in sorted(self.logs.glob("*.log")):
            if text := _tail(log, 1500):
                lines += [f"--- {log.name}", text]
        return "\n".join(lines)

    def write_names(self) -> None:
        """What each host's /etc/hosts says: names instead of a DNS. Written in place: hosts have it mounted."""
        lines = ["127.0.0.1 localhost", *(f"{host.ip} {host.name}" for host in self.hosts.values())]
        (self.root / "names").write_text("\n".join(lines) + "\n")

    def _make_switch(self) -> None:
        switch, link = _namespace(self.id, "switch"), _link(self.id)
        _ip("netns", "add", switch)
        peer = f"peer name {link} netns {os.getpid()}"
        commands = f"link add br0 type bridge\nlink set br0 up\nlink add outside type veth {peer}\n"
        _ip("-n", switch, "-batch", "-", input=commands + "link set outside master br0\nlink set outside up\n")
        _ip("-batch", "-", input=f"address add {self.outside_ip}/24 dev {link}\nlink set {link} up\n")


class Proc:
    """A command that runs inside a host, in a session of its own; its parent is the host's first process."""

    def __init__(self, host: Host, name: str, number: int, log: Path) -> None:
        self.name = name
        self.pid = 0  #: as seen from outside the host
        self.returncode: int | None = None
        self.log = log
        self._from = log.stat().st_size if log.exists() else 0
        self._host = host
        self._number = number

    @property
    def alive(self) -> bool:
        return self.returncode is None

    def log_text(self) -> str:
        """What it wrote: an earlier process of the same name wrote into the same file."""
        with self.log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")

    def signal(self, signum: int) -> None:
        """To this process alone, not to its children."""
        if not self.alive:
            raise ProcessLookupError(f"{self.name} has ended with {self.returncode}")
        os.kill(self.pid, signum)

    def kill(self) -> None:
        """SIGKILL to this process alone, and wait for its end. It may have ended already."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.wait(_TOOL_TIMEOUT_S)

    def wait(self, timeout_s: float) -> int:
        """Its exit code, or minus the signal that ended it; -9 if the host's power went."""
        self._host.wait_for_news(lambda: not self.alive, timeout_s, f"{self._host.name}: {self.name} ends")
        assert self.returncode is not None
        return self.returncode


class Host:
    """One host of a lab. Made by `Lab.host`."""

    def __init__(self, lab: Lab, name: str, ip_last: int, mem_shm: str) -> None:
        self.lab = lab
        self.name = name
        self.first_pid = 0  #: the host's pid 1, as seen from outside
        self._ip_last = ip_last
        self._mem_shm = mem_shm
        self._namespace = _namespace(lab.id, name)
        self._port = f"v-{name}"  # of the switch
        self._unshare: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._listener: threading.Thread | None = None
        self._news = threading.Condition()
        self._ready = False
        self._is_gone = True
        self._numbers = itertools.count(1)
        self._procs: dict[int, Proc] = {}
        self._answers: dict[int, str | None] = {}  # of the first process, to a start: its error
        self._pid_namespace = ""
        self._netem: dict[str, str] = {}

    @property
    def ip(self) -> str:
        return self.lab.address(self._ip_last)

    @property
    def is_up(self) -> bool:
        return self._ready and not self._is_gone

    # Power

    def boot(self, ip_last: int | None = None) -> None:
        """Start it, with nothing left in /tmp, /run and /dev/shm; at another address if one is given."""
        if self.is_up:
            raise RuntimeError(f"{self.name} is up")
        self.power_off()  # what is left if it went down by itself
        self._ip_last = ip_last or self._ip_last
        if twin := [other.name for other in self.lab.hosts.values() if other.ip == self.ip and other.is_up]:
            raise ValueError(f"{self.ip} is the address of {twin[0]}")
        self.lab.write_names()
        try:
            self._plug_in()
            self._start_first_process()
        except BaseException:
            self.power_off()
            raise

    def power_off(self) -> None:
        """All of its processes die at once, and its network with them. Nothing happens if it is off."""
        if self._unshare:
            if self.first_pid and not self._is_gone:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.first_pid, signal.SIGKILL)
            else:  # not yet set up; its child dies with it
                self._unshare.kill()
            # The kernel lets the first process go only after all others of its namespace are gone.
            self._unshare.wait(_END_TIMEOUT_S)
            self._unshare = None
        if self._listener:
            self._listener.join(_END_TIMEOUT_S)
            self._listener = None
        if self._line:
            self._line.close()
            self._line = None
        left = [f"{pid} {_command(pid)}" for pid in self._all_pids()]
        self._ready, self.first_pid, self._pid_namespace, self._netem = False, 0, "", {}
        if self._namespace in _namespaces(self.lab.id):
            # The link by name and first: that of a deleted namespace goes some time later.
            _ip("-n", _namespace(self.lab.id, "switch"), "link", "delete", self._port, check=False)
            _ip("netns", "delete", self._namespace)
        if left:
            raise LeftOver(f"{self.name} is off, and there is still: {'; '.join(left)}")

    def _plug_in(self) -> None:
        switch = _namespace(self.lab.id, "switch")
        _ip("netns", "add", self._namespace)
        # The hardware address follows the address: a host that takes over another's is found at once, as after the
        # announcement (gratuitous ARP) that a real one sends.
        hardware = "02:00:" + ":".join(f"{int(part):02x}" for part in self.ip.split("."))
        peer = f"peer name eth0 address {hardware} netns {self._namespace}"
        commands = (
            f"link add {self._port} type veth {peer}\nlink set {self._port} master br0\nlink set {self._port} up\n"
        )
        _ip("-n", switch, "-batch", "-", input=commands)

    def _start_first_process(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        root = self.lab.root
        log = self.lab.logs / f"{self.name}-boot.log"
        namespaces = ["-p", "-f", "--mount-proc", "-m", "-u", "--kill-child"]
        arguments = [self.name, root / "new", self.lab.shared, root / "names", self._mem_shm, self.ip]
        first = [sys.executable, Path(__file__).with_name("first_process.py")]
        kept = [root, REPO, _BIN.parent, sys.base_prefix]
        command = ["ip", "netns", "exec", self._namespace, "unshare", *namespaces]
        command += ["bash", "-c", _SET_UP, "set-up", *map(str, [*arguments, *first, *kept])]
        self._line, self._ready, self._is_gone = ours, False, False
        with theirs, log.open("wb") as output:
            # In a session of its own: a Ctrl-C at the terminal is for the tests, which then close the lab.
            self._unshare = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=output,
                stderr=output,
                env=self._environ(),
                start_new_session=True,
            )
        self._listener = threading.Thread(target=self._listen, args=(ours,), name=f"lab-{self.name}", daemon=True)
        self._listener.start()
        self.wait_for_news(lambda: self._ready or self._is_gone, _TOOL_TIMEOUT_S, f"{self.name} boots")
        if self._is_gone:
            raise HostDown(f"{self.name} did not boot: {_tail(log, 2000)}")
        self._pid_namespace = _pid_namespace(self.first_pid)

    def _listen(self, line: socket.socket) -> None:
        while True:
            try:
                message, extra, _, _ = line.recvmsg(1 << 20, socket.CMSG_SPACE(_CREDENTIALS.size))
            except ConnectionResetError:
                message = b""
            with self._news:
                if message:
                    fact = json.loads(message)
                    self._note(fact, _CREDENTIALS.unpack(extra[0][2][: _CREDENTIALS.size])[0])
                else:  # `unshare` held the other end too: every process of the host is gone
                    self._is_gone = True
                    for proc in self._procs.values():
                        proc.returncode = -signal.SIGKILL
                    self._procs.clear()
                self._news.notify_all()
                if not message:
                    return

    def _note(self, fact: dict[str, Any], sender: int) -> None:
        number = fact.get("number", 0)
        proc = self._procs.get(number)
        match fact["event"]:
            case "ready":
                self.first_pid, self._ready = sender, True
            case "started" if proc:
                proc.pid = sender
            case "running":
                self._answers[number] = fact["error"]
            case "exited" if proc:
                proc.returncode = fact["returncode"]
                del self._procs[number]

    def wait_for_news(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Until the condition on what the first process reported is true."""
        with self._news:
            if not self._news.wait_for(condition, timeout_s):
                raise TimeoutError(f"not within {timeout_s:g} s: {what}\n{self.lab.describe()}")

    # Commands

    def run(
        self, *command: str, env: Mapping[str, str] | None = None, timeout_s: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run it inside the host, in the repository's folder. After the timeout its session's group is killed."""
        # Files, not pipes: a daemon that keeps them open does not hold the result up.
        number = next(self._numbers)
        output, errors = (self.lab.root / "tools" / f"{self.name}-{number}-{end}" for end in ("out", "err"))
        try:
            proc = self._start(command[0], number, list(command), env, output, errors)
            try:
                proc.wait(timeout_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(proc.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(command, timeout_s, output.read_bytes(), errors.read_bytes()) from None
            assert proc.returncode is not None
            texts = [file.read_text(errors="replace") for file in (output, errors)]
        finally:
            output.unlink(missing_ok=True)
            errors.unlink(missing_ok=True)
        if check and proc.returncode:
            raise CommandFailed(proc.returncode, command, *texts)
        return subprocess.CompletedProcess(command, proc.returncode, *texts)

    def spawn(self, name: str, *command: str, env: Mapping[str, str] | None = None) -> Proc:
        """Start it in the background inside the host; output goes to `<lab.logs>/<host>-<name>.log`."""
        log = self.lab.logs / f"{self.name}-{name}.log"
        return self._start(name, next(self._numbers), list(command), env, log, log)

    def _start(
        self,
        name: str,
        number: int,
        command: list[str],
        env: Mapping[str, str] | None,
        output: Path,
        errors: Path,
    ) -> Proc:
        if not self.is_up or not self._line:
            raise HostDown(f"{self.name} is not up")
        proc = Proc(self, name, number, output)
        with self._news:
            self._procs[number] = proc
        request = {
            "number": number,
            "command": command,
            "env": {**self._environ(), **(env or {})},
            "stdout": str(output),
            "stderr": str(errors),
            "folder": str(REPO),
        }
        try:
            self._line.send(json.dumps(request).encode())
        except BrokenPipeError:
            raise HostDown(f"{self.name} went down") from None
        self.wait_for_news(
            lambda: number in self._answers or self._is_gone, _TOOL_TIMEOUT_S, f"{self.name} starts {name}"
        )
        if error := self._answers.pop(number, None):
            raise OSError(f"{self.name} cannot start {command}: {error}")
        return proc

    def _environ(self) -> dict[str, str]:
        """Nothing of the tests' own environment: no RAY_* or ARGUS_*, no proxy."""
        return {
            "PATH": f"{_BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/run/home",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    # Processes

    def pids(self) -> list[tuple[int, str]]:
        """Pid as seen from outside and command line of each live process, but for the first."""
        found = [(pid, _command(pid)) for pid in self._all_pids() if pid != self.first_pid and _state(pid) not in "ZX"]
        return [(pid, command) for pid, command in found if command]

    def find(self, text: str) -> list[tuple[int, str]]:
        """Those of `pids` whose command line has the text."""
        return [(pid, command) for pid, command in self.pids() if text in command]

    def zombies(self) -> list[int]:
        return [pid for pid in self._all_pids() if _state(pid) == "Z"]

    def _all_pids(self) -> Iterator[int]:
        if self._pid_namespace:
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and _pid_namespace(int(entry.name)) == self._pid_namespace:
                    yield int(entry.name)

    # Faults

    def cut(self) -> None:
        """Cut it off from all others and from outside."""
        self._switch_port("down")

    def mend(self) -> None:
        """The end of `cut`; delay and loss go too."""
        self._switch_port("up")
        if self._netem:
            self._netem = {}
            for namespace, device in self._ends():
                _tool("tc", "-n", namespace, "qdisc", "delete", "dev", device, "root", check=False)

    def delay(self, ms: float) -> None:
        """Each packet from and to it comes that much later. Raises Unsupported if the kernel cannot."""
        self._shape(delay=f"{ms:g}ms")

    def lossy(self, percent: float) -> None:
        """That many of the packets from and to it are lost. Raises Unsupported if the kernel cannot."""
        self._shape(loss=f"{percent:g}%")

    def mount_small(self, path: str, size: str = "1m") -> None:
        """A filesystem of that size at the path, which it hides, on this host alone: /private/... also works."""
        self.run("mkdir", "-p", path)
        self.run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)

    def fill(self, path: str) -> None:
        """Leave no room in the filesystem at the path; `rm <path>/filler` makes room again."""
        # A page at a time: a larger write that does not fit is not begun.
        written = self.run("dd", "if=/dev/zero", f"of={path}/filler", "bs=4096", check=False)
        if "No space left" not in written.stderr:
            raise AssertionError(f"{path} is not full: {written.stderr}")

    def _switch_port(self, state: str) -> None:
        if not self.is_up:
            raise HostDown(f"{self.name} is not up")
        _ip("-n", _namespace(self.lab.id, "switch"), "link", "set", self._port, state)

    def _ends(self) -> list[tuple[str, str]]:
        return [(_namespace(self.lab.id, "switch"), self._port), (self._namespace, "eth0")]

    def _shape(self, **change: str) -> None:
        if not self.is_up:
            raise HostDown(f"{self.name} is not up")
        if not shutil.which("tc"):
            raise Unsupported("tc is not installed")
        settings = {**self._netem, **change}
        words = [word for setting in settings.items() for word in setting]
        for namespace, device in self._ends():
            command = ["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "netem", *words]
            done = _tool(*command, check=False)
            if done.returncode:
                raise Unsupported(f"netem: {done.stderr.strip()}")
        self._netem = settings


def _tool(*command: str, check: bool = True, input: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, check=False)
    if check and done.returncode:
        raise CommandFailed(done.returncode, command, done.stdout, done.stderr)
    return done


def _ip(*arguments: str, check: bool = True, input: str = "") -> subprocess.CompletedProcess[str]:
    return _tool("ip", *arguments, check=check, input=input)


def _namespace(lab_id: str, name: str) -> str:
    return f"al{lab_id}-{name}"


def _link(lab_id: str) -> str:
    return f"al{lab_id}"


def _link_exists(link: str) -> bool:
    return Path(f"/sys/class/net/{link}").exists()


def _namespaces(lab_id: str) -> list[str]:
    folder = Path("/run/netns")
    return sorted(entry.name for entry in folder.glob(_namespace(lab_id, "*"))) if folder.exists() else []


@contextlib.contextmanager
def _state_lock() -> Iterator[None]:
    """One lab at a time looks for an unused network or sweeps. The holder's own tools have timeouts."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear(lab_id: str) -> list[str]:
    """End every process in the lab's namespaces, and take these and its link away. What had to be killed."""
    killed: dict[int, str] = {}

    def none_lives() -> bool:
        pids = [
            int(pid) for name in _namespaces(lab_id) for pid in _ip("netns", "pids", name, check=False).stdout.split()
        ]
        for pid in pids:
            killed.setdefault(pid, f"process {pid} {_command(pid)}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # One that is ending is in no network namespace any more; as a zombie it waits for the machine's first process.
        return not pids and all(_state(pid) in "ZX" for pid in killed)

    wait_for(f"the processes of lab {lab_id} end", none_lives, _END_TIMEOUT_S, poll_s=0.02)
    # The link by name and first: that of a deleted namespace goes some time later.
    _ip("link", "delete", _link(lab_id), check=False)
    for name in _namespaces(lab_id):
        _ip("netns", "delete", name, check=False)
    return list(killed.values())


def _unused_network() -> str:
    """The first three numbers of a /24 that no address and no route of this machine touches."""
    used = _ip("-4", "-o", "address").stdout + _ip("-4", "route", "show", "table", "all").stdout
    while True:
        network = f"10.{secrets.randbelow(150) + 100}.{secrets.randbelow(250) + 1}"
        if f" {network}." not in used and f" {network.rsplit('.', 1)[0]}.0.0/" not in used:
            return network


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third, the state, on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _state(pid: int) -> str:
    return (_stat(pid) or ["X"])[0]


def _started(pid: int) -> str:
    """When the process started, in the kernel's ticks: a later process with the same pid differs. Empty if dead."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] not in "ZX" else ""


def _pid_namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _tail(file: Path, size: int) -> str:
    return file.read_bytes()[-size:].decode(errors="replace").strip()
