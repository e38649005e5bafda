"""Data sets as they come in life, and what is to be said of each."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.builders import parquet_file
from tests.support.odd_inputs import POINTER

COLUMNS = ("messages", "prompt", "data_source", "reward_model")
WHOLE = parquet_file(*COLUMNS)
ROWS = (json.dumps(dict.fromkeys(COLUMNS, "x")) + "\n").encode() * 2


def encrypted_file() -> bytes:
    """By pyarrow, with the footer encrypted as well."""
    import base64
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    import pyarrow.parquet.encryption as pe

    class Keys(pe.KmsClient):  # type: ignore[misc]
        def wrap_key(self, key: bytes, _: str) -> bytes:
            return base64.b64encode(key)

        def unwrap_key(self, key: bytes, _: str) -> bytes:
            return base64.b64decode(key)

    factory = pe.CryptoFactory(lambda _: Keys())
    how = pe.EncryptionConfiguration(footer_key="k", column_keys={"m": ["messages"]})
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), how)
    table, sink = pa.table({"messages": ["x"]}), io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return sink.getvalue()


@dataclass(frozen=True)
class OddData:
    workload: str
    name: str
    #: A file's bytes, a folder's files, or what makes it.
    content: bytes | Mapping[str, bytes | None] | Callable[[Path], object]
    error: str = ""
    warning: str = ""
    #: Whether what verl 0.9.1 calls reads it, and finds rows with the columns.
    loads: bool = False

    @property
    def id(self) -> str:
        return f"{self.workload} {self.name}"

    def make(self, path: Path) -> None:
        if callable(self.content):
            self.content(path)
        elif isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            path.mkdir()
            for name, raw in self.content.items():
                (path / name).parent.mkdir(exist_ok=True)
                if raw is None:
                    (path / name).symlink_to("nowhere")
                else:
                    (path / name).write_bytes(raw)


DATA = [
    OddData("sft", "pointer.parquet", POINTER.encode(), error="is a Git LFS pointer"),
    OddData("grpo", "pointer.parquet", POINTER.encode(), error="is a Git LFS pointer"),
    OddData("grpo", "pointer.jsonl", POINTER.encode(), error="is a Git LFS pointer"),
    OddData("sft", "pointer", POINTER.encode(), error="is a Git LFS pointer"),
    OddData(
        "sft", "encrypted.parquet", lambda p: p.write_bytes(encrypted_file()), error="is an encrypted Parquet file"
    ),
    OddData(
        "ppo", "encrypted.parquet", lambda p: p.write_bytes(encrypted_file()), error="is an encrypted Parquet file"
    ),
    OddData("ppo", "no_rows.parquet", parquet_file(*COLUMNS, rows=0), error="has no rows"),
    OddData("grpo", "packed.parquet", gzip.compress(WHOLE), error="PAR1"),
    OddData("grpo", "rows.jsonl.gz", gzip.compress(ROWS), warning="unpack it"),
    OddData("sft", "rows.jsonl.gz", gzip.compress(ROWS), warning="no Parquet file"),
    OddData("grpo", "packed.jsonl", gzip.compress(ROWS), loads=True),
    OddData("grpo", "rows.jsonl", ROWS, loads=True),
    OddData("grpo", "mark.jsonl", b"\xef\xbb\xbf" + ROWS, loads=True),
    OddData("ppo", "text.json", b"some words\n", error="is no JSON"),
    OddData("ppo", "numbers.json", b"1\n2\n", error="is no JSON"),
    OddData("ppo", "parquet.json", WHOLE, error="is no JSON"),
    OddData("sft", "any_name", WHOLE, loads=True),
    OddData("grpo", "shards.parquet", {"a.parquet": WHOLE}, error="is a folder, not a file"),
    OddData("sft", "shards.parquet", {"a.parquet": WHOLE, "b.parquet": WHOLE}, loads=True),
    OddData("sft", "shards", {"a.parquet": WHOLE, "_SUCCESS": b"", ".crc": b"x"}, loads=True),
    OddData("sft", "empty", {}, error="is a folder without files"),
    OddData("sft", "hidden", {".a.parquet": WHOLE}, error="is a folder without files"),
    OddData("sft", "readme", {"a.parquet": WHOLE, "README.md": b"words"}, warning="README.md that is no Parquet file"),
    OddData("sft", "zero", {"a.parquet": WHOLE, "b.parquet": b""}, error="a file b.parquet that is empty"),
    OddData("sft", "cut", {"a.parquet": WHOLE, "b.parquet": WHOLE[:-9]}, error="a file b.parquet that is no whole"),
    OddData("sft", "pointers", {"a.parquet": POINTER.encode()}, error="a file a.parquet that is a Git LFS pointer"),
    OddData("sft", "columns", {"a.parquet": parquet_file("prompt"), "b.parquet": WHOLE}, error="the column messages"),
    OddData("sft", "no_rows", {"a.parquet": parquet_file("messages", rows=0)}, error="whose files have no rows"),
    OddData("sft", "some_rows", {"a.parquet": parquet_file("messages", rows=0), "b.parquet": WHOLE}, loads=True),
    OddData("sft", "below", {"a.parquet": WHOLE, "x/b.parquet": WHOLE}, warning="the folder x", loads=True),
    OddData(
        "sft", "dangling", {"a.parquet": WHOLE, "b.parquet": None}, warning="b.parquet that does not exist", loads=True
    ),
]
