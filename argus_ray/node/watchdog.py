"""The worker watchdog: reads head.json, joins the cluster that it names, and follows the head when it moves.

Runs outside Ray, one for each node: `python -m argus_ray.node.watchdog`. It starts `ray start --block` as its child
and ends nothing else. What it does is decided by `decision.decide`; this is the loop around it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from argus_ray.discovery import head_json
from argus_ray.discovery.head_json import HeadRecord, Reading
from argus_ray.disk.bounded import BoundedCall
from argus_ray.node import cli, environment, processes
from argus_ray.node.cli import BadSetting, Stop
from argus_ray.node.decision import Joined, Verb, Versions, backoff_s, decide
from argus_ray.node.fitness import Fitness, is_busy
from argus_ray.node.journal import Journal
from argus_ray.node.leftovers import Leftovers
from argus_ray.node.raychild import RayChild, become_subreaper

#: How many jobs a worker can run at once: each job's supervisor takes one for its whole life.
JOB_SLOTS = {"worker_node": 100}
#: Seconds that a raylet outlives a head that does not answer. A head that is gone for good leaves idle machines, which
#: cost nothing; a head that comes back late finds its training still running.
_OUTLIVE_HEAD_S = 7 * 24 * 3600
#: Seconds in the cluster after which earlier failures are forgotten.
_STABLE_S = 60.0
_READ_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class WatchdogSettings:
    """Of one watchdog. Times in seconds."""

    shared_root: str
    cluster: str
    node_name: str
    node_ip: str | None
    run_dir: Path
    token: Path
    ray_options: tuple[str, ...]
    poll_s: float
    join_timeout_s: float
    stop_grace_s: float
    #: What Ray inherits beside the list of `environment`.
    pass_env: tuple[str, ...] = ()
    temp_dir: str = cli.TEMP_DIR

    @property
    def name(self) -> str:
        """Of this node's files."""
        return f"worker-{self.cluster}-{self.node_name}"

    @property
    def mark(self) -> str:
        """Of this node's processes. With the folder: two pools of one name on one machine do not end each other."""
        return f"{self.name} {self.run_dir}"


