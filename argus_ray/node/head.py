"""The head launcher: takes the head's lock, raises the epoch, runs the Ray head and deploys Argus on it.

`python -m argus_ray.node.head`. A second one, on any machine, waits for the lock as a hot standby and takes over when
the first one is gone. It lives outside Ray and never imports it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from argus_ray.discovery import epoch, head_json
from argus_ray.discovery.epoch import EpochUnknown, HeadClaim, Superseded
from argus_ray.disk import atomic
from argus_ray.disk.bounded import BoundedCall
from argus_ray.node import cli, haproxy, ports
from argus_ray.node.cli import BadSetting, Stop
from argus_ray.node.decision import Verb, Versions, WatchdogDecision, backoff_s, may_take_over
from argus_ray.node.journal import Journal
from argus_ray.node.raychild import RayChild, become_subreaper
from argus_ray.node.serve_deploy import ApiState, Application, Deployment

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104
_POLL_S = 1.0
_START_TIMEOUT_S = 180.0
_STABLE_S = 60.0
#: Starts on a durable store that may fail in a row before the head begins with an empty one.
_MAX_REUSES = 3
#: What `ray start` says when the GCS does not come up (ray 2.60, _private/node.py); so it does on a damaged store.
_STORE_REFUSED = "Failed to start GCS"


@dataclass(frozen=True)
class HeadSettings:
    """Of one head launcher. Times in seconds."""

    shared_root: str
    cluster: str
    node_name: str
    node_ip: str
    run_dir: Path
    token: Path
    gcs_port: int
    dashboard_host: str
    dashboard_port: int
    is_durable: bool
    serve_config: Path
    api_url: str
    #: Where Serve listens, as its configuration says.
    http_host: str
    http_port: int
    http_proxy: str
    proxy_ports: haproxy.Ports
    ttl_s: float
    temp_dir: str | None
    ray_options: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of this node's files."""
        return f"head-{self.cluster}-{self.node_name}"

    @property
    def mark(self) -> str:
        """Of this node's processes. With the folder: two pools of one name on one machine do not end each other."""
        return f"{self.name} {self.run_dir}"

    @property
    def folder(self) -> Path:
        return head_json.folder(self.shared_root, self.cluster)

    @property
    def dashboard(self) -> str:
        host = self.node_ip if self.dashboard_host in _EVERYWHERE else self.dashboard_host
        return _url(host, self.dashboard_port)

    @property
    def local_url(self) -> str:
        """Of the API, on this machine."""
        return _url("127.0.0.1" if self.http_host in _EVERYWHERE else self.http_host, self.http_port)

    @property
    def listens(self) -> list[tuple[str, int]]:
        """Where a head listens at ports that it was told. One of them for the rest of `proxy_ports`."""
        inner = [(self.http_host, self.proxy_ports.first)] if self.http_proxy == haproxy.HAPROXY else []
        own = [(self.http_host, self.http_port), (self.dashboard_host, self.dashboard_port)]
        return [*own, (self.node_ip, self.gcs_port), *inner]


