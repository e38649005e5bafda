"""The OpenAPI document: FastAPI's, with our errors, the headers of answers, and links from one call to the next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from argus_ray.gateway.http import problems

#: Of an answer that is a problem document, by which FastAPI's entries are known.
PROBLEM = "A problem document"

#: Of each answer.
_ALWAYS = {
    "X-Request-Id": {"required": True, "schema": {"type": "string"}, "description": "Quote it in a report"},
    "X-Argus-Version": {"required": True, "schema": {"type": "string"}, "description": "Of the service"},
}
_RETRY_AFTER: dict[str, Any] = {
    "Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}, "description": "Seconds; of 429 and 503"}
}
_ALLOW = {"Allow": {"schema": {"type": "string"}, "description": "Of a 405"}}
_CHALLENGE = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
#: Operation -> what its answer tells of the paths of others: parameter -> where.
_TELLS = {
    "submitTask": {"task_id": "/task_id"},
    "resubmitTask": {"task_id": "/task_id"},
    "listTasks": {"task_id": "/tasks/0/task_id"},
    "getQueue": {"task_id": "/running/0/task_id"},
    "createUser": {"user_id": "/user_id"},
    "issueToken": {"user_id": "/user_id", "token_id": "/token_id"},
    "listNodes": {"node": "/nodes/0/hostname"},
    "listFiles": {"task_id": "/task_id", "path": "/entries/0/path"},
}


def operation_id(route: APIRoute) -> str:
    """The function's name as one of generated clients: `submit_task` is `submitTask`."""
    first, *others = route.name.split("_")
    return first + "".join(map(str.capitalize, others))


def describe(app: FastAPI) -> None:
    """Have `app.openapi()` tell all of it. FastAPI would promise its own 422, which is a 400 problem here."""
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _complete(found)
            document.update(found)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    operations = list(_operations(document))
    for _, operation in operations:
        answers = operation["responses"]
        answers.pop("422", None)
        if operation.get("security"):
            answers["401"] = {**answers["4XX"], "headers": _CHALLENGE}
        # A client is told when to try again by any of them.
        if "503" not in answers:
            answers["503"] = {**answers["5XX"]}
        answers["503"]["headers"] = {"Retry-After": {**_RETRY_AFTER["Retry-After"], "required": True}}
        for status, answer in answers.items():
            if answer.get("description") == PROBLEM:
                answer["content"] = {problems.MEDIA_TYPE: next(iter(answer["content"].values()))}
                answer["headers"] = _RETRY_AFTER | (_ALLOW if status == "4XX" else {}) | answer.get("headers", {})
            answer["headers"] = answer.get("headers", {}) | _ALWAYS
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for _, operation in operations:
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "$defs" in content["schema"]:
                content["schema"] = {**content["schema"]}
                schemas.update(content["schema"].pop("$defs"))
    _link(operations)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each with its path."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def _link(operations: list[tuple[str, dict[str, Any]]]) -> None:
    for _, operation in operations:
        told = _TELLS.get(operation["operationId"])
        if told is None:
            continue
        links = {}
        for path, other in operations:
            needed = re.findall(r"\{(\w+)\}", path)
            if needed and set(needed) <= set(told):
                parameters = {name: f"$response.body#{told[name]}" for name in needed}
                links[other["operationId"]] = {"operationId": other["operationId"], "parameters": parameters}
        for status, answer in operation["responses"].items():
            if status.startswith("2"):
                answer["links"] = links
