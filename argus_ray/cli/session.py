"""One call of `argus`: its options, its output, and the server, each made when it is first needed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from argus_ray.cli.output import Flags, Out

if TYPE_CHECKING:
    from argus_ray.cli import config
    from argus_ray.cli.server import Server


class Session:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.flags = Flags()

    @functools.cached_property
    def out(self) -> Out:
        return Out(self.flags, self.environ)

    @functools.cached_property
    def target(self) -> config.Target:
        from argus_ray.cli import config

        found = config.target(self.environ, self.flags.context)
        if config.is_exposed(found.url):
            self.out.warn(f"{found.url} is plain http: your token can be read on the way. Use https.")
        return found

    @functools.cached_property
    def server(self) -> Server:
        """With a token. Raises CliError if there is none."""
        from argus_ray.cli import config

        config.needs_token(self.target)
        return self.open_server

    @functools.cached_property
    def open_server(self) -> Server:
        """For calls that need no token."""
        from argus_ray.cli.server import Server

        made = Server.of(self.target, self.out)
        # How long ago something was is told by the clock that told when it was.
        self.out.now = made.now
        return made

    @property
    def config_path(self) -> Any:
        from argus_ray.cli import config

        return config.config_path(self.environ)


def session_of(context: click.Context) -> Session:
    return cast(Session, context.find_root().obj)


_F = TypeVar("_F")


def pass_session(function: Any) -> Any:
    """The command's first argument is the Session."""

    @click.pass_context
    def with_session(context: click.Context, /, *args: Any, **values: Any) -> Any:
        return context.invoke(function, session_of(context), *args, **values)

    return functools.update_wrapper(with_session, function)
