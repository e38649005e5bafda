"""docs/cli.md is what the commands say of themselves."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import click

from argus_ray.cli import exits
from argus_ray.cli.app import TREE, cli

ROOT = Path(__file__).parents[2]


def test_the_reference_is_made_of_the_commands_of_today() -> None:
    spec = importlib.util.spec_from_file_location("make_cli_reference", ROOT / "scripts" / "make_cli_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "cli.md").read_text()
    assert module.text() == written, "run scripts/make_cli_reference.py"
    for section in TREE.values():
        for name in section:
            assert f"### argus {name}\n" in written


def test_every_exit_code_is_told_and_used() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert codes == {code for code, _ in exits.MEANINGS}


def test_every_option_and_command_says_what_it_does() -> None:
    def checked(command: click.Command, path: str) -> None:
        assert command.help and command.help.strip().partition("\n")[0].endswith("."), path
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help and re.search(r"[.\]]$", option.help), f"{path} {option.opts}"
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                inner = command.get_command(click.Context(command), name)
                assert inner is not None
                checked(inner, f"{path} {name}")

    for section in TREE.values():
        for name in section:
            found = cli.get_command(click.Context(cli), name)
            assert found is not None
            checked(found, name)


def test_no_option_takes_a_token() -> None:
    """The list of processes shows what a command was started with."""
    for section in TREE.values():
        for name in section:
            found = cli.get_command(click.Context(cli), name)
            assert found is not None
            assert not [option for option in found.params if "--token" in option.opts], name
