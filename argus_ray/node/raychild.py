"""One `ray start --block` as our child: started, watched, ended with all that runs under it.

`ray stop` kills every Ray process of the host by name (ray-project/ray#12264), so it is never used. Each process below
the child inherits a variable that names this node, and only what carries it is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from argus_ray.disk import atomic, own
from argus_ray.node import processes

#: The variable that marks everything below one launcher or watchdog. Its value follows from cluster, node name
#: and run dir, so that the next one on this machine finds what a killed one has left.
NODE_MARK = "ARGUS_NODE"
#: The variable that names who has started it, so that nobody ends what belongs to one that lives.
NODE_OWNER = "ARGUS_NODE_OWNER"
#: What `ray start` prints when its node has joined, and a head's when it is up.
_STARTED = b"Ray runtime started"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)
_LOG_BYTES = 1024 * 1024
#: Ray's own bounds that do not fit, where nobody has set them.
_PATIENCE = {
    # Milliseconds after which a raylet gives itself up when its agents, two Python programs, have not started. Ray's
    # own 30 s are too few for a machine that just boots and reads them from a shared filesystem.
    "RAY_agent_register_timeout_ms": "120000",
    # A head that dies between the record of a job and its supervisor leaves a job that nobody starts. Ray calls it
    # FAILED after this time, by itself only after 900 s (ray 2.60, job_manager.py). Then it gets a new attempt.
    "RAY_JOB_START_TIMEOUT_SECONDS": "120",
}


def become_subreaper() -> None:
    """Orphans below this process become its children, so that `RayChild.reap` can collect them (needed where no
    init does: in a container whose first process we are)."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class RayChild:
    """At most one at a time. Not safe for threads: the loop that owns it is the only caller."""

    def __init__(self, mark: str, log: Path) -> None:
        self._mark = mark
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._raylet: int | None = None
        self._has_started = False

    def start(self, options: Sequence[str], environ: Mapping[str, str]) -> None:
        """`ray start --block` with these options, in a process group of its own. It dies with us.

        Raises OSError if another one of our name and folder lives; TimeoutError if something of an earlier one does not
        die: its training would go on beside the next attempt's.
        """
        if owner := self.living_owner():
            raise FileExistsError(owner)
        if self.has_leftovers:
            processes.end(self.ours, grace_s=0)
        command = [command_beside_python("ray"), "start", "--block", "--disable-usage-stats", *options]
        self._raylet, self._has_started = None, False
        with own.open_log(self._log) as out:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**_PATIENCE, **environ, NODE_MARK: self._mark, NODE_OWNER: processes.identity(os.getpid())},
                start_new_session=True,
                # And what it has started dies with it (ray 2.60, node.py, kernel_fate_share).
                preexec_fn=_die_with(os.getpid()),
            )

    @property
    def has_started(self) -> bool:
        """Whether Ray has said that the node is up."""
        if not self._has_started:
            with contextlib.suppress(OSError):
                self._has_started = _STARTED in atomic.read_small(self._log, _LOG_BYTES)
        return self._has_started

    @property
    def is_alive(self) -> bool:
        """Whether the child lives and, once it was up, its raylet. A raylet that was ended by SIGTERM counts as a
        good end to `ray start --block`, which then stays for ever; so it is looked at by itself."""
        if self._child is None or self._child.poll() is not None:
            return False
        if not self.has_started:
            return True
        if self._raylet is None:
            self._raylet = next((pid for pid in self._marked() if _name_of(pid) == "raylet"), None)
        return self._raylet is not None and _name_of(self._raylet) == "raylet"

    @property
    def has_leftovers(self) -> bool:
        """Whether anything with our mark runs: of ours, or of one before us on this machine."""
        return bool(self._marked())

    def living_owner(self) -> str:
        """Who else has started processes with our mark and lives, in words; empty if nobody. The lock in the run dir
        is no proof that nobody does: the folder may have been deleted under one that lives."""
        for owner in self._living(self._owners().values()):
            return f"Ray of this node name and run dir runs already: process {owner.split()[0]} has started it"
        return ""

    def end(self, grace_s: float) -> None:
        """SIGTERM to `ray start`, which ends its children; after the grace SIGKILL for whatever carries the mark or
        runs below us. Raises TimeoutError if something does not die."""
        if self._child is not None and self._child.poll() is None and grace_s <= 0:
            # All that it has started dies in the same moment, by the kernel (ray 2.60, node.py, kernel_fate_share).
            self._child.kill()
            with contextlib.suppress(TimeoutError):  # of one that is stuck, the rest is ended below
                processes.collect(self._child)
        first = [self._child.pid] if self._child is not None and self._child.poll() is None else []
        if first or self.ours():
            processes.end(self.ours, grace_s=grace_s if first else 0, first=first)
        if self._child is not None:
            processes.collect(self._child)
        self._child, self._raylet = None, None
        self.reap()

    def reap(self, spare: int | None = None) -> None:
        """Collect orphans that have ended, but neither `ray start` nor the child `spare`: their exit codes belong to
        their Popen."""
        ours = {spare, self._child.pid if self._child is not None and self._child.returncode is None else None}
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in ours:
                return  # the others are collected after our own was
            os.waitpid(ended.si_pid, os.WNOHANG)

    def last_words(self, lines: int = 8) -> str:
        """The end of what `ray start` has printed."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
                text = log.read().decode(errors="replace")
        except OSError as error:
            return f"(its log cannot be read: {error.strerror})"
        return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])

    def ours(self) -> list[int]:
        """Ids of all that belongs to this node. A process that sets its title (Ray's dashboard does) writes over its
        environment, and so over the mark; what is left of those is below us, the subreaper."""
        return list({*self._marked(), *processes.descendants(os.getpid())})

    def _marked(self) -> list[int]:
        """Those of one that lives are not ours, whatever their mark."""
        owners = self._owners()
        others = self._living(owners.values())
        return [pid for pid, owner in owners.items() if owner not in others]

    def _owners(self) -> dict[int, str | None]:
        """Of each process with our mark, who has started it; None: it does not say."""
        return {pid: processes.variable(pid, NODE_OWNER) for pid in processes.with_variable(NODE_MARK, self._mark)}

    @staticmethod
    def _living(owners: Iterable[str | None]) -> set[str]:
        """Those that live, without ourselves."""
        return {owner for owner in {*owners} - {processes.identity(os.getpid())} if owner and processes.lives(owner)}


def command_beside_python(name: str) -> str:
    """A command of this Python's environment, else the one on PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def _name_of(pid: int) -> str:
    """Empty for a process that has ended, collected by its parent or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    name, _, state = stat.partition("(")[2].rpartition(") ")
    return "" if state.startswith(("Z", "X")) else name


def _die_with(parent: int):  # type: ignore[no-untyped-def]
    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the call

    return prepare
