"""What the head's Ray processes are given in the place of secrets: digests of the tokens, and the path of a key.

Users' code of the same operating-system user can read the environment of Ray's processes, and everybody with Ray's
token what Serve and the GCS hold. So the launcher keeps the plain tokens to itself. The key proves that a call to a
detached actor comes from the head's own processes: it lies in the head's local run dir, mode 0600.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from argus_ray.disk import atomic

#: The variables that hold a token where no setting names others.
TOKEN_VARIABLES = ("ARGUS_ADMIN_TOKEN", "MVP_ADMIN_TOKEN", "MVP_INTERNAL_TOKEN", "ARGUS_METRICS_TOKEN")
#: After the name of a token's variable: that of its SHA-256, in hexadecimal.
DIGEST_SUFFIX = "_SHA256"
#: Names the file with the key of calls.
KEY_VARIABLE = "ARGUS_CALL_KEY_PATH"
#: Characters; shorter ones can be guessed by trying, and from their digest faster than from answers.
MIN_TOKEN_LENGTH = 16

#: The variables of the old single-tenant service. Its clients must go on working, so a short token there is a
#: warning; anywhere else it is an error.
_LEGACY_PREFIX = "MVP_"
#: What can travel in an Authorization header.
SENDABLE = re.compile(r"[\x21-\x7e]{1,512}")
_HEX = re.compile(r"[0-9a-f]{64}")


class BadToken(ValueError):
    """Tokens break rules; the words name the variables, and never a value."""

    def __init__(self, rules: Iterable[str]) -> None:
        self.rules = tuple(rules)
        super().__init__("; ".join(self.rules))


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def digests(names: Iterable[str], environ: Mapping[str, str]) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The digest of each token that the environment holds, plain or as a digest, by the name of its variable; and
    warnings. An empty variable counts as not set. Raises BadToken with every broken rule."""
    found: dict[str, bytes] = {}
    problems: list[str] = []
    warnings: list[str] = []
    for name in dict.fromkeys(names):
        if value := environ.get(name):
            if not SENDABLE.fullmatch(value):
                problems.append(f"{name}: must be 1 to 512 visible ASCII characters, without spaces or line ends")
                continue
            if len(value) < MIN_TOKEN_LENGTH:
                rule = f"{name}: is shorter than {MIN_TOKEN_LENGTH} characters"
                (warnings if name.startswith(_LEGACY_PREFIX) else problems).append(rule)
            found[name] = digest(value)
        elif value := environ.get(name + DIGEST_SUFFIX):
            if _HEX.fullmatch(value):
                found[name] = bytes.fromhex(value)
            else:
                problems.append(f"{name}{DIGEST_SUFFIX}: must be 64 hexadecimal digits")
    if problems:
        raise BadToken(problems)
    return found, tuple(warnings)


def as_variables(found: Mapping[str, bytes]) -> dict[str, str]:
    """The digests as the environment of Ray's processes holds them."""
    return {name + DIGEST_SUFFIX: value.hex() for name, value in found.items()}


def names_in(config: str) -> tuple[str, ...]:
    """The variables that a serve_config.yaml may mean by `tokens`, and those of no setting: every word of that block
    that could be one. By its text, since the launcher has no YAML reader; one too many does no harm."""
    block = re.search(r"^( *)tokens:(.*\n(?:\1 .*\n|[ ]*(?:#.*)?\n)*)", config + "\n", re.MULTILINE)
    text = re.sub(r"#.*", "", block[2]) if block else ""
    return tuple(dict.fromkeys([*TOKEN_VARIABLES, *re.findall(r"\b[A-Z_][A-Z0-9_]*\b", text)]))


def make_key(path: Path) -> None:
    """A new key, for its owner alone. Raises OSError."""
    atomic.write_atomically(path, secrets.token_hex(32).encode(), mode=0o600)


def read_key(environ: Mapping[str, str]) -> bytes | None:
    """The key of this head's calls; None on a head that was started by hand, which has none. Raises OSError."""
    path = environ.get(KEY_VARIABLE)
    if not path:
        return None
    text = atomic.read_small(Path(path)).decode(errors="replace")
    if not _HEX.fullmatch(text):
        raise OSError(f"{path} holds no key")
    return bytes.fromhex(text)
