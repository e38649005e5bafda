"""The wire, continued: the content of a folder."""

from __future__ import annotations

from urllib.parse import quote_from_bytes

from pydantic import BaseModel, Field

from argus_ray.core.text import clean
from argus_ray.disk.job_files import Entry, EntryKind
from argus_ray.gateway.http.schemas import Time, rfc3339, tellable


class EntryOut(BaseModel):
    name: str = Field(description="What is not UTF-8 in it is replaced")
    path: str = Field(description="From the job root on, percent-encoded: for a download, or as `path` of this call")
    kind: EntryKind = Field(
        description="`link`: never followed. `other`: neither file, folder nor link of this run alone"
    )
    size: int | None = Field(description="Bytes, of a file")
    modified_at: Time

    @classmethod
    def of(cls, above: bytes, entry: Entry) -> EntryOut:
        return cls(
            name=clean(entry.name.decode("utf-8", "replace")),
            path=quote_from_bytes(above + entry.name, safe="/"),
            kind=entry.kind,
            size=entry.size,
            modified_at=time_of_file(entry.modified_at),
        )


class FilesOut(BaseModel):
    task_id: str
    attempt: int | None = Field(description="null before there is one")
    entries: list[EntryOut] = Field(description="In the order of their names, byte by byte")
    next_cursor: str | None
    complete: bool = Field(description="false: the folder has more entries than are looked at")


def time_of_file(at: float) -> str:
    return rfc3339(tellable(at))
