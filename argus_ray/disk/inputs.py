"""A look at a task's inputs before it waits for GPUs, and again before it gets them: what would fail the run for
certain is an error, what may be all right is a warning.

A disk that does not answer, or not to us, says nothing about the run, which is on another machine: never an error. Nor
is what is missing while the root of all inputs does not prove itself alive: a filesystem that is not mounted for a
moment looks like one from which everything was deleted. And `code_path` may bring a verl that reads other files than
ours does: of a file's format only what contradicts its own name is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from argus_ray.core import paths
from argus_ray.core.errors import FieldError
from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.text import clean
from argus_ray.core.verl import code, files, parquet
from argus_ray.disk import beneath
from argus_ray.disk.atomic import NotAFile
from argus_ray.disk.beneath import Meaning
from argus_ray.disk.threads import BoundedThreads

log = logging.getLogger(__name__)

#: Of a Parquet footer; the schema is at its beginning, and what follows grows with the data.
_MAX_FOOTER_BYTES = 4 * 1024 * 1024
_MAX_INDEX_BYTES = 16 * 1024 * 1024
_MAX_NAMES = 10_000
#: Symbolic links that Linux follows on the way to one file.
_MAX_LINKS = 40
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: How many weight files a model's index may miss before the rest is a number.
_NAMED = 3


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

    async def look(self, spec: TaskSpec) -> Findings:
        try:
            # The outer bound: a thread may take its time to get when others hang.
            looking = self.threads.run(lambda: inspect_surely(spec, self.shared_root), self.timeout_s)
            return await asyncio.wait_for(looking, self.timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            rule = "the inputs were not looked at: the shared filesystem does not answer"
        except Exception:
            log.exception("the inputs of a task could not be looked at")
            rule = "the inputs were not looked at"
        return Findings(warnings=(FieldError("(document)", rule),))


def inspect_surely(spec: TaskSpec, shared_root: str) -> Findings:
    """`inspect`, whose errors were seen between two proofs that the root of the inputs is alive; else they are
    unknown. Raises nothing of the disk's."""
    found = inspect(spec, shared_root)
    if not found.errors:
        return found
    common = paths.common_dir(shared_root)
    why = _why_not_alive(common)
    if not why:
        # The first look may be older than the filesystem's return, and this one may have met its leaving.
        found = inspect(spec, shared_root)
        why = _why_not_alive(common) if found.errors else ""
    return Findings(unknown=why) if why else found


def _why_not_alive(common: str) -> str:
    """Why nothing follows from what is missing below the root of all inputs; empty if it is alive. A bare mount point
    is an empty folder, so an empty one proves nothing."""
    try:
        with os.scandir(common) as entries:
            return "" if any(True for _ in entries) else f"{common} is empty: is its filesystem mounted?"
    except OSError as error:
        words = os.strerror(error.errno) if error.errno else type(error).__name__
        return f"{common} cannot be read: {words}"


def inspect(spec: TaskSpec, shared_root: str) -> Findings:
    """What can be said of the inputs by looking at them: some opens and small reads of each. Raises nothing of the
    disk's."""
    errors: list[FieldError] = []
    warnings: list[FieldError] = []
    checks: tuple[tuple[str, str, Callable[[], None]], ...] = (
        ("code_path", spec.code_path, lambda: _check_code(spec.code_path)),
        ("model_id", spec.model_id, lambda: _check_model(spec.model_id, shared_root)),
        ("train_file", spec.train_file, lambda: _check_data(spec.train_file, spec.workload)),
        ("val_file", spec.val_file, lambda: _check_data(spec.val_file, spec.workload)),
    )
    for name, value, check in checks:
        try:
            # First: what lies outside is not looked at.
            if value.startswith("/") and (rule := paths.leads_out(value, shared_root, _resolve)):
                raise _Wrong(rule)
            check()
        except _Wrong as wrong:
            errors.append(FieldError(name, wrong.rule))
        except _Doubtful as doubtful:
            warnings.append(FieldError(name, doubtful.rule))
        except OSError as error:
            if rule := _why_never(error, value):
                errors.append(FieldError(name, rule))
            else:
                words = os.strerror(error.errno) if error.errno else type(error).__name__
                warnings.append(FieldError(name, f"could not be looked at: {words}"))
    return Findings(tuple(errors), tuple(warnings))


def _resolve(path: str) -> str:
    """Without links, as far as it exists. Raises OSError where the disk does not say: that is no link that leads
    out."""
    try:
        return os.path.realpath(path, strict=True)
    except FileNotFoundError:
        return os.path.realpath(path)


class _Finding(Exception):
    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        # It may quote what a user's file says, or the name of a file.
        self.rule = clean(rule)


class _Wrong(_Finding):
    """No verl can run with this."""


class _Doubtful(_Finding):
    """It may be all right."""


def _check_code(path: str) -> None:
    names = _names(path)
    doubts = []
    if "verl" not in names or not _is_folder(f"{path}/verl"):
        doubts.append("holds no folder verl: the run uses the verl that is installed on the workers")
    # A folder that is no package was found last before, too.
    hidden = [
        name for name in names if code.is_hidden(name) and ("." in name or _is_there(f"{path}/{name}/__init__.py"))
    ]
    if words := code.words(hidden):
        doubts.append(words)
    if doubts:
        raise _Doubtful("; ".join(doubts))


