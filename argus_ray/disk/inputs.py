"""A look at a task's inputs before it waits for GPUs, and again before it gets them: what would fail the run for
certain is an error, what may be all right is a warning.

A disk that does not answer, or not to us, says nothing about the run, which is on another machine: never an error. Nor
is what is missing while the root of all inputs does not prove itself alive: a filesystem that is not mounted for a
moment looks like one from which everything was deleted. And `code_path` may bring a verl that reads other files than
ours does: of a file's format only what contradicts its own name is an error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from argus_ray.core import paths
from argus_ray.core.errors import FieldError
from argus_ray.core.taskspec import TaskSpec, names_own
from argus_ray.core.text import clean
from argus_ray.core.verl import code
from argus_ray.disk import beneath
from argus_ray.disk.beneath import Meaning
from argus_ray.disk.data_set import check_data
from argus_ray.disk.looking import (
    Doubt,
    Resolver,
    Wrong,
    is_folder,
    is_there,
    names_in,
    plain_file,
    why_never,
    words_of,
)
from argus_ray.disk.model_folder import LeadsOut, check_model_folder
from argus_ray.disk.threads import BoundedThreads

log = logging.getLogger(__name__)

_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: What huggingface_hub has begun to download, and not ended.
_INCOMPLETE = ".incomplete"


@dataclass(frozen=True)
class Findings:
    errors: tuple[FieldError, ...] = ()
    warnings: tuple[FieldError, ...] = ()
    #: Why nothing can be said of the inputs now: then there are no errors. Empty: it was said.
    unknown: str = ""


@dataclass(frozen=True)
class Preflight:
    """`inspect_surely` in threads and bounded: it always answers in time, and never raises."""

    threads: BoundedThreads
    timeout_s: float
    shared_root: str

    async def look(self, spec: TaskSpec, own_user: str | None = None) -> Findings:
        """`own_user`: whose own folders count as inputs, which are never let through unseen; None: nobody's."""
        try:
            # The outer bound: a thread may take its time to get when others hang.
            looking = self.threads.run(lambda: inspect_surely(spec, self.shared_root, own_user), self.timeout_s)
            return await asyncio.wait_for(looking, self.timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            rule = "the inputs were not looked at: the shared filesystem does not answer"
        except Exception:
            log.exception("the inputs of a task could not be looked at")
            rule = "the inputs were not looked at"
        if own_user is not None and names_own(spec, self.shared_root, own_user):
            # Their user could make the look take long, and have a link to somebody else's data pass unseen.
            return Findings(unknown=rule)
        return Findings(warnings=(FieldError("(document)", rule),))


def inspect_surely(spec: TaskSpec, shared_root: str, own_user: str | None = None) -> Findings:
    """`inspect`, whose errors were seen between two proofs that the roots of the inputs are alive; else they are
    unknown. Raises nothing of the disk's."""
    found = inspect(spec, shared_root, own_user)
    if not found.errors:
        return found
    roots = [paths.common_dir(shared_root)]
    if own_user is not None and names_own(spec, shared_root, own_user):
        # Both may be mount points. Below them a folder is the user's, who may have emptied it.
        roots += [paths.users_dir(shared_root), f"{paths.users_dir(shared_root)}/{own_user}"]
    why = _why_not_alive(roots)
    if not why:
        # The first look may be older than the filesystem's return, and this one may have met its leaving.
        found = inspect(spec, shared_root, own_user)
        why = _why_not_alive(roots) if found.errors else ""
    return Findings(unknown=why) if why else found


def _why_not_alive(roots: list[str]) -> str:
    """Why nothing follows from what is missing below the roots of all inputs; empty if they are alive. A bare mount
    point is an empty folder, so an empty one proves nothing."""
    for number, root in enumerate(roots):
        try:
            with os.scandir(root) as entries:
                if not any(True for _ in entries):
                    return f"{root} is empty: is its filesystem mounted?"
        except OSError as error:
            if number == _USERS_OWN and beneath.meaning(error) is Meaning.ABSENT:
                continue  # nothing of this user's was ever there, for what is above is alive
            return f"{root} cannot be read: {words_of(error)}"
    return ""


#: The place, among the roots, of the user's own.
_USERS_OWN = 2


def inspect(spec: TaskSpec, shared_root: str, own_user: str | None = None) -> Findings:
    """What can be said of the inputs by looking at them: some opens and small reads of each. Raises nothing of the
    disk's."""
    errors: list[FieldError] = []
    warnings: list[FieldError] = []
    resolve = Resolver()

    def leads_out(path: str) -> str | None:
        return paths.leads_out(path, shared_root, resolve, user_id=own_user)

    def only_common(path: str) -> str | None:
        return paths.leads_out(path, shared_root, resolve)

    def model(doubt: Doubt) -> None:
        _check_model(spec.model_id, shared_root, leads_out, doubt)

    def data(path: str) -> Callable[[Doubt], None]:
        return lambda doubt: check_data(path, spec.workload, leads_out, doubt)

    checks: tuple[tuple[str, str, LeadsOut, Callable[[Doubt], None]], ...] = (
        # What is run comes from common alone.
        ("code_path", spec.code_path, only_common, lambda doubt: _check_code(spec.code_path, doubt)),
        ("model_id", spec.model_id, leads_out, model),
        ("train_file", spec.train_file, leads_out, data(spec.train_file)),
        ("val_file", spec.val_file, leads_out, data(spec.val_file)),
    )
    for name, value, leaves, check in checks:
        doubts: list[str] = []
        try:
            # First: what lies outside is not looked at.
            if value.startswith("/") and (rule := leaves(value)):
                raise Wrong(rule)
            check(doubts.append)
        except Wrong as wrong:
            errors.append(FieldError(name, wrong.rule))
        except OSError as error:
            if never := why_never(error, value):
                errors.append(FieldError(name, never))
            else:
                doubts.append(f"could not be looked at: {words_of(error)}")
        warnings += [FieldError(name, clean(words)) for words in doubts]
    return Findings(tuple(errors), tuple(warnings))


def _check_code(path: str, doubt: Doubt) -> None:
    names = names_in(path)
    doubts = []
    if "verl" not in names or not is_folder(f"{path}/verl"):
        doubts.append("holds no folder verl: the run uses the verl that is installed on the workers")
    # A folder that is no package was found last before, too.
    hidden = [
        name for name in names if code.is_hidden(name) and ("." in name or is_there(f"{path}/{name}/__init__.py"))
    ]
    if words := code.words(hidden):
        doubts.append(words)
    if doubts:
        doubt("; ".join(doubts))


def _check_model(model: str, shared_root: str, leads_out: LeadsOut, doubt: Doubt) -> None:
    if model.startswith("/"):
        check_model_folder(model, leads_out, doubt)
        return
    hub = f"{paths.hf_home(shared_root)}/hub/models--{model.replace('/', '--')}"
    try:
        with plain_file(f"{hub}/refs/main") as (fd, _):
            commit = os.pread(fd, 200, 0).decode("ascii", "replace").strip()
        if not _SNAPSHOT.fullmatch(commit):
            doubt("is in the shared cache, but its refs/main names no snapshot")
            return
        check_model_folder(f"{hub}/snapshots/{commit}", leads_out, doubt)
    except Wrong as wrong:
        # What is in the cache is the operator's, who may be filling it.
        doubt(f"is in the shared cache, but its snapshot {wrong.rule}{_why_not_whole(hub)}")
    except OSError as error:
        if not why_never(error, hub):
            raise
        missing = f"is not in the shared cache {paths.hf_home(shared_root)}, and runs are offline: download it first"
        doubt(f"{missing}{_why_not_whole(hub)}")


def _why_not_whole(hub: str) -> str:
    try:
        names = names_in(f"{hub}/blobs")
    except (OSError, Wrong):
        return ""
    return " (a download of it has begun and not ended)" if any(name.endswith(_INCOMPLETE) for name in names) else ""
