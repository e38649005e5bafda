"""Which files of a job root a user may name over HTTP, and what is never given. `disk/job_files.py` opens them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence

#: Folders of the job root that hold what Argus has lent to the run: keys of the operator's, say (`argus_secrets`).
HIDDEN = ("secrets",)
#: Bytes: NAME_MAX and PATH_MAX of Linux.
_MAX_NAME = 255
_MAX_PATH = 4096
#: Each level takes an open file while one below it is looked for.
MAX_DEPTH = 32


class BrokenPath(ValueError):
    """The path breaks a rule, which is the only argument."""


def names_of(path: bytes) -> tuple[str, ...]:
    """The components of a path below a job root, as `os` takes them; none for the job root itself.

    `path` is what the client has sent, without its percent-encoding; a name need not be UTF-8. A slash at the end is
    allowed. Raises BrokenPath.
    """
    if not path:
        return ()
    if path.startswith(b"/"):
        raise BrokenPath("must be relative to the job root")
    if len(path) > _MAX_PATH:
        raise BrokenPath(f"must be at most {_MAX_PATH} bytes long")
    if any(byte < 0x20 or byte == 0x7F for byte in path):
        raise BrokenPath("may hold no control characters")
    parts = path.removesuffix(b"/").split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        raise BrokenPath("may not hold empty, '.' or '..' components")
    if any(len(part) > _MAX_NAME for part in parts):
        raise BrokenPath(f"each component must be at most {_MAX_NAME} bytes long")
    if len(parts) > MAX_DEPTH:
        raise BrokenPath(f"must be at most {MAX_DEPTH} folders deep")
    return tuple(os.fsdecode(part) for part in parts)


def is_hidden(names: Sequence[str]) -> bool:
    """Whether the path leads into a folder that is never given, in any spelling that some filesystem takes for it."""
    if not names:
        return False
    return unicodedata.normalize("NFKC", names[0]).casefold().strip(" .") in HIDDEN
