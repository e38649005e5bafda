"""Settings by flag, environment and default; a wrong one is one line and exit code 2."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from argus_ray.discovery import head_json
from argus_ray.node import cli, head, head_settings, watchdog
from argus_ray.node.cli import BadSetting
from argus_ray.node.head_settings import HeadSettings
from argus_ray.node.processes import with_variable

#: An empty environment: what the tests' own machine says must not matter.
NOTHING: dict[str, str] = {}
BOTH = pytest.mark.parametrize("main", [watchdog.main, head.main], ids=["watchdog", "head"])


def worker(*argv: str, **environ: str) -> watchdog.WatchdogSettings:
    return watchdog._settings(argv, environ)


def launcher(*argv: str, **environ: str) -> HeadSettings:
    return head_settings.read(["--node-ip=10.0.0.1", *argv], environ)


def test_the_defaults_of_a_worker() -> None:
    found = worker()
    assert (found.shared_root, found.cluster, found.node_ip) == ("/private", "argus", None)
    assert (found.poll_s, found.join_timeout_s, found.stop_grace_s) == (2.0, 180.0, 30.0)
    assert found.token == Path("/private/ray/auth/argus.token")
    assert found.name == f"worker-argus-{found.node_name}"
    assert '--resources={"worker_node": 100}' in found.ray_options


def test_the_defaults_of_a_head() -> None:
    found = launcher()
    assert (found.gcs_port, found.dashboard_port, found.ttl_s) == (6379, 8265, head_json.DEFAULT_TTL_S)
    assert found.is_durable
    assert found.serve_config.name == "serve_config.yaml"
    assert found.api_url == "http://10.0.0.1:8000"
    assert found.dashboard == "http://10.0.0.1:8265"


@pytest.mark.parametrize(
    ("argv", "environ", "poll_s"),
    [
        ([], {}, 2.0),
        ([], {"ARGUS_POLL_S": ""}, 2.0),
        ([], {"ARGUS_POLL_S": "7"}, 7.0),
        (["--poll", "3"], {"ARGUS_POLL_S": "7"}, 3.0),
        (["--poll=3"], {"ARGUS_POLL_S": "not looked at"}, 3.0),
    ],
)
def test_the_flag_beats_the_environment_beats_the_default(
    argv: list[str], environ: dict[str, str], poll_s: float
) -> None:
    assert worker(*argv, **environ).poll_s == poll_s


def test_each_setting_of_a_worker_has_a_variable() -> None:
    found = worker(
        ARGUS_SHARED_ROOT="/shared/",
        ARGUS_CLUSTER="c1",
        ARGUS_NODE_NAME="n1",
        ARGUS_NODE_IP="10.0.0.9",
        ARGUS_RUN_DIR="/tmp/run",
        ARGUS_TEMP_DIR="/tmp/t",
        ARGUS_OBJECT_STORE_MEMORY="100000000",
        ARGUS_NUM_GPUS="4",
        ARGUS_NUM_CPUS="12",
        ARGUS_LABELS="zone=a,kind=h100",
        ARGUS_JOIN_TIMEOUT_S="9",
        ARGUS_STOP_GRACE_S="0",
        RAY_AUTH_TOKEN_PATH="/etc/token",
    )
    assert (found.shared_root, found.name, found.node_ip) == ("/shared", "worker-c1-n1", "10.0.0.9")
    assert (found.run_dir, found.token) == (Path("/tmp/run"), Path("/etc/token"))
    assert (found.join_timeout_s, found.stop_grace_s) == (9.0, 0.0)
    assert found.ray_options == (
        "--node-name=n1",
        '--resources={"worker_node": 100}',
        "--num-gpus=4",
        "--num-cpus=12",
        "--labels=zone=a,kind=h100",
        "--temp-dir=/tmp/t",
        "--object-store-memory=100000000",
    )


def test_zero_gpus_are_said_and_not_left_to_ray() -> None:
    assert "--num-gpus=0" in worker("--num-gpus", "0").ray_options


def test_what_follows_the_dashes_goes_to_ray_as_it_is() -> None:
    assert worker("--poll", "3", "--", "--min-worker-port=1", "--", "x").ray_options[-3:] == (
        "--min-worker-port=1",
        "--",
        "x",
    )


@pytest.mark.parametrize("size", ["1e9", "1000000000", "1000000000.0"])
def test_bytes_may_be_written_in_each_way_that_is_accepted(size: str) -> None:
    assert "--object-store-memory=1000000000" in worker("--object-store-memory", size).ray_options


@BOTH
@pytest.mark.parametrize(
    ("flag", "value", "rule"),
    [
        ("--shared-root", "relative/path", "absolute"),
        ("--shared-root", "/a/../b", "absolute"),
        ("--cluster", "Upper", "a-z"),
        ("--cluster", "-x", "a-z"),
        ("--cluster", "a/b", "a-z"),
        ("--cluster", "x" * 65, "1 to 64"),
        ("--node-name", "two words", "A-Z"),
        ("--node-name", "a/b", "A-Z"),
        ("--node-name", "x\ny", "A-Z"),
        ("--object-store-memory", "1000", "from 8e+07"),
        ("--object-store-memory", "8GB", "number"),
        ("--object-store-memory", "80000000.5", "whole"),
    ],
)
def test_a_bad_common_setting(
    main: Callable[..., int], flag: str, value: str, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    complains(main, flag, value, rule, capsys)


@pytest.mark.parametrize(
    ("flag", "value", "rule"),
    [
        ("--poll", "0", "from 0.05 to 3600"),
        ("--poll", "soon", "number"),
        ("--join-timeout", "0.5", "from 1"),
        ("--num-gpus", "-1", "from 0"),
        ("--num-gpus", "1.5", "whole"),
        ("--num-cpus", "many", "number"),
        ("--num-cpus", "1000000", "to 100000"),
        ("--labels", "no-pair", "key=value"),
        ("--labels", "a=1,", "key=value"),
        ("--labels", "=1", "key=value"),
    ],
)
def test_a_bad_setting_of_a_worker(flag: str, value: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    complains(watchdog.main, flag, value, rule, capsys)


@pytest.mark.parametrize(
    ("flag", "value", "rule"),
    [
        ("--gcs-port", "0", "from 1 to 65535"),
        ("--gcs-port", "65536", "from 1 to 65535"),
        ("--dashboard-port", "http", "number"),
        ("--gcs-storage", "redis", "rocksdb or memory"),
        ("--ttl", "0.5", "from 1 to 3600"),
        ("--serve-config", "/nowhere/serve.yaml", "cannot be read"),
        ("--serve-config", "/dev/zero", "cannot be read"),
    ],
)
def test_a_bad_setting_of_a_head(flag: str, value: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    complains(head.main, flag, value, rule, capsys)


@pytest.mark.parametrize(
    ("one", "two", "port"),
    [
        ("--gcs-port=9000", "--dashboard-port=9000", 9000),
        ("--gcs-port=8000", "http_options.port", 8000),
        ("--dashboard-port=8000", "http_options.port", 8000),
        ("--gcs-port=30000", "--proxy-ports", 30000),
        ("--dashboard-port=30099", "--proxy-ports", 30099),
        ("--proxy-ports=7990-8009", "http_options.port", 8000),
    ],
)
def test_a_port_that_two_settings_name(
    one: str, two: str, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("http_options:\n  port: 8000\n")
    argv = ["--node-ip=10.0.0.1", f"--serve-config={config}", *(part for part in (one, two) if "=" in part)]
    assert head.main(argv, NOTHING) == 2
    line = only_line(capsys)
    assert all(part.partition("=")[0] in line for part in (one, two)) and str(port) in line


@pytest.mark.parametrize(
    ("dashboard", "api", "port", "is_refused"),
    [
        ("127.0.0.1", "10.0.0.1", 8000, False),
        ("127.0.0.1", "10.0.0.1", 30050, False),
        ("127.0.0.1", "127.0.0.1", 8000, True),
        ("127.0.0.1", "127.0.0.1", 30050, True),
        ("127.0.0.1", "localhost", 8000, True),
        ("0.0.0.0", "10.0.0.1", 8000, True),  # noqa: S104
        ("127.0.0.1", "0.0.0.0", 30050, True),  # noqa: S104
    ],
)
def test_one_port_of_two_addresses_is_two(
    dashboard: str, api: str, port: int, is_refused: bool, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(f"http_options:\n  host: {api}\n  port: 8000\n")
    argv = ["--node-ip=10.0.0.1", f"--serve-config={config}", f"--dashboard-host={dashboard}"]
    with pytest.raises(BadSetting) if is_refused else contextlib.nullcontext():
        head_settings.read([*argv, f"--dashboard-port={port}"], {})


def test_serves_own_proxy_needs_no_proxy_ports() -> None:
    assert head_settings.read(["--node-ip=10.0.0.1", "--http-proxy=ray", "--gcs-port=30000"], {}).gcs_port == 30000


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0", "10.0.0.1/8"])
def test_a_trusted_proxy_that_is_no_address_is_a_bad_setting(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert head.main(["--node-ip=10.0.0.1"], {"FORWARDED_ALLOW_IPS": f"127.0.0.1, {value}"}) == 2
    assert "FORWARDED_ALLOW_IPS must be addresses or networks" in only_line(capsys)


@BOTH
def test_an_unknown_flag(main: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    complains(main, "--colour", "red", "unrecognized", capsys)


@BOTH
def test_a_flag_without_its_value(main: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cluster"], NOTHING) == 2
    assert "--cluster: expected one argument" in capsys.readouterr().err


@BOTH
@pytest.mark.parametrize("where", ["plain", "plain/below"])
def test_a_run_dir_that_cannot_be_made(
    main: Callable[..., int], where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain").touch()
    assert main([f"--shared-root={tmp_path}", f"--run-dir={tmp_path / where}", "--node-ip=10.0.0.1"], NOTHING) == 2
    assert "--run-dir" in only_line(capsys)


@pytest.mark.parametrize(("value", "rule"), [("-1", "from 0 to 3600"), ("nan", "number"), ("inf", "number")])
def test_a_bad_grace(value: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    complains(watchdog.main, "--stop-grace", value, rule, capsys)


def complains(main: Callable[..., int], flag: str, value: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--node-ip=10.0.0.1", f"{flag}={value}"], NOTHING) == 2
    line = only_line(capsys)
    assert flag in line and rule in line


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


@BOTH
def test_help_names_each_setting_and_its_variable(main: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"], NOTHING)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    flags = set(re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)) - {"--init"}  # an act, and no setting
    assert len(flags) > 8
    assert len(re.findall(r"\[\s*ARGUS_\w+\s*\]", text)) == len(flags)


def test_a_bad_variable_is_named_by_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert watchdog.main([], {"ARGUS_POLL_S": "soon"}) == 2
    assert "--poll" in only_line(capsys)


def test_ray_that_is_not_installed_is_a_bad_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(BadSetting, match="Ray is not installed"):
        cli.versions()


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("applications: []\n", 8000),
        ("http_options:\n  host: 0.0.0.0\n  port: 9001\napplications: []\n", 9001),
        ("http_options:\n  # port: 1\n\n  port: 9002  # of the API\n", 9002),
        ("grpc_options:\n  port: 9000\nhttp_options: {}\n", 8000),
        ("http_options:\n  host: 0.0.0.0\ngrpc_options:\n  port: 9000\n", 8000),
        ("http_options:\n  host: 0.0.0.0\n  port: 9003", 9003),
    ],
)
def test_the_api_url_has_the_port_of_the_serve_config(tmp_path: Path, text: str, port: int) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(text)
    assert launcher(f"--serve-config={config}").api_url == f"http://10.0.0.1:{port}"
    assert launcher(f"--serve-config={config}", "--api-url=https://argus").api_url == "https://argus"


def test_jitter_stays_near() -> None:
    assert all(0.8 <= cli.jitter(1.0) <= 1.2 for _ in range(1000))


def test_own_address_is_the_one_by_which_the_other_is_reached() -> None:
    assert cli.own_address("127.0.0.1", 6379) == "127.0.0.1"
    with pytest.raises(OSError):
        cli.own_address("no.such.host.invalid", 6379)


def test_nothing_above_has_started_anything() -> None:
    assert not with_variable("ARGUS_NODE", worker().mark)
