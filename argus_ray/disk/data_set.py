"""A look at a data set: one file, or a folder of them, as verl's sft reads it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from argus_ray.core.verl import files, models, parquet
from argus_ray.disk.looking import Doubt, Wrong, names_in, plain_file, why_never
from argus_ray.disk.model_folder import LeadsOut

#: Of a Parquet footer; the schema is at its beginning, and what follows grows with the data.
_MAX_FOOTER_BYTES = 4 * 1024 * 1024
#: Of a folder.
_MAX_OPENS = 8


def check_data(path: str, workload: str, leads_out: LeadsOut, doubt: Doubt) -> None:
    """Raises Wrong for what would fail the run for certain, and OSError where the disk does not say."""
    if stat.S_ISDIR(Path(path).stat().st_mode):
        if workload != "sft":
            raise Wrong("is a folder, not a file")
        _check_folder(path, leads_out, doubt)
    elif _rows_of(path, workload, doubt) == 0:
        raise Wrong("has no rows")


def _check_folder(path: str, leads_out: LeadsOut, doubt: Doubt) -> None:
    """pandas reads it as one data set: each file in it and below it whose name does not begin with `.` or `_`."""
    names = {name: is_link for name, is_link in names_in(path).items() if not name.startswith((".", "_"))}
    if not names:
        raise Wrong("is a folder without files")
    rows: list[int | None] = []
    for name in sorted(names)[:_MAX_OPENS]:
        file = f"{path}/{name}"
        try:
            if names[name] and (rule := leads_out(file)):
                raise Wrong(rule)
            rows.append(_rows_of_part(file, doubt))
        except Wrong as wrong:
            raise Wrong(f"is a folder with a file {name} that {wrong.rule}") from None
    for name in sorted(names)[_MAX_OPENS:]:
        if names[name] and (rule := leads_out(f"{path}/{name}")):  # it is read all the same
            raise Wrong(f"is a folder with a file {name} that {rule}")
    if len(names) > _MAX_OPENS:
        doubt(f"is a folder: {_MAX_OPENS} of its {len(names)} files were looked at")
    elif not any(count is None or count for count in rows):
        raise Wrong("is a folder whose files have no rows")


def _rows_of_part(file: str, doubt: Doubt) -> int | None:
    """None: it is not known. Raises Wrong, and OSError."""
    name = file.rsplit("/", 1)[1]
    try:
        if stat.S_ISDIR(Path(file).stat().st_mode):
            doubt(f"is a folder with the folder {name}, which was not looked at")
            return None
        return _rows_of(file, "sft", lambda words: doubt(f"is a folder with a file {name} that {words}"))
    except OSError as error:
        if rule := why_never(error, file):
            # pandas passes over a link that leads nowhere, and over what has gone meanwhile.
            doubt(f"is a folder with a file {name} that {rule}")
            return None
        raise


def _rows_of(path: str, workload: str, doubt: Doubt) -> int | None:
    """The rows of a Parquet file whose name says that it is one; None: they are not known."""
    with plain_file(path) as (fd, size):
        if size == 0:
            raise Wrong("is empty")
        begin, end = os.pread(fd, files.MAX_FORMAT_BYTES, 0), os.pread(fd, 8, max(0, size - 8))
        if models.is_pointer(begin):
            raise Wrong(models.POINTER_RULE)
        if begin[:4] == end[4:] == parquet.ENCRYPTED_MAGIC:
            raise Wrong("is an encrypted Parquet file, and a run has no key for it")
        is_parquet = begin[:4] == end[4:] == parquet.MAGIC
        if not path.endswith(".parquet"):
            if rule := files.rule_of_json(path, workload, begin):
                raise Wrong(rule)
            if words := files.doubt_about_format(path, workload, is_parquet=is_parquet):
                doubt(words)
            return None
        if size < parquet.MIN_BYTES or not is_parquet:
            raise Wrong("is no whole Parquet file: it does not begin and end with PAR1")
        length = int.from_bytes(end[:4], "little")
        if length > size - parquet.MIN_BYTES:
            raise Wrong("is no whole Parquet file: its footer does not fit into it")
        footer = os.pread(fd, min(length, _MAX_FOOTER_BYTES), size - 8 - length)
    try:
        schema = parquet.schema_of(footer)
    except ValueError as error:
        doubt(f"its columns were not checked: {error}")
        return None
    if missing := files.missing_columns(workload, schema.columns):
        raise Wrong(f"lacks what {workload} reads: the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return schema.rows
