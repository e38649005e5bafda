"""One call, one answer, over the standard library's HTTP. httpx2 takes 130 ms of CPU to import, to make its client and
to send a first request, and http.client 30: that is the most of what `argus tasks` costs. What is more than this
(a proxy, a stream, a download) goes by httpx2, see `full`; a test holds the two against each other.
"""

from __future__ import annotations

import http.client
import re
import select
import ssl
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from argus_ray.client.broken import (
    BAD_ENCODING,
    BAD_HEADER,
    CONNECT_S,
    KEPT_S,
    MOST_BYTES,
    TOO_LARGE,
    Broken,
    late,
    unconnected,
    untrusted,
)
from argus_ray.client.calls import Answer
from argus_ray.client.errors import BadAnswer, BadArgument

_CHUNK: Final = 65536
#: As RFC 9110 has it.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[!-~]+(?:[ \t]+[!-~]+)*|")
Found = Answer | Broken | BadAnswer | BadArgument


def can_reach(url: str) -> bool:
    """Whether this is a URL without what httpx2 would have to translate."""
    return url.isascii() and url.isprintable() and not re.search(r"[ \"<>\\^`{|}%]", url)


class Plain:
    """Connections to one server. `tls` makes what https needs; it is called when the first connection is made."""

    def __init__(self, url: str, headers: Mapping[str, str], tls: Callable[[], ssl.SSLContext]) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path
        self._is_tls = parts.scheme == "https"
        self._headers = {**headers, "Accept-Encoding": "gzip"}
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        #: With the moment, of the monotonic clock, at which each began to rest. Threads take what they find.
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []
        self.has_answered = False

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes | None, timeout: float
    ) -> Found:
        """The answer, or why there is none: returned, so that no traceback has this frame, whose values are secret.

        `timeout`: seconds for each step.
        """
        given = {**self._headers, **headers}
        if not all(_NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in given.items()):
            return BadArgument(BAD_HEADER)
        connection = self._rested()
        if connection is None:
            made = self._connected(timeout)
            if isinstance(made, (Broken, BadArgument)):
                return made
            connection = made
        connection.sock.settimeout(timeout)
        try:
            connection.request(method, self._path + target, content, given)
            response = connection.getresponse()
            self.has_answered = True
            found = _read(response)
            keeps = isinstance(found, Answer) and not response.will_close
        except TimeoutError:
            found, keeps = late(unsent=False), False
        except (OSError, http.client.HTTPException) as error:
            found, keeps = Broken(str(error) or type(error).__name__), False
        except BaseException:
            connection.close()
            raise
        if keeps:
            self._idle.append((time.monotonic(), connection))
        else:
            connection.close()
        return found

    def _rested(self) -> http.client.HTTPConnection | None:
        """A connection that the server has not closed, as far as can be seen."""
        while True:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - since < KEPT_S and not _is_readable(connection):
                return connection
            connection.close()

    def _connected(self, timeout: float) -> http.client.HTTPConnection | Broken | BadArgument:
        within_s = min(timeout, CONNECT_S)
        connection: http.client.HTTPConnection
        if self._is_tls:
            try:
                self._context = self._context or self._tls()
            except BadArgument as error:
                return error
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=within_s, context=self._context)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=within_s)
        connection.response_class = _Response
        try:
            connection.connect()
        except TimeoutError:
            broken = late(unsent=True)
        except ssl.SSLCertVerificationError as error:
            broken = untrusted(str(error))
        except (OSError, UnicodeError) as error:
            broken = unconnected(str(error) or type(error).__name__, was_there=self.has_answered)
        else:
            return connection
        connection.close()
        return broken


class _Response(http.client.HTTPResponse):
    def _read_status(self) -> tuple[str, int, str]:
        """The status of the answer itself. http.client passes over `100 Continue`, and takes 103 for an answer."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 101 < status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


def _is_readable(connection: http.client.HTTPConnection) -> bool:
    """Whether something came while nobody asked: it is closed, or out of step."""
    if not hasattr(select, "poll"):
        return bool(select.select([connection.sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _read(response: http.client.HTTPResponse) -> Answer | Broken | BadAnswer:
    headers: dict[str, str] = {}
    for name, value in response.getheaders():
        low = name.lower()
        headers[low] = f"{headers[low]}, {value}" if low in headers else value
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        return Broken(BAD_ENCODING, final=True)
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    content, has_body = bytearray(), False
    while chunk := response.read(_CHUNK):
        has_body = True
        while chunk:
            if unpack is None:
                content += chunk
                break
            try:
                # Bounded: little that is packed can be very much.
                content += unpack.decompress(chunk, MOST_BYTES + 1)
            except zlib.error:
                return Broken(BAD_ENCODING, final=True)
            if len(content) > MOST_BYTES:
                break
            chunk = unpack.unconsumed_tail
        if len(content) > MOST_BYTES:
            return BadAnswer(TOO_LARGE, response.status)
    # With a size given, read() tells of no end that came too soon.
    if response.length or (unpack is not None and has_body and not unpack.eof):
        return Broken("the answer broke off")
    return Answer(response.status, headers, bytes(content))
