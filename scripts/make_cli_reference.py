"""Write docs/cli.md from the commands of `argus` themselves; tests/cli/test_reference.py compares it.

.venv/bin/python scripts/make_cli_reference.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from argus_ray.cli import exits
from argus_ray.cli.app import TREE, cli, global_options

DOCUMENT = Path(__file__).parent.parent / "docs" / "cli.md"
_HEAD = """\
# The command `argus`

<!-- Made by scripts/make_cli_reference.py from the commands themselves. -->

The service hands it out: one file for Python 3.11 or newer, without Ray and without pip, always of the server's
version.

```sh
curl -fsSO $ARGUS/argus.pyz
python3 argus.pyz login $ARGUS
```

Where Argus is installed it is `argus`.

**ID** is a whole task id, a unique beginning of one, its last four hex digits, `last` (your newest task), or `-` for
ids from stdin. If more than one task answers to it, the error lists them.

**Output.** stdout has data only; notes, warnings and errors go to stderr. Times are relative on a terminal and RFC 3339
in a pipe. In a table at least two blanks part columns, and no cell holds two. `--json` prints the API's own documents:
one, or, of a list of several pages and of what is followed, one a line. An error is then a line of JSON on stderr, with
`code`, `detail`, `errors`, `request_id`, `exit_code` and `next`. Text that others have written reaches the terminal
without escape sequences and control characters; `logs --raw` gives it as it is.

**When the service is away,** reads and submissions are tried again for a minute, with growing pauses; each submission
has an Idempotency-Key, so it makes one task. `logs -f` and `audit -f` try for ten minutes and go on where they were.

## Environment and configuration
A flag counts before the environment, and the environment before the file.

| variable | what it is |
|---|---|
| `ARGUS_URL`, `ARGUS_TOKEN` | the server, and the token for it |
| `ARGUS_CONTEXT` | the context to use, as `--context` |
| `ARGUS_CONFIG` | the file; by default `$XDG_CONFIG_HOME/argus/config.yaml`, or `~/.config/argus/config.yaml` |
| `ARGUS_CA_FILE` | certificates to trust in the place of the system's |
| `NO_COLOR` | without colours; `--color` counts before it |
| `HTTPS_PROXY`, `NO_PROXY` | as of other programs; never for an address of this machine |

`argus login` writes the file with mode 0600, and a file that others can read or change is refused. A stored token goes
to the server that it was stored for, and to no other, whatever `ARGUS_URL` says. There is no option for a token: the
list of processes would show it. Plain `http` to another machine is warned of. The file is the small part of YAML that
it needs: `current`, and under `contexts` for each name `url`, `token` and `ca_file`, each on a line of its own.

## Exit codes
| code | meaning |
|---|---|
"""


_CODES = """
10 and 11 come from `wait`, `watch`, `logs -f`, `metrics -f`, and from `submit`, `resubmit` and `export` with `--watch`
or `--wait`. Of several tasks a failure counts before a cancel. A reader of the output that leaves (`| head`) ends the
command by SIGPIPE, without a word.
"""


def text() -> str:
    """The whole document."""
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in exits.MEANINGS)
    parts = [_HEAD + codes + _CODES, _options("Options of all commands", global_options(hidden=False))]
    for section, commands in TREE.items():
        parts.append(f"## {section}\n")
        for name in commands:
            command = cli.get_command(click.Context(cli), name)
            assert command is not None
            parts += _command(command, ("argus", name))
    return "\n".join(parts).rstrip("\n") + "\n"


def _command(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    context = click.Context(command, info_name=path[-1])
    yield f"### {' '.join(path)}\n"
    if isinstance(command, click.Group):
        yield _help(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            usage = " ".join(inner.collect_usage_pieces(click.Context(inner)))
            yield f"**`{' '.join((*path, name))} {usage}`** {(inner.help or '').strip()}\n"
            if listed := _listed([each for each in inner.params if isinstance(each, click.Option)]):
                yield listed
        return
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```\n{' '.join(path)} {usage}\n```\n"
    yield _help(command)
    if listed := _listed([each for each in command.params if isinstance(each, click.Option)]):
        yield listed


def _help(command: click.Command) -> str:
    paragraphs = (command.help or "").strip().split("\n\n")
    return "\n\n".join(" ".join(line.strip() for line in each.splitlines()) for each in paragraphs) + "\n"


def _options(title: str, options: list[click.Option]) -> str:
    return f"## {title}\nThey may stand before the command or after it.\n\n{_listed(options)}"


def _listed(options: list[click.Option]) -> str:
    rows = []
    for option in options:
        record = None if option.hidden else option.get_help_record(click.Context(click.Command("argus")))
        if record is not None:
            name, words = (cell.replace("|", "\\|") for cell in record)
            rows.append(f"| `{name}` | {words.replace('  [', ' [')} |")
    if not rows:
        return ""
    return "\n".join(["| option | |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(text())
