"""What is answered before any route is looked for: OPTIONS, and a header that decides and stands twice."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastapi import Request, Response
from starlette._utils import get_route_path
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.gateway.http import problems

#: Of each of these one value decides, and another reader of the same request might take the other one.
_ONCE = {
    name.lower().encode(): name
    for name in (
        "Authorization",
        "Content-Encoding",
        "Content-Length",
        "Content-Type",
        "Idempotency-Key",
        "Last-Event-ID",
    )
}


class Methods:
    """Path -> the methods that it takes: those of its routes, HEAD wherever GET is, and OPTIONS."""

    def __init__(self) -> None:
        self._known: list[tuple[re.Pattern[str], frozenset[str]]] = []

    def learn(self, routes: Iterable[BaseRoute]) -> None:
        self._known = [
            (route.path_regex, frozenset(route.methods or ())) for route in routes if isinstance(route, Route)
        ]

    def of(self, scope: Scope) -> set[str]:
        """Empty if there is no such path."""
        path = get_route_path(scope)
        found = set().union(*(methods for pattern, methods in self._known if pattern.match(path)))
        if "GET" in found:
            found.add("HEAD")
        return found | {"OPTIONS"} if found else found

    def allow(self, scope: Scope) -> str:
        """The value of an Allow header."""
        return ", ".join(sorted(self.of(scope)))


def answer(scope: Scope, methods: Methods) -> Response | None:
    """None: the routes answer."""
    if twice := _given_twice(scope):
        fields = [FieldError(name, "must be given once") for name in twice]
        return problems.response(Request(scope), InvalidRequest("A header stands more than once.", fields))
    # It tells what /openapi.json tells, so it asks for no token: those who probe have none. Nothing of CORS is said.
    if scope["method"] == "OPTIONS" and (allow := methods.allow(scope)):
        return Response(status_code=204, headers={"Allow": allow})
    return None


def _given_twice(scope: Scope) -> list[str]:
    seen: set[bytes] = set()
    twice = []
    for name, _ in scope["headers"]:
        if name in _ONCE:
            if name in seen and _ONCE[name] not in twice:
                twice.append(_ONCE[name])
            seen.add(name)
    return twice
