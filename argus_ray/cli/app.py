"""The command tree. A command's module is imported when it is called: `argus --help` imports click and this alone."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from argus_ray.cli.exits import BUG, INTERRUPTED, USAGE, CliError, Detached, Ended
from argus_ray.cli.output import terminal_columns
from argus_ray.cli.session import Session, session_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_ALL = "argus_ray.cli.commands"
#: Columns of the help, at most.
_WIDEST = 110
#: Section -> name -> (module, attribute, what `--help` says). A test compares the words with those of the command.
TREE: dict[str, dict[str, tuple[str, str, str]]] = {
    "Server": {
        "login": ("login", "login", "Store the token for a server, after asking that server."),
        "logout": ("login", "logout", "Forget the token of a context."),
        "whoami": ("login", "whoami", "Show who you are to the server."),
        "context": ("context", "context", "Show, choose or remove servers."),
        "version": ("version", "version", "Show the version of this command and of the server."),
        "completion": ("completion", "completion", "Print the completion script of a shell."),
    },
    "Submit": {
        "template": ("template", "template", "Print a commented TaskSpec to start from."),
        "validate": ("validate", "validate", "Check a TaskSpec; nothing is submitted."),
        "submit": ("submit", "submit", "Submit a TaskSpec."),
        "resubmit": ("resubmit", "resubmit", "Make a new task from one that has ended."),
        "export": ("resubmit", "export", "Make a Hugging Face folder of a checkpoint."),
        "cancel": ("cancel", "cancel", "Cancel tasks."),
        "presets": ("presets", "presets", "List the presets that a submission may choose."),
    },
    "Look": {
        "tasks": ("tasks", "tasks", "List tasks, the newest first."),
        "show": ("show", "show", "Show everything about tasks."),
        "explain": ("explain", "explain", "Say why a task waits, and when it will start."),
        "queue": ("queue", "queue", "Show what waits, in the order of the queue, and what runs."),
        "watch": ("watch", "watch", "Follow the progress of tasks until they end."),
        "wait": ("wait", "wait", "Wait until tasks have ended; the exit code tells how."),
        "logs": ("logs", "logs", "Print the log of a task, or follow it."),
        "metrics": ("metrics", "metrics", "Show the curves of tasks."),
        "rollouts": ("rollouts", "rollouts", "Show what a ppo or grpo task has generated."),
        "files": ("files", "files", "List the files of a task, or download one."),
        "open": ("open", "open_", "Open the page of a task in the browser."),
    },
    "Operate (admin)": {
        "user": ("user", "user", "List, add, disable or enable users."),
        "token": ("token", "token", "List, issue or revoke tokens."),
        "nodes": ("nodes", "nodes", "Show the nodes of the pool."),
        "node": ("node", "node", "Cordon, drain or uncordon a node."),
        "maintenance": ("maintenance", "maintenance", "Show maintenance, or turn it on or off."),
        "top": ("top", "top", "Show the pool and its tasks, again and again."),
        "audit": ("audit", "audit", "Show who did what."),
        "usage": ("usage", "usage", "Show GPU hours by user, workload or day."),
    },
}
_COMMANDS = {name: found for section in TREE.values() for name, found in section.items()}


def global_options(*, hidden: bool) -> list[click.Option]:
    """They may stand before the command and after it; the last one counts."""

    def option(*names: str, help: str, **attributes: Any) -> click.Option:
        return click.Option(
            list(names), help=help, hidden=hidden, expose_value=False, is_eager=True, callback=_take, **attributes
        )

    from argus_ray.cli.complete import context_names

    return [
        option(
            "--context", metavar="NAME", help="The server to ask, of `argus context ls`.", shell_complete=context_names
        ),
        option(
            "--json",
            is_flag=True,
            default=None,
            help="Print the API's own documents; those that follow one another one a line.",
        ),
        option("-q", "--quiet", is_flag=True, default=None, help="Print ids only."),
        option("--color", type=click.Choice(["auto", "always", "never"]), help="Colours; auto: on a terminal."),
        option("--utc", is_flag=True, default=None, help="Show times as they are, in UTC."),
        option("--debug", is_flag=True, default=None, help="Show the traceback of an error."),
    ]


def _take(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name is not None:
        setattr(session_of(context).flags, parameter.name, value)


class Command(click.Command):
    """A command that takes the options of all commands."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        taken = {name for parameter in self.params for name in parameter.opts}
        self.params += [each for each in global_options(hidden=True) if not taken.intersection(each.opts)]


class Group(click.Group):
    command_class = Command
    group_class = type

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{meant}")
        return super().resolve_command(ctx, args)


class _ReaderGone(Exception):
    """Nobody reads what is written any more."""