class Watchdog:
    """Made by `main`; one thread."""

    def __init__(
        self, settings: WatchdogSettings, mine: Versions, journal: Journal, environ: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._mine = mine
        self._journal = journal
        self._inherited = environment.for_worker(environ, settings.pass_env)
        self._child = RayChild(settings.mark, settings.run_dir / f"{settings.name}.ray.log")
        self._reader = head_json.Reader(head_json.head_file(settings.shared_root, settings.cluster), settings.cluster)
        self._patience: BoundedCall[Reading] = BoundedCall(_READ_TIMEOUT_S)
        folder = head_json.folder(settings.shared_root, settings.cluster)
        self._fitness = Fitness(folder, shutil.which("python3", path=_job_path(environ)) or "python3")
        self._leftovers = Leftovers(Path(settings.shared_root) / "users", self._child.ours)
        self._joined: Joined | None = None
        self._since = 0.0
        self._started_at = 0.0
        self._is_in = False
        self._failures = 0
        self._retry_at = 0.0

    def run(self, stop: Stop) -> int:
        """Until asked to stop. Nothing that happens to head.json, to Ray or to the network ends it."""
        if owner := self._child.living_owner():
            raise BadSetting(owner)
        self._report("starting", "not looked yet")
        if self._inherited.words:
            self._journal.say("environment", self._inherited.words)
        if self._child.has_leftovers:
            self._journal.say("clean", "ending what an earlier watchdog of this node has left")
            self._end_child(0)
        while not stop:
            try:
                self.step()
            except OSError as error:
                # Of this machine (no process slots, no disk): the next poll may find it better.
                self._fail(f"{type(error).__name__}: {error}")
            stop.wait(cli.jitter(self._settings.poll_s))
        self._journal.say("leave", f"asked to by {stop.signal}")
        self._end_child(self._settings.stop_grace_s)
        self._report("stopped", f"asked to by {stop.signal}")
        self._journal.say("stopped", "nothing is left running")
        return cli.OK

    def step(self) -> None:
        """One look and what follows from it."""
        self._child.reap()
        self._notice_start()
        now = time.monotonic()
        for ended in self._leftovers.end(now):
            self._journal.say("ended", ended)
        reading = self._read(now)
        alive = self._joined is not None and self._child.is_alive
        trouble = self._fitness.look(now)
        decision = decide(reading, self._joined, alive, self._retry_at, now, self._mine, trouble, self._is_busy)
        if decision.verb is Verb.JOIN and reading.record is not None:
            self._join(reading.record)
            return
        if decision.verb is Verb.LEAVE:
            self._leave(decision.reason, failed=not alive)
            return
        if self._joined is not None and not self._is_in:
            if now - self._started_at <= self._settings.join_timeout_s:
                self._report("joining", f"`ray start` has not finished yet; {decision.reason}")
                return
            self._leave(f"it did not join within {self._settings.join_timeout_s:g} s", failed=True)
            return
        if self._joined is not None and reading.is_valid and reading.record is not None:
            # The head came back in its own place. From now on one with the epoch that we joined is an old one.
            self._joined = replace(self._joined, epoch=max(self._joined.epoch, reading.record.epoch))
        self._journal.say(decision.verb.value, decision.reason)
        self._report("joined" if self._joined else "waiting", decision.reason)

    def _is_busy(self) -> bool:
        return is_busy(processes.commands(self._child.ours()))

    def _read(self, now: float) -> Reading:
        try:
            return self._patience.call(lambda: self._reader.read(time.time(), now))
        except TimeoutError:
            return self._reader.unanswered(_READ_TIMEOUT_S)

    def _notice_start(self) -> None:
        """From joining to joined, and from joined to stable."""
        if self._joined is None:
            return
        if not self._is_in and self._child.has_started and self._child.is_alive:
            self._is_in, self._since = True, time.time()
            took = time.monotonic() - self._started_at
            self._journal.say("joined", f"{self._joined.address}, epoch {self._joined.epoch}, after {took:.1f} s")
        if self._is_in and time.time() - self._since > _STABLE_S:
            self._failures = 0

    def _join(self, record: HeadRecord) -> None:
        settings = self._settings
        if not os.access(settings.token, os.R_OK):
            words = (
                f"the cluster token {settings.token} cannot be read; the head makes it, and it must belong to this user"
            )
            self._journal.say("wait", words)
            self._report("waiting", words)
            return
        if ":" in record.head_ip:
            words = f"head.json names the IPv6 address {record.head_ip}, and {cli.NO_IPV6}"
            self._journal.say("wait", words)
            self._report("waiting", words)
            return
        try:
            ip = settings.node_ip or cli.own_address(record.head_ip, record.gcs_port)
        except OSError as error:
            self._fail(f"no way to {record.address}: {error.strerror or error}")
            return
        command = [f"--address={record.address}", f"--node-ip-address={ip}", *settings.ray_options]
        self._joined = Joined(record.address, record.session, record.epoch)
        self._started_at, self._is_in = time.monotonic(), False
        self._journal.say("join", f"{record.address}, epoch {record.epoch}, as {ip}")
        try:
            self._child.start(command, self._ray_environment(ip, record.head_ip))
        except OSError:
            self._joined = None
            raise
        self._report("joining", "`ray start` runs")

    def _leave(self, reason: str, *, failed: bool) -> None:
        was_in = self._is_in
        if failed and not was_in:
            reason = f"`ray start` failed ({reason}); it said last:\n{self._child.last_words()}"
        self._journal.say("leave", reason)
        self._report("leaving", reason.splitlines()[0])
        # A head that has moved has no use for what runs here; a raylet that died has left it.
        self._end_child(0 if failed else min(5.0, self._settings.stop_grace_s))
        if failed:
            self._fail("it joins again")

    def _fail(self, reason: str) -> None:
        self._failures += 1
        pause = backoff_s(self._failures, secrets.randbelow(1000) / 1000)
        self._retry_at = time.monotonic() + pause
        self._journal.say("retry", f"failure {self._failures} in a row: {reason}, in {pause:.1f} s at the earliest")
        if self._joined is None:
            self._report("waiting", reason)

    def _end_child(self, grace_s: float) -> None:
        self._joined, self._is_in = None, False
        try:
            with self._leftovers.end_of_all(lambda line: self._journal.say("ended", line)):
                self._child.end(grace_s)
        except (TimeoutError, OSError) as error:
            # Stuck in the kernel (a dead filesystem, a GPU driver). Another raylet beside it would be worse.
            self._journal.say("warning", f"{error}; this machine may need a restart")

    def _ray_environment(self, ip: str, head_ip: str) -> dict[str, str]:
        kept = self._inherited.kept
        return {
            **kept,
            **environment.around_proxies(kept, [ip, head_ip]),
            "PATH": _job_path(kept),
            "ARGUS_SHARED_ROOT": self._settings.shared_root,
            "ARGUS_CLUSTER": self._settings.cluster,
            "ARGUS_NODE_IP": ip,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._settings.token),
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(_OUTLIVE_HEAD_S),
            "RAY_USAGE_STATS_ENABLED": "0",
            # A driver that asks for no GPU sees none only if Ray may not take its list away.
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }

    def _report(self, state: str, reason: str) -> None:
        joined = self._joined
        since = datetime.fromtimestamp(self._since, timezone.utc).isoformat(timespec="seconds")
        self._journal.status(
            joined=self._is_in,
            state=state,
            address=joined.address if joined else None,
            epoch=joined.epoch if joined else None,
            session=joined.session if joined else None,
            since=since if self._is_in else None,
            reason=reason,
            cluster=self._settings.cluster,
            node=self._settings.node_name,
            pid=os.getpid(),
        )


