"""What a command imports, which is what its start costs. `scripts/bench cli` measures it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from argus_ray.cli.app import TREE, cli
from tests.cli.conftest import Person

#: Heavy, or of the server.
_NEVER = ("ray", "pydantic", "fastapi", "yaml", "rich", "plotext", "prometheus_client", "numpy", "pandas", "sqlite3")


def imported(*words: str, **more: str) -> set[str]:
    """The modules that a command imports, without those that the environment's `.pth` files import at each start (the
    finder of an editable installation, for one)."""
    code = (
        "import sys; given = set(sys.modules)\n"
        "import json, contextlib, io\n"
        "from argus_ray.cli.app import cli\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "    try: cli.main(sys.argv[1:])\n"
        "    except SystemExit: pass\n"
        "print(json.dumps(sorted(set(sys.modules) - given)))\n"
    )
    environ = {
        "PATH": "/usr/bin:/bin",
        "ARGUS_URL": "http://127.0.0.1:1",
        "ARGUS_TOKEN": "x" * 20,
        "HOME": "/nonexistent",
        **more,
    }
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    return set(json.loads(ran.stdout))


def test_the_help_imports_no_command_and_no_client() -> None:
    found = imported("--help")
    assert "click" in found
    assert not [name for name in found if name.startswith(("argus_ray.client", "argus_ray.cli.commands.", "httpx2"))]
    # What only a command needs that asks somebody.
    assert not found.intersection({"argus_ray.cli.config", "secrets", "shutil", "ipaddress", "urllib.parse", "pathlib"})
    assert not found.intersection(_NEVER)


def test_a_command_imports_its_own_module_and_the_client_when_it_asks() -> None:
    offline = imported("template", "sft")
    assert "httpx2" not in offline
    online = imported("context", "ls") | imported("validate", "--offline", "/dev/null")
    assert "httpx2" not in online
    usage = imported("tasks", "--columns", "none")
    assert "httpx2" not in usage


def test_a_command_that_asks_imports_nothing_of_the_server() -> None:
    # It is refused at once: `retry` would take a minute, so the name is one that nobody knows.
    code = "import argus_ray.cli.server, argus_ray.cli.problems, sys, json; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    found = set(json.loads(ran.stdout))
    assert {"argus_ray.client.transport", "http.client"} <= found
    assert not found.intersection(_NEVER)
    # What takes longest of all to import, and none of them is needed for a call and its answer.
    assert not [name for name in found if name.startswith(("httpx2", "httpcore2", "argus_ray.client.models"))]


def test_a_list_of_tasks_needs_neither_httpx2_nor_the_models(alice: Person) -> None:
    alice.submit()
    environ = {name: value for name, value in alice.environ.items() if value is not None}
    found = imported("tasks", **environ)
    assert "argus_ray.client.transport" in found and "argus_ray.cli.commands.tasks" in found
    for name in ("httpx2", "anyio", "argus_ray.client.models", "logging", "importlib.metadata", "secrets", "shutil"):
        assert name not in found, name
    assert not found.intersection(_NEVER)


@pytest.mark.parametrize("section", list(TREE))
def test_the_words_of_the_help_are_those_of_the_commands(section: str) -> None:
    import click

    context = click.Context(cli)
    for name, (_, _, words) in TREE[section].items():
        command = cli.get_command(context, name)
        assert command is not None and command.name == name
        assert (command.help or "").partition("\n")[0] == words, name
