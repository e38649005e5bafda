"""Text of others on a terminal."""

from __future__ import annotations

import json
import time

import pyte
import pytest

from argus_ray.cli import safe

#: What a log or an error may hold, and a terminal would obey.
HOSTILE = [
    "\x1b]0;title\x07",
    "\x1b]52;c;ZWNobyBoaQ==\x07",
    "\x1b]52;c;ZWNobyBoaQ==\x1b\\",
    "\x1b[2J\x1b[H",
    "\x9b2J",
    "\x9d0;title\x9c",
    "\x1bP1$r\x1b\\",
    "\x1bc",
    "\x1b(0",
    "\x07\x08\x0b\x0c\x0e",
    "\u202e\u2066\u200f",
    "\x1b[",
    "\x1b",
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    for shown in (safe.line(f"a{text}b"), safe.cell(f"a{text}b"), safe.block(f"a{text}b")):
        assert shown.replace("\n", "").isprintable(), shown
        assert shown.startswith("a")
    screen = pyte.Screen(80, 4)
    pyte.Stream(screen).feed("kept\r\n" + safe.line(text))
    assert screen.display[0].rstrip() == "kept"
    assert screen.title == ""


@pytest.mark.parametrize("begin", ["\x1b]", "\x1bP", "\x1b_", "\x9d", "\x90"])
def test_an_escape_without_an_end_hides_nothing_but_itself(begin: str) -> None:
    shown = safe.line(f"before {begin}0;title and the reason that matters")
    assert shown.startswith("before ") and shown.endswith("0;title and the reason that matters")
    assert shown.isprintable()
    # What ends is gone as a whole, also behind one that does not.
    assert safe.line(f"{begin}0;a \x1b]0;b\x07c").endswith("0;a c")


def test_many_escapes_without_an_end_take_no_time() -> None:
    begun = time.process_time()
    for begin in ("\x9d", "\x1b]", "\x1b[", "\x1bP0;"):
        safe.line(begin * 200_000)
    assert time.process_time() - begun < 5, "each character is looked at once"


def test_a_colour_goes_and_its_text_stays() -> None:
    assert safe.line("\x1b[36m(TaskRunner pid=1)\x1b[0m step:1") == "(TaskRunner pid=1) step:1"
    assert safe.line("Schöne Grüße, 日本") == "Schöne Grüße, 日本"
    assert safe.line("a\tb") == "a\tb"


def test_a_carriage_return_ends_a_line() -> None:
    assert safe.lines("10%\r20%\r\ndone\n") == ["10%", "20%", "done", ""]


def test_two_blanks_never_stand_in_a_cell() -> None:
    assert safe.cell("  a \n\t b  c ") == "a b c"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_json_is_equal_to_the_document_and_fit_for_a_terminal(text: str) -> None:
    value = {"message": text, "\u202e": "ü \ud800"}
    for indent in (2, None):
        shown = safe.document(value, indent=indent)
        assert json.loads(shown) == value
        assert shown.replace("\n", "").isprintable()
        assert "ü" in shown
    assert "\n" not in safe.document(value, indent=None)


def test_what_is_cut_fits() -> None:
    assert safe.cut("abcdef", 4) == "abc…"
    assert safe.cut("abcd", 4) == "abcd"
    for columns in range(1, 9):
        assert safe.width(safe.cut("日本語日本", columns)) <= columns
    assert safe.width("e\u0301") == 1
