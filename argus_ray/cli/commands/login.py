"""login, logout, whoami."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from argus_ray.cli import config, safe
from argus_ray.cli.app import Command
from argus_ray.cli.exits import NOT_FOUND, TOKEN, USAGE, CliError
from argus_ray.cli.session import Session, pass_session
from argus_ray.cli.task_words import count
from argus_ray.client import paths


@click.command(cls=Command)
@click.argument("url", metavar="URL")
@click.option("--token-stdin", is_flag=True, help="Read the token from stdin; without it, it is asked for.")
@click.option("--name", metavar="CTX", help="The name of the context; by default the host of the URL.")
@click.option(
    "--ca-file", type=click.Path(exists=True, dir_okay=False, resolve_path=True), help="Certificates to trust."
)
@pass_session
def login(session: Session, url: str, token_stdin: bool, name: str | None, ca_file: str | None) -> None:
    """Store the token for a server, after asking that server.

    The token is asked for, or read from stdin. There is no option for it: the list of processes would show it.
    """
    if name is not None and not config.NAME.fullmatch(name):
        raise CliError(
            f"--name {safe.cell(name)}: 1 to 64 of A-Z a-z 0-9 _ . @ -, the first a letter or a digit", USAGE
        )
    url = config.checked_url(url, "URL")
    out = session.out
    if config.is_exposed(url):
        out.warn(f"{url} is plain http: your token can be read on the way. Use https.")
    token = _token(token_stdin, url)
    ca_file = ca_file or session.environ.get("ARGUS_CA_FILE") or None
    session.target = config.Target(url, token, ca_file, name)
    me = session.open_server.get(paths.ME)
    with config.edited(session.config_path) as box:
        chosen = name or config.name_for(url, box[0])
        old = box[0].contexts.get(chosen)
        if old is not None and old.url != url and name is None:
            raise CliError(f"the context {chosen} is of another server", USAGE, hint="argus login URL --name NAME")
        made = config.Context(chosen, url, token, ca_file, old.more if old else {})
        box[0] = box[0].with_context(made, use=True)
    if out.flags.json:
        out.document(me)
    else:
        out.note(f"logged in to {url} as {_who(me)}; the context is {chosen}")


def _token(from_stdin: bool, url: str) -> str:
    if from_stdin:
        token = sys.stdin.readline(8192).strip()
        where = "stdin"
    elif sys.stdin.isatty():
        token = click.prompt(f"Token for {url}", hide_input=True, err=True).strip()
        where = "your input"
    else:
        raise CliError("stdin is no terminal to ask for the token", USAGE, hint="argus login URL --token-stdin < FILE")
    if not token:
        raise CliError(f"no token came from {where}", TOKEN)
    config.check_token(token, where)
    return token


def _who(me: dict[str, object]) -> str:
    user = me["user_id"]
    return f"{user} ({me['role']})" if user else str(me["role"])


@click.command(cls=Command)
@click.argument("name", metavar="[CTX]", required=False)
@pass_session
def logout(session: Session, name: str | None) -> None:
    """Forget the token of a context.

    The server still takes it: whoever has issued it can revoke it.
    """
    with config.edited(session.config_path) as box:
        chosen = name or session.flags.context or session.environ.get("ARGUS_CONTEXT") or box[0].current
        if chosen is None or chosen not in box[0].contexts:
            raise CliError(f"there is no context {chosen or ''}".rstrip(), NOT_FOUND, hint="argus context ls")
        box[0] = replace(box[0], contexts={**box[0].contexts, chosen: config.logged_out(box[0].contexts[chosen])})
    session.out.note(f"the token of {chosen} is forgotten")


@click.command(cls=Command)
@pass_session
def whoami(session: Session) -> None:
    """Show who you are to the server."""
    me = session.server.get(paths.ME)
    out = session.out
    if out.flags.json:
        out.document(me)
        return
    if out.flags.quiet:
        out.line(str(me["user_id"] or me["role"]))
        return
    token, limits, usage = me.get("token") or {}, me.get("limits") or {}, me.get("usage") or {}
    expires = token.get("expires_at")
    quota = limits.get("gpus_quota")
    recent = usage.get("last_30_days")
    out.pairs(
        [
            ("user", str(me["user_id"] or "-")),
            ("role", str(me["role"])),
            ("server", session.target.url),
            ("context", session.target.context),
            ("token", f"{token['token_id']}, expires {out.moment(expires) or 'never'}" if token else None),
            ("waiting", f"{limits['waiting_tasks']} of {limits['waiting_tasks_limit']} tasks" if limits else None),
            ("gpus", f"{limits['gpus_held']} held" + (f" of {quota}" if quota is not None else "") if limits else None),
            (
                "30 days",
                f"{recent['gpu_seconds'] / 3600:.1f} GPU hours, {count(recent['tasks'], 'task')}" if recent else None,
            ),
        ]
    )
