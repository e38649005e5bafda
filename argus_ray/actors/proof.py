"""That a call to a detached actor comes from the head's own processes: an HMAC of what it carries.

It keeps a run from naming itself admin in an ordinary call. It is no wall: Ray runs what anybody with its token sends,
in any actor and on the head (docs/operations.md, "Tokens and who can become admin").
"""

from __future__ import annotations

import hmac

from argus_ray.core.errors import Unavailable


def make(key: bytes | None, method: str, content: bytes) -> bytes:
    """Empty without a key: on a head that was started by hand."""
    return b"" if key is None else hmac.digest(key, method.encode() + b"\0" + content, "sha256")


def check(key: bytes | None, method: str, content: bytes, proof: bytes) -> None:
    """Raises Unavailable unless it was made with this key. To be called before `content` is read."""
    if key is not None and not hmac.compare_digest(make(key, method, content), bytes(proof)):
        raise Unavailable("The call does not carry the key of this head. Try again.")
