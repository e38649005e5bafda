"""Ids and tokens: their grammar, and how they are put together. Randomness and time come in as arguments."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timezone

from argus_ray.core.errors import FieldError, InvalidRequest

#: Found by secret scanners: a fixed prefix, then 256 random bits as 64 hex digits.
TOKEN_PREFIX = "argus_u_"  # noqa: S105 - the public prefix, not a secret
TOKEN_RE = re.compile(r"argus_u_[0-9a-f]{64}")

#: A user id becomes a folder name and a part of task ids: lower case, no leading or trailing hyphen, and no
#: two hyphens in a row, since `--` separates the attempt's number.
_USER_ID_RE = re.compile(r"[a-z0-9](?:-?[a-z0-9]){0,31}")
_SUBMISSION_RE = re.compile(r"(?P<task>argus-[a-z0-9-]+)--a(?P<number>[0-9]{2,})")


def check_user_id(user_id: str) -> str:
    """Return `user_id`, or raise InvalidRequest naming the field and the rule."""
    if not _USER_ID_RE.fullmatch(user_id) or len(user_id) > 32:
        raise InvalidRequest(
            "user_id is not valid",
            [FieldError("user_id", "1 to 32 of a-z, 0-9 and single hyphens; no hyphen at either end")],
        )
    return user_id


def task_id(user_id: str, workload: str, now: float, entropy: bytes) -> str:
    """`argus-<user>-<workload>-<YYYYMMDD-HHMMSS>-<4 hex>`; `now` is Unix time, shown in UTC; 2 bytes of entropy."""
    stamp = datetime.fromtimestamp(now, timezone.utc).strftime("%Y%m%d-%H%M%S")
    return f"argus-{user_id}-{workload}-{stamp}-{entropy[:2].hex()}"


def workload_of(task: str) -> str:
    """The workload that a task id names. ValueError for what is no task id."""
    parts = task.rsplit("-", 4)
    if len(parts) != 5:
        raise ValueError(f"not a task id: {task!r}")
    return parts[1]


def user_of(task: str) -> str:
    """Whose task this is. ValueError for what is no task id."""
    parts = task.rsplit("-", 4)
    if len(parts) != 5 or not parts[0].startswith("argus-"):
        raise ValueError(f"not a task id: {task!r}")
    return parts[0].removeprefix("argus-")


def attempt_label(number: int) -> str:
    """`a01`, `a02`, ...: how people read of attempt `number` of a task, and the end of its submission id."""
    return f"a{number:02d}"


def submission_id(task: str, number: int) -> str:
    """The Ray Job submission id of attempt `number` (from 1): deterministic, so that a resubmission is a no-op."""
    return f"{task}--{attempt_label(number)}"


def split_submission_id(value: str) -> tuple[str, int]:
    """The inverse of `submission_id`; ValueError for anything else."""
    match = _SUBMISSION_RE.fullmatch(value)
    if match is None:
        raise ValueError(f"not a submission id: {value!r}")
    return match["task"], int(match["number"])


def submission_of(job_root: str) -> str:
    """The submission id whose name a job root bears."""
    return job_root.rsplit("/", 1)[-1]


def task_of(job_root: str) -> str:
    """The task whose attempt this job root belongs to: its name is the submission id. ValueError for another path."""
    return split_submission_id(submission_of(job_root))[0]


def make_token(entropy: bytes) -> str:
    """The plain text of a user token from 32 random bytes."""
    if len(entropy) != 32:
        raise ValueError("a token takes 32 random bytes")
    return TOKEN_PREFIX + entropy.hex()


def token_digest(token: str) -> str:
    """What is stored of a token: SHA-256 in hex. The token has 256 random bits, so no salt or stretching is due."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
