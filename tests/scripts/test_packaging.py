"""What an operator installs: systemd's units, the container's entry point, compose.yaml, and that docs/operations.md
names everything that the launcher and the watchdog can be told and can say."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from argus_ray.discovery import head_json
from argus_ray.discovery.head_json import ReadOutcome
from argus_ray.node import cli, head, watchdog

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "scripts" / "systemd"
#: What the example file does not show: the units set it.
SET_BY_UNITS = "ARGUS_RUN_DIR"

Setting = tuple[str, str, str | None]


@pytest.fixture(params=["head", "watchdog"])
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _unit(role: str) -> str:
    return (UNITS / f"argus-{role}.service").read_text()


def _values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)


def _settings(role: str, monkeypatch: pytest.MonkeyPatch) -> list[Setting]:
    """Flag, variable and default of each, as the program itself makes them."""
    found: list[Setting] = []
    add = cli.add

    def record(parser: Any, environ: Any, flag: str, variable: str, default: str | None, text: str) -> None:
        found.append((flag, variable, default))
        add(parser, environ, flag, variable, default, text)

    monkeypatch.setattr(cli, "add", record)
    main = {"head": head.main, "watchdog": watchdog.main}[role]
    assert main(["--shared-root=nowhere"], {}) == cli.BAD_SETTINGS
    return found


# --- systemd ---


def _verify(folder: Path, name: str, text: str) -> list[str]:
    """What systemd has to say about this unit; what it says about others of the machine is theirs."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not on this machine")
    path = folder / name
    # The install path is not here.
    path.write_text(text.replace("/opt/argus/.venv/bin/python", "/bin/sh"))
    command = [analyze, "verify", "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if name in line]
    return said or ([f"exit code {done.returncode}"] if done.returncode else [])


def _systemd_version() -> int:
    """0 if there is none."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return 0
    done = subprocess.run([analyze, "--version"], capture_output=True, text=True, timeout=60, check=True)
    found = re.match(r"systemd (\d+)", done.stdout)
    return int(found[1]) if found else 0


def test_systemd_accepts_the_unit(role: str, tmp_path: Path) -> None:
    assert _verify(tmp_path, f"argus-{role}.service", _unit(role)) == []


@pytest.mark.parametrize("wrong", ["KillMod=mixed", "Restart=sometimes", "ExecStop=/no/such/program"])
def test_the_check_of_units_sees_a_mistake(wrong: str, tmp_path: Path) -> None:
    text = _unit("watchdog").replace("[Install]", f"{wrong}\n[Install]")
    assert _verify(tmp_path, "argus-watchdog.service", text) != []


def test_systemd_accepts_the_backoff_where_it_has_it(role: str, tmp_path: Path) -> None:
    if _systemd_version() < 254:
        pytest.skip("RestartSteps= needs systemd 254")
    more = (UNITS / "backoff.conf").read_text().split("[Service]")[1]
    text = _unit(role).replace("[Install]", f"{more}\n[Install]")
    assert _verify(tmp_path, f"argus-{role}.service", text) == []


def test_a_unit_runs_its_module_and_restarts_it(role: str) -> None:
    unit = _unit(role)
    assert _values(unit, "ExecStart") == [f"/opt/argus/.venv/bin/python -m argus_ray.node.{role}"]
    assert _values(unit, "Restart") == ["always"]
    assert _values(unit, "RestartPreventExitStatus") == [str(cli.BAD_SETTINGS)]
    assert _values(unit, "StartLimitIntervalSec") == ["0"], "else systemd gives up"
    assert _values(unit, "KillMode") == ["mixed"], "Ray's processes are the launcher's to end"
    assert _values(unit, "User") == ["argus"]


def test_a_unit_waits_for_the_stop(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The head has no grace: it ends its Ray at once.
    grace = next((default for flag, _, default in _settings(role, monkeypatch) if flag == "--stop-grace"), "0")
    (timeout,) = _values(_unit(role), "TimeoutStopSec")
    assert grace is not None and int(timeout) > float(grace) + 15
    assert _compose()["services"]["head"]["stop_grace_period"] == "60s"
    assert float(grace) + 15 < 60


def test_workers_do_not_read_the_admin_token() -> None:
    assert "head.env" not in _unit("watchdog")
    assert "/etc/argus/head.env" in _values(_unit("head"), "EnvironmentFile")


def test_a_unit_finds_the_machines_settings_and_has_its_folder(role: str) -> None:
    unit = _unit(role)
    assert _values(unit, "EnvironmentFile")[0] == "-/etc/argus/argus.env"
    (folder,) = _values(unit, "RuntimeDirectory")
    assert f"{SET_BY_UNITS}=/run/{folder}" in _values(unit, "Environment")


def test_the_example_of_settings_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (UNITS / "argus.env.example").read_text()
    shown = re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.MULTILINE)
    settings = _settings("head", monkeypatch) + _settings("watchdog", monkeypatch)
    assert {name for name, _ in shown} == {variable for _, variable, _ in settings} - {SET_BY_UNITS} | {
        "RAY_AUTH_TOKEN_PATH"
    }
    assert not re.search(r"^[^#\n]", text, re.MULTILINE), "an example changes nothing"
    defaults = {variable: default for _, variable, default in settings}
    wrong = [
        name
        for name, value in shown
        if value and defaults.get(name) and value != defaults[name] and name != "ARGUS_SERVE_CONFIG"
    ]
    assert wrong == []


# --- containers ---


def _entrypoint(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "entrypoint", *arguments],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("name", "only"), [("head", "--gcs-storage"), ("worker", "--join-timeout")], ids=["head", "worker"]
)
def test_the_entry_point_runs_the_role_with_its_arguments(name: str, only: str) -> None:
    done = _entrypoint("--help", ARGUS_ROLE=name)
    assert (done.returncode, done.stderr) == (0, "")
    assert only in done.stdout


@pytest.mark.parametrize("environ", [{}, {"ARGUS_ROLE": ""}, {"ARGUS_ROLE": "Head"}, {"ARGUS_ROLE": "../argus-head"}])
def test_the_entry_point_refuses_any_other_role_in_one_line(environ: dict[str, str]) -> None:
    done = _entrypoint("--help", **environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "ARGUS_ROLE" in done.stderr and "head or worker" in done.stderr


def test_a_wrong_setting_is_told_from_the_entry_point_too() -> None:
    done = _entrypoint("--poll=never", ARGUS_ROLE="worker")
    assert done.returncode == cli.BAD_SETTINGS
    assert done.stderr == "argus-watchdog: --poll must be a number from 0.05 to 3600\n"


@pytest.mark.parametrize(("name", "state"), [("head", "standby"), ("worker", "waiting")], ids=["head", "worker"])
def test_signals_arrive_since_it_becomes_the_program(name: str, state: str, tmp_path: Path) -> None:
    """The head finds another one in office, so that it starts no Ray."""
    folder = head_json.folder(str(tmp_path), "argus")
    folder.mkdir(parents=True)
    status = tmp_path / "run" / f"{name}-argus-here.json"
    flags = [f"--shared-root={tmp_path}", f"--run-dir={tmp_path / 'run'}", "--node-name=here", "--node-ip=127.0.0.1"]
    begun = _entrypoint("--init", *flags, ARGUS_ROLE="head")
    assert (begun.returncode, begun.stderr) == (0, "") and f"{tmp_path} is the root" in begun.stdout
    with FileLock(folder / "head.lock"):
        program = subprocess.Popen(
            [ROOT / "scripts" / "entrypoint", *flags],
            env={"PATH": os.environ["PATH"], "ARGUS_ROLE": name},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            deadline = time.monotonic() + 60
            facts: dict[str, Any] = {}
            while facts.get("state") != state and time.monotonic() < deadline and program.poll() is None:
                time.sleep(0.05)
                facts = json.loads(status.read_text()) if status.exists() else {}
            assert (facts.get("state"), facts.get("pid")) == (state, program.pid)
            program.send_signal(signal.SIGTERM)
            said, _ = program.communicate(timeout=60)
        finally:
            program.kill()
            program.wait()
    assert program.returncode == 0
    assert "stopped: nothing is left running" in said


def _compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def test_compose_is_a_head_and_two_workers_on_one_shared_root() -> None:
    services = _compose()["services"]
    roles = {name: service["environment"]["ARGUS_ROLE"] for name, service in services.items()}
    assert roles == {"head": "head", "worker": "worker"}
    assert services["worker"]["deploy"]["replicas"] == 2
    assert set(_compose()["volumes"]) == {"private"}
    assert all("private:/private" in service["volumes"] for service in services.values())
    assert [port.rsplit(":", 2)[-1] for port in services["head"]["ports"]] == ["8000", "8265"]
    assert "127.0.0.1:8265:8265" in services["head"]["ports"], "not for the network"
    assert "ports" not in services["worker"]


def test_compose_knows_every_setting_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    services = _compose()["services"]
    settings = _settings("head", monkeypatch) + _settings("watchdog", monkeypatch)
    known = {variable for _, variable, _ in settings} | {"ARGUS_ROLE", "ARGUS_ADMIN_TOKEN"}
    assert set(services["head"]["environment"]) | set(services["worker"]["environment"]) <= known
    assert services["head"]["environment"]["ARGUS_ADMIN_TOKEN"].startswith("${ARGUS_ADMIN_TOKEN:?"), "asked for"
    assert not any("TOKEN" in name for name in services["worker"]["environment"])


def test_the_image_has_what_its_file_names() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_VERSION=3\.11\.\d+$", text, re.MULTILINE), "to the patch level, which Ray compares"
    assert re.search(r"^FROM python:\$\{PYTHON_VERSION\}-slim-\w+$", text, re.MULTILINE)
    assert re.search(r"apt-get install .*\bgcc libc6-dev\b", text), "Triton compiles at run time"
    locks = {"requirements.lock", *re.findall(r"ARGUS_LOCK=([\w.-]+)", text)}
    assert locks == {"requirements.lock", "requirements-gpu.lock"}
    assert all((ROOT / lock).exists() for lock in locks)
    for path in re.findall(r"/opt/argus/([\w./-]+)", text):
        assert (ROOT / path).exists(), path
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv"} <= set(ignored)


# --- docs/operations.md ---


def _page() -> str:
    return (ROOT / "docs" / "operations.md").read_text()


def _rows(heading: str) -> str:
    """The first cells of the tables below this heading."""
    section = re.split(r"^#+ ", _page().split(f"\n{heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    return "\n".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))


def test_every_setting_is_documented_with_its_default(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = _page()
    of_this_machine = {"--node-name", "--run-dir", "--serve-config"}
    missing = [
        flag
        for flag, variable, default in _settings(role, monkeypatch)
        if f"| `{flag}` | `{variable}` | " + (f"`{default}`" if default and flag not in of_this_machine else "")
        not in page
    ]
    assert missing == []


def test_every_verb_of_the_log_is_documented(role: str) -> None:
    source = (ROOT / "argus_ray" / "node" / f"{role}.py").read_text()
    verbs = set(re.findall(r'\.say\(\s*"([a-z ]+)"', source)) | {"warning"}
    if role == "watchdog":
        verbs |= {"wait", "stay"}  # by the decision's name
    assert len(verbs) > 8
    rows = _rows({"watchdog": "### Watchdog", "head": "### Head launcher"}[role])
    assert {verb for verb in verbs if f"`{verb}`" not in rows} == set()


def test_every_state_of_the_status_files_is_documented(role: str) -> None:
    source = (ROOT / "argus_ray" / "node" / f"{role}.py").read_text()
    states = set(re.findall(r'_report\(\s*"([a-z]+)"', source))
    states |= {"joined"} if role == "watchdog" else {"deploying", "serving"}
    section = _page().split("### Status files")[1].split("\n## ")[0]
    assert {state for state in states if f"`{state}`" not in section} == set()


def test_every_outcome_of_a_look_is_documented() -> None:
    rows = _rows("### head.json")
    assert [outcome.value for outcome in ReadOutcome if f"`{outcome.value}`" not in rows] == []


@pytest.mark.parametrize(
    ("state", "is_alive", "code"),
    [("joined", True, 0), ("standby", True, 0), ("joined", False, 1), ("waiting", True, 1)],
)
def test_the_health_check_tells_the_good_from_the_bad(state: str, is_alive: bool, code: int, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    status = tmp_path / "status.json"
    status.write_text(json.dumps({"state": state, "reason": "so it is", "pid": os.getpid() if is_alive else ended.pid}))
    (command,) = re.findall(r"^(python3 -c '.*?') /run/argus", _page(), re.MULTILINE | re.DOTALL)
    done = subprocess.run(f"{command} {status}", shell=True, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stderr == ("" if code == 0 else f"{state}: so it is\n")


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", _page(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", _page()) if link not in anchors] == []
