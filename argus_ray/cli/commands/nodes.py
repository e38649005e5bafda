"""nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from argus_ray.cli import ids, safe
from argus_ray.cli.app import Command
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.table import Column
from argus_ray.cli.task_words import count
from argus_ray.client import paths


@click.command(cls=Command)
@pass_session
def nodes(session: Session) -> None:
    """Show the nodes of the pool."""
    found = session.server.get(paths.NODES)
    out = session.out
    if out.flags.json:
        out.document(found)
    elif out.flags.quiet:
        for each in found["nodes"]:
            out.line(safe.cell(each["node_id"]))
    else:
        for line in node_table(session, found):
            out.line(line)
        out.note(pool_line(found))


def pool_line(found: Mapping[str, Any]) -> str:
    workers = [each for each in found["nodes"] if not each["is_head"]]
    free, total = (sum(each[f"gpus_{what}"] for each in found["nodes"]) for what in ("free", "total"))
    return f"{count(len(workers), 'worker')}, {free:g} of {total:g} GPUs free"


def node_table(session: Session, found: Mapping[str, Any]) -> list[str]:
    rows = []
    for each in found["nodes"]:
        users: dict[str, float] = {}
        for task in each.get("tasks") or []:
            users[task["user_id"]] = users.get(task["user_id"], 0) + task["gpus"]
        rows.append(
            [
                each["hostname"] or "-",
                each["ip"],
                f"{each['gpus_free']:g}/{each['gpus_total']:g}",
                f"{each['cpus_free']:g}/{each['cpus_total']:g}",
                _state(each),
                ", ".join(f"{name}:{gpus:g}" for name, gpus in users.items()),
                each["barred"] or "-",
            ]
        )
    away = [[each["machine"], "-", "-", "-", f"{each['state']} (away)", "-", each["reason"]] for each in found["away"]]
    names = ("NODE", "ADDRESS", "GPUS FREE", "CPUS FREE", "STATE", "USERS")
    columns = [Column(name) for name in names]
    return session.out.table_lines([*columns, Column("BARRED", gives_way=True)], [*rows, *away])


def _state(node: Mapping[str, Any]) -> str:
    if node["cordon"] is not None:
        return str(node["cordon"]["state"])
    return "head" if node["is_head"] else "ready" if node["barred"] is None else "barred"


def tasks_left(cordon: Mapping[str, Any]) -> str:
    return ", ".join(ids.short(task) for task in cordon["tasks"]) or "nothing"
