"""The outermost layer of the gateway: request ids, security headers, the access log and the last resort for
bugs.

One structured line a request: method, route template, status, milliseconds, request id, user. Never a path
(an id in it may be a secret by mistake), a query, a header or a body.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import argus_ray
from argus_ray.gateway.http.arrival import Arrival

access_log = logging.getLogger("argus.access")
_log = logging.getLogger("argus.gateway")

_KEY = "argus.facts"
_HEAD = "argus.head"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
#: nginx's number for a client that left; only ever logged.
_CLIENT_GONE = 499

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    # Answers hold one user's data or a fresh token: no cache may keep them.
    (b"cache-control", b"no-store"),
    (b"x-argus-version", argus_ray.__version__.encode()),
]
_CSP = b"content-security-policy"
_API_CSP = b"default-src 'none'; frame-ancestors 'none'"


@dataclass
class Facts:
    """What is known of one request beside its content; the access line is made of it."""

    request_id: str
    arrival: Arrival
    #: The caller's own user id, once the service has said it.
    user_id: str | None = None
    role: str | None = None
    #: The code of the problem that was answered.
    code: str | None = None


def facts_of(scope: Scope) -> Facts:
    facts: Facts = scope[_KEY]
    return facts


def is_head(scope: Scope) -> bool:
    """Whether the client wants the headers alone. To the routes such a request is a GET."""
    return _HEAD in scope


class Edge:
    """ASGI middleware. It must be the first one, so that it sees every answer and every exception."""

    def __init__(
        self,
        app: ASGIApp,
        answer_early: Callable[[Scope], ASGIApp | None],
        internal_error: Callable[[Scope], ASGIApp],
        clock: Callable[[], float],
        sets_request_id: bool,
        count_problem: Callable[[Scope, str], None],
    ) -> None:
        """`answer_early`: what needs no route; None if it does. `clock`: Unix time in seconds, for the access line.
        `sets_request_id`: put X-Request-Id into answers. `count_problem`: is told the code of each problem.
        """
        self._app = app
        self._answer_early = answer_early
        self._internal_error = internal_error
        self._clock = clock
        self._sets_request_id = sets_request_id
        self._count_problem = count_problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            # A copy: the server must go on to see a HEAD.
            scope = {**scope, "method": "GET", _HEAD: True}
        arrival = Arrival(receive)
        facts = scope[_KEY] = Facts(_request_id(scope), arrival)
        started = time.monotonic()
        status = _CLIENT_GONE
        response_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, response_started
            if message["type"] == "http.response.start":
                status, response_started = message["status"], True
                headers = message["headers"] = list(message.get("headers", ()))
                if self._sets_request_id:
                    headers.append((b"x-request-id", facts.request_id.encode()))
                _add_headers(headers)
            elif method == "HEAD" and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await (self._answer_early(scope) or self._app)(scope, arrival, send_with_headers)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception:
            _log.exception("request %s failed", facts.request_id)
            if response_started:
                # Too late for a problem document: the server must break the connection, or it looks complete.
                raise
            await self._internal_error(scope)(scope, arrival, send_with_headers)
        finally:
            if facts.code is not None:
                self._count_problem(scope, facts.code)
            _write_access_line(self._clock(), method, scope, facts, status, time.monotonic() - started)


def _request_id(scope: Scope) -> str:
    """The id that a proxy in front of us gave (Serve's does), if it is harmless; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return str(given)
    return secrets.token_hex(8)


def _add_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """Those that the answer does not have already. Names are in lower case, as ASGI has them."""
    present = dict(headers)
    headers += [header for header in _HEADERS if header[0] not in present]
    if _CSP not in present:
        headers.append((_CSP, _API_CSP))


def _write_access_line(at: float, method: str, scope: Scope, facts: Facts, status: int, seconds: float) -> None:
    line = {
        "at": round(at, 3),
        "method": method,
        # No route matched: the path is a stranger's text, and not logged.
        "route": getattr(scope.get("route"), "path", None),
        "status": status,
        "ms": round(seconds * 1000, 1),
        "request_id": facts.request_id,
        "role": facts.role,
        "user_id": facts.user_id,
        "code": facts.code,
    }
    access_log.info("%s", json.dumps({key: value for key, value in line.items() if value is not None}))
