"""What no answer may be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import argus_ray
from argus_ray.gateway.http.problems import MEDIA_TYPE, PROBLEMS
from tests.support.fuzz.wire import Answer
from tests.support.fuzz.world import USERS

#: Also behind the name of an sft launcher, `argus-<submission id>`.
_TASK = re.compile(r"argus-(?!argus-)([a-z0-9-]+?)-(?:sft|ppo|grpo)-\d{8}-\d{6}-[0-9a-f]{4}")
_OPEN = re.compile(
    r"/(|console/[^/?]+|healthz|readyz|docs|openapi\.json|argus\.pyz|api/v2/version|api/v2/schema/taskspec)(\?|$)"
)
_TELLS_IDS = re.compile(r"/api/v2/(curves\?|tasks:cancel$)")
_SINGLE = (
    "content-type",
    "content-length",
    "location",
    "retry-after",
    "x-request-id",
    "x-argus-version",
    "www-authenticate",
)


def faults(sender: str, method: str, target: str, sent: bytes, answer: Answer) -> Iterator[str]:
    """`sent`: all of the request. What is wrong with the answer, whatever was asked."""
    if answer.status >= 500:
        yield f"a {answer.status}: {answer.body[:200]!r}"
    if answer.status >= 400 and method != "HEAD":
        yield from _of_problem(answer)
    for name in _SINGLE:
        if sum(given == name for given, _ in answer.headers) > 1:
            yield f"{name} twice"
    for name, value in answer.headers:
        if name.startswith("access-control-"):
            yield f"CORS: {name}"
        if re.search(r"[\r\n\0]", value):
            yield f"a control character in {name}"
    if not answer.header("x-request-id"):
        yield "no X-Request-Id"
    if answer.header("x-argus-version") != argus_ray.__version__:
        yield f"X-Argus-Version {answer.header('x-argus-version')!r}"
    if method == "HEAD" and answer.body:
        yield "a body for a HEAD"
    if sender in ("nobody", "stranger") and answer.status < 400 and method != "OPTIONS" and not _OPEN.match(target):
        yield f"{answer.status} without a token"
    if sender in USERS:
        yield from (f"{sender} reads {what}" for what in _of_others(sender, target, sent, answer))


#: Of each answer, by whichever part of the server; no client of the API reads them.
_OF_HTTP = frozenset(
    {
        "content-type", "content-length", "transfer-encoding", "content-security-policy", "x-content-type-options",
        "x-frame-options", "referrer-policy", "cache-control", "x-accel-buffering",
    }
)  # fmt: skip


def untold(operation: dict[str, Any], answer: Answer) -> Iterator[str]:
    """`operation`: its entry of the document. Headers of the answer that it does not tell of."""
    answers = operation["responses"]
    told = answers.get(str(answer.status)) or answers.get(f"{answer.status // 100}XX") or {}
    names = {name.lower() for name in told.get("headers", {})}
    for name, _ in answer.headers:
        if name not in names | _OF_HTTP:
            yield f"{answer.status} against the document: it does not tell of the header {name}"


def _of_problem(answer: Answer) -> Iterator[str]:
    if answer.header("content-type") != MEDIA_TYPE:
        yield f"{answer.status} as {answer.header('content-type')!r}"
        return
    found = json.loads(answer.body)
    if PROBLEMS.get(found["code"], (0,))[0] != answer.status or found["status"] != answer.status:
        yield f"{answer.status} with the code {found['code']}"
    if (answer.status in (429, 503)) != bool(answer.header("retry-after")):
        yield f"{answer.status}, Retry-After {answer.header('retry-after')!r}"


def _of_others(sender: str, target: str, sent: bytes, answer: Answer) -> Iterator[str]:
    text = answer.body.decode("utf-8", "replace") + " ".join(value for _, value in answer.headers)
    for task in _TASK.finditer(text):
        # Two calls tell of each id that they were asked for, whether or not there is such a task.
        is_repeated = _TELLS_IDS.match(target) and task[0].encode() in sent
        if task[1] != sender and not is_repeated:
            yield f"a task of {task[1]}"
    # What is open to everybody tells of user ids what they look like.
    is_data = answer.header("content-type").startswith("application/json") and not _OPEN.match(target)
    if answer.body and is_data:
        for name, value in _members(json.loads(answer.body)):
            if name == "user_id" and value not in (sender, None):
                yield f"the user id {value}"
    if sender == USERS[1] and "of-the-operator" in text and b"of-the-operator" not in sent:
        yield "a rule for another user"
    for other in USERS:
        # What it has said itself it may read again: a TaskSpec holds whatever its user wrote.
        if other != sender and other in text and other.encode() not in sent:
            yield f"something of {other}"


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield name, each
            yield from _members(each)
    elif isinstance(value, list):
        for each in value:
            yield from _members(each)