class Launcher:
    """Made by `main`; one thread."""

    def __init__(
        self, settings: HeadSettings, mine: Versions, journal: Journal, environ: Mapping[str, str], stop: Stop
    ) -> None:
        self._settings = settings
        self._mine = mine
        self._journal = journal
        self._environ = environ
        self._stop = stop
        self._child = RayChild(settings.mark, settings.run_dir / f"{settings.name}.ray.log")
        self._deploy: Deployment | None = None
        self._watch = _Watch(settings)
        self._fence: BoundedCall[None] = BoundedCall(10.0)
        self._why = ""
        self._has_served = False
        self._said_state = ""
        self._failures = 0
        self._reuse_failures = 0

    def run(self) -> int:
        """Until asked to stop: standby, head, and standby again when another head has taken over."""
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
        shutil.rmtree(haproxy.folder_of(self._settings.run_dir, self._settings.name), ignore_errors=True)
        self._report("stopped", f"asked to by {self._stop.signal}")
        self._journal.say("stopped", "nothing is left running")
        return cli.OK

    @contextlib.contextmanager
    def _lock(self) -> Iterator[bool]:
        """Held for as long as this is the head; False when asked to stop before."""
        self._settings.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._settings.folder / "head.lock", mode=0o600)
        is_held = False
        try:
            while not self._stop and not is_held:
                self._child.reap()
                # Only then: a launcher that is started again at its address within the ttl finds its lock free.
                state = "standby"
                if self._may_begin():
                    with contextlib.suppress(Timeout):
                        lock.acquire(timeout=0)
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
        """Whether no other head seems to live. The lock decides; see `may_take_over`."""
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
        last = epoch.current(settings.folder)
        here = HeadClaim(0, socket.gethostname(), settings.node_ip, settings.gcs_port)
        if last is not None and last.head_ip != here.head_ip:
            self._journal.say("take over", f"from {last.host} ({last.head_ip}), epoch {last.epoch}: {self._why}")
        if settings.is_durable:
            here = replace(here, gcs_dir=self._gcs_dir(here, last))
            Path(here.gcs_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
        claim = epoch.take(settings.folder, here)
        _delete_old(Path(settings.shared_root) / "ray" / "gcs" / settings.cluster, claim.gcs_dir)
        store = f"its state in {claim.gcs_dir}" if claim.gcs_dir else "its state in memory"
        self._journal.say("head", f"epoch {claim.epoch} at {claim.head_ip}:{claim.gcs_port}, {store}")
        return claim

    def _gcs_dir(self, here: HeadClaim, last: HeadClaim | None) -> str:
        """The last head's store if it was at this address, with this Ray and this Python, and can be opened."""
        root = Path(self._settings.shared_root) / "ray" / "gcs" / self._settings.cluster
        versions = f"ray{self._mine.ray}-py{self._mine.python}"
        if last is not None and last.gcs_dir and (last.head_ip, last.gcs_port) == (here.head_ip, here.gcs_port):
            if f"-{versions}-" in Path(last.gcs_dir).name and self._reuse_failures < _MAX_REUSES:
                return last.gcs_dir
            why = f"does not start on {last.gcs_dir}" if self._reuse_failures else f"{versions} is new here"
            self._journal.say("warning", f"Ray {why}: it begins with an empty one, and running attempts are lost")
        self._reuse_failures = 0
        return str(root / f"e{1 + (last.epoch if last else 0)}-{versions}-{secrets.token_hex(3)}")

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
        _forget_address(Path(settings.temp_dir or "/tmp/ray"), f"{claim.head_ip}:{claim.gcs_port}")  # noqa: S108
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
        if self._deploy is not None:
            self._deploy.end()
            self._deploy = None
        try:
            self._child.end(0)
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
        found = {name: value for name, value in self._environ.items() if name != "RAY_ADDRESS"}
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
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(settings.token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if claim.gcs_dir:
            found |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": claim.gcs_dir}
        folder = haproxy.make_folder(settings.run_dir, settings.name)
        return found | haproxy.environment(settings.http_proxy, folder, settings.proxy_ports, self._environ)

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


def _delete_old(root: Path, kept: str) -> None:
    """The stores of heads before this one."""
    with contextlib.suppress(OSError):
        for old in root.iterdir():
            if (
                str(old) != kept
                and re.fullmatch(r"e\d+-.*[0-9a-f]{6}", old.name)
                and old.is_dir()
                and not old.is_symlink()
            ):
                shutil.rmtree(old, ignore_errors=True)


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """The exit code: 0 when asked to stop, 2 for a setting that is wrong."""
    return cli.run("head", lambda: _main(sys.argv[1:] if argv is None else argv, environ))


def _main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    settings = _settings(argv, environ)
    mine = cli.versions()
    with cli.alone("head launcher", settings.run_dir, settings.name, settings.node_name):
        stop = Stop()
        become_subreaper()
        journal = Journal("head", settings.run_dir / f"{settings.name}.json")
        journal.say("start", f"{settings.name} at {settings.node_ip}, Ray {mine.ray}, Python {mine.python}")
        return Launcher(settings, mine, journal, environ, stop).run()


def _settings(argv: Sequence[str], environ: Mapping[str, str]) -> HeadSettings:
    """Raises BadSetting."""
    parser = cli.Parser(
        description="Run the head of the cluster, or wait as a standby for the one that runs.",
        epilog="What follows `--` goes to `ray start` as it is.",
    )
    cli.add_common(parser, environ)
    cli.add(parser, environ, "--gcs-port", "ARGUS_GCS_PORT", "6379", "port of Ray's GCS")
    cli.add(parser, environ, "--dashboard-host", "ARGUS_DASHBOARD_HOST", "0.0.0.0", "where the dashboard listens")  # noqa: S104
    cli.add(parser, environ, "--dashboard-port", "ARGUS_DASHBOARD_PORT", "8265", "port of Ray's dashboard")
    cli.add(parser, environ, "--gcs-storage", "ARGUS_GCS_STORAGE", "rocksdb", "rocksdb (durable) or memory")
    cli.add(parser, environ, "--serve-config", "ARGUS_SERVE_CONFIG", _DEFAULT_CONFIG, "what to deploy")
    cli.add(
        parser, environ, "--api-url", head_json.API_URL_VARIABLE, None, "the API's URL for head.json; made if not given"
    )
    cli.add(
        parser,
        environ,
        "--http-proxy",
        "ARGUS_HTTP_PROXY",
        haproxy.HAPROXY,
        "what stands before the API: haproxy, or ray (Serve's own, in Python)",
    )
    cli.add(
        parser,
        environ,
        "--proxy-ports",
        "ARGUS_PROXY_PORTS",
        haproxy.DEFAULT_PORTS,
        "ports behind HAProxy, of this head alone",
    )
    cli.add(
        parser,
        environ,
        "--ttl",
        head_json.TTL_VARIABLE,
        f"{head_json.DEFAULT_TTL_S:g}",
        "seconds that head.json is good for",
    )
    arguments, rest = cli.parse(parser, argv)
    cli.check_common(arguments)
    if arguments.gcs_storage not in ("rocksdb", "memory"):
        raise BadSetting(f"--gcs-storage must be rocksdb or memory, not {arguments.gcs_storage!r}")
    if arguments.http_proxy not in (haproxy.HAPROXY, haproxy.RAY):
        raise BadSetting(f"--http-proxy must be haproxy or ray, not {arguments.http_proxy!r}")
    try:
        proxy_ports = haproxy.parse_ports(arguments.proxy_ports)
    except ValueError:
        rule = f"FIRST-LAST, {haproxy.LEAST_PORTS} or more ports from 1024 to 65535"
        raise BadSetting(f"--proxy-ports must be {rule}, not {arguments.proxy_ports!r}") from None
    node_ip = arguments.node_ip or _address_of_this_machine()
    config = Path(arguments.serve_config).absolute()
    http_host, http_port = _http_address(config)
    return HeadSettings(
        shared_root=arguments.shared_root,
        cluster=arguments.cluster,
        node_name=arguments.node_name,
        node_ip=node_ip,
        run_dir=Path(arguments.run_dir).absolute(),
        token=cli.ray_token(arguments.shared_root, arguments.cluster, environ),
        gcs_port=cli.whole("--gcs-port", arguments.gcs_port, least=1, most=65535),
        dashboard_host=arguments.dashboard_host,
        dashboard_port=cli.whole("--dashboard-port", arguments.dashboard_port, least=1, most=65535),
        is_durable=arguments.gcs_storage == "rocksdb",
        serve_config=config,
        api_url=arguments.api_url or _url(node_ip, http_port),
        http_host=http_host,
        http_port=http_port,
        http_proxy=arguments.http_proxy,
        proxy_ports=proxy_ports,
        ttl_s=cli.number("--ttl", arguments.ttl, least=1, most=3600),
        temp_dir=arguments.temp_dir,
        ray_options=(*cli.ray_options(arguments), *rest),
    )


#: Of the checkout that this module lies in.
_DEFAULT_CONFIG = str(Path(__file__).resolve().parents[2] / "serve_config.yaml")


def _http_address(config: Path) -> tuple[str, int]:
    """Serve's HTTP host and port; this module has no YAML reader. Raises BadSetting."""
    try:
        text = atomic.read_small(config).decode() + "\n"
    except (OSError, ValueError) as error:
        raise BadSetting(f"--serve-config {config} cannot be read: {error}") from None
    block = re.search(r"^http_options:[^\n]*\n((?:[ #][^\n]*\n|\n)*)", text, re.MULTILINE)
    port = re.search(r"^\s+port:\s*(\d+)", block[1] if block else "", re.MULTILINE)
    host = re.search(r"^\s+host:\s*[\"']?([0-9A-Za-z.:-]+)", block[1] if block else "", re.MULTILINE)
    return host[1] if host else "0.0.0.0", int(port[1]) if port else 8000  # noqa: S104


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address_of_this_machine() -> str:
    """The address of the default route. Raises BadSetting if there is none."""
    try:
        return cli.own_address("203.0.113.1", 9)  # of a block that is nobody's (RFC 5737); nothing is sent
    except OSError as error:
        raise BadSetting(f"--node-ip must be given: this machine has no default route ({error.strerror})") from None


if __name__ == "__main__":
    sys.exit(main())
