"""Which bytes a request asks for, and how a file is named in the answer."""

from __future__ import annotations

import pytest

from argus_ray.gateway.files.ranges import Span, asked_for, disposition, etag, headers
from argus_ray.gateway.http.problems import RangeNotSatisfiable

TAG = '"abc"'


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("bytes=0-0", (0, 1)), ("bytes=0-", (0, 100)), ("bytes=40-59", (40, 60)), ("bytes=99-", (99, 100)),
        ("bytes=50-1000", (50, 100)), ("bytes=-1", (99, 100)), ("bytes=-1000", (0, 100)), ("BYTES=1-2", (1, 3)),
        ("bytes= 1 - 2 ", (1, 3)), ("bytes=0-" + "9" * 5000, (0, 100)), ("bytes=-" + "9" * 5000, (0, 100)),
        ("bytes=" + "0" * 5000 + "7-", (7, 100)),
        # Not one range of bytes, so none.
        ("bytes=5-4", None), ("bytes=", None), ("bytes=-", None), ("bytes", None), ("", None), ("lines=1-2", None),
        ("bytes=1-2,5-6", None), ("bytes=1-2-3", None), ("bytes=a-b", None), ("bytes=+1-2", None),
        ("bytes=1.0-2", None),         ("bytes=0x1-2", None), ("bytes=--1", None), ("bytes=\xb2-", None),
    ],
)  # fmt: skip
def test_a_range(value: str, span: tuple[int, int] | None) -> None:
    assert asked_for([value], [], TAG, 100) == (None if span is None else Span(*span))


@pytest.mark.parametrize("value", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=" + "9" * 5000 + "-"])
def test_a_range_that_the_file_does_not_have(value: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        asked_for([value], [], TAG, 100)


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_no_range_of_an_empty_file_is_there(value: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        asked_for([value], [], TAG, 0)
    assert asked_for([], [], TAG, 0) is None


def test_if_range_is_an_etag_that_still_holds() -> None:
    assert asked_for(["bytes=5-"], [TAG], TAG, 100) == Span(5, 100)
    for other in ('"abd"', f"W/{TAG}", "abc", "", "Thu, 26 Nov 2026 22:00:00 GMT", "*"):
        assert asked_for(["bytes=5-"], [other], TAG, 100) is None
        assert asked_for(["bytes=500-"], [other], TAG, 100) is None, "the whole file, and no 416"
    assert asked_for(["bytes=5-"], [TAG, TAG], TAG, 100) is None
    assert asked_for(["bytes=5-", "bytes=5-"], [], TAG, 100) is None


@pytest.mark.parametrize(
    ("name", "plain", "encoded"),
    [
        (b"model.pt", "model.pt", "model.pt"),
        (b'a"b\\c;d e', "a_b_c;d e", "a%22b%5Cc%3Bd%20e"),
        ("äß.txt".encode(), "____.txt", "%C3%A4%C3%9F.txt"),
        (b"a\xff\r\nX: y", "a___X: y", "a%EF%BF%BD%0D%0AX%3A%20y"),
        (b"a.html", "a.html", "a.html"),
        (b"50%25", "50_25", "50%2525"),
    ],
)
def test_a_file_is_always_to_be_saved(name: bytes, plain: str, encoded: str) -> None:
    assert disposition(name) == f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


def test_headers_are_those_of_the_part() -> None:
    found = headers(name=b"x", tag=TAG, modified_at=0, size=100, span=Span(40, 60))
    assert (found["Content-Length"], found["Content-Range"]) == ("20", "bytes 40-59/100")
    assert found["Content-Type"] == "application/octet-stream"
    found = headers(name=b"x", tag=TAG, modified_at=1e30, size=100, span=None)
    assert found["Content-Length"] == "100" and "Content-Range" not in found
    assert found["Last-Modified"] == "Fri, 31 Dec 9999 23:59:59 GMT"
    assert headers(name=b"x", tag=TAG, modified_at=-1e30, size=1, span=None)["Last-Modified"].endswith(
        "1970 00:00:00 GMT"
    )


def test_an_etag_is_strong_and_tells_no_number_of_the_disk() -> None:
    tag = etag((123456789, 5, 6, 7))
    assert tag.startswith('"') and tag.endswith('"') and "123456789" not in tag and tag == etag((123456789, 5, 6, 7))
    assert (
        len({etag((1, 2, 3, 4)), etag((1, 2, 3, 5)), etag((1, 2, 4, 4)), etag((2, 2, 3, 4)), etag((1, 3, 3, 4))}) == 5
    )