def _job_path(environ: Mapping[str, str]) -> str:
    """A job's `python3` is then the one that has Ray."""
    return f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}"


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """The exit code: 0 when asked to stop, 2 for a setting that is wrong. A missing head is neither."""
    return cli.run("watchdog", lambda: _main(sys.argv[1:] if argv is None else argv, environ))


def _main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    settings = _settings(argv, environ)
    mine = cli.versions()
    cli.check_temp_dir(settings.temp_dir)
    with cli.alone("watchdog", settings.run_dir, settings.name, settings.node_name):
        stop = Stop()
        become_subreaper()
        journal = Journal("watchdog", settings.run_dir / f"{settings.name}.json")
        path = head_json.head_file(settings.shared_root, settings.cluster)
        journal.say("start", f"{settings.name}, Ray {mine.ray}, Python {mine.python}, reading {path}")
        return Watchdog(settings, mine, journal, environ).run(stop)


def _settings(argv: Sequence[str], environ: Mapping[str, str]) -> WatchdogSettings:
    """Raises BadSetting."""
    parser = cli.Parser(
        description="Keep this machine in the cluster that head.json names.",
        epilog="What follows `--` goes to `ray start` as it is.",
    )
    cli.add_common(parser, environ)
    cli.add(parser, environ, "--num-gpus", "ARGUS_NUM_GPUS", None, "GPUs to offer; Ray counts them if not given")
    cli.add(parser, environ, "--num-cpus", "ARGUS_NUM_CPUS", None, "CPUs to offer; Ray counts them if not given")
    cli.add(parser, environ, "--labels", "ARGUS_LABELS", None, "labels of the node: key=value,key=value")
    cli.add(parser, environ, "--poll", "ARGUS_POLL_S", "2", "seconds between two looks at head.json")
    cli.add(parser, environ, "--join-timeout", "ARGUS_JOIN_TIMEOUT_S", "180", "seconds that `ray start` may take")
    cli.add(parser, environ, "--stop-grace", "ARGUS_STOP_GRACE_S", "30", "seconds for Ray to end before it is killed")
    arguments, rest = cli.parse(parser, argv)
    cli.check_common(arguments)
    return WatchdogSettings(
        shared_root=arguments.shared_root,
        cluster=arguments.cluster,
        node_name=arguments.node_name,
        node_ip=arguments.node_ip,
        run_dir=Path(arguments.run_dir),
        token=cli.ray_token(arguments.shared_root, arguments.cluster, environ),
        ray_options=(*_offer(arguments), *cli.ray_options(arguments), *rest),
        poll_s=cli.number("--poll", arguments.poll, least=0.05, most=3600),
        join_timeout_s=cli.number("--join-timeout", arguments.join_timeout, least=1, most=3600),
        stop_grace_s=cli.number("--stop-grace", arguments.stop_grace, least=0, most=3600),
        pass_env=arguments.pass_env,
        temp_dir=arguments.temp_dir,
    )


def _offer(arguments: argparse.Namespace) -> list[str]:
    """What this node offers, as options of `ray start`."""
    offer = [f"--node-name={arguments.node_name}", f"--resources={json.dumps(JOB_SLOTS)}"]
    for flag, value in (("--num-gpus", arguments.num_gpus), ("--num-cpus", arguments.num_cpus)):
        if value is not None:
            offer.append(f"{flag}={cli.whole(flag, value, most=100_000)}")
    if arguments.labels:
        if not all(key and value for key, _, value in (pair.partition("=") for pair in arguments.labels.split(","))):
            raise BadSetting(f"--labels must be key=value,key=value, not {arguments.labels!r}")
        offer.append(f"--labels={arguments.labels}")
    return offer


if __name__ == "__main__":
    sys.exit(main())
