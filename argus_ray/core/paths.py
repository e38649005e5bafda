"""Where things lie under the shared root, and which paths a user may name. The only place that builds such paths."""

from __future__ import annotations

import re
from collections.abc import Callable

#: Plain ASCII keeps out look-alikes of the separator, control characters and everything that a shell, Hydra or a
#: colon-separated search path gives a meaning to.
_ALLOWED = re.compile(r"[A-Za-z0-9._+@=/-]+")
#: PATH_MAX of Linux, less room for what verl appends.
_MAX_LENGTH = 1024
#: NAME_MAX of Linux and of all filesystems in use. The characters that are allowed take one byte each.
_MAX_NAME = 255

Resolve = Callable[[str], str]


def common_dir(shared_root: str) -> str:
    """The folder of all inputs: code, models, data sets."""
    return f"{shared_root}/common"


#: What of a user's own folder may hold inputs, by the kind of the input.
OWN_DATA, OWN_MODELS = "datasets", "models"


def users_dir(shared_root: str) -> str:
    return f"{shared_root}/users"


def own_folder(shared_root: str, user_id: str, kind: str) -> str:
    """Where a user may have inputs of this kind (OWN_DATA, OWN_MODELS), if the operator lets them."""
    _check_folder_name(user_id)
    return f"{users_dir(shared_root)}/{user_id}/{kind}"


def hf_home(shared_root: str) -> str:
    """The shared Hugging Face cache."""
    return f"{shared_root}/common/hf"


def database_path(shared_root: str, cluster_name: str) -> str:
    return f"{shared_root}/ray/state/{cluster_name}/argus.db"


def backup_dir(shared_root: str, cluster_name: str) -> str:
    """Of the database."""
    return f"{shared_root}/ray/backup/{cluster_name}"


def payload_root(shared_root: str) -> str:
    """Versioned copies of what a job needs from Argus on its worker."""
    return f"{shared_root}/ray/payload"


def job_root(shared_root: str, user_id: str, submission_id: str) -> str:
    """The only place an attempt writes: a function of the user and the submission id, and of nothing else."""
    for name in (user_id, submission_id):
        _check_folder_name(name)
    return f"{shared_root}/users/{user_id}/jobs/{submission_id}"


def _check_folder_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", name):
        raise ValueError(f"not a safe folder name: {name!r}")


def below_users(path: str) -> tuple[str, tuple[str, ...]]:
    """A path as `.../users`, which is the operator's as all above it, and the names of a job root below it; for a path
    that is no job root's, itself and none."""
    parts = path.rsplit("/", 4)
    if len(parts) == 5 and parts[1] == "users" and parts[3] == "jobs" and parts[2] and parts[4]:
        return f"{parts[0]}/users", tuple(parts[2:])
    return path, ()


def trash(shared_root: str, user_id: str, submission_id: str) -> str:
    """Where a job root lies between its life and its deletion."""
    root = job_root(shared_root, user_id, submission_id)
    return f"{root.removesuffix(f'/jobs/{submission_id}')}/trash/{submission_id}"


def driver_log(job_root_path: str) -> str:
    return f"{job_root_path}/logs/driver.log"


def metrics_file(job_root_path: str) -> str:
    """verl's file logger writes here: one JSON object a line, `{"step": N, "data": {...}}`."""
    return f"{job_root_path}/metrics.jsonl"


def exit_record(job_root_path: str) -> str:
    """Written by the runner when the program has ended: `{"exit_code": N, ...}`."""
    return f"{job_root_path}/exit.json"


def start_marker(job_root_path: str) -> str:
    """Created exclusively by the runner before it starts the program: a submission id runs at most once."""
    return f"{job_root_path}/started.json"


def cancel_marker(job_root_path: str) -> str:
    """While this file exists the runner refuses to start: a canceled task never runs later."""
    return f"{job_root_path}/canceled"


def checkpoints_dir(job_root_path: str) -> str:
    return f"{job_root_path}/checkpoints"


def export_dir(job_root_path: str) -> str:
    """Of an export, once it is whole."""
    return f"{job_root_path}/export"


def unmade_exports(job_root_path: str) -> tuple[str, ...]:
    """Where `argus_export` works until then: links to the checkpoint, and what it makes of them."""
    return tuple(f"{export_dir(job_root_path)}.{end}" for end in ("source", "part"))


def broken_rule(value: str, shared_root: str, *, is_dir: bool, own: str | None = None) -> str | None:
    """The rule that `value` breaks as an input path, in words, or None if it is allowed as far as its text tells.

    The path need not exist. A trailing slash is allowed for folders only. `own`: the caller's own folder (`own_folder`)
    for such an input. See `leads_out` for links.
    """
    places = (common_dir(shared_root),) if own is None else (common_dir(shared_root), own)
    allowed = " or ".join(f"{place}/" for place in places)
    if not value.startswith("/"):
        return f"must be an absolute path under {allowed}"
    if len(value) > _MAX_LENGTH:
        return f"must be at most {_MAX_LENGTH} characters long"
    if not _ALLOWED.fullmatch(value):
        return "may hold only the characters A-Z a-z 0-9 . _ + @ = - and / (no spaces, no control characters)"
    trimmed = value[:-1] if is_dir and value.endswith("/") else value
    parts = trimmed.split("/")[1:]
    if any(part in ("", ".", "..") for part in parts):
        return "may not hold empty, '.' or '..' components"
    if any(part.startswith("-") for part in parts):
        return "no component may start with '-'"
    if any(len(part) > _MAX_NAME for part in parts):
        return f"each component must be at most {_MAX_NAME} characters long"
    if not any(_is_below(trimmed, place) for place in places):
        return f"must lie under {allowed}"
    return None


def leads_out(value: str, shared_root: str, resolve: Resolve, *, user_id: str | None = None) -> str | None:
    """The rule that an input path breaks which a symbolic link leads out of the inputs, in words; None if none does.

    `resolve` follows symbolic links; it may block, and raise OSError. `user_id`: whose own folders count as inputs,
    where they are: `users` is the operator's and may be a link, and what is below it may not.
    """
    common, target = common_dir(shared_root), resolve(value)
    if _is_below(target, resolve(common)):
        return None
    if user_id is None:
        return f"leads out of {common}/ through a symbolic link"
    users = users_dir(shared_root)
    own = [own_folder(shared_root, user_id, kind).removeprefix(users) for kind in (OWN_DATA, OWN_MODELS)]
    if any(_is_below(target, f"{resolve(users)}{folder}") for folder in own):
        return None
    return f"leads out of {common}/ and of your own folders through a symbolic link"


def is_own(value: str, shared_root: str, user_id: str) -> bool:
    """Whether an input path lies, by its text, in a folder of this user."""
    return any(_is_below(value, own_folder(shared_root, user_id, kind)) for kind in (OWN_DATA, OWN_MODELS))


def _is_below(path: str, parent: str) -> bool:
    return path.startswith(f"{parent}/") and path != f"{parent}/"
