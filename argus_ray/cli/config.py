"""Which server is asked, and with which token: a flag over the environment over the file.

The file holds tokens. It is made for its owner alone, and refused if others can read it. A token of the file goes to
the server that it was stored for and to no other, whatever ARGUS_URL says.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from argus_ray.cli import config_text
from argus_ray.cli.exits import TOKEN, USAGE, CliError
from argus_ray.client.trust import is_loopback

_MAX_BYTES = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True)
class Context:
    name: str
    url: str
    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    #: Fields of a newer version, kept as they are.
    more: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Config:
    current: str | None = None
    contexts: Mapping[str, Context] = field(default_factory=dict)

    def with_context(self, context: Context, *, use: bool) -> Config:
        current = context.name if use or self.current is None else self.current
        return Config(current, {**self.contexts, context.name: context})

    def without(self, name: str) -> Config:
        left = {each: context for each, context in self.contexts.items() if each != name}
        return Config(None if self.current == name else self.current, left)


@dataclass(frozen=True)
class Target:
    """What a call needs."""

    url: str
    token: str | None = field(repr=False)
    ca_file: str | None
    #: None: from the environment alone.
    context: str | None


def config_path(environ: Mapping[str, str]) -> Path:
    if named := environ.get("ARGUS_CONFIG"):
        return Path(named).expanduser()
    base = environ.get("XDG_CONFIG_HOME", "")
    # A relative one is to be ignored, says the XDG specification.
    try:
        folder = Path(base) if base.startswith("/") else Path(environ.get("HOME") or "~").expanduser() / ".config"
    except RuntimeError:  # a user whom the machine does not know, as in a container
        folder = Path("/nonexistent")
    return folder / "argus" / "config.yaml"


def load(path: Path) -> Config:
    """What is in the file; an empty configuration if there is none. Raises CliError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):  # a home of /dev/null, as services have it
        return Config()
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}", USAGE) from None
    try:
        # Before it is opened as a file, which a folder cannot be.
        _check_private(path, os.fstat(descriptor))
    except CliError:
        os.close(descriptor)
        raise
    with open(descriptor, "rb") as file:
        raw = file.read(_MAX_BYTES + 1)
    try:
        if len(raw) > _MAX_BYTES:
            raise config_text.BadText("is longer than 1 MiB")
        return _config_of(config_text.read(raw.decode()))
    except ValueError as error:
        words = error if isinstance(error, config_text.BadText) else "it is not UTF-8"
        raise CliError(f"{path} cannot be read: {words}", USAGE, hint="mend it, or move it away and log in") from None


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise CliError(f"{path} is no plain file", USAGE)
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise CliError(
            f"{path} holds tokens, and others can read or change it (mode {mode:04o})",
            USAGE,
            hint=f"chmod 600 {path}",
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise CliError(f"{path} belongs to another user", USAGE)


def _config_of(found: dict[str, str | dict[str, config_text.Section]]) -> Config:
    contexts = {}
    sections = found.get("contexts", {})
    if isinstance(sections, str):
        raise config_text.BadText("contexts must be a mapping")
    for name, fields in sections.items():
        if "url" not in fields:
            raise config_text.BadText(f"the context {name} has no url")
        more = {each: value for each, value in fields.items() if each not in ("url", "token", "ca_file")}
        contexts[name] = Context(name, fields["url"], fields.get("token"), fields.get("ca_file"), more)
    current = found.get("current")
    return Config(current if isinstance(current, str) else None, contexts)


@contextlib.contextmanager
def edited(path: Path) -> Iterator[list[Config]]:
    """Read, change, write, while no other `argus` does. The list holds the configuration; replace its one item."""
    # Followed, since a file that a link leads to (of a dotfiles folder) is to be replaced, and not the link.
    path = path.resolve()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            box = [load(path)]
            before = box[0]
            yield box
            if box[0] != before:
                _replace(path, _text_of(box[0]))
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}", USAGE) from None


