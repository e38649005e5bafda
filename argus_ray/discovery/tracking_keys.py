"""Keys of tracking servers and secrets of webhooks, on their way from the launcher's environment to the scheduler.

Ray's processes do not hold them in their environment, which users' code of the same system user can read, and no
setting and no table has them. The launcher writes them to a file of mode 0600 in the head's local run dir, beside the
key of calls, each time it starts Ray; the scheduler reads it anew for each attempt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from argus_ray.disk import atomic

#: Names the file.
VARIABLE = "ARGUS_TRACKING_KEYS_PATH"
#: The variable that holds the key where no setting names another one.
DEFAULT = "WANDB_API_KEY"
_KEY = re.compile(r"[\x21-\x7e]{1,512}")


class BadKey(ValueError):
    """A key cannot be one; the words name its variable, and never a value."""


def names_in(config: str) -> tuple[str, ...]:
    """The variables that a serve_config.yaml may mean by `api_key_env`, and by `secret_env` of webhooks; none where
    nothing is tracked or told. By its text, since the launcher has no YAML reader; one too many does no harm."""
    text = re.sub(r"(^|\s)#.*", "", config)
    secrets = re.findall(r"\bsecret_env[\"']?\s*:\s*[\"']?([A-Z_][A-Z0-9_]*)", text)
    if not re.search(r"\bwandb[\"']?\s*:", text):
        return tuple(dict.fromkeys(secrets))
    named = re.findall(r"\bapi_key_env[\"']?\s*:\s*[\"']?([A-Z_][A-Z0-9_]*)", text)
    return tuple(dict.fromkeys([*(named or [DEFAULT]), *secrets]))


def found(names: tuple[str, ...], environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The keys that the environment holds, by the name of their variable; and warnings. Raises BadKey."""
    keys = {name: environ[name] for name in names if environ.get(name)}
    for name, value in keys.items():
        if not _KEY.fullmatch(value):
            raise BadKey(f"{name}: must be 1 to 512 visible ASCII characters, without spaces or line ends")
    missing = [name for name in names if name not in keys]
    words = "is not set: runs that are to be tracked online stay on the disk, webhooks that it signs are not told"
    return keys, tuple(f"{name} {words}" for name in missing)


def write(path: Path, keys: Mapping[str, str]) -> None:
    """For its owner alone. Raises OSError."""
    atomic.write_atomically(path, json.dumps(dict(keys)).encode(), mode=0o600)


def read(name: str, environ: Mapping[str, str]) -> str | None:
    """The key of this variable; None if there is none. On a head that was started by hand the environment itself has
    it. Raises OSError."""
    path = environ.get(VARIABLE)
    if not path:
        return environ.get(name) or None
    try:
        keys = json.loads(atomic.read_small(Path(path)))
        key = keys.get(name)
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        raise OSError(f"{path} holds no keys") from None
    return key if isinstance(key, str) else None
