"""The columns of a Parquet file, from its footer: the little of Thrift's compact protocol that the schema needs.

Not by pyarrow: the service does not depend on it, and its native code must not be given a user's bytes in a process
that serves everybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"PAR1"
#: Of a file whose footer is encrypted.
ENCRYPTED_MAGIC = b"PARE"
#: The least: both magics, the footer's length, and a footer.
MIN_BYTES = 12

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_MAX_DEPTH = 32
_MAX_ELEMENTS = 100_000


@dataclass(frozen=True)
class Schema:
    #: Of the top level.
    columns: tuple[str, ...]
    rows: int


def schema_of(footer: bytes) -> Schema:
    """`footer`: the bytes between the data and the footer's length. Raises ValueError if it makes no sense."""
    try:
        return _Reader(footer).schema()
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("the footer is cut short or broken") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def schema(self) -> Schema:
        """FileMetaData: 2 is the list of schema elements, 3 the number of rows."""
        elements: list[tuple[str, int]] = []
        rows = -1
        for field, kind in self._fields():
            if field == 2 and kind == _LIST:
                count, _ = self._list_head()
                elements = [self._element() for _ in range(count)]
            elif field == 3 and kind == _I64:
                rows = self._zigzag()
                break  # what follows may be long, and says nothing more
            else:
                self._skip(kind)
        if not elements or rows < 0:
            raise ValueError("the footer names no columns or no number of rows")
        return Schema(_top_level(elements), rows)

    def _element(self) -> tuple[str, int]:
        """SchemaElement: 4 is the name, 5 the number of children."""
        name, children = "", 0
        for field, kind in self._fields():
            if field == 4 and kind == _BINARY:
                name = self._bytes().decode()
            elif field == 5 and kind == _I32:
                children = self._zigzag()
            else:
                self._skip(kind)
        return name, children

    def _fields(self) -> Iterator[tuple[int, int]]:
        """Each field's number and type, up to the end of the struct; the caller reads or skips the value."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            yield number, head & 0x0F

    def _skip(self, kind: int, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError("the footer is nested too deeply")
        if kind in (_I16, _I32, _I64):
            self._varint()
        elif kind in (_BYTE, _DOUBLE):
            self._advance(1 if kind == _BYTE else 8)
        elif kind == _BINARY:
            self._advance(self._varint())
        elif kind in (_LIST, _SET):
            count, element = self._list_head()
            for _ in range(count):
                # Inside a list a boolean takes a byte.
                self._skip(_BYTE if element in (_TRUE, _FALSE) else element, depth + 1)
        elif kind == _STRUCT:
            for _, inner in self._fields():
                self._skip(inner, depth + 1)
        elif kind not in (_TRUE, _FALSE):
            raise ValueError(f"the footer holds a value of the unknown type {kind}")

    def _list_head(self) -> tuple[int, int]:
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4
        if count > _MAX_ELEMENTS:
            raise ValueError(f"the footer holds a list of {count} elements")
        return count, head & 0x0F

    def _bytes(self) -> bytes:
        size = self._varint()
        begin = self._at
        self._advance(size)
        return self._data[begin : self._at]

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("the footer holds a number that does not end")

    def _byte(self) -> int:
        byte = self._data[self._at]
        self._at += 1
        return byte

    def _advance(self, size: int) -> None:
        self._at += size
        if self._at > len(self._data):
            raise IndexError


def _top_level(elements: list[tuple[str, int]]) -> tuple[str, ...]:
    """The schema is a tree, written depth first; its root stands for the file."""
    names = []
    at = 1
    for _ in range(elements[0][1]):
        name, pending = elements[at][0], 1
        names.append(name)
        while pending:
            pending += elements[at][1] - 1
            at += 1
    return tuple(names)
