"""What a shell completes. From this machine alone: a key that is pressed asks no server."""

from __future__ import annotations

import os

import click
from click.shell_completion import CompletionItem

STATES = ("QUEUED", "PENDING_RESOURCES", "SUBMITTING", "SUBMITTED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELED")
#: Words for several states, in capitals as the table shows them, and not.
GROUPS: dict[str, tuple[str, ...]] = {
    "waiting": ("QUEUED", "PENDING_RESOURCES"),
    "starting": ("SUBMITTING", "SUBMITTED"),
    "active": ("SUBMITTING", "SUBMITTED", "RUNNING"),
    "ended": ("SUCCEEDED", "FAILED", "CANCELED"),
}
WORKLOADS = ("sft", "grpo", "ppo", "export")


def context_names(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from argus_ray.cli import config
    from argus_ray.cli.exits import CliError

    try:
        names = config.load(config.config_path(os.environ)).contexts
    except CliError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def states(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _listed((*STATES, *GROUPS), incomplete)


def workloads(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _listed(WORKLOADS, incomplete)


def _listed(names: tuple[str, ...], incomplete: str) -> list[CompletionItem]:
    """The last of several with commas between them."""
    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(before + comma + name) for name in names if name.lower().startswith(last.lower())]
