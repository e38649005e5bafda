"""Launcher and watchdog with real Ray in an environment that turns calls round; and where the tokens are then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from argus_ray.local.client import Api
from argus_ray.local.cluster import OneMachine
from argus_ray.node import processes
from tests.support.raycluster import ADMIN_TOKEN, ROOT
from tests.support.recorder import Recorder, recorder
from tests.support.running import name_of

#: A call of a run that says that it is the admin.
FORGED = """
import pickle, ray
from argus_ray.core import actions
ray.init(address="auto", log_to_driver=False)
state = ray.get_actor("argus-state", namespace="argus")
calls = pickle.dumps([(actions.Credential(actions.Role.ADMIN), actions.ListUsers())])
version = ray.get(state.fingerprint.remote())
for proof in (b"", b"x" * 32):
    print(type(pickle.loads(ray.get(state.batch.remote(calls, version, proof)))[0]).__name__)
"""


class Odd(OneMachine):
    """Its launcher and watchdogs have what `odd` says in their environment, whatever else they are given."""

    odd: dict[str, str]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **getattr(self, "odd", {})}

    def head_environment(self) -> dict[str, str]:
        found = {**super().head_environment(), **self.odd}
        del found["NETRC"]
        return found


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Recorder]:
    with recorder("proxy", tmp_path / "proxy.log") as made:
        yield made


@pytest.fixture
def machine(proxy: Recorder, tmp_path: Path) -> Iterator[Odd]:
    (tmp_path / ".netrc").write_text("default login somebody password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    root = Path(f"/tmp/argus-e-{os.getpid()}")  # short: Ray's sockets lie below it
    root.mkdir(mode=0o700)
    made = Odd(root, f"tests-odd-{os.getpid()}", environ={"ARGUS_ADMIN_TOKEN": ADMIN_TOKEN})
    made.odd = {
        **proxy.variables(),
        "no_proxy": "",
        "NO_PROXY": "",
        "HOME": str(tmp_path),
        "RAY_AUTH_TOKEN": "of-another-cluster",
        "RAY_ADDRESS": "127.0.0.1:1",
        "RAY_NAMESPACE": "other",
        "RAY_RUNTIME_ENV_HOOK": "no.such.hook",
        "RAY_START_HOOK": "no.such.hook",
        "RAY_TMPDIR": "/nowhere",
        "TMPDIR": str(tmp_path),
    }
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(root, ignore_errors=True)


def test_it_serves_and_joins_and_no_token_is_where_it_must_not_be(machine: Odd, proxy: Recorder) -> None:
    machine.launch_head(ROOT / "serve_config.yaml")
    machine.launch_worker("w")
    machine.wait_for_launch(("w",), timeout_s=200)
    assert Api(machine.url, ADMIN_TOKEN).get("/api/v2/me")["role"] == "admin"
    assert proxy.requests == [], "the proxy has seen nothing, so the token neither"

    cluster_token = (machine.shared_root.parent / "ray-token").read_text()
    launcher = machine.children["head"].pid
    looked = 0
    for pid in processes.marked(machine.mark):
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        looked += 1
        assert cluster_token.encode() not in environ, pid
        assert (ADMIN_TOKEN.encode() in environ) is (pid == launcher), pid
    assert looked > 10, "the GCS, raylets, agents, actors, replicas"

    of_worker = {name: processes.variable(_raylet(machine, "w"), name) for name in ("http_proxy", "no_proxy")}
    assert of_worker["http_proxy"] == proxy.url and "127.0.0.10" in str(of_worker["no_proxy"])

    for path in ("/api/serve/applications/", "/api/v0/actors?detail=1"):
        headers = {"Authorization": f"Bearer {cluster_token}"}
        asked = urllib.request.Request(machine.dashboard + path, headers=headers)  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(asked, timeout=30) as answer:
            shown = answer.read().decode()
        assert "argus" in shown and ADMIN_TOKEN not in shown, path

    of_a_run = {**OneMachine.environment(machine), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FORGED], env=of_a_run, cwd="/", capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["Unavailable"] * 2, done.stderr


def _raylet(machine: OneMachine, name: str) -> int:
    """The id of a worker's raylet."""
    below = processes.descendants(machine.children[name].pid)
    (found,) = [pid for pid in below if name_of(pid) == "raylet"]
    return found
