"""Text that cannot be kept: cleaned, and nothing else is touched."""

from __future__ import annotations

import pickle
import sqlite3
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus_ray.core.text import CleanText, clean


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_clean_can_be_kept_as_it_is(text: str) -> None:
    kept = clean(text)
    assert len(kept) == len(text) and clean(kept) == kept
    db = sqlite3.connect(":memory:")
    assert db.execute("SELECT ?, length(?)", (kept, kept)).fetchone() == (kept, len(kept))
    db.close()
    assert [new for old, new in zip(text, kept, strict=True) if old != new and not _cannot_be_kept(old)] == []


def _cannot_be_kept(character: str) -> bool:
    return character == "\0" or "\ud800" <= character <= "\udfff"


@pytest.mark.parametrize("text", ["", "plain", "Zürich\n\t", "訓練 🚀", "\x1b[31m"])
def test_good_text_stays(text: str) -> None:
    assert clean(text) is text or clean(text) == text


@dataclass(frozen=True)
class Said(CleanText):
    words: str
    more: str | None = None
    count: int = 0


def test_a_value_holds_clean_text_whatever_it_is_made_of() -> None:
    said = Said("a\ud800b", "\0", 3)
    assert (said.words, said.more, said.count) == ("a?b", "?", 3)
    assert said == Said("a?b", "?", 3)
    assert pickle.loads(pickle.dumps(said)) == said