def _check_model(model: str, shared_root: str) -> None:
    if model.startswith("/"):
        _check_model_folder(model)
        return
    hub = f"{paths.hf_home(shared_root)}/hub/models--{model.replace('/', '--')}"
    missing = f"is not in the shared cache {paths.hf_home(shared_root)}, and runs are offline: download it first"
    try:
        with _plain_file(f"{hub}/refs/main") as (fd, _):
            commit = os.pread(fd, 200, 0).decode("ascii", "replace").strip()
        if not _SNAPSHOT.fullmatch(commit):
            raise _Doubtful("is in the shared cache, but its refs/main names no snapshot")
        _check_model_folder(f"{hub}/snapshots/{commit}")
    except _Wrong as wrong:
        raise _Doubtful(f"is in the shared cache, but its snapshot {wrong.rule}") from None
    except OSError as error:
        if _why_never(error, hub):
            raise _Doubtful(missing) from None
        raise


def _check_model_folder(path: str) -> None:
    names = _names(path)
    if files.MODEL_CONFIG not in names:
        raise _Wrong(f"holds no {files.MODEL_CONFIG}")
    Path(path, files.MODEL_CONFIG).stat()  # a link into a cache may lead nowhere
    # One whole format is enough; downloads often leave the index of another one behind.
    torn = ""
    for index in files.weight_indexes(names):
        missing = sorted(_indexed(f"{path}/{index}") - names)
        if not missing:
            return
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        torn = torn or f"lacks weights that {index} names: {', '.join(missing[:_NAMED])}{more}"
    if files.has_whole_weights(names):
        return
    if torn:
        raise _Wrong(torn)
    if not files.has_weights(names):
        raise _Wrong("holds no weights (*.safetensors or *.bin)")


def _indexed(path: str) -> set[str]:
    with _plain_file(path) as (fd, size):
        if size > _MAX_INDEX_BYTES:
            return set()
        raw = os.pread(fd, _MAX_INDEX_BYTES, 0)
    try:
        return {str(name) for name in json.loads(raw)["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _Doubtful(f"has an index that cannot be read: {Path(path).name}") from None


def _check_data(path: str, workload: str) -> None:
    if stat.S_ISDIR(Path(path).stat().st_mode):
        if workload == "sft":
            raise _Doubtful("is a folder: its files were not looked at")
        raise _Wrong("is a folder, not a file")
    with _plain_file(path) as (fd, size):
        if size == 0:
            raise _Wrong("is empty")
        begin, end = os.pread(fd, 4, 0), os.pread(fd, 8, max(0, size - 8))
        if not path.endswith(".parquet"):
            if doubt := files.doubt_about_format(path, workload, is_parquet=begin == end[4:] == parquet.MAGIC):
                raise _Doubtful(doubt)
            return
        if size < parquet.MIN_BYTES or begin != parquet.MAGIC or end[4:] != parquet.MAGIC:
            raise _Wrong("is no whole Parquet file: it does not begin and end with PAR1")
        length = int.from_bytes(end[:4], "little")
        if length > size - parquet.MIN_BYTES:
            raise _Wrong("is no whole Parquet file: its footer does not fit into it")
        footer = os.pread(fd, min(length, _MAX_FOOTER_BYTES), size - 8 - length)
    try:
        schema = parquet.schema_of(footer)
    except ValueError as error:
        raise _Doubtful(f"its columns were not checked: {error}") from None
    if missing := files.missing_columns(workload, schema.columns):
        raise _Wrong(f"lacks what {workload} reads: the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    if schema.rows == 0:
        raise _Wrong("has no rows")


def _names(path: str) -> set[str]:
    try:
        with os.scandir(path) as entries:
            return {entry.name for entry in islice(entries, _MAX_NAMES)}
    except NotADirectoryError:
        # The path itself, or one above it, which is as if it did not exist.
        Path(path).stat()
        raise _Wrong("is no folder") from None


@contextlib.contextmanager
def _plain_file(path: str) -> Iterator[tuple[int, int]]:
    """An open file and its size. Inputs may be links."""
    with contextlib.ExitStack() as opened:
        try:
            fd = opened.enter_context(beneath.plain_file(path, follow_links=True))
        except NotAFile:
            raise _Wrong("is no plain file") from None
        yield fd, os.fstat(fd).st_size


def _is_folder(path: str) -> bool:
    """False also where a link leads nowhere. Raises OSError where the disk does not say."""
    return stat.S_ISDIR(_mode(path))


def _is_there(path: str) -> bool:
    """The same of anything."""
    return _mode(path) != 0


def _mode(path: str) -> int:
    """0 where there is nothing."""
    try:
        return Path(path).stat().st_mode
    except OSError as error:
        if _why_never(error, path):
            return 0
        raise


def _why_never(error: OSError, path: str) -> str:
    """The rule that the path breaks for certain, on whatever machine; empty: nothing follows from this error. What is
    closed to us may be open to the run."""
    if error.errno == errno.ENAMETOOLONG:
        return "is too long for the shared filesystem"
    if isinstance(error, NotADirectoryError):
        return "leads through something that is no folder"
    if error.errno == errno.ELOOP:
        at = error.filename if isinstance(error.filename, str) and error.filename.startswith("/") else path
        return "leads in a circle of symbolic links" if _is_circle(at) else ""
    return "does not exist" if beneath.meaning(error) is Meaning.ABSENT else ""


def _is_circle(path: str) -> bool:
    """Whether its links come to no end, by following them one by one: "too many links" alone may be an automounter's
    failure."""
    at, links, left = "/", 0, deque(path.split("/"))
    while left:
        part = left.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            at = str(Path(at).parent)
            continue
        here = f"{at.rstrip('/')}/{part}"
        try:
            target = str(Path(here).readlink())
        except OSError:
            at = here  # it is no link, or not known
            continue
        links += 1
        if links > _MAX_LINKS:
            return True
        if target.startswith("/"):
            at = "/"
        left.extendleft(reversed(target.split("/")))
    return False