class Argus(Group):
    """The root: its commands are named here, and imported when one of them runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(f"{_ALL}.{module}"), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(map(len, _COMMANDS))
        for section, commands in TREE.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(longest), words) for name, (_, _, words) in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=words) for name, (_, _, words) in _COMMANDS.items() if name.startswith(incomplete)
        ]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would make exit code 1 of it.
            raise _ReaderGone from error

    def main(  # type: ignore[override]  # it exits, always
        self, args: Sequence[str] | None = None, prog_name: str | None = "argus", **extra: Any
    ) -> NoReturn:
        """Run, and exit with one of the codes of exits.py."""
        extra.pop("standalone_mode", None)
        _mend_streams()
        extra.setdefault("obj", Session(os.environ))
        # As click finds it out, whose import of shutil costs 5 ms of `--help`.
        extra.setdefault("terminal_width", max(min(terminal_columns(), _WIDEST) - 2, 50))
        session: Session = extra["obj"]
        try:
            words = sys.argv[1:] if args is None else args
            code = _run(
                lambda: super(Argus, self).main(args, prog_name, standalone_mode=False, **extra), session, words
            )
        except (_ReaderGone, BrokenPipeError):
            _die_of_the_pipe()
        sys.exit(code)


def _run(call: Callable[[], Any], session: Session, words: Sequence[str]) -> int:
    try:
        returned = call()
        sys.stdout.flush()
        return returned if isinstance(returned, int) else 0
    except Ended as ended:
        sys.stdout.flush()
        return ended.exit_code
    except CliError as error:
        if session.flags.debug:
            _show_traceback()
        session.out.error(error)
        return error.exit_code
    except click.exceptions.Abort as abort:
        # click's word for Ctrl-C, and for the end of the input at a question.
        cause = abort.__cause__
        session.out.note(cause.words if isinstance(cause, Detached) else "interrupted")
        return INTERRUPTED
    except click.ClickException as error:
        # What is wrong may stand before the option.
        if session.flags.json or "--json" in words:
            session.flags.json = True
            session.out.error(CliError(error.format_message(), error.exit_code, code="usage"))
        else:
            error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except (_ReaderGone, BrokenPipeError):
        raise
    except OSError as error:
        if session.flags.debug:
            _show_traceback()
        if (told := _told(error)) is None:
            # The client's own are told by now, and a file's have its name: this is stdout, on a full disk, say.
            _write_no_more()
            words = f"stdout cannot be written: {error.strerror or error}"
            told = CliError(words, USAGE, code="output", hint="what is there may be cut off: free space, and try again")
        session.out.error(told)
        return told.exit_code
    except Exception as error:
        if session.flags.debug:
            _show_traceback()
        if (told := _told(error)) is not None:
            session.out.error(told)
            return told.exit_code
        words = f"this is a bug of argus: {type(error).__name__}: {error}"
        session.out.error(
            CliError(words, BUG, code="internal", hint="once more with --debug, and report what it prints")
        )
        return BUG


def _told(error: Exception) -> CliError | None:
    """An error of the client, or of a file, in our words. Where the client was not imported, it has raised none."""
    if "argus_ray.client.errors" not in sys.modules and not isinstance(error, OSError):
        return None
    from argus_ray.cli import problems

    return problems.told(error)


def _show_traceback() -> None:
    import traceback

    from argus_ray.cli import safe

    sys.stderr.write(safe.block(traceback.format_exc()) + "\n")


def _mend_streams() -> None:
    """What others have written has characters that not every stdout can: they are replaced on a terminal, and written
    as escapes in a pipe. A stream that is closed takes everything, and has nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process
        elif name == "stdout" and stream.errors == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if stream.isatty() else "backslashreplace")


def _die_of_the_pipe() -> None:
    """As any filter whose reader has gone: by SIGPIPE, without a word. SIGPIPE itself stays ignored until now, since a
    connection to the server that breaks would raise it, too."""
    import signal

    _write_no_more()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(USAGE)


def _write_no_more() -> None:
    """What is still in the buffer must not be tried again at the exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from argus_ray import __version__

        click.echo(f"argus {__version__}")
        context.exit()


cli = Argus(
    name="argus",
    help="Train on a shared Ray cluster: submit a TaskSpec, and see why it waits, how far it is and why it failed.\n\n"
    "ID is a whole task id, a unique beginning of one, its last four hex digits, `last`, or `-` for ids from stdin.",
    params=[
        *global_options(hidden=False),
        click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version."
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST},
    no_args_is_help=True,
)


def main() -> None:
    """The process. It does not take itself apart at the end, which costs 20 ms of CPU; all that was written is flushed,
    and nothing is registered for the exit."""
    import gc

    # What is imported now stays, and need not be looked through again.
    gc.freeze()
    gc.enable()
    try:
        cli.main()
    except SystemExit as end:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
            if isinstance(end.code, int):
                os._exit(end.code)
        raise
