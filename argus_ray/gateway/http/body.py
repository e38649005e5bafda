"""Request bodies: bounded while they arrive, of a known content type, and strict.

FastAPI would read a whole body before anything of ours runs; these functions take it in pieces after the
token was seen, and stop at the limit, whatever Content-Length says.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import sys
from email.message import Message
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from argus_ray.core.errors import BodyTooLarge, FieldError, InvalidRequest, InvalidSpec
from argus_ray.core.taskspec import MAX_SPEC_BYTES, TaskSpec
from argus_ray.gateway.http.problems import RequestTimeout, UnsupportedMediaType, field_rules

YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain")
JSON_TYPES = ("application/json",)
MAX_JSON_BYTES = 16 * 1024
#: A sender slower than this only holds a slot.
READ_TIMEOUT_S = 30.0

SCHEMAS = "#/components/schemas/"

_MEDIA_TYPE = re.compile(r"\s*[\w!#$&^.+-]{1,64}/[\w!#$&^.+-]{1,64}\s*(?:;.*)?", re.ASCII)
_FORM = "application/x-www-form-urlencoded"
_FLAGS = {
    YAML_TYPES: "--data-binary @FILE -H 'Content-Type: application/yaml'",
    JSON_TYPES: "-H 'Content-Type: application/json'",
}
NEWLINES_GONE = "The body has no newlines: curl -d strips them, --data-binary @FILE does not."
_FIELD = re.compile(rf"(?:{'|'.join(TaskSpec.model_fields)}): ")

Model = TypeVar("Model", bound=BaseModel)


async def read_spec(request: Request) -> str:
    """A TaskSpec's text, byte for byte. What it says is not looked at here."""
    _check_type(request, YAML_TYPES)
    raw = await _read(request, MAX_SPEC_BYTES)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidSpec("the TaskSpec must be UTF-8", [FieldError("(document)", "must be UTF-8")]) from None


async def read_json(
    request: Request, model: type[Model], *, optional: bool = False, max_bytes: int = MAX_JSON_BYTES
) -> Model:
    """The body as this model; `optional`: an empty body is the model's defaults."""
    if not optional:
        _check_type(request, JSON_TYPES)
    raw = await _read(request, max_bytes)
    if optional and not raw:
        return model()
    _check_type(request, JSON_TYPES)
    try:
        return model.model_validate(_parse(raw))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise InvalidRequest("The body breaks a rule.", field_rules(found)) from None


def schema_of(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The OpenAPI entry of a body that `read_json` reads."""
    return {
        "requestBody": {
            "required": required,
            # What the model names besides itself, `document` moves to where the references lead.
            "content": {"application/json": {"schema": model.model_json_schema(ref_template=SCHEMAS + "{model}")}},
        }
    }


def lacks_newlines(spec: str) -> bool:
    """Whether this broken TaskSpec is one whose lines were put into one."""
    return "\n" not in spec and not spec.lstrip().startswith("{") and len(_FIELD.findall(spec)) > 1


def _check_type(request: Request, accepted: tuple[str, ...]) -> None:
    given = request.headers.get("content-type", "")
    if "," in given:
        # Two headers, joined by a proxy.
        raise InvalidRequest("A header stands more than once.", [FieldError("Content-Type", "must be given once")])
    kind, is_utf8 = _content_type(given)
    plain = request.headers.get("content-encoding", "identity").lower() == "identity"
    if kind not in accepted or not is_utf8:
        rule = f"The Content-Type must be {' or '.join(accepted)}, in UTF-8."
        # What curl -d says of whatever it sends.
        raise UnsupportedMediaType(rule if kind != _FORM else f"{rule} With curl: {_FLAGS[accepted]}.")
    if not plain:
        raise UnsupportedMediaType("The body must not have a Content-Encoding.")


@functools.lru_cache(maxsize=64)
def _content_type(value: str) -> tuple[str | None, bool]:
    """The media type (None if it is none), and whether the text is UTF-8. Clients send few different ones."""
    # Python's own parser takes what it does not understand for text/plain.
    if not _MEDIA_TYPE.fullmatch(value):
        return None, False
    header = Message()
    header["content-type"] = value
    charset = header.get_param("charset", "utf-8")
    is_utf8 = isinstance(charset, str) and charset.lower() in ("utf-8", "utf8", "us-ascii")
    return header.get_content_type(), is_utf8


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    try:
        if sys.version_info < (3, 11):
            return await asyncio.wait_for(_collect(request, limit), READ_TIMEOUT_S)
        # `wait_for` would make a task of its own for each body.
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await _collect(request, limit)
    except (asyncio.TimeoutError, TimeoutError):
        raise RequestTimeout() from None


async def _collect(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body may be at most {limit} bytes long.")


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        rule = str(error) if isinstance(error, _BrokenRule) else "must be JSON in UTF-8"
        raise InvalidRequest("The body is not valid JSON.", [FieldError("(body)", rule)]) from None


class _BrokenRule(ValueError):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _BrokenRule("a key stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise _BrokenRule(f"{name} is not JSON")
