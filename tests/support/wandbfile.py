"""Reads back what the real wandb package leaves on the disk: a log of records, each a protobuf, in blocks as LevelDB
writes them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HEADER = struct.Struct("<IHB")
_BLOCK = 32 * 1024
#: Before the first record: the letters :W&B and two numbers.
_FILE_HEADER = 7
_FULL, _LAST = 1, 4


@dataclass
class Kept:
    """One file: a run of W&B as one process has written it."""

    path: Path
    project: str = ""
    run_id: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    #: Exit code; None: nobody has ended it.
    exit_code: int | None = None

    def of(self, *keys: str) -> list[tuple[Any, ...]]:
        return [tuple(row[key] for key in keys) for row in self.rows if all(key in row for key in keys)]


def runs_in(folder: Path) -> list[Kept]:
    """In the order in which they began."""
    found = folder.glob("wandb/*run-*/run-*.wandb")
    return [_read(path) for path in sorted(found, key=lambda path: path.parent.name.removeprefix("offline-"))]


def _read(path: Path) -> Kept:
    from wandb.proto.wandb_internal_pb2 import Record

    kept = Kept(path)
    for raw in _records(path.read_bytes()):
        record = Record.FromString(raw)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            kept.project, kept.run_id, kept.name = record.run.project, record.run.run_id, record.run.display_name
            kept.config |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
        elif kind == "history":
            items = record.history.item
            row = {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in items}
            kept.rows.append({"_step": record.history.step.num, **row})
        elif kind == "exit":
            kept.exit_code = record.exit.exit_code
    return kept


def _records(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    place, whole = _FILE_HEADER, b""
    while place + _HEADER.size <= len(data):
        if _BLOCK - place % _BLOCK < _HEADER.size:  # the rest of a block has no room for one
            place += _BLOCK - place % _BLOCK
            continue
        _, size, kind = _HEADER.unpack_from(data, place)
        place += _HEADER.size
        whole += data[place : place + size]
        place += size
        if kind in (_FULL, _LAST):
            yield whole
            whole = b""
