"""Numbers that users are shown without what they tell: each user sees a permutation of them of their own.

Changes are numbered across all users, so the numbers themselves would tell how much others do. What is shown can be
given back, and is compared with nothing: the order of places is nobody's but ours.
"""

from __future__ import annotations

import hashlib
import re

_ROUNDS = 4
_HALF = 32
_PLACE = re.compile(r"[0-9a-f]{16}")
#: A text that was not made here, or with another key, comes to more than this in all but one of some ten million cases.
_MOST = 2**40


def key_of(key: bytes, scope: str) -> bytes:
    """What the places of this scope are made with: no other scope can read them."""
    return hashlib.blake2b(scope.encode(), key=key, digest_size=32).digest()


def era_of(key: bytes) -> bytes:
    """Another one: what was numbered before says nothing any more."""
    return hashlib.blake2b(b"era", key=key, digest_size=8).digest()


def seal(key: bytes, number: int) -> str:
    left, right = divmod(number, 2**_HALF)
    for turn in range(_ROUNDS):
        left, right = right, left ^ _mixed(key, turn, right)
    return f"{left:08x}{right:08x}"


def unseal(key: bytes, place: str) -> int | None:
    """None for what was not made by `seal` with this key."""
    if not _PLACE.fullmatch(place):
        return None
    left, right = int(place[:8], 16), int(place[8:], 16)
    for turn in reversed(range(_ROUNDS)):
        left, right = right ^ _mixed(key, turn, left), left
    number = left * 2**_HALF + right
    return number if number <= _MOST else None


def _mixed(key: bytes, turn: int, half: int) -> int:
    digest = hashlib.blake2b(bytes([turn]) + half.to_bytes(4, "big"), key=key, digest_size=4).digest()
    return int.from_bytes(digest, "big")
