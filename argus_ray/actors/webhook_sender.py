"""One delivery over HTTP, to an address that was looked at.

httpcore2, the transport of httpx2, since its network layer can be given: the name is resolved once, the addresses are
checked, and the connection goes to one that was checked, so a name that changes its address between the check and the
connection reaches nothing. It follows no redirect and knows no proxy of the environment."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpcore2

from argus_ray.core import webhooks
from argus_ray.core.webhooks import Reply, Verdict, Webhook
from argus_ray.discovery import tracking_keys
from argus_ray.disk.threads import BoundedThreads

#: Seconds, until it is connected and has taken the message, and of a whole delivery: the receiver may take the rest to
#: answer.
_STEP_S, _WHOLE_S = 5.0, 15.0
#: Of an answer, which is read for its status alone.
_MAX_ANSWER_BYTES = 64 * 1024

Resolve = Callable[[str, int], list[str]]


def _no_answer() -> Reply:
    return Reply(Verdict.LATER, f"no answer in {_WHOLE_S:g} s")


class NotAllowed(Exception):
    """The host has an address that must not be called."""


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class _Bounded(httpcore2.NetworkStream):
    """One that reads and writes until `end` (of `time.monotonic`): timeouts are for one step each, and a receiver that
    says a byte a second would have its thread for ever."""

    def __init__(self, stream: httpcore2.NetworkStream, end: float) -> None:
        self._stream, self._end = stream, end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left_s(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left_s(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, self._left_s(timeout)), self._end)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _left_s(self, timeout: float | None) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore2.TimeoutException
        return left if timeout is None else min(left, timeout)


class _CheckedNetwork(httpcore2.NetworkBackend):
    def __init__(self, resolve_host: Resolve, allow_local: bool, end: float) -> None:
        self._resolve, self._allow_local, self._end = resolve_host, allow_local, end
        self._network = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            found = self._resolve(host, port)
        except OSError as error:
            raise httpcore2.ConnectError("the host has no address") from error
        addresses = webhooks.usable(found, allow_local=self._allow_local)
        if not addresses:
            raise NotAllowed
        failed: Exception = httpcore2.ConnectError("the host has no address")
        for address in addresses[:4]:
            try:
                stream = self._network.connect_tcp(address, port, timeout, local_address, socket_options)
                return _Bounded(stream, self._end)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed


class Sender:
    """Of all receivers; each in threads of its own, a bounded number, so that none which hangs holds up another."""

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        *,
        clock: Callable[[], float] = time.time,
        resolve_host: Resolve = resolve,
        threads: int = 4,
    ) -> None:
        """`threads`: of one receiver."""
        self._environ, self._clock, self._resolve = environ, clock, resolve_host
        self._size = threads
        #: By the names of the receivers.
        self._threads: dict[str, BoundedThreads] = {}

    async def __call__(self, webhook: Webhook, message: str, content: bytes) -> Reply:
        threads = self._threads.get(webhook.name)
        if threads is None:
            threads = self._threads[webhook.name] = BoundedThreads(f"webhook-{webhook.name}", self._size)
        try:
            return await threads.run(lambda: self._send(webhook, message, content), _WHOLE_S)
        except asyncio.TimeoutError:
            return _no_answer()
        except Exception as error:
            return Reply(Verdict.LATER, type(error).__name__)

    def _send(self, webhook: Webhook, message: str, content: bytes) -> Reply:
        try:
            secret = tracking_keys.read(webhook.secret_env, self._environ)
        except OSError:
            secret = None
        if not secret:
            return Reply(Verdict.LATER, f"{webhook.secret_env} is not set: nothing is sent unsigned")
        headers = webhooks.headers(message, self._clock(), content, secret)
        end = time.monotonic() + _WHOLE_S
        network = _CheckedNetwork(self._resolve, webhook.allow_local, end)
        timeouts = {**dict.fromkeys(("connect", "write", "pool"), _STEP_S), "read": _WHOLE_S}
        try:
            with (
                httpcore2.ConnectionPool(network_backend=network) as pool,
                pool.stream(
                    "POST",
                    webhook.url,
                    headers=[("user-agent", "argus"), *headers.items()],
                    content=content,
                    extensions={"timeout": timeouts},
                ) as answer,
            ):
                self._read_on(answer)
                retry_after = next((value for name, value in answer.headers if name.lower() == b"retry-after"), b"")
                return webhooks.judge(answer.status, retry_after.decode("ascii", "replace"))
        except httpcore2.TimeoutException:
            if time.monotonic() < end:
                raise
            return _no_answer()
        except NotAllowed:
            return Reply(Verdict.LATER, "its host has a loopback or link-local address (allow_local)")

    def _read_on(self, answer: httpcore2.Response) -> None:
        """So that the other side is not cut off in the middle of a short answer."""
        size = 0
        for part in answer.iter_stream():
            size += len(part)
            if size > _MAX_ANSWER_BYTES:
                return