def _text_of(config: Config) -> str:
    contexts = {}
    for context in config.contexts.values():
        fields = {"url": context.url, "token": context.token, "ca_file": context.ca_file, **context.more}
        contexts[context.name] = {name: value for name, value in fields.items() if value is not None}
    return config_text.write(config.current, contexts)


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    # O_EXCL: nobody has laid a file or a link there that others can read.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # not on Windows, where two logins at once are the user's own doing
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a filesystem without locks: as above
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def target(environ: Mapping[str, str], flag: str | None) -> Target:
    """Whom to ask. Raises CliError if nobody is named."""
    config = load(config_path(environ))
    url, token = environ.get("ARGUS_URL"), environ.get("ARGUS_TOKEN") or None
    ca_file = environ.get("ARGUS_CA_FILE") or None
    if token is not None:
        check_token(token, "ARGUS_TOKEN")
    if url and flag is None:
        url = checked_url(url, "ARGUS_URL")
        stored = next((each for each in config.contexts.values() if each.url == url), None)
        if token is None and stored is not None:
            token = stored.token
        return Target(url, token, ca_file or (stored.ca_file if stored else None), stored.name if stored else None)
    name = flag or environ.get("ARGUS_CONTEXT") or config.current
    if name is None:
        raise CliError("no server is known", USAGE, hint="argus login URL, or set ARGUS_URL and ARGUS_TOKEN")
    if name not in config.contexts:
        known = ", ".join(config.contexts) or "none"
        raise CliError(f"there is no context {name!r}; there are: {known}", USAGE, hint="argus context ls")
    chosen = config.contexts[name]
    chosen_url = checked_url(chosen.url, f"the context {name}")
    if flag is not None:
        # The flag names a server with its token. The environment's goes there too, unless ARGUS_URL says whose it is.
        is_others = bool(url) and checked_url(url or "", "ARGUS_URL") != chosen_url
        token = chosen.token or (None if is_others else token)
    else:
        token = token or chosen.token
    return Target(chosen_url, token, ca_file or chosen.ca_file, name)


def needs_token(found: Target) -> str:
    if found.token is None:
        raise CliError(f"no token for {found.url}", TOKEN, hint=f"argus login {found.url}, or set ARGUS_TOKEN")
    return found.token


def check_token(token: str, where: str) -> None:
    """Raises CliError for what cannot travel in a header; never shows it."""
    if not re.fullmatch(r"[!-~]{1,4096}", token):
        raise CliError(f"the token of {where} has blanks, or characters that no token has", USAGE)


def checked_url(text: str, where: str) -> str:
    """The URL in one form, without a slash at its end. Raises CliError."""
    try:
        if "://" not in text:
            text = f"http://{text}" if is_loopback(urlsplit(f"//{text}").hostname or "") else f"https://{text}"
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise CliError(f"{where}: this is no URL", USAGE) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CliError(f"{where}: must be http://HOST[:PORT] or https://HOST[:PORT]", USAGE)
    if parts.username is not None or parts.password is not None:
        raise CliError(f"{where}: a URL with a user or a password is not taken", USAGE)
    if parts.query or parts.fragment or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise CliError(f"{where}: must have no query, fragment or blank", USAGE)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{shown}{parts.path.rstrip('/')}"


def is_exposed(url: str) -> bool:
    """Whether the token would cross a network in plain text."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def name_for(url: str, config: Config) -> str:
    """The context of this URL if there is one, else the host's name; with the port if that is taken."""
    for context in config.contexts.values():
        if context.url == url:
            return context.name
    parts = urlsplit(url)
    host = re.sub(r"[^A-Za-z0-9_.@-]", "-", parts.hostname or "").strip("-.") or "argus"
    return host if host not in config.contexts else f"{host}-{parts.port or parts.scheme}"


def logged_out(context: Context) -> Context:
    return replace(context, token=None)
