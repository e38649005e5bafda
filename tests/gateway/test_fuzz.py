"""Random calls: no answer is a 5xx, against the document, or somebody else's. `scripts/fuzz` makes more of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.fuzz.run import Fuzz, report

#: About a minute, of one seed.
CALLS = 1200
#: Until each planted fault is met.
_CALLS_TO_FIND = 500
#: Where they are planted.
SPOILED = (
    "/api/v2/me",
    "/api/v2/queue",
    "/api/v2/admin/queue",
    "/api/v2/nodes",
    "/api/v2/presets",
    "/api/v2/tasks",
    "/api/v2/tasks/{task_id}",
    "/api/v2/tasks/{task_id}/explain",
)


def test_random_calls(tmp_path: Path) -> None:
    fuzz = Fuzz(tmp_path)
    try:
        fuzz.run(CALLS)
    finally:
        fuzz.close()
    print("\n".join(report(fuzz)))
    assert fuzz.total == CALLS
    assert fuzz.failures == {}
    assert fuzz.reads_by_user > CALLS // 20, "calls that are all refused say nothing"
    assert len([label for label, seen in fuzz.statuses.items() if seen[200] + seen[201]]) >= 22, "of 33 operations"


#: What a planted fault is called by the campaign.
FOUND = (
    "GET /api/v2/queue: a 500",
    "GET /api/v2/me: 203 against the document: UndefinedStatusCode",
    "GET /api/v2/me: ada-fuzzed reads the user id bob-fuzzed",
    "GET /api/v2/me: ada-fuzzed reads something of bob-fuzzed",
    "explain: 200 against the document: JsonSchemaError",
    "explain: ada-fuzzed reads a task of someone",
    "404 as 'text/plain'",
    "POST /api/v2/tasks: 201 against the document: MissingHeaders",
    "GET /api/v2/nodes: RuntimeError: a bug",
    "GET /api/v2/admin/queue: AssertionError: no answer",
    "GET /api/v2/presets: 200 against the document: it does not tell of the header x-secret",
)


def spoil(scope: Scope, start: Message, body: bytes) -> bytes:
    """Change the beginning of an answer; its body after the change."""
    path, status = scope["path"], start["status"]
    if path == "/api/v2/presets":
        start["headers"] = [*start["headers"], (b"x-secret", b"1")]
    if path == "/api/v2/queue":
        start["status"] = 500
    if status == 404:
        start["headers"] = [(n, v if n != b"content-type" else b"text/plain") for n, v in start["headers"]]
    start["headers"] = [(name, value) for name, value in start["headers"] if name != b"location"]
    if status != 200 or not body:
        return body
    if path == "/api/v2/me":
        start["status"] = 203
        return re.sub(rb"(ada|bob)-fuzzed", lambda seen: b"bob-fuzzed" if seen[1] == b"ada" else b"ada-fuzzed", body)
    if path.endswith("/explain"):
        others = {"position": "first", "own_ahead": ["argus-someone-sft-20260101-000000-abcd"]}
        return json.dumps({**json.loads(body), **others}).encode()
    return body


def spoiled(app: ASGIApp) -> ASGIApp:
    """The same application, with faults."""

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/api/v2/nodes":
            raise RuntimeError("a bug")
        if scope["path"] == "/api/v2/admin/queue":
            return
        begun: list[Message] = []

        async def send_spoiled(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            body = message.get("body", b"")
            if begun:
                start = begun.pop()
                body = spoil(scope, start, body)
                await send(start)
            await send({**message, "body": body})

        await app(scope, receive, send_spoiled)

    return around


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    fuzz = Fuzz(tmp_path, app=spoiled, only=SPOILED)
    try:
        fuzz.run(_CALLS_TO_FIND)
    finally:
        fuzz.close()
    missed = [words for words in FOUND if not any(words in failure for failure in fuzz.failures)]
    assert not missed, "\n".join(report(fuzz))
