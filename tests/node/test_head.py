"""The head launcher as a real process, with a `ray` and a `serve` that are ours."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from filelock import FileLock, Timeout

from argus_ray.discovery import epoch, sentinel, tracking_keys
from argus_ray.discovery.head_json import Reader, ReadOutcome
from argus_ray.disk import atomic
from argus_ray.node import head
from tests.support.fakeray import ROOT, Machine, Program
from tests.support.noflock import site_without_flock

ADMIN_TOKEN = "of-the-admin-0123456789"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.close()


def serving(machine: Machine, *argv: str, node: str = "h", ip: str = "127.0.0.1", **environ: str) -> Program:
    program = machine.head(*argv, node=node, ip=ip, **environ)
    program.is_in_state("serving")
    return program


class Stranger:
    """Another program at a port, in this process."""

    def __init__(self, port: int, answer: bytes = b"") -> None:
        self.answer = answer
        self._listener = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Stranger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends the accept
        self._listener.close()
        self._thread.join(30)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with peer, contextlib.suppress(OSError):
                    peer.recv(4096)
                    peer.sendall(self.answer)


def is_free(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def present(machine: Machine) -> epoch.HeadClaim:
    claim = epoch.current(machine.discovery)
    assert claim is not None
    return claim


def stores(machine: Machine) -> set[str]:
    return {str(path) for path in (machine.shared / "ray" / "gcs" / machine.cluster).iterdir()}


def test_it_takes_epoch_1_makes_the_token_runs_ray_deploys_and_retires(machine: Machine) -> None:
    program = serving(
        *(machine, "--ttl=7.5", "--gcs-port=6400", "--dashboard-port=8300", "--", "--extra=1"),
        ARGUS_ADMIN_TOKEN=ADMIN_TOKEN,
        RAY_ADDRESS="elsewhere",
    )
    claim = present(machine)
    assert (claim.epoch, claim.head_ip, claim.gcs_port) == (1, "127.0.0.1", 6400)
    assert stores(machine) == {claim.gcs_dir}
    assert re.fullmatch(r"e1-ray[\d.]+-py[\d.]+-[0-9a-f]{6}", Path(claim.gcs_dir).name)
    assert stat.S_IMODE(Path(claim.gcs_dir).stat().st_mode) == 0o700
    assert re.fullmatch(r"[0-9a-f]{64}", machine.token.read_text())
    assert stat.S_IMODE(machine.token.stat().st_mode) == 0o600

    (start,) = machine.starts()
    assert {"--head", "--port=6400", "--num-cpus=0", "--num-gpus=0", "--dashboard-port=8300"} < set(start["argv"])
    assert start["argv"][-1] == "--extra=1"
    expected = {
        "ARGUS_SHARED_ROOT": str(machine.shared),
        "ARGUS_CLUSTER": machine.cluster,
        "ARGUS_EPOCH": "1",
        "ARGUS_API_URL": "http://127.0.0.1:9",
        "ARGUS_HEAD_TTL_S": "7.5",
        "ARGUS_ADMIN_TOKEN_SHA256": hashlib.sha256(ADMIN_TOKEN.encode()).hexdigest(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(machine.token),
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": claim.gcs_dir,
    }
    assert expected.items() <= start["env"].items()
    assert "RAY_ADDRESS" not in start["env"]
    assert ADMIN_TOKEN not in json.dumps(machine.starts() + machine.starts("deploys")), "plain in none of them"
    key = Path(start["env"]["ARGUS_CALL_KEY_PATH"])
    assert key.parent == machine.run_dir and stat.S_IMODE(key.stat().st_mode) == 0o600
    assert re.fullmatch("[0-9a-f]{64}", key.read_text())
    (deploy,) = machine.starts("deploys")
    assert deploy["argv"][0] == "deploy"
    assert deploy["argv"][-2:] == ["--address", "http://127.0.0.1:8300"]
    assert deploy["env"]["RAY_AUTH_TOKEN_PATH"] == str(machine.token)
    status = program.status
    assert (status["epoch"], status["address"], status["api_url"]) == (1, "127.0.0.1:6400", "http://127.0.0.1:9")

    record = machine.publish(epoch=1)
    program.terminate()
    assert machine.running() == []
    assert program.status["state"] == "stopped"
    assert not key.exists()
    reading = Reader(machine.head_file, machine.cluster).read(time.time() + 0.001, 0.0)
    assert reading.outcome is ReadOutcome.EXPIRED, "a standby need not wait"
    assert reading.record is not None
    found = reading.record
    assert found == replace(record, updated_at=found.updated_at, expires_at=found.expires_at), (
        "and all else is as it was"
    )


def test_one_that_comes_back_at_its_address_finds_its_store_and_another_one_does_not(machine: Machine) -> None:
    serving(machine).terminate()
    first, token = present(machine), machine.token.read_text()
    serving(machine).terminate()
    second = present(machine)
    assert (second.epoch, second.gcs_dir) == (2, first.gcs_dir)
    serving(machine, "--gcs-port=6400").terminate()
    third = present(machine)
    assert third.epoch == 3 and third.gcs_dir != first.gcs_dir
    serving(machine, "--gcs-port=6400", ip="127.0.0.2").terminate()
    fourth = present(machine)
    assert fourth.epoch == 4
    assert stores(machine) == {fourth.gcs_dir}, "the stores of heads that have moved away are deleted"
    assert machine.token.read_text() == token, "once for the life of a cluster"
    assert [start["env"]["RAY_gcs_storage_path"] for start in machine.starts()] == [
        claim.gcs_dir for claim in (first, second, third, fourth)
    ]


def test_a_store_of_another_ray_is_not_opened(machine: Machine) -> None:
    serving(machine).terminate()
    first = present(machine)
    old = f"{Path(first.gcs_dir).parent}/e2-ray2.1.0-py3.1.0-abcdef"
    Path(old).mkdir()
    epoch.take(machine.discovery, replace(first, gcs_dir=old))
    program = serving(machine)
    program.says("it begins with an empty")
    assert present(machine).epoch == 3
    assert stores(machine) == {present(machine).gcs_dir}
    assert present(machine).gcs_dir != old


def test_in_memory_there_is_no_store(machine: Machine) -> None:
    machine.token.parent.mkdir(parents=True)
    machine.token.write_text("mine")
    machine.token.chmod(0o644)
    serving(machine, "--gcs-storage=memory").terminate()
    assert present(machine).gcs_dir == ""
    assert not (machine.shared / "ray" / "gcs").exists()
    assert not {"RAY_gcs_storage", "RAY_gcs_storage_path"} & set(machine.starts()[0]["env"])
    assert machine.token.read_text() == "mine"
    assert stat.S_IMODE(machine.token.stat().st_mode) == 0o600


# Two of them.


def test_a_standby_elsewhere_takes_over_when_head_json_has_expired(machine: Machine) -> None:
    old = serving(machine, node="a")
    machine.publish(ttl_s=60)
    standby = machine.head(node="b", ip="127.0.0.2")
    status = standby.is_in_state("standby")
    assert status["epoch"] is None
    standby.looks_again()
    assert len(standby.lines("standby: ")) == 1
    record = machine.publish(ttl_s=0.6)
    old.kill()
    standby.says("take over: from ")
    standby.is_in_state("serving")
    assert machine.starts()[1]["at"] >= record.expires_at
    assert (present(machine).epoch, present(machine).head_ip) == (2, "127.0.0.2")
    assert machine.starts()[1]["env"]["ARGUS_EPOCH"] == "2"


def test_one_whose_head_is_well_but_whose_clock_is_off_is_waited_for_by_our_own_clock(machine: Machine) -> None:
    epoch.take(machine.discovery, epoch.HeadClaim(0, "other", "127.0.0.2", 6379))
    machine.publish(ttl_s=0.5, age_s=-3600)
    begun = time.time()
    program = serving(machine)
    program.says("take over: from other (127.0.0.2), epoch 1")
    assert machine.starts()[0]["at"] - begun >= 0.5


def test_after_a_kill_the_next_one_at_the_same_address_begins_at_once_and_cleans_up(machine: Machine) -> None:
    machine.order("grandchild")
    old = serving(machine)
    machine.publish(ttl_s=3600)
    left = machine.raylet()
    old.kill()
    old.until(lambda: machine.starts()[0]["pid"] not in machine.running(), "`ray start` has died with it")
    assert left in machine.running()
    successor = serving(machine)
    assert left not in machine.running()
    text = successor.text
    assert text.index(" clean: ") < text.index(" head: epoch 2")
    assert present(machine).gcs_dir == machine.starts()[0]["env"]["RAY_gcs_storage_path"]
    successor.terminate()
    assert machine.running() == []


def test_a_second_one_of_the_same_name_is_refused(machine: Machine) -> None:
    program = serving(machine)
    second = machine.head()
    second.ends(2)
    (line,) = second.text.splitlines()
    assert "another head launcher runs as --node-name h on this machine" in line
    assert program.child.poll() is None and present(machine).epoch == 1


def test_a_standby_ends_on_request(machine: Machine) -> None:
    serving(machine, node="a")
    standby = machine.head(node="b")
    standby.is_in_state("standby")
    standby.terminate()
    assert len(machine.starts()) == 1 and present(machine).epoch == 1


def test_one_that_is_superseded_ends_its_ray_and_becomes_a_standby(machine: Machine) -> None:
    program = serving(machine)
    machine.publish(ttl_s=600)
    content = machine.head_file.read_bytes()
    epoch.take(machine.discovery, epoch.HeadClaim(0, "other", "127.0.0.2", 6379))
    program.says("superseded: epoch 1 is over: other (127.0.0.2) is the head with epoch 2")
    program.is_in_state("standby")
    assert machine.running() == []
    assert machine.head_file.read_bytes() == content, "not ours to retire"
    machine.publish(epoch=2, ttl_s=0.3, age_s=100)
    program.says("head: epoch 3")
    program.is_in_state("serving")


# What fails.


def test_a_deployment_that_fails_is_tried_again(machine: Machine) -> None:
    machine.order("serve-fail")
    program = machine.head()
    program.says("deploy failed: exit code 1", 1)
    program.until(lambda: len(machine.starts("deploys")) >= 3, "three tries")
    status = program.is_in_state("deploying")
    assert "has failed" in status["reason"]
    machine.withdraw("serve-fail")
    program.is_in_state("serving")
    assert len(machine.starts()) == 1, "the head itself went on"


def test_settings_with_a_mistake_are_not_deployed_until_they_are_right(machine: Machine) -> None:
    path, text = machine.serve_config, machine.serve_config.read_text()
    mistake = {"verl": {"presets": {"long": {"data.max_respnse_length": 1}}}}
    path.write_text(text + yaml.safe_dump({"applications": [{"name": "argus", "args": mistake}]}))
    program = machine.head()
    program.says("deploy failed: ", 1)
    program.until(lambda: "has mistakes" in program.status["reason"], "its status says so")
    assert program.status["state"] == "deploying"
    (log,) = machine.run_dir.glob("*.deploy.log")
    assert "did you mean data.max_response_length?" in log.read_text()
    assert machine.starts("deploys") == []
    path.write_text(text)
    program.says("deployed: ")
    assert len(machine.starts("deploys")) == 1


def test_a_deployment_that_hangs_ends_with_us(machine: Machine) -> None:
    machine.order("serve-hang")
    program = machine.head()
    program.until(lambda: len(machine.starts("deploys")) == 1, "it deploys")
    program.is_in_state("deploying")
    program.terminate()
    assert machine.running() == []


@pytest.mark.parametrize(
    ("words", "is_store"),
    [("RuntimeError: Failed to start GCS.", True), ("RuntimeError: the port is taken", False)],
)
def test_only_a_store_that_does_not_open_three_times_is_given_up(machine: Machine, words: str, is_store: bool) -> None:
    machine.order("fail", words)
    program = machine.head()
    program.until(lambda: len(machine.starts()) >= 4, "four tries")
    machine.withdraw("fail")
    program.is_in_state("serving")
    paths = [start["env"]["RAY_gcs_storage_path"] for start in machine.starts()]
    assert len(set(paths[:3])) == 1
    assert (paths[3] != paths[0]) is is_store
    assert len(program.lines(words)) >= 3
    assert bool(program.lines("it begins with an empty")) is is_store
    assert [start["env"]["ARGUS_EPOCH"] for start in machine.starts()[:4]] == ["1", "2", "3", "4"]


def test_a_ray_that_dies_is_started_again_on_its_store(machine: Machine) -> None:
    program = serving(machine)
    os.kill(machine.raylet(), signal.SIGKILL)
    program.says("failed: Ray's head has ended; it said last:")
    program.says("head: epoch 2")
    program.until(lambda: len(machine.starts("deploys")) == 2, "deployed again")
    program.is_in_state("serving")
    assert len({start["env"]["RAY_gcs_storage_path"] for start in machine.starts()}) == 1


def test_a_damaged_epoch_is_waited_for_and_said_once(machine: Machine) -> None:
    path = epoch.path_in(machine.discovery)
    path.write_bytes(b"{")
    program = machine.head()
    program.says("wait: EpochUnknown")
    assert program.is_in_state("waiting")
    assert machine.starts() == []
    path.unlink()
    program.is_in_state("serving")
    assert len(program.lines("EpochUnknown")) == 1


def test_an_epoch_that_cannot_be_read_does_not_end_a_head_that_works(machine: Machine) -> None:
    program = serving(machine)
    content = atomic.read_small(epoch.path_in(machine.discovery))
    epoch.path_in(machine.discovery).write_bytes(b"{")
    program.says("warning: the epoch cannot be checked now")
    program.looks_again()
    assert program.child.poll() is None and machine.raylet() in machine.running()
    epoch.path_in(machine.discovery).write_bytes(content)
    program.terminate()
    assert machine.running() == []


def test_a_shared_filesystem_that_is_not_there_yet_is_waited_for(machine: Machine) -> None:
    aside = machine.discovery.rename(machine.discovery.with_name("aside"))
    machine.discovery.touch()
    program = machine.head()
    program.says("wait: RootUnknown")
    assert program.is_in_state("waiting")
    machine.discovery.unlink()
    aside.rename(machine.discovery)
    program.is_in_state("serving")


def test_without_flock_on_the_shared_filesystem_there_is_no_head_and_it_says_why(
    machine: Machine, tmp_path: Path
) -> None:
    site = site_without_flock(tmp_path / "site", machine.shared)
    program = machine.head(PYTHONPATH=f"{site}{os.pathsep}{ROOT}")
    program.says("lacks flock")
    assert program.is_in_state("waiting")
    assert machine.starts() == [] and epoch.current(machine.discovery) is None


def test_without_flock_on_its_own_disk_a_program_does_not_start(machine: Machine, tmp_path: Path) -> None:
    site = site_without_flock(tmp_path / "site", machine.run_dir)
    for start in (machine.head, machine.watchdog):
        program = start(PYTHONPATH=f"{site}{os.pathsep}{ROOT}")
        program.says("lacks flock")
        assert program.child.wait(20) == 2


def test_on_a_bare_mount_point_it_waits_makes_nothing_and_says_how_to_begin(machine: Machine) -> None:
    shutil.rmtree(machine.shared)
    machine.shared.mkdir()
    program = machine.head()
    program.says("wait: RootUnknown")
    assert "--init" in str(program.is_in_state("waiting"))
    assert machine.starts() == [] and list(machine.shared.iterdir()) == []
    machine.init()
    program.is_in_state("serving")
    assert present(machine).epoch == 1


def test_a_head_whose_root_was_away_begins_where_it_was(machine: Machine) -> None:
    """Its Ray dies meanwhile: on the bare mount point no epoch 1 is taken, and no empty store is made."""
    program = serving(machine)
    before = present(machine)
    away = machine.shared.rename(machine.shared.with_name("away"))
    machine.shared.mkdir()
    program.says("warning: the epoch cannot be checked now")
    os.kill(machine.raylet(), signal.SIGKILL)
    program.says("wait: RootUnknown")
    program.until(lambda: program.status.get("state") != "serving", "its status says so, too")
    assert list(machine.shared.iterdir()) == []
    machine.shared.rmdir()
    away.rename(machine.shared)
    program.is_in_state("serving")
    after = present(machine)
    assert after == replace(before, epoch=before.epoch + 1)


def test_an_epoch_file_that_was_lost_is_waited_for(machine: Machine) -> None:
    serving(machine).terminate()
    lost = epoch.path_in(machine.discovery).read_bytes()
    epoch.path_in(machine.discovery).unlink()
    program = machine.head()
    program.says("wait: EpochUnknown")
    epoch.path_in(machine.discovery).write_bytes(lost)
    program.is_in_state("serving")
    assert present(machine).epoch == 2


def test_init_makes_the_root_ours_once_and_starts_nothing(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new"
    argv = ["--init", f"--shared-root={root}", f"--cluster={machine.cluster}", "--node-ip=127.0.0.1"]
    assert head.main(argv, {}) == 1
    assert "is it mounted?" in capsys.readouterr().err and not root.exists()
    root.mkdir()
    said = set()
    for _ in range(2):
        assert head.main(argv, {}) == 0
        said.add(capsys.readouterr().out)
    (line,) = said
    made = sentinel.read(root / "ray" / "discovery" / machine.cluster)
    assert made.id in line and str(root) in line
    assert machine.starts() == []


def test_its_ray_is_killed_and_not_asked(machine: Machine) -> None:
    machine.order("deaf")
    program = serving(machine)
    program.terminate()
    assert machine.running() == [] and not (machine.orders / "asked").exists()


# Its API, and the ports.


def test_it_serves_only_while_its_own_api_answers(machine: Machine) -> None:
    machine.order("api-silent")
    program = machine.head()
    program.says("deployed: ")
    program.until(lambda: "answers 503" in program.status["reason"], "says what the API answers")
    assert program.status["state"] == "deploying" and "is deployed" in program.status["reason"]
    assert not program.lines("serving: ")
    machine.withdraw("api-silent")
    program.is_in_state("serving")
    program.says("serving: ", 1)
    machine.order("api-silent")
    program.is_in_state("recovering")
    machine.withdraw("api-silent")
    program.is_in_state("serving")
    program.says("serving: ", 2)


def test_another_program_at_its_port_is_no_api_of_ours(machine: Machine) -> None:
    """It took the port while Ray started. `serve deploy` finds nothing wrong."""
    machine.withdraw("api-port")
    machine.order("hang")
    program = machine.head()
    program.until(lambda: len(machine.starts()) == 1, "it starts Ray")
    with Stranger(machine.http_port, b"HTTP/1.0 200 OK\r\n\r\n{}") as listener:
        machine.withdraw("hang")
        program.is_in_state("port_taken")
        words = f"http://127.0.0.1:{machine.http_port} is answered by another program"
        program.until(lambda: program.status["reason"] == words, "names another program")
        program.says("port taken: ", 1)
        listener.answer = b"HTTP/1.0 200 OK\r\nX-Argus-Head: 0123\r\n\r\n{}"
        program.until(lambda: "another head" in program.status["reason"], "names the other head")
        listener.answer = b"no HTTP at all\r\n\r\n"
        words = f"(process {os.getpid()})"
        program.until(lambda: words in program.status["reason"], "names the process")
    program.says("deployed: ")
    program.is_in_state("deploying")


@pytest.mark.parametrize("which", ["api", "gcs", "dashboard", "proxy"])
def test_a_port_that_is_taken_is_named_and_waited_for(machine: Machine, which: str) -> None:
    port = {"api": machine.http_port, **machine.ports}[which]
    with Stranger(port):
        program = machine.head()
        status = program.is_in_state("port_taken")
        assert re.search(rf"port {port} is taken by \S+ \(process {os.getpid()}\)", status["reason"])
        program.looks_again()
        assert machine.starts() == []
        assert len(program.lines("port taken: ")) == 1
        # Another machine may be the head meanwhile.
        lock = FileLock(machine.discovery / "head.lock")
        program.until(lambda: is_free(lock), "leaves the lock to others")
    program.is_in_state("serving")


def test_with_rays_own_proxy_nothing_of_haproxy_is_set(machine: Machine) -> None:
    serving(machine, "--http-proxy=ray").terminate()
    serving(machine, ARGUS_HTTP_PROXY="ray").terminate()
    serving(machine).terminate()
    given = [start["env"] for start in machine.starts()]
    assert [env["RAY_SERVE_ENABLE_HA_PROXY"] for env in given] == ["0", "0", "1"]
    assert [name for name in given[0] if name.startswith("RAY_SERVE_")] == ["RAY_SERVE_ENABLE_HA_PROXY"]
    first, _, last = machine.proxy_ports.partition("-")
    assert given[2]["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] == first
    assert given[2]["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"] == last
    assert not Path(given[2]["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent.exists(), "it goes with the launcher"
    assert len({env["ARGUS_HEAD_ID"] for env in given}) == 3, "each start has a word of its own"


def test_two_heads_of_one_name_on_one_machine_do_not_end_each_other(machine: Machine, tmp_path: Path) -> None:
    """Of two pools, each with a shared root and a run dir of its own."""
    other = Machine(tmp_path / "other")
    other.cluster = machine.cluster
    other.discovery.mkdir(parents=True)
    other.init()
    try:
        serving(machine)
        first = machine.raylet()
        serving(other).kill()
        serving(other)  # which ends what the killed one has left
        assert first in machine.running()
        assert machine.starts()[0]["env"]["ARGUS_NODE"] != other.starts()[0]["env"]["ARGUS_NODE"]
    finally:
        other.close()


def test_the_tokens_that_the_service_is_told_of_reach_it_as_digests(machine: Machine, tmp_path: Path) -> None:
    with (tmp_path / "serve.yaml").open("a") as config:
        config.write("    args:\n      tokens:\n        admin: [ARGUS_ADMIN_TOKEN, SITE_ADMIN]  # NOT_THIS\n")
        config.write("        internal: OURS\n      limits: {}\n")
    values = {"SITE_ADMIN": "a" * 20, "OURS": "b" * 20, "MVP_ADMIN_TOKEN": "short", "NOT_THIS": "c" * 20}
    values["ARGUS_METRICS_TOKEN"] = "d" * 20
    program = serving(machine, "--pass-env=FAKERAY,SITE_*", **values)
    given = machine.starts()[0]["env"]
    digests = {name for name in given if name.endswith("_SHA256")}
    assert digests == {f"{name}_SHA256" for name in ("SITE_ADMIN", "OURS", "MVP_ADMIN_TOKEN", "ARGUS_METRICS_TOKEN")}
    assert not set(values.values()) & set(given.values()), "not even where --pass-env covers them"
    assert program.lines("warning: MVP_ADMIN_TOKEN: is shorter than 16 characters")


def test_the_key_of_a_tracking_server_is_in_a_file_of_its_own_and_nowhere_else(
    machine: Machine, tmp_path: Path
) -> None:
    with (tmp_path / "serve.yaml").open("a") as config:
        config.write("    args:\n      verl:\n        tracking: {wandb: {api_key_env: SITE_WANDB_KEY}}\n")
    key = "0123456789abcdef0123456789abcdef01234567"
    program = serving(machine, "--pass-env=FAKERAY,SITE_*,WANDB_*", SITE_WANDB_KEY=key, WANDB_ENTITY="team")
    given = machine.starts()[0]["env"]
    assert given["WANDB_ENTITY"] == "team"
    assert key not in json.dumps(machine.starts() + machine.starts("deploys"))
    file = Path(given[tracking_keys.VARIABLE])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert tracking_keys.read("SITE_WANDB_KEY", given) == key
    assert key not in program.text
    program.terminate()
    assert not file.exists()

    again = "f" * 40  # rotated
    program = serving(machine, SITE_WANDB_KEY=again)
    assert tracking_keys.read("SITE_WANDB_KEY", machine.starts()[-1]["env"]) == again
    program.terminate()
    program = serving(machine)
    assert program.lines("warning: SITE_WANDB_KEY is not set: runs that are to be tracked online stay on the disk")
    assert tracking_keys.read("SITE_WANDB_KEY", machine.starts()[-1]["env"]) is None


def test_a_bad_token_is_a_wrong_setting(machine: Machine) -> None:
    program = machine.head(ARGUS_ADMIN_TOKEN="tiny-one")
    program.ends(2)
    assert program.text == "argus-head: ARGUS_ADMIN_TOKEN: is shorter than 16 characters\n"
