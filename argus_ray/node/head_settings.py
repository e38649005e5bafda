"""The settings of a head launcher: by flag, else by environment variable, else the default; checked at start."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from argus_ray.discovery import head_json, head_secrets, tracking_keys
from argus_ray.disk import atomic
from argus_ray.node import cli, haproxy
from argus_ray.node.cli import BadSetting

_EVERYWHERE = ("0.0.0.0",)  # noqa: S104


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
    temp_dir: str
    ray_options: tuple[str, ...]
    #: What Ray inherits beside the list of `environment`.
    pass_env: tuple[str, ...] = ()
    #: Digests of the tokens, as variables of Ray's processes; and what is doubtful about them.
    token_digests: Mapping[str, str] = field(default_factory=dict, repr=False)
    token_warnings: tuple[str, ...] = ()
    #: Of tracking servers, by the variable that held them; and the variables that may hold one.
    tracking_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    tracking_key_names: tuple[str, ...] = ()
    #: Make the shared root this cluster's, and start nothing.
    is_init: bool = False

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
    def call_key(self) -> Path:
        """The file with the key of calls to the actors."""
        return self.run_dir / f"{self.name}.key"

    @property
    def tracking_keys_file(self) -> Path:
        return self.run_dir / f"{self.name}.tracking"

    @property
    def gcs_root(self) -> Path:
        """Of the stores of all heads of this cluster."""
        return Path(self.shared_root) / "ray" / "gcs" / self.cluster

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


def read(argv: Sequence[str], environ: Mapping[str, str]) -> HeadSettings:
    """Raises BadSetting."""
    parser = cli.Parser(
        description="Run the head of the cluster, or wait as a standby for the one that runs.",
        epilog="What follows `--` goes to `ray start` as it is.",
    )
    cli.add_common(parser, environ)
    parser.add_argument(
        "--init",
        action="store_true",
        help="once, before the first start on a new shared root: make it this cluster's, and end",
    )
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
    try:
        haproxy.parse_proxies(environ.get(haproxy.TRUSTED_VARIABLE, ""))
    except ValueError as error:
        raise BadSetting(f"{haproxy.TRUSTED_VARIABLE} must be addresses or networks, by commas: {error}") from None
    node_ip = arguments.node_ip or _address_of_this_machine()
    config = Path(arguments.serve_config).absolute()
    text = _text_of(config)
    http_host, http_port = _http_address(text)
    gcs_port = cli.whole("--gcs-port", arguments.gcs_port, least=1, most=65535)
    dashboard_port = cli.whole("--dashboard-port", arguments.dashboard_port, least=1, most=65535)
    api = f"http_options.port of --serve-config {config}"
    # Ray takes no GCS and dashboard at one port, whatever their addresses.
    listens = [("--gcs-port", "0.0.0.0", gcs_port), ("--dashboard-port", arguments.dashboard_host, dashboard_port)]  # noqa: S104
    listens.append((api, http_host, http_port))
    _refuse_shared(listens, proxy_ports if arguments.http_proxy == haproxy.HAPROXY else None)
    cli.refuse_ipv6("--dashboard-host", arguments.dashboard_host)
    cli.refuse_ipv6(f"http_options.host of --serve-config {config}", http_host)
    try:
        digests, warnings = head_secrets.digests(head_secrets.names_in(text), environ)
        key_names = tracking_keys.names_in(text)
        keys, key_warnings = tracking_keys.found(key_names, environ)
    except (head_secrets.BadToken, tracking_keys.BadKey) as error:
        raise BadSetting(str(error)) from None
    return HeadSettings(
        shared_root=arguments.shared_root,
        cluster=arguments.cluster,
        node_name=arguments.node_name,
        node_ip=node_ip,
        run_dir=Path(arguments.run_dir),
        token=cli.ray_token(arguments.shared_root, arguments.cluster, environ),
        gcs_port=gcs_port,
        dashboard_host=arguments.dashboard_host,
        dashboard_port=dashboard_port,
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
        pass_env=arguments.pass_env,
        token_digests=head_secrets.as_variables(digests),
        token_warnings=(*warnings, *key_warnings),
        tracking_keys=keys,
        tracking_key_names=key_names,
        is_init=arguments.init,
    )


#: Of the checkout that this module lies in.
_DEFAULT_CONFIG = str(Path(__file__).resolve().parents[2] / "serve_config.yaml")


def _text_of(config: Path) -> str:
    """Raises BadSetting."""
    try:
        return atomic.read_small(config).decode() + "\n"
    except (OSError, ValueError) as error:
        raise BadSetting(f"--serve-config {config} cannot be read: {error}") from None


def _http_address(text: str) -> tuple[str, int]:
    """Serve's HTTP host and port; this module has no YAML reader."""
    block = re.search(r"^http_options:[^\n]*\n((?:[ #][^\n]*\n|\n)*)", text, re.MULTILINE)
    port = re.search(r"^\s+port:\s*(\d+)", block[1] if block else "", re.MULTILINE)
    host = re.search(r"^\s+host:\s*[\"']?([0-9A-Za-z.:-]+)", block[1] if block else "", re.MULTILINE)
    return host[1] if host else "0.0.0.0", int(port[1]) if port else 8000  # noqa: S104


def _refuse_shared(listens: Sequence[tuple[str, str, int]], proxy_ports: haproxy.Ports | None) -> None:
    """Raises BadSetting if two settings name one port of one address, so that no start could ever succeed. Each is a
    setting, a host and a port; the API, which has `proxy_ports` as well, is the last."""
    *_, (_, api_host, _) = listens

    def meet(one: str, other: str) -> bool:
        one, other = one.replace("localhost", "127.0.0.1"), other.replace("localhost", "127.0.0.1")
        return one == other or one in _EVERYWHERE or other in _EVERYWHERE

    for index, (name, host, port) in enumerate(listens):
        for other, other_host, other_port in listens[:index]:
            if port == other_port and meet(host, other_host):
                raise BadSetting(f"{name} must be another port than {other}: both are {port}")
        if proxy_ports and proxy_ports.first <= port <= proxy_ports.last and meet(host, api_host):
            raise BadSetting(f"{name} must lie outside --proxy-ports {proxy_ports}, not {port}")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address_of_this_machine() -> str:
    """The address of the default route. Raises BadSetting if there is none."""
    try:
        return cli.own_address("203.0.113.1", 9)  # of a block that is nobody's (RFC 5737); nothing is sent
    except OSError as error:
        raise BadSetting(
            f"--node-ip must be given: this machine has no default route for IPv4 ({error.strerror})"
        ) from None
