"""The only part of the client that does I/O: it sends calls, and sends those again that may be sent again.

The token is in the headers of the connection pool and nowhere else; no exception that leaves here refers to a request.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2

from argus_ray.client.calls import Answer, Call, error_of, retry_after
from argus_ray.client.errors import ApiError, BadAnswer, BadArgument, ServerUnreachable
from argus_ray.client.patience import Patience

T = TypeVar("T")
log = logging.getLogger("argus.client")
#: Bytes; the largest answers of the API are logs of 4 MiB.
_MOST_BYTES = 64 * 1024 * 1024
#: Of proxies before a head that restarts, and its own.
_AWAY = (502, 503, 504)
#: Before the request was sent, so that nothing can have been done.
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


class Broken(Exception):
    """No answer. `final`: trying again is in vain; `unsent`: nothing can have been done."""

    def __init__(self, why: str, *, final: bool = False, unsent: bool = False) -> None:
        super().__init__(why)
        self.why, self.final, self.unsent = why, final, unsent


class Transport:
    """Connections to one server. `on_retry` is told why a call is tried again, and in how many seconds."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        ca_file: str | None,
        timeout: float,
        retry_s: float,
        on_retry: Callable[[str, float], None] | None = None,
        http: httpx2.BaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`http`: in the place of connections. Raises BadArgument."""
        self.url, self._is_local = _base(url)
        self.monotonic, self.sleep, self.draw = monotonic, sleep, draw
        self.retry_s = retry_s
        self._timeout = timeout
        self._on_retry = on_retry
        self._has_answered = False
        #: Of the newest answer; None before there is one.
        self.server_version: str | None = None
        tls = _tls(self.url, ca_file)
        made: httpx2.Client | None = None
        with contextlib.suppress(ImportError, ValueError, httpx2.InvalidURL):
            made = httpx2.Client(
                headers=dict(headers),
                timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
                # A proxy cannot reach this machine's own services, and must not see their tokens.
                trust_env=not self._is_local,
                verify=tls,
                transport=http,
            )
        if made is None:
            # Not the error's words: the URL of a proxy may have a password in it.
            raise BadArgument(
                "a proxy of the environment cannot be used: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY must be "
                "http://HOST:PORT or https://HOST:PORT"
            )
        self._http = made

    def close(self) -> None:
        self._http.close()

    def patience(self, budget_s: float | None = None) -> Patience:
        """More than `retry_s` is for a server that was there: one that never was is most likely elsewhere."""
        wanted = self.retry_s if budget_s is None else budget_s
        return Patience(lambda: wanted if self._has_answered else min(wanted, self.retry_s), self.monotonic, self.draw)

    def send(self, call: Call[T], *, patience_s: float | None = None) -> T:
        """`patience_s`: in the place of `retry_s`. Raises ApiError, BadAnswer, BadArgument and ServerUnreachable."""
        target = call.target
        patience = self.patience(patience_s)
        was_sent = False
        while True:
            broken: Broken | None = None
            error: ApiError | BadAnswer | None = None
            try:
                answer = self._once(call, target)
            except Broken as found:
                broken = found
            # Outside of `except`: what is raised here must not drag the failed request along.
            if broken is not None:
                was_sent = was_sent or not broken.unsent
                may_repeat = call.repeats or broken.unsent
                may_be_done = was_sent and call.method != "GET"
                self.pause(patience, broken, may_repeat=may_repeat, may_be_done=may_be_done, what=repr(call))
                continue
            was_sent = True
            if answer.status < 300:
                return call.decode(answer)
            error = error_of(answer)
            if answer.status not in _AWAY or not call.repeats:
                raise error
            wait_s = patience.wait_s(retry_after(answer.headers))
            if wait_s is None:
                if isinstance(error, ApiError):
                    raise error
                raise self._unreachable(f"answer {answer.status}", patience, may_be_done=call.method != "GET")
            self._wait(f"{call!r}: {answer.status}", str(error), wait_s)

    def pause(
        self,
        patience: Patience,
        broken: Broken,
        *,
        may_repeat: bool = True,
        may_be_done: bool = False,
        what: str = "",
    ) -> None:
        """Wait before the next try. Raises ServerUnreachable if there is to be none."""
        wait_s = None if broken.final or not may_repeat else patience.wait_s()
        if wait_s is None:
            raise self._unreachable(broken.why, patience, may_be_done=may_be_done)
        self._wait(what, broken.why, wait_s)

    def pause_for(self, patience: Patience, error: ApiError) -> None:
        """The same after an answer of 503. Raises it if there is to be no next try."""
        wait_s = patience.wait_s(error.retry_after)
        if wait_s is None:
            raise error
        self._wait("", error.detail, wait_s)

    def _wait(self, what: str, why: str, wait_s: float) -> None:
        log.info("%s: %s; again in %.1f s", what, why, wait_s)
        if self._on_retry is not None:
            self._on_retry(why, wait_s)
        self.sleep(wait_s)

    def _unreachable(self, why: str, patience: Patience, *, may_be_done: bool = False) -> ServerUnreachable:
        waited = patience.waited_s
        tried = f", tried for {waited:.0f} s" if waited >= 1 else ""
        done = "; it may have been done all the same" if may_be_done else ""
        return ServerUnreachable(f"{self.url}: {why}{tried}{done}", waited_s=waited, may_be_done=may_be_done)

    def _once(self, call: Call[T], target: str) -> Answer:
        with self._opened(call, target, self._timeout) as response:
            return _read(response)

    @contextlib.contextmanager
    def opened(self, call: Call[T], *, read_s: float | None = None) -> Iterator[httpx2.Response]:
        """An answer whose body is read by the caller, within `on_broken`; it is a success.

        `read_s`: seconds without a byte. Raises ApiError, BadAnswer, BadArgument; Broken, which is never retried here.
        """
        with self._opened(call, call.target, self._timeout if read_s is None else read_s) as response:
            if response.status_code >= 300:
                answer = _read(response)
                error = error_of(answer)
                if answer.status in _AWAY and isinstance(error, BadAnswer):
                    raise Broken(f"answer {answer.status}")
                raise error
            yield response

    @contextlib.contextmanager
    def _opened(self, call: Call[T], target: str, read_s: float) -> Iterator[httpx2.Response]:
        try:
            request = self._http.build_request(
                call.method,
                self.url + target,
                content=call.content,
                headers=dict(call.headers),
                timeout=httpx2.Timeout(self._timeout, connect=min(self._timeout, 10.0), read=read_s),
            )
        except (httpx2.InvalidURL, ValueError, TypeError):
            raise BadArgument(f"no URL can be made for {call!r}") from None
        with self._told():
            response = self._http.send(request, stream=True)
        self._has_answered = True
        self.server_version = response.headers.get("x-argus-version", self.server_version)
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
            broken = BadArgument("a value has characters that no header of HTTP may have")
        except httpx2.TransportError as error:
            broken = self._broken(error)
        except httpx2.DecodingError:
            broken = Broken("the answer's content encoding is not understood", final=True)
        if broken is not None:
            raise broken

    def _broken(self, error: httpx2.TransportError) -> Broken:
        why = str(error)
        unsent = isinstance(error, _UNSENT)
        if isinstance(error, httpx2.TimeoutException):
            kind = "connection" if unsent else "answer"
            return Broken(f"no {kind} in time", unsent=unsent)
        if "CERTIFICATE_VERIFY_FAILED" in why:
            return Broken(f"its certificate is not trusted ({why})", final=True, unsent=True)
        # A name that nobody knows is most often misspelled; it is waited for only where it was known before.
        misspelled = isinstance(error, httpx2.ConnectError) and "[Errno -2]" in why and not self._has_answered
        return Broken(why or type(error).__name__, final=misspelled, unsent=unsent)


def _read(response: httpx2.Response) -> Answer:
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > _MOST_BYTES:
            raise BadAnswer("the answer is too large to be one of Argus", response.status_code)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, bytes(content))


def _base(url: str) -> tuple[str, bool]:
    """The URL without a slash at its end, and whether it is this machine's. Raises BadArgument."""
    problem = "the server's URL must look like http://head:8000 or https://argus.example.org"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadArgument(problem) from None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise BadArgument(problem)
    if parts.username is not None or parts.password is not None:
        raise BadArgument("the server's URL must not have a user or a password in it")
    return url.rstrip("/"), _is_loopback(host)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(url: str, ca_file: str | None) -> ssl.SSLContext | bool:
    """Raises BadArgument."""
    if ca_file is not None:
        try:
            return ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise BadArgument(f"{ca_file}: not a file of certificates ({error.strerror or error})") from None
    # Reading the system's certificates takes longer than all else; without TLS nothing needs them, and no redirect is
    # followed.
    return urlsplit(url).scheme == "https"
