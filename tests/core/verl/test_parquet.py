"""The footer's reader against pyarrow's writer, and against bytes that are none."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus_ray.core.verl import parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NESTED = [{"messages": [{"role": "user", "content": "1+1="}], "reward_model": {"ground_truth": "2", "style": "rule"}}]


def footer_of(rows: list[dict[str, Any]], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, **options)
    raw = sink.getvalue()
    size = int.from_bytes(raw[-8:-4], "little")
    return raw[-8 - size : -8]


@pytest.mark.parametrize("version", ["1.0", "2.4", "2.6"])
@pytest.mark.parametrize("store_schema", [True, False])
def test_nested_columns_are_named_by_their_top_level(version: str, store_schema: bool) -> None:
    rows = [{"id": 1, **NESTED[0], "when": 1.5, "ok": True, "raw": b"x"}] * 3
    found = parquet.schema_of(footer_of(rows, version=version, store_schema=store_schema))
    assert found == parquet.Schema(("id", "messages", "reward_model", "when", "ok", "raw"), 3)


def test_many_columns_and_no_rows() -> None:
    names = tuple(f"column_{i}_é" for i in range(400))
    table = pa.table({name: pa.array([], pa.decimal128(10, 2)) for name in names})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    raw = sink.getvalue()
    size = int.from_bytes(raw[-8:-4], "little")
    assert parquet.schema_of(raw[-8 - size : -8]) == parquet.Schema(names, 0)


def test_every_cut_is_refused_or_the_same() -> None:
    whole = footer_of(NESTED)
    for end in range(len(whole)):
        try:
            assert parquet.schema_of(whole[:end]) == parquet.schema_of(whole)
        except ValueError:
            continue


@given(st.binary(max_size=200))
def test_other_bytes_raise_nothing_but_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parquet.schema_of(data)


@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_broken_byte_raises_nothing_but_value_error(place: int, byte: int) -> None:
    data = bytearray(footer_of(NESTED))
    data[place % len(data)] = byte
    with contextlib.suppress(ValueError):
        parquet.schema_of(bytes(data))
