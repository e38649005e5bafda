"""Errors as RFC 9457 problem documents: the one table from an error's code to its HTTP status, and the
handlers.

Nothing of the request is echoed, except the names of fields that broke a rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from argus_ray.core.errors import ArgusError, BodyTooLarge, FieldError, InvalidRequest
from argus_ray.gateway.http.access import facts_of
from argus_ray.gateway.http.auth import challenge

MEDIA_TYPE = "application/problem+json"


class RouteNotFound(ArgusError):
    """There is no such path in this API."""

    code = "not_found"


class MethodNotAllowed(ArgusError):
    """This path does not take this method; the Allow header names those that it takes."""

    code = "method_not_allowed"


class UnsupportedMediaType(ArgusError):
    """The body's content type is not one that this call takes."""

    code = "unsupported_media_type"


class RequestTimeout(ArgusError):
    """The body did not arrive in time."""

    code = "request_timeout"


class RangeNotSatisfiable(ArgusError):
    """The file ends before this range begins."""

    code = "range_not_satisfiable"


#: code -> (status, title). A title never changes with the occurrence; `detail` does.
PROBLEMS: dict[str, tuple[int, str]] = {
    "invalid_spec": (400, "The TaskSpec breaks a rule"),
    "invalid_request": (400, "The request breaks a rule"),
    "unauthenticated": (401, "No valid bearer token"),
    "user_disabled": (403, "The user is disabled"),
    "forbidden": (403, "Not allowed with this token"),
    "not_found": (404, "No such path"),
    "task_not_found": (404, "No such task"),
    "user_not_found": (404, "No such user"),
    "token_not_found": (404, "No such token"),
    "node_not_found": (404, "No such node"),
    "log_not_found": (404, "No such log"),
    "file_not_found": (404, "No such file"),
    "method_not_allowed": (405, "Method not allowed"),
    "request_timeout": (408, "The body did not arrive in time"),
    "user_exists": (409, "The user exists already"),
    "ambiguous_node": (409, "More than one machine goes by this name"),
    "idempotency_conflict": (409, "The Idempotency-Key was used with another body"),
    "task_not_ended": (409, "The task has not ended"),
    "nothing_to_resume": (409, "Nothing is left to train"),
    "nothing_to_export": (409, "No such complete checkpoint"),
    "files_gone": (410, "The files have left the job root"),
    "body_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "Unsupported content type"),
    "range_not_satisfiable": (416, "No such range of the file"),
    "queue_full": (429, "The queue is full"),
    "internal": (500, "Internal error"),
    "illegal_transition": (500, "Internal error"),
    "stale_writer": (503, "Not available now"),
    "unavailable": (503, "Not available now"),
}
#: Seconds to wait before a retry.
_RETRY_AFTER = {"queue_full": "60", "stale_writer": "5", "unavailable": "2"}
_INTERNAL_DETAIL = "Something went wrong inside Argus. Quote the request id when you report it."


def document(error: ArgusError, request_id: str) -> dict[str, Any]:
    """The members of the problem document of this error."""
    code = error.code if error.code in PROBLEMS else "internal"
    status, title = PROBLEMS[code]
    content: dict[str, Any] = {
        "type": f"urn:argus:error:{code}",
        "title": title,
        "status": status,
        "detail": error.detail if status != 500 else _INTERNAL_DETAIL,
        # This occurrence. The request id, not the path: a path may hold what must not be repeated.
        "instance": f"urn:argus:request:{request_id}",
        "code": code,
    }
    if error.fields:
        content["errors"] = [{"field": item.field, "rule": item.rule} for item in error.fields]
    return content


def response(request: Request, error: ArgusError, headers: Mapping[str, str] | None = None, **extra: Any) -> Response:
    """The HTTP answer to an error; `extra` are further members of the document."""
    content = document(error, facts_of(request.scope).request_id) | extra
    all_headers = dict(headers or {})
    if content["status"] == 401:
        all_headers["WWW-Authenticate"] = challenge(request.headers.getlist("authorization"))
    if content["code"] in _RETRY_AFTER:
        all_headers["Retry-After"] = _RETRY_AFTER[content["code"]]
    facts_of(request.scope).code = content["code"]
    return Response(json.dumps(content), content["status"], all_headers, MEDIA_TYPE)


def internal_error(scope: Scope) -> Response:
    """The answer when our own code failed: the request id, and nothing that the exception says."""
    return response(Request(scope), ArgusError())


def field_rules(errors: Sequence[Any]) -> list[FieldError]:
    """FastAPI's and pydantic's findings in our words; never the offending input."""
    found = []
    for item in errors:
        location = [str(part) for part in item["loc"]]
        if len(location) > 1 and location[0] in ("query", "path", "header", "body"):
            location = location[1:]
        rule = {"missing": "is required", "extra_forbidden": "is not known here"}.get(item["type"])
        found.append(FieldError(".".join(location)[:64], rule or item["msg"].removeprefix("Value error, ")))
    return found


def install(app: FastAPI, allow: Callable[[Scope], str]) -> None:
    """Make every error of this app a problem document. `allow`: the methods of a path. Starlette names only those of
    the first route."""

    async def on_argus_error(request: Request, error: ArgusError) -> Response:
        return response(request, error)

    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        fields = field_rules(error.errors())
        return response(request, InvalidRequest("The request breaks a rule.", fields))

    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return response(request, RouteNotFound())
        if error.status_code == 405:
            return response(request, MethodNotAllowed(), {"Allow": allow(request.scope)})
        if error.status_code == 413:
            return response(request, BodyTooLarge())
        return response(request, InvalidRequest() if error.status_code < 500 else ArgusError())

    app.add_exception_handler(ArgusError, on_argus_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, on_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, on_http_exception)  # type: ignore[arg-type]
