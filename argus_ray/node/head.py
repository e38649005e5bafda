"""The head launcher: takes the head's lock, raises the epoch, runs the Ray head and deploys Argus on it.

`python -m argus_ray.node.head`. A second one, on any machine, waits for the lock as a hot standby and takes over when
the first one is gone. It lives outside Ray and never imports it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from argus_ray.discovery import epoch, head_json, head_secrets, sentinel, tracking_keys
from argus_ray.discovery.epoch import EpochUnknown, HeadClaim, Superseded
from argus_ray.disk import atomic
from argus_ray.disk.bounded import BoundedCall
from argus_ray.disk.lock import KernelLock, LockBusy
from argus_ray.node import cli, environment, gcs_store, haproxy, head_settings, ports
from argus_ray.node.cli import Stop
from argus_ray.node.decision import Verb, Versions, WatchdogDecision, backoff_s, may_take_over
from argus_ray.node.head_settings import HeadSettings
from argus_ray.node.journal import Journal
from argus_ray.node.raychild import RayChild, become_subreaper
from argus_ray.node.serve_deploy import ApiState, Application, Deployment

_POLL_S = 1.0
_START_TIMEOUT_S = 180.0
_STABLE_S = 60.0
#: Starts on a durable store that may fail in a row before the head begins with an empty one.
_MAX_REUSES = 3
#: What `ray start` says when the GCS does not come up (ray 2.60, _private/node.py); so it does on a damaged store.
_STORE_REFUSED = "Failed to start GCS"


class Launcher:
    """Made by `main`; one thread."""

    def __init__(
        self, settings: HeadSettings, mine: Versions, journal: Journal, environ: Mapping[str, str], stop: Stop
    ) -> None:
        self._settings = settings
        self._mine = mine
        self._journal = journal
        tokens = {name.removesuffix(head_secrets.DIGEST_SUFFIX) for name in settings.token_digests}
        self._inherited = environment.for_head(environ, settings.pass_env, tokens | {*settings.tracking_key_names})
        self._stop = stop
        self._child = RayChild(settings.mark, settings.run_dir / f"{settings.name}.ray.log")
        self._deploy: Deployment | None = None
        self._watch = _Watch(settings)
        self._fence: BoundedCall[None] = BoundedCall(10.0)
        self._why = ""
        self._proxy_folder = haproxy.folder_of(settings.run_dir, settings.name)
        self._has_served = False
        self._said_state = ""
        self._failures = 0
        self._reuse_failures = 0

    def run(self) -> int:
        """Until asked to stop: standby, head, and standby again when another head has taken over."""
        if self._inherited.words:
            self._journal.say("environment", self._inherited.words)
        if owner := self._child.living_owner():
            raise cli.BadSetting(owner)
        for warning in self._settings.token_warnings:
            self._journal.say("warning", warning)
        self._report("starting", "not looked yet")
        if self._child.has_leftovers:
            self._journal.say("clean", "ending what an earlier launcher of this node has left")
            self._end()
        while not self._stop:
            try:
                with self._lock() as is_held:
                    if is_held:
                        self._be_head()
            except (OSError, EpochUnknown) as error:
                # The shared filesystem, most likely. There is no head without it, and no reason to give up.
                self._journal.say("wait", f"{type(error).__name__}: {error}")
                self._report("waiting", str(error))
                self._stop.wait(cli.jitter(2.0))
        for secret in (self._settings.call_key, self._settings.tracking_keys_file):
            with contextlib.suppress(OSError):
                secret.unlink()
        shutil.rmtree(haproxy.folder_of(self._settings.run_dir, self._settings.name), ignore_errors=True)
        self._report("stopped", f"asked to by {self._stop.signal}")
        self._journal.say("stopped", "nothing is left running")
        return cli.OK

    @contextlib.contextmanager
    def _lock(self) -> Iterator[bool]:
        """Held for as long as this is the head; False when asked to stop before."""
        sentinel.adopt(self._settings.folder)
        lock = KernelLock(self._settings.folder / "head.lock")
        is_held = False
        try:
            while not self._stop and not is_held:
                self._child.reap()
                # Only then: a launcher that is started again at its address within the ttl finds its lock free.
                state = "standby"
                if self._may_begin():
                    with contextlib.suppress(LockBusy):
                        lock.acquire(timeout_s=0)
                        is_held = True
                if is_held and (taken := self._taken()):
                    # A machine that cannot be the head leaves it to another one.
                    lock.release()
                    is_held, state, self._why = False, "port_taken", taken
                if not is_held:
                    self._journal.say(state.replace("_", " "), self._why)
                    self._report(state, self._why)
                    self._stop.wait(cli.jitter(_POLL_S))
            yield is_held
        finally:
            lock.release()

    def _may_begin(self) -> bool:
        """Whether no other head seems to live. The lock decides; see `may_take_over`. Raises RootUnknown: on a bare
        mount point nobody has ever lived."""
        sentinel.read(self._settings.folder)
        decision = self._watch.look()
        self._why = decision.reason
        last = epoch.current(self._settings.folder)
        if last is None or last.head_ip == self._settings.node_ip:
            # Nobody else can be at our own address, and what was left here has been ended.
            return True
        return decision.verb is Verb.JOIN

    def _taken(self) -> str:
        """Which of our ports others have, in words; empty if none."""
        found = [ports.why_not(host, port) for host, port in self._settings.listens]
        return "; ".join(filter(None, found))

    def _be_head(self) -> None:
        """With the lock. Returns when asked to stop or superseded; everything of ours has ended by then."""
        try:
            _make_token(self._settings.token)
            while not self._stop:
                # Before the epoch: where the folder cannot be made, no epoch is spent on each try.
                self._proxy_folder = haproxy.make_folder(self._settings.run_dir, self._settings.name)
                claim = self._take()
                self._supervise(claim)
                if not self._stop:
                    self._failures += 1
                    pause = backoff_s(self._failures, secrets.randbelow(1000) / 1000)
                    self._journal.say("retry", f"the head starts again in {pause:.1f} s (failure {self._failures})")
                    self._stop.wait(pause)
        except Superseded as error:
            self._journal.say("superseded", str(error))
            self._report("superseded", str(error))
            self._end()
        finally:
            if self._stop:
                self._journal.say("stop", f"asked to by {self._stop.signal}")
            self._end()

    def _take(self) -> HeadClaim:
        """A new epoch, with the GCS store of the last one where that is still good for this address."""
        settings = self._settings
        sentinel.read(settings.folder)
        last = epoch.current(settings.folder)
        here = HeadClaim(0, socket.gethostname(), settings.node_ip, settings.gcs_port)
        if last is not None and last.head_ip != here.head_ip:
            self._journal.say("take over", f"from {last.host} ({last.head_ip}), epoch {last.epoch}: {self._why}")
        if settings.is_durable:
            here = replace(here, gcs_dir=self._gcs_dir(here, last))
            Path(here.gcs_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
        claim = epoch.take(settings.folder, here)
        gcs_store.delete_old(settings.gcs_root, claim.gcs_dir)
        store = f"its state in {claim.gcs_dir}" if claim.gcs_dir else "its state in memory"
        self._journal.say("head", f"epoch {claim.epoch} at {claim.head_ip}:{claim.gcs_port}, {store}")
        return claim

    def _gcs_dir(self, here: HeadClaim, last: HeadClaim | None) -> str:
        """The last head's store if it is good for this one, else the name of an empty one."""
        may_reuse = self._reuse_failures < _MAX_REUSES
        store = gcs_store.choose(self._settings.gcs_root, here, last, self._mine, may_reuse=may_reuse)
        if store.why_not_the_last:
            why = f"does not start on {last.gcs_dir}" if last and self._reuse_failures else store.why_not_the_last
            self._journal.say("warning", f"Ray {why}: it begins with an empty one, and running attempts are lost")
        if not store.is_the_last:
            self._reuse_failures = 0
        return store.path

    def _supervise(self, claim: HeadClaim) -> None:
        """Run Ray and the application until Ray ends or we are asked to stop. Raises Superseded."""
        settings = self._settings
        begun = time.monotonic()
        head_id = secrets.token_hex(8)
        environ = self._ray_environment(claim, head_id)
        # Something was published from this store before, so the application is in it.
        comes_back = (
            bool(claim.gcs_dir) and any(Path(claim.gcs_dir).iterdir()) and self._watch.reading.record is not None
        )
        _forget_address(Path(settings.temp_dir), f"{claim.head_ip}:{claim.gcs_port}")
        head_secrets.make_key(settings.call_key)
        tracking_keys.write(settings.tracking_keys_file, settings.tracking_keys)
        self._child.start(self._ray_options(), environ)
        self._report("starting", "`ray start` runs", claim)
        is_up = False
        while not self._stop:
            self._child.reap(self._deploy.pid if self._deploy else None)
            self._check_epoch(claim)
            if not self._child.is_alive:
                break
            if not is_up and self._child.has_started:
                is_up = True
                self._journal.say("up", f"Ray's head, after {time.monotonic() - begun:.1f} s")
                self._deploy = self._deployment(environ, head_id, comes_back=comes_back)
            if not is_up and time.monotonic() - begun > _START_TIMEOUT_S:
                self._journal.say("failed", f"`ray start` has not finished within {_START_TIMEOUT_S:g} s")
                break
            if is_up and self._deploy is not None:
                self._deploy.step()
                self._report(*self._state_of_api(self._deploy), claim)
                if time.monotonic() - begun > _STABLE_S:
                    self._failures = self._reuse_failures = 0
            self._stop.wait(cli.jitter(_POLL_S))
        if not self._stop:
            self._journal.say("failed", f"Ray's head has ended; it said last:\n{self._child.last_words()}")
            # Only this counts as "the store cannot be opened"; a new one would cost the running training.
            self._reuse_failures += not is_up and _STORE_REFUSED in self._child.last_words()
        self._end()
        if self._stop:
            self._retire(claim)  # when the publisher cannot write it anew any more

    def _state_of_api(self, deploy: Deployment) -> tuple[str, str]:
        """The state to report, and why. It is `serving` only while our own API answers."""
        found = deploy.look()
        if found.state is ApiState.TAKEN:
            state, words = "port_taken", found.words
        elif not deploy.is_done:
            return "deploying", deploy.words
        elif found.state is ApiState.OURS:
            self._has_served = True
            state, words = "serving", f"{deploy.words}; {found.words}"
        else:
            state, words = "recovering" if self._has_served else "deploying", f"{deploy.words}; {found.words}"
        if state != self._said_state:
            self._said_state = state
            self._journal.say(state.replace("_", " "), words)
        return state, words

    def _deployment(self, environ: Mapping[str, str], head_id: str, *, comes_back: bool) -> Deployment:
        settings = self._settings
        application = Application(
            config=settings.serve_config,
            dashboard=settings.dashboard,
            api_url=settings.api_url,
            local_url=settings.local_url,
            head_id=head_id,
        )
        self._has_served, self._said_state = False, ""
        log = settings.run_dir / f"{settings.name}.deploy.log"
        return Deployment(application, self._journal, environ, log, self._child.ours, comes_back=comes_back)

    def _check_epoch(self, claim: HeadClaim) -> None:
        try:
            self._fence.call(lambda: epoch.check(self._settings.folder, claim.epoch))
        except (EpochUnknown, TimeoutError) as error:
            # Not knowing is no reason to end a head that works; the publisher and the database check for themselves.
            self._journal.say("warning", f"the epoch cannot be checked now: {error}")

    def _retire(self, claim: HeadClaim) -> None:
        """Let head.json expire at once, so that a standby need not wait for it."""
        path = head_json.head_file(self._settings.shared_root, self._settings.cluster)
        try:
            with epoch.writing(self._settings.folder):
                epoch.check(self._settings.folder, claim.epoch)
                record = head_json.parse(atomic.read_small(path), self._settings.cluster).record
                if record is not None and record.epoch == claim.epoch:
                    now = time.time()
                    gone = replace(record, updated_at=now - 1, expires_at=now)
                    atomic.write_atomically(path, gone.to_json(), mode=0o644)
        except (OSError, EpochUnknown, Superseded) as error:
            self._journal.say("warning", f"head.json expires by itself: {error}")

    def _end(self) -> None:
        """As a power cut would, which its durable state is made for. A GCS that is asked to stop takes the actors and
        the application for ended, and they would not come back with it (seen in ray 2.60)."""
        ends: list[Callable[[], None]] = [lambda: self._child.end(0)]
        if self._deploy is not None:
            ends.insert(0, self._deploy.end)
        self._deploy = None
        for end in ends:
            try:
                end()
            except TimeoutError as error:
                self._journal.say("warning", f"{error}; this machine may need a restart")

    def _ray_options(self) -> list[str]:
        settings = self._settings
        return [
            "--head",
            f"--node-name={settings.node_name}",
            f"--node-ip-address={settings.node_ip}",
            f"--port={settings.gcs_port}",
            f"--dashboard-host={settings.dashboard_host}",
            f"--dashboard-port={settings.dashboard_port}",
            # Nothing of a user's may land here.
            "--num-cpus=0",
            "--num-gpus=0",
            *settings.ray_options,
        ]

    def _ray_environment(self, claim: HeadClaim, head_id: str) -> dict[str, str]:
        """Raises OSError if the folder for HAProxy's files cannot be made."""
        settings = self._settings
        found = dict(self._inherited.kept)
        # `serve deploy` and the deployment find their `python` and `ray` beside this one.
        found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found.get('PATH', os.defpath)}"
        found |= {
            "ARGUS_SHARED_ROOT": settings.shared_root,
            "ARGUS_CLUSTER": settings.cluster,
            "ARGUS_NODE_IP": settings.node_ip,
            epoch.VARIABLE: str(claim.epoch),
            head_json.API_URL_VARIABLE: settings.api_url,
            head_json.TTL_VARIABLE: f"{settings.ttl_s:g}",
            head_json.HEAD_ID_VARIABLE: head_id,
            **settings.token_digests,
            head_secrets.KEY_VARIABLE: str(settings.call_key),
            tracking_keys.VARIABLE: str(settings.tracking_keys_file),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(settings.token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if claim.gcs_dir:
            found |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": claim.gcs_dir}
        kept = self._inherited.kept
        proxy = haproxy.environment(
            settings.http_proxy, self._proxy_folder, settings.proxy_ports, kept, host=settings.http_host
        )
        return found | proxy

    def _report(self, state: str, reason: str, claim: HeadClaim | None = None) -> None:
        self._journal.status(
            state=state,
            reason=reason,
            epoch=claim.epoch if claim else None,
            address=f"{claim.head_ip}:{claim.gcs_port}" if claim else None,
            api_url=self._settings.api_url if claim else None,
            cluster=self._settings.cluster,
            node=self._settings.node_name,
            pid=os.getpid(),
        )


class _Watch:
    """Looks at head.json and knows for how long it has not changed."""

    def __init__(self, settings: HeadSettings) -> None:
        self._ttl_s = settings.ttl_s
        self._reader = head_json.Reader(head_json.head_file(settings.shared_root, settings.cluster), settings.cluster)
        self._patience: BoundedCall[head_json.Reading] = BoundedCall(10.0)
        self._first = time.monotonic()
        self.reading = head_json.Reading(head_json.ReadOutcome.MISSING, "head.json has not been looked at")

    def look(self) -> WatchdogDecision:
        """The decision whether a holder of the lock may begin."""
        now = time.monotonic()
        try:
            self.reading = self._patience.call(lambda: self._reader.read(time.time(), now))
        except TimeoutError:
            self.reading = self._reader.unanswered(self._patience.timeout_s)
        changed = self._reader.quiet_s(now)
        quiet_s = now - self._first if changed is None else changed
        ttl_s = self.reading.record.ttl_s if self.reading.record else self._ttl_s
        return may_take_over(self.reading, quiet_s, ttl_s)


def _make_token(path: Path) -> None:
    """Ray's cluster token, once for the life of a cluster; readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return
    atomic.write_atomically(path, secrets.token_hex(32).encode(), mode=0o600)


def _forget_address(temp_dir: Path, address: str) -> None:
    """Ray refuses to start a head at the address that this note names while any raylet of this machine uses it, and
    takes a worker beside the head for the head itself (ray 2.60, scripts.py). Ours has ended, so the note is old."""
    note = temp_dir / "ray_current_cluster"
    with contextlib.suppress(OSError):
        if atomic.read_small(note).decode(errors="replace").strip() == address:
            note.unlink()


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """The exit code: 0 when asked to stop, 2 for a setting that is wrong."""
    return cli.run("head", lambda: _main(sys.argv[1:] if argv is None else argv, environ))


def _init(settings: HeadSettings) -> int:
    """The explicit first start of a shared root, which starts nothing yet. May be repeated."""
    try:
        found = sentinel.begin(settings.folder)
    except OSError as error:
        sys.stderr.write(f"argus-head: {settings.shared_root} cannot be made the cluster's root: {error}\n")
        return cli.BROKEN
    held = f", which has held {' and '.join(sorted(found.holds))}" if found.holds else ""
    sys.stdout.write(f"{settings.shared_root} is the root {found.id} of the cluster {settings.cluster}{held}\n")
    return cli.OK


def _main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    settings = head_settings.read(argv, environ)
    if settings.is_init:
        return _init(settings)
    mine = cli.versions()
    cli.check_temp_dir(settings.temp_dir)
    with cli.alone("head launcher", settings.run_dir, settings.name, settings.node_name):
        stop = Stop()
        become_subreaper()
        journal = Journal("head", settings.run_dir / f"{settings.name}.json")
        journal.say("start", f"{settings.name} at {settings.node_ip}, Ray {mine.ray}, Python {mine.python}")
        return Launcher(settings, mine, journal, environ, stop).run()


if __name__ == "__main__":
    sys.exit(main())
