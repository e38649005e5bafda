"""Random calls: no answer is a 5xx, against the document, or somebody else's. `scripts/fuzz` makes more of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.fuzz.run import Fuzz, report

#: About a minute, of one seed.
CALLS = 1500


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
    assert len([label for label, seen in fuzz.statuses.items() if seen[200] + seen[201]]) >= 22, "of 31 operations"


def changed(change: Callable[[Scope, Message, bytes], bytes]) -> Callable[[ASGIApp], ASGIApp]:
    """An application whose answers are changed: `change` gets the call, its beginning (to change) and its body."""

    def around(app: ASGIApp) -> ASGIApp:
        async def changing(scope: Scope, receive: Receive, send: Send) -> None:
            start: Message = {}

            async def send_changed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    start.update(message)
                    return
                body = change(scope, start, message.get("body", b"")) if start else message.get("body", b"")
                if start:
                    await send(dict(start))
                    start.clear()
                await send({**message, "body": body})

            await app(scope, receive, send_changed)

        return changing

    return around


def an_error(scope: Scope, start: Message, body: bytes) -> bytes:
    if scope["path"] == "/api/v2/queue":
        start["status"] = 500
    return body


def an_undocumented_status(scope: Scope, start: Message, body: bytes) -> bytes:
    if scope["path"] == "/api/v2/me" and start["status"] == 200:
        start["status"] = 203
    return body


def another_type(scope: Scope, start: Message, body: bytes) -> bytes:
    if scope["path"].endswith("/explain") and start["status"] == 200:
        found = json.loads(body)
        return json.dumps({**found, "position": "first"}).encode()
    return body


def another_content_type(scope: Scope, start: Message, body: bytes) -> bytes:
    if start["status"] == 404:
        start["headers"] = [(n, v if n != b"content-type" else b"text/plain") for n, v in start["headers"]]
    return body


def no_location(scope: Scope, start: Message, body: bytes) -> bytes:
    start["headers"] = [(name, value) for name, value in start["headers"] if name != b"location"]
    return body


def the_wrong_user(scope: Scope, start: Message, body: bytes) -> bytes:
    if scope["path"] == "/api/v2/me":
        return re.sub(rb"(ada|bob)-fuzzed", lambda seen: b"bob-fuzzed" if seen[1] == b"ada" else b"ada-fuzzed", body)
    return body


def another_ones_task(scope: Scope, start: Message, body: bytes) -> bytes:
    if scope["path"].endswith("/explain") and start["status"] == 200:
        found = json.loads(body)
        return json.dumps({**found, "own_ahead": ["argus-someone-sft-20260101-000000-abcd"]}).encode()
    return body


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (an_error, "a 500"),
        (an_undocumented_status, "203 against the document: UndefinedStatusCode"),
        (another_type, "200 against the document: JsonSchemaError"),
        (another_content_type, "404 as 'text/plain'"),
        (no_location, "201 against the document: MissingHeaders"),
        (the_wrong_user, "ada-fuzzed reads the user id bob-fuzzed"),
        (another_ones_task, "reads a task of someone"),
    ],
)
def test_what_is_wrong_is_found(tmp_path: Path, change: Callable[[Scope, Message, bytes], bytes], words: str) -> None:
    fuzz = Fuzz(tmp_path, app=changed(change))
    try:
        for _ in range(6):
            fuzz.run(200)
            if any(words in failure for failure in fuzz.failures):
                return
    finally:
        fuzz.close()
    pytest.fail("\n".join(report(fuzz)))


def test_a_bug_is_found(tmp_path: Path) -> None:
    """An exception that reaches the server, or no answer at all."""

    def breaking(app: ASGIApp) -> ASGIApp:
        async def broken(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/api/v2/me":
                raise RuntimeError("a bug")
            if scope["path"] != "/api/v2/queue":
                await app(scope, receive, send)

        return broken

    fuzz: Any = Fuzz(tmp_path, app=breaking)
    try:
        fuzz.run(600)
    finally:
        fuzz.close()
    found = " ".join(fuzz.failures)
    assert "RuntimeError: a bug" in found and "AssertionError: no answer" in found
