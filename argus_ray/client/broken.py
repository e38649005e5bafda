"""What the ways of sending a request raise where there is no answer."""

from __future__ import annotations


class Broken(Exception):
    """No answer. `final`: trying again is in vain; `unsent`: nothing can have been done."""

    def __init__(self, why: str, *, final: bool = False, unsent: bool = False) -> None:
        super().__init__(why)
        self.why, self.final, self.unsent = why, final, unsent


#: What is told of a header that httpx2, or http.client, would refuse.
BAD_HEADER = "a value has characters that no header of HTTP may have"
BAD_ENCODING = "the answer's content encoding is not understood"
TOO_LARGE = "the answer is too large to be one of Argus"
#: Bytes; the largest answers of the API are logs of 4 MiB.
MOST_BYTES = 64 * 1024 * 1024
#: Seconds for a connection, its handshake included; the least of this and the time-out.
CONNECT_S = 10.0
#: Seconds after which a connection that rests is not used again: servers and proxies close theirs without a word.
KEPT_S = 5.0


def late(*, unsent: bool) -> Broken:
    return Broken("no connection in time" if unsent else "no answer in time", unsent=unsent)


def untrusted(why: str) -> Broken:
    return Broken(f"its certificate is not trusted ({why})", final=True, unsent=True)


def unconnected(why: str, *, was_there: bool) -> Broken:
    """A name that nobody knows is most often misspelled; it is waited for only where the server was there before."""
    return Broken(why, final="[Errno -2]" in why and not was_there, unsent=True)
