"""What FastAPI makes anew for each application, made once a process.

It prepares the routes at an application's first requests, which costs more than the requests of most tests do, and the
document takes more than half a second. Neither depends on what differs between our applications: that is in
`app.state`, at which each request looks, and nobody overrides a dependency.
"""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, _EffectiveRouteContext

_prepare = _EffectiveRouteContext.from_api_route
#: By the id of the route, which is kept, so that no other one gets this id.
_PREPARED: dict[int, tuple[APIRoute, list[Any], _EffectiveRouteContext]] = {}
_DOCUMENT: dict[str, Any] = {}


def share(app: FastAPI) -> None:
    """Have this application, of all our routers, take from those before it what is the same."""
    _EffectiveRouteContext.from_api_route = _prepare_once  # type: ignore[method-assign]
    make, own = app.openapi, dict[str, Any]()

    def openapi() -> dict[str, Any]:
        if not _DOCUMENT:
            _DOCUMENT.update(make())
        if not own:
            own.update(copy.deepcopy(_DOCUMENT))
        return own

    app.openapi = openapi  # type: ignore[method-assign]


def _prepare_once(*, original_route: APIRoute, include_context: Any) -> _EffectiveRouteContext:
    # Of the application itself it keeps only who overrides dependencies.
    others = [getattr(include_context, each.name) for each in fields(include_context)]
    others = [each for each in others if not isinstance(each, FastAPI)]
    known = _PREPARED.get(id(original_route))
    if known is None or known[1] != others:
        made = _prepare(original_route=original_route, include_context=include_context)
        known = _PREPARED[id(original_route)] = original_route, others, made
    return known[2]
