"""What Ray inherits: a list. As the launcher, the watchdog and a real `serve deploy` have it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import pytest

from argus_ray.node import environment
from tests.support.fakeray import Machine, Program
from tests.support.recorder import Recorder, recorder

#: Each turns a call of ours round, or hands out what is not for users' programs.
TURNS_ROUND = {
    "RAY_AUTH_TOKEN": "of-another-cluster",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ADDRESS": "elsewhere:6379",
    "RAY_API_SERVER_ADDRESS": "http://elsewhere:8265",
    "RAY_DASHBOARD_ADDRESS": "http://elsewhere:8265",
    "RAY_NAMESPACE": "other",
    "RAY_RUNTIME_ENV_HOOK": "no.such.hook",
    "RAY_START_HOOK": "no.such.hook",
    "RAY_JOB_SUBMIT_HOOK": "no.such.hook",
    "RAY_JOB_HEADERS": '{"a": "b"}',
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    "RAY_NODE_ID": "f" * 56,
    "RAY_RAYLET_PID": "1",
    "RAY_TMPDIR": "/nowhere",
    "RAY_gcs_storage": "memory",
    "PYTHONSTARTUP": "/nowhere",
    "AWS_SECRET_ACCESS_KEY": "of-a-bucket-0123456786",
    "NOBODY_HAS_THOUGHT_OF_IT": "1",
    "ARGUS_ADMIN_TOKEN": "of-the-admin-0123456789",
    "MVP_ADMIN_TOKEN": "of-the-admin-0123456788",
    "MVP_INTERNAL_TOKEN": "of-the-internal-0123456787",
    "ARGUS_METRICS_TOKEN": "of-the-metrics-0123456784",
    "WANDB_API_KEY": "of-a-team-0123456785",
}
SECRETS = (
    "WANDB_API_KEY",
    "RAY_AUTH_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "ARGUS_ADMIN_TOKEN",
    "MVP_ADMIN_TOKEN",
    "MVP_INTERNAL_TOKEN",
    "ARGUS_METRICS_TOKEN",
)
#: What programs on a worker need.
FOR_JOBS = {
    "CUDA_VISIBLE_DEVICES": "0", "NVIDIA_DRIVER_CAPABILITIES": "all", "NCCL_DEBUG": "INFO", "HF_HOME": "/hf",
    "LD_LIBRARY_PATH": "/lib", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC", "UCX_TLS": "tcp",
    "TMPDIR": "/scratch",
    "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "3", "WANDB_MODE": "offline", "HOME": "/home/argus",
    "USER": "argus",
    "VLLM_CACHE_ROOT": "/v", "TORCH_HOME": "/t", "TRITON_CACHE_DIR": "/c", "RAY_memory_usage_threshold": "0.9",
    "RAY_USE_TLS": "0", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.close()


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Recorder]:
    with recorder("proxy", tmp_path / "proxy.log") as made:
        yield made


def joined(machine: Machine, *argv: str, **environ: str) -> Program:
    machine.make_token()
    machine.publish(head_ip="127.0.0.1")
    program = machine.watchdog(*argv, **environ)
    program.is_in_state("joined")
    return program


# A worker.


def test_a_worker_joins_whatever_its_environment_says_and_gives_ray_what_jobs_need(machine: Machine) -> None:
    program = joined(machine, **TURNS_ROUND, **FOR_JOBS)
    (start,) = machine.starts()
    given = start["env"]
    assert given["RAY_AUTH_MODE"] == "token" and given["RAY_AUTH_TOKEN_PATH"] == str(machine.token)
    assert not (set(TURNS_ROUND) - {"RAY_AUTH_MODE"}) & set(given)
    assert FOR_JOBS.items() <= given.items()
    (line,) = program.lines("environment: ")
    assert all(name in line for name in TURNS_ROUND), line
    assert not set(re.findall(r"\w+", line)) & set(FOR_JOBS)
    assert not any(TURNS_ROUND[name] in program.text for name in SECRETS), "names only"


def test_jobs_get_the_proxy_but_never_for_the_clusters_own_addresses(machine: Machine, proxy: Recorder) -> None:
    joined(machine, "--node-ip=127.0.0.77", **proxy.variables(), no_proxy="corp.example")
    given = machine.starts()[0]["env"]
    assert given["http_proxy"] == given["HTTPS_PROXY"] == given["all_proxy"] == proxy.url
    assert "grpc_proxy" not in given
    assert given["no_proxy"] == given["NO_PROXY"]
    for host in ("127.0.0.1", "127.0.0.77", "localhost", "::1", "x.corp.example"):
        assert proxy_bypass_environment(host, {"http": proxy.url, "no": given["no_proxy"]}), host
    assert not proxy_bypass_environment("api.wandb.ai", {"http": proxy.url, "no": given["no_proxy"]})
    assert proxy.requests == []


def test_an_operator_adds_names(machine: Machine) -> None:
    joined(machine, ARGUS_PASS_ENV="FAKERAY,SITE_*,ONE", SITE_A="1", SITE_B="2", ONE="3", ONE_MORE="4")
    given = machine.starts()[0]["env"]
    assert (given["SITE_A"], given["SITE_B"], given["ONE"]) == ("1", "2", "3")
    assert "ONE_MORE" not in given


def test_a_beginning_that_covers_a_secret_does_not_pass_it_on(machine: Machine) -> None:
    program = joined(machine, "--pass-env=FAKERAY,ARGUS_*,RAY_*,MVP_*,WANDB_*", **TURNS_ROUND, RAY_PROFILING="1")
    given = machine.starts()[0]["env"]
    assert given["RAY_PROFILING"] == "1"
    for name in (
        "WANDB_API_KEY",
        "ARGUS_ADMIN_TOKEN",
        "MVP_INTERNAL_TOKEN",
        "RAY_AUTH_TOKEN",
        "RAY_ADDRESS",
        "RAY_RUNTIME_ENV_HOOK",
    ):
        assert name not in given
        assert len(program.lines(name)) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [("*", "beginnings such as"), ("A B", "beginnings such as"), ("A=1", "beginnings such as"),
     ("RAY_AUTH_TOKEN", "cannot pass RAY_AUTH_TOKEN on"), ("ARGUS_ADMIN_TOKEN", "must not reach Ray")],
)  # fmt: skip
def test_what_cannot_be_passed_on_is_a_wrong_setting(machine: Machine, text: str, words: str) -> None:
    for start in (machine.head, machine.watchdog):
        program = start(ARGUS_PASS_ENV=text)
        program.ends(2)
        assert "--pass-env" in program.text and words in program.text


def test_names_that_are_none_are_counted(machine: Machine) -> None:
    program = joined(machine, **{"BASH_FUNC_x%%": "() { :; }", "A\x1b[31m": "1"})
    (line,) = program.lines("environment: ")
    assert "2 with odd names" in line and "\x1b" not in program.text


# A head.


def test_the_heads_ray_inherits_a_list_and_no_proxy(machine: Machine, proxy: Recorder) -> None:
    program = machine.head(**TURNS_ROUND, **proxy.variables(), LANG="C.UTF-8", RAY_SERVE_HAPROXY_MAXCONN="77")
    program.is_in_state("serving")
    (start,), (deploy,) = machine.starts(), machine.starts("deploys")
    for given in (start["env"], deploy["env"]):
        assert not set(proxy.variables()) & set(given)
        assert not (set(TURNS_ROUND) - {"RAY_AUTH_MODE", "RAY_gcs_storage"}) & set(given)
        assert given["RAY_AUTH_MODE"] == "token" and given["RAY_gcs_storage"] == "rocksdb"
        assert given["NETRC"] == os.devnull
        assert (given["LANG"], given["RAY_SERVE_HAPROXY_MAXCONN"]) == ("C.UTF-8", "77")
    (line,) = program.lines("environment: ")
    assert "HTTPS_PROXY" in line and "RAY_AUTH_TOKEN" in line
    assert not any(TURNS_ROUND[name] in program.text for name in SECRETS) and proxy.url not in program.text
    assert proxy.requests == []


@pytest.mark.parametrize("way", ["proxy", "netrc"])
def test_a_real_serve_deploy_reaches_the_dashboard_with_the_clusters_token(
    machine: Machine, proxy: Recorder, tmp_path: Path, way: str
) -> None:
    """Ray's own command, under the launcher, in front of a dashboard that writes down who calls."""
    home = tmp_path / "home"
    home.mkdir()
    if way == "netrc":
        (home / ".netrc").write_text("default login somebody password else\n")
        (home / ".netrc").chmod(0o600)
    with (tmp_path / "serve.yaml").open("a") as config:
        config.write("applications: []\n")
    real = Path(sys.executable).with_name("serve")
    (machine.orders / "bin" / "serve").write_text(f'#!/bin/sh\n{real} "$@" && touch {machine.orders}/deployed\n')
    machine.order("hang")
    variables = proxy.variables() if way == "proxy" else {}
    program = machine.head(HOME=str(home), **variables)
    program.until(lambda: len(machine.starts()) == 1, "it starts Ray")
    with recorder("dashboard", tmp_path / "dashboard.log", machine.ports["dashboard"]) as dashboard:
        machine.withdraw("hang")
        program.until(lambda: bool(program.lines("argus-head deploy")), "has deployed or failed", timeout_s=120)
        program.is_in_state("serving")
    assert program.lines("deployed: ") and not program.lines("deploy failed")
    token = machine.token.read_text()
    called = dashboard.requests
    assert [each["line"].split()[0] for each in called] == ["GET", "PUT"]
    assert {each["headers"]["authorization"] for each in called} == {f"Bearer {token}"}
    assert proxy.requests == []


# The rules by themselves.


def test_around_proxies_keeps_what_was_said() -> None:
    assert environment.around_proxies({"NO_PROXY": "*"}, ["10.0.0.1"]) == {"no_proxy": "*", "NO_PROXY": "*"}
    found = environment.around_proxies({"NO_PROXY": "corp.example"}, ["10.0.0.1", "localhost"])
    assert found["no_proxy"] == "corp.example,localhost,127.0.0.1,::1,10.0.0.1"


def test_each_entry_of_the_lists_is_well_formed() -> None:
    for text in (environment._ALWAYS, environment._JOBS, environment._HEAD):
        assert environment.entries(",".join(text.split())) == tuple(text.split())
