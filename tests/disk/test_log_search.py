"""Searching a log: in either direction, in however many calls, across blocks and beside the gap."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus_ray.core.search_patterns import BrokenPattern, Pattern, TooSlow
from argus_ray.disk import log_search, log_sequence
from argus_ray.disk.log_search import Budget, Found, Match, Wish

_KIB = 1024


def pattern(text: str, **options: Any) -> Pattern:
    return Pattern(text, **{"is_expression": True, "is_case_sensitive": True, **options})


#: Of a busy machine; what a budget bounds is told where it is.
UNHURRIED: Any = {"max_s": 1e9, "window_s": 1e9}


def write(folder: Path, content: bytes, *pieces: tuple[int, bytes]) -> str:
    """A log, with these pieces at these offsets."""
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    for old in logs.iterdir():
        old.unlink()
    (logs / "driver.log").write_bytes(content)
    for offset, piece in pieces:
        (logs / f"driver.log.{offset:015d}").write_bytes(piece)
    return str(folder)


def search(root: str, what: Pattern, *, budget: Budget | None = None, limit: int = 1000, **options: Any) -> Found:
    return log_search.search(
        root, f"{root}/logs/driver.log", Wish(what, limit, **options), budget or Budget(**UNHURRIED)
    )


def all_calls(root: str, what: Pattern, *, limit: int, is_backward: bool = False) -> list[Match]:
    """All matches, in as many calls as it takes, each with a budget of one window."""
    found: list[Match] = []
    start: int | None = None
    for _ in range(10_000):
        page = search(
            root, what, limit=limit, start=start, is_backward=is_backward, budget=Budget(max_bytes=1, **UNHURRIED)
        )
        found += page.matches
        if page.next is None:
            return found
        start = page.next
    pytest.fail("it does not come to an end")


def places(matches: Any) -> list[tuple[int, int]]:
    return [(match.offset, match.length) for match in matches]


def test_a_match_is_told_with_its_line(tmp_path: Path) -> None:
    root = write(tmp_path, "first\r\nein Fehler: größer als 3\r\nlast".encode())
    found = search(root, pattern("gr.ßer"))
    (match,) = found.matches
    assert (match.offset, match.length, match.line_start) == (19, 8, 7)
    assert match.shown == ("ein Fehler: ", "größer", " als 3")
    assert not match.is_cut and found.next is None and found.size == 39 and found.gap is None


def test_texts_and_expressions_with_and_without_case(tmp_path: Path) -> None:
    root = write(tmp_path, "Éa.b éA.B Éaxb\n".encode())
    text = {"is_expression": False}
    assert len(search(root, pattern("éa.b", is_case_sensitive=False, **text)).matches) == 2
    assert len(search(root, pattern("Éa.b", **text)).matches) == 1
    assert len(search(root, pattern("éa.b", is_case_sensitive=False)).matches) == 3
    assert len(search(root, pattern("Éa.b")).matches) == 2


def test_line_ends_of_all_kinds_are_ends_for_an_expression(tmp_path: Path) -> None:
    root = write(tmp_path, b"a loss\r\nb loss\rc loss\nd losses\n loss")
    assert [match.line_start for match in search(root, pattern("loss$")).matches] == [0, 8, 15, 31]
    assert [match.line_start for match in search(root, pattern("^[a-d] loss")).matches] == [0, 8, 15, 22]
    assert not search(root, pattern(r"loss\s+b")).matches, "no match spans two lines"
    assert not search(root, pattern("[^x]{20}")).matches


def test_a_match_of_nothing_is_none(tmp_path: Path) -> None:
    root = write(tmp_path, b"one two\n\nthree\n")
    assert not search(root, pattern(r"\b")).matches
    for what in ("", "x*", "^", "$", "^$", "(|a)"):
        with pytest.raises(BrokenPattern):
            pattern(what)


@pytest.mark.parametrize(
    "what", ["(", "a)", "[z-a]", "a{2,1}", "(?=a)", r"(a)\1", "*", "\\", "a\nb", "a\rb", "x" * 257]
)
def test_what_is_no_pattern_is_said_to_be_none(what: str) -> None:
    with pytest.raises(BrokenPattern) as broken:
        pattern(what)
    assert what.strip("(*\\") not in str(broken.value) or len(what) == 1, "nothing of what was sent is said again"


@pytest.mark.parametrize("what", ["(?:[ab]?.?){900}c", ".{1000}c", r"\pL{200}", "(?:a.{0,100}b.{0,100}){3}c"])
def test_an_expression_that_multiplies_its_text_is_refused(what: str) -> None:
    with pytest.raises(BrokenPattern, match="large"):
        pattern(what)


def test_a_hostile_expression_takes_as_long_as_its_text(tmp_path: Path) -> None:
    root = write(tmp_path, b"a" * 256 * _KIB + b"!\n")
    for what in ("(a+)+$", "(a|aa)+$", "(a|a?)+b", "(.*a){8}b", "(?:a?){20}a{20}b", "((a*)*)*b"):
        budget = Budget()
        found = search(root, pattern(what), budget=budget)
        # Python's `re` takes longer than anybody waits for any of these.
        assert not found.matches and found.next is None and budget.spent < 4 * 256 * _KIB


def test_an_expression_that_looks_at_the_rest_of_a_line_again_and_again_is_given_up(tmp_path: Path) -> None:
    root = write(tmp_path, b"a" * 300 * _KIB)
    seconds = itertools.count(0, 0.1)
    with pytest.raises(TooSlow):
        search(root, pattern("a(?:.*z)?"), budget=Budget(max_s=1e9, monotonic=lambda: float(next(seconds))))


def test_within_one_line_of_a_mebibyte(tmp_path: Path) -> None:
    filler = b"x" * (100 * _KIB - 6)
    line = b"start\n" + b"".join(filler + b"needle" for _ in range(11)) + b"\nend\n"
    root = write(tmp_path, line)
    matches = search(root, pattern("needle")).matches
    assert places(matches) == [(6 + 100 * _KIB * number - 6, 6) for number in range(1, 12)]
    assert {match.line_start for match in matches} == {6} and all(match.is_cut for match in matches)
    for match in matches:
        assert match.shown[1] == "needle" and len("".join(match.shown)) <= 2048
    assert len(matches[5].shown[0]) > 900 and len(matches[5].shown[2]) > 900
    backward = search(root, pattern("needle"), is_backward=True).matches
    assert list(backward) == list(reversed(matches))
    # Were the beginning of what is read that of a line, the first branch would take all of it.
    found = search(root, pattern("^.+|needle")).matches
    assert places(found)[2:-1] == places(matches)[1:], "all but the one that the beginning of its line has taken"
    assert not search(root, pattern("^xx")).matches[1:], "a window that begins within a line begins no line"
    assert not search(root, pattern(r"x$")).matches and not search(root, pattern(r"\bx+\b")).matches[1:]


def test_the_start_of_a_line_that_is_very_far_back_is_not_told(tmp_path: Path) -> None:
    root = write(tmp_path, b"x" * 3 * _KIB * _KIB + b"needle")
    (match,) = search(root, pattern("needle")).matches
    assert match.line_start is None and match.is_cut


def test_matches_across_the_borders_of_windows_and_blocks(tmp_path: Path) -> None:
    grid = log_search._GRID
    content = bytearray(b"." * 5 * grid)
    wanted = []
    for border in (grid, 2 * grid, 3 * grid, 4 * grid):
        for shift in (-3, 700):
            content[border + shift : border + shift + 6] = b"needle"
            wanted.append((border + shift, 6))
    root = write(tmp_path, bytes(content))
    assert places(search(root, pattern("needle")).matches) == wanted
    assert places(search(root, pattern("needle"), is_backward=True).matches) == wanted[::-1]


def test_the_gap_is_searched_on_both_sides_and_never_across(tmp_path: Path) -> None:
    head = b"h" * 300 * _KIB + b"first needle\nnee"
    root = write(tmp_path, head, (1_000_000, b"dle\n"), (1_000_004, b"needle two\nnee"), (1_000_018, b"dle three\n"))
    found = search(root, pattern("needle"))
    # The last one lies in two pieces that follow each other.
    assert [match.offset for match in found.matches] == [300 * _KIB + 6, 1_000_004, 1_000_015]
    assert found.gap == (len(head), 1_000_000) and found.size == 1_000_028
    assert search(root, pattern("^dle")).matches[0].line_start == 1_000_000
    assert [match.offset for match in search(root, pattern("needle"), start=500_000).matches] == [1_000_004, 1_000_015]
    before = search(root, pattern("needle"), start=500_000, is_backward=True)
    assert [match.offset for match in before.matches] == [300 * _KIB + 6] and before.next is None
    assert places(all_calls(root, pattern("needle"), limit=1, is_backward=True)) == places(found.matches)[::-1]


def test_bytes_that_are_no_utf8_are_passed_over_and_shown_as_such(tmp_path: Path) -> None:
    root = write(tmp_path, b"\xff\xfe caf\xc3\xa9 \xe2\x82 needle \xc3\n")
    (match,) = search(root, pattern("needle")).matches
    assert match.shown == ("\ufffd\ufffd café \ufffd ", "needle", " \ufffd") and match.offset == 12
    (match,) = search(root, pattern("é")).matches
    assert match.length == 2 and match.shown[1] == "é"


def test_what_is_shown_cuts_no_character(tmp_path: Path) -> None:
    for width in range(4):
        root = write(tmp_path, b"x" * width + "€".encode() * 3000 + b"needle" + "😀".encode() * 3000)
        (match,) = search(root, pattern("needle")).matches
        assert "\ufffd" not in "".join(match.shown) and match.is_cut
    root = write(tmp_path, "€".encode() * 3000)
    (match,) = search(root, pattern("€+")).matches
    assert match.length == 9000 and match.shown == ("", "€" * 682, "")


def test_a_call_is_bounded_in_bytes_and_in_time(tmp_path: Path) -> None:
    root = write(tmp_path, b"some words\n" * 100_000 + b"needle")
    assert (
        search(root, pattern("needle"), budget=Budget(max_bytes=300 * _KIB, **UNHURRIED)).next == 3 * log_search._GRID
    )
    seconds = itertools.count(0, 0.3)
    late = search(root, pattern("needle"), budget=Budget(monotonic=lambda: float(next(seconds))))
    assert late.next is not None and not late.matches
    assert places(all_calls(root, pattern("needle"), limit=5)) == [(1_100_000, 6)]
    assert places(all_calls(root, pattern("needle"), limit=5, is_backward=True)) == [(1_100_000, 6)]


def test_a_log_that_grows_is_searched_on_from_its_size(tmp_path: Path) -> None:
    root = write(tmp_path, b"needle 1\n")
    first = search(root, pattern("needle"))
    with (tmp_path / "logs" / "driver.log").open("ab") as log:
        log.write(b"needle 2\n")
    again = search(root, pattern("needle"), start=first.size)
    assert [match.shown[2] for match in again.matches] == [" 2"] and again.size == 18


def test_a_log_that_shrinks_meanwhile_comes_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, b"needle\n" * 200_000)
    real = log_sequence.read_at

    def shrinks(fd: int, offset: int, length: int) -> bytes:
        (tmp_path / "logs" / "driver.log").write_bytes(b"")
        return real(fd, offset, length)

    monkeypatch.setattr(log_sequence, "read_at", shrinks)
    for is_backward in (False, True):
        found = search(root, pattern("needle"), is_backward=is_backward)
        assert not found.matches and found.next is None


def test_a_piece_that_goes_meanwhile_ends_the_call_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, lines = b"h" * 300 * _KIB + b"\n", b"needle\n" * 1000
    root = write(tmp_path, head, (400_000, lines), (400_000 + len(lines), lines))
    real = log_search.Budget.is_spent

    def rotates(budget: Budget) -> bool:
        if budget.spent:
            (tmp_path / "logs" / f"driver.log.{400_000:015d}").unlink(missing_ok=True)
        return real(budget)

    monkeypatch.setattr(log_search.Budget, "is_spent", rotates)
    found = search(root, pattern("needle"), limit=10**6, budget=Budget(max_s=1e9))
    assert found.next == 400_000
    rest = search(root, pattern("needle"), start=found.next, limit=10**6, budget=Budget(max_s=1e9))
    assert len(rest.matches) == 1000 and rest.next is None


@given(
    content=st.binary(max_size=120).map(lambda raw: bytes(b"aab \n\r"[byte % 6] for byte in raw)),
    what=st.sampled_from(["a", "a+", "ab", r"\ba+\b", "^a.*$", "b|aa", "a.?b"]),
    limit=st.integers(1, 4),
)
def test_however_it_is_cut_the_same_is_found(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, what: str, limit: int
) -> None:
    root = write(tmp_path_factory.getbasetemp(), content)
    lines = content.replace(b"\r", b"\n")
    expected = [
        (match.start(), match.end() - match.start())
        for match in re.finditer(what.encode(), lines, re.M)
        if match.end() > match.start()
    ]
    with pytest.MonkeyPatch.context() as patch:
        # All lines are shorter than what is read around a window.
        patch.setattr(log_search, "_GRID", 8)
        patch.setattr(log_search, "_AROUND", 128)
        assert places(all_calls(root, pattern(what), limit=limit)) == expected
        assert places(all_calls(root, pattern(what), limit=limit, is_backward=True)) == expected[::-1]
