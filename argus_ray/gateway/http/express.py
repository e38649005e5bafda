"""The way of the busiest calls past FastAPI: a route whose function takes the request alone needs nothing of it.

FastAPI asks one route after the other, and Serve asks them all once more for a name of its own; with some thirty routes
that cost a small call more than its answer did (fastapi 0.165, ray 2.60). Here such a route is found in one look.
Everything else goes on to FastAPI, which answers these calls in the same way, and documents them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from argus_ray.core.errors import ArgusError

Endpoint = Callable[[Request], Awaitable[Response]]
Answer = Callable[[Request, ArgusError], Response]


class Express:
    """An ASGI application around FastAPI's. It shows no `routes`, so Serve does not search them."""

    def __init__(
        self, app: FastAPI, routes: Iterable[BaseRoute], *, edge: Callable[[ASGIApp], ASGIApp], on_error: Answer
    ) -> None:
        """`edge`: the outermost layer, as `app` has it. `on_error`: what FastAPI's handler would answer."""
        self.fastapi = app
        self._on_error = on_error
        self._lane = edge(self._run)
        #: By method and path; by method and path up to its last segment, which is the one parameter.
        self._exact: dict[tuple[str, str], APIRoute] = {}
        self._below: dict[tuple[str, str], tuple[APIRoute, str]] = {}
        for route in routes:
            if isinstance(route, APIRoute) and _takes_the_request_alone(route):
                self._add(route)

    def _add(self, route: APIRoute) -> None:
        parent, _, last = route.path.rpartition("/")
        for method in route.methods or ():
            if "{" not in route.path:
                self._exact[method, route.path] = route
            elif "{" not in parent and last == f"{{{last[1:-1]}}}":
                self._below[method, parent] = route, last[1:-1]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_ours = scope["type"] == "http" and not scope.get("root_path") and self._find(scope)
        await (self._lane if is_ours else self.fastapi)(scope, receive, send)

    def _find(self, scope: Scope) -> bool:
        """Whether the call has a route here, which is put into the scope as FastAPI would."""
        method, path = scope["method"], scope["path"]
        route, parameters = self._exact.get((method, path)), {}
        if route is None:
            parent, _, last = path.rpartition("/")
            # With a colon it may be a verb, which is another route.
            found = self._below.get((method, parent)) if last and ":" not in last else None
            if found is None:
                return False
            route, name = found
            parameters = {name: last}
        scope["app"], scope["route"], scope["endpoint"] = self.fastapi, route, route.endpoint
        scope["path_params"] = parameters
        return True

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            response = await scope["endpoint"](request)
        except ArgusError as error:
            response = self._on_error(request, error)
        await response(scope, receive, send)


def _takes_the_request_alone(route: APIRoute) -> bool:
    return not route.dependencies and _annotations(route.endpoint) == [Request]


@functools.cache
def _annotations(endpoint: Callable[..., Any]) -> list[Any]:
    """Of its parameters. The same for each application of this process, and most of what it costs to make one."""
    parameters = inspect.signature(endpoint, eval_str=True).parameters.values()
    return [parameter.annotation for parameter in parameters]
