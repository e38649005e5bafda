"""The way of sending requests that can all: proxies of the environment, and answers that are read as they come.

httpx2 is imported when this is first used.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator, Mapping

import httpx2

from argus_ray.client.broken import (
    BAD_ENCODING,
    BAD_HEADER,
    CONNECT_S,
    MOST_BYTES,
    TOO_LARGE,
    Broken,
    late,
    unconnected,
    untrusted,
)
from argus_ray.client.calls import Answer
from argus_ray.client.errors import BadAnswer, BadArgument

#: Before the request was sent, so that nothing can have been done.
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


class Full:
    """Connections to one server, by httpx2. `timeout`: seconds for each step, as far as a call does not say it."""

    def __init__(self, http: httpx2.Client, timeout: float, on_answer: Callable[[Mapping[str, str]], None]) -> None:
        """`on_answer` is told the headers of each answer."""
        self.http = http
        self._timeout, self._on_answer = timeout, on_answer
        self.has_answered = False

    @classmethod
    def of(
        cls,
        headers: Mapping[str, str],
        *,
        tls: ssl.SSLContext | bool,
        timeout: float,
        trust_env: bool,
        http: httpx2.BaseTransport | None,
        on_answer: Callable[[Mapping[str, str]], None],
    ) -> Full | None:
        """`http`: in the place of connections. None where a proxy of the environment cannot be used: an error raised
        here would have the token in its traceback, and httpx2's words may have the proxy's password."""
        with contextlib.suppress(ImportError, ValueError, httpx2.InvalidURL):
            made = httpx2.Client(headers=dict(headers), trust_env=trust_env, verify=tls, transport=http)
            return cls(made, timeout, on_answer)
        return None

    def close(self) -> None:
        self.http.close()

    def _timeouts(self, read_s: float) -> httpx2.Timeout:
        return httpx2.Timeout(self._timeout, connect=min(self._timeout, CONNECT_S), read=read_s)

    @contextlib.contextmanager
    def opened(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, read_s: float
    ) -> Iterator[httpx2.Response]:
        """An answer whose body is read by the caller. `read_s`: seconds without a byte. Raises Broken, BadArgument."""
        try:
            request = self.http.build_request(
                method, url, content=content, headers=dict(headers), timeout=self._timeouts(read_s)
            )
        except (httpx2.InvalidURL, ValueError, TypeError):
            raise BadArgument(f"no URL can be made for {method} of this") from None
        with self._told():
            response = self.http.send(request, stream=True)
        self.has_answered = True
        self._on_answer(response.headers)
        try:
            # The body too: it is read by whoever has this.
            with self._told():
                yield response
        finally:
            response.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """httpx2's errors as Broken, without what they refer to; BadArgument for what HTTP cannot carry."""
        broken: Broken | BadArgument | None = None
        try:
            yield
        except httpx2.LocalProtocolError:
            broken = BadArgument(BAD_HEADER)
        except httpx2.TransportError as error:
            broken = self._broken(error)
        except httpx2.DecodingError:
            broken = Broken(BAD_ENCODING, final=True)
        if broken is not None:
            raise broken

    def _broken(self, error: httpx2.TransportError) -> Broken:
        why = str(error)
        unsent = isinstance(error, _UNSENT)
        if isinstance(error, httpx2.TimeoutException):
            return late(unsent=unsent)
        if "CERTIFICATE_VERIFY_FAILED" in why:
            return untrusted(why)
        if isinstance(error, httpx2.ConnectError):
            return unconnected(why or type(error).__name__, was_there=self.has_answered)
        return Broken(why or type(error).__name__, unsent=unsent)


def read(response: httpx2.Response) -> Answer:
    """Raises BadAnswer, and Broken within `Full.opened`."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > MOST_BYTES:
            raise BadAnswer(TOO_LARGE, response.status_code)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, bytes(content))
