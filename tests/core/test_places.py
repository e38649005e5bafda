"""Places hide their numbers, come back to them, and are nobody else's."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus_ray.core import places

KEY = places.key_of(bytes(32), "alice")


@given(st.integers(0, 2**40), st.binary(min_size=32, max_size=32), st.text(max_size=40))
def test_a_place_comes_back_to_its_number(number: int, master: bytes, scope: str) -> None:
    key = places.key_of(master, scope)
    assert places.unseal(key, places.seal(key, number)) == number


def test_places_of_numbers_in_a_row_tell_nothing_of_their_distance() -> None:
    made = [int(places.seal(KEY, number), 16) for number in range(2000)]
    assert len(set(made)) == len(made)
    rises = sum(later > earlier for earlier, later in itertools.pairwise(made))
    assert 900 < rises < 1100
    assert len({(later - earlier) % 2**64 for earlier, later in itertools.pairwise(made)}) > 1990
    assert len({place >> 32 for place in made}) > 1990
    assert len({place % 2**32 for place in made}) > 1990


@pytest.mark.parametrize("other", [places.key_of(bytes(32), "bob"), places.key_of(b"\1" * 32, "alice")])
def test_another_scope_and_another_key_cannot_read_it(other: bytes) -> None:
    assert [places.unseal(other, places.seal(KEY, number)) for number in range(500)] == [None] * 500


@pytest.mark.parametrize("text", ["", "12", "x" * 16, "0" * 17, "A" * 16, " " + "0" * 15, "\u0663" * 16])
def test_what_is_no_place_is_none(text: str) -> None:
    assert places.unseal(KEY, text) is None


def test_another_key_is_another_era() -> None:
    assert places.era_of(bytes(32)) != places.era_of(b"\1" * 32)
