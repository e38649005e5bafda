"""The token is in no repr, no exception, no log, and no traceback, whatever fails."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from argus_ray.client import Client
from tests.client.test_retries import ME, Script, unavailable
from tests.support.fakeray import free_port

TOKEN = "secret-token"


def told(error: BaseException) -> str:
    """All that the usual ways of reporting show, with the locals of each of our frames and of httpx2's."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None:
        chain.append(at)
        at = at.__cause__ or at.__context__
    parts = [repr(error), str(error), *traceback.format_exception(error)]
    for each in chain:
        found = traceback.TracebackException.from_exception(each, capture_locals=True)
        # This test's own frames hold the token.
        found.stack = traceback.StackSummary.from_list([f for f in found.stack if "/tests/" not in f.filename])
        parts += [*found.format(), repr(vars(each))]
    return "".join(parts)


FAULTS: list[Callable[[], object]] = [
    lambda: Script(httpx2.ReadError("reset")).client(retry_s=0).me(),
    lambda: Script(httpx2.ConnectError("refused")).client(retry_s=0).create_user("u"),
    lambda: Script(unavailable(code="internal", status=500)).client().me(),
    lambda: Script(httpx2.Response(200, text="<html>")).client().me(),
    lambda: Script(httpx2.Response(200, json={**ME, "role": 1})).client().me(),
    lambda: Script(httpx2.Response(200, content=b"x", headers={"content-encoding": "gzip"})).client(retry_s=0).me(),
    lambda: Client(f"http://127.0.0.1:{free_port()}", TOKEN, retry_s=0).me(),
    lambda: Client("ftp://argus", TOKEN),
    lambda: Client("http://u:p@argus", TOKEN),
    lambda: Client("http://argus", TOKEN, ca_file="/nowhere"),
    lambda: Client("http://argus", TOKEN + "\n"),
    lambda: Client("http://argus", f"{TOKEN} ä"),
    lambda: Client(f"http://127.0.0.1:{free_port()}", TOKEN, retry_s=0).download("t", "a", "/tmp/x"),
    lambda: list(Client(f"http://127.0.0.1:{free_port()}", TOKEN, follow_s=0).log_events("t")),
    lambda: with_proxy(f"socks5://u:{TOKEN}@127.0.0.1:1"),
    lambda: with_proxy(f"foo://u:{TOKEN}@127.0.0.1:1"),
]


def with_proxy(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALL_PROXY", url)
        Client("https://argus.example", TOKEN)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_error_tells_the_token(fault: Callable[[], object], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Exception) as caught:
        fault()
    assert type(caught.value).__module__ == "argus_ray.client.errors"
    assert TOKEN not in told(caught.value)
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(pickle.loads(pickle.dumps(caught.value)))


def test_no_repr_and_no_log_tells_a_token(caplog: pytest.LogCaptureFixture, admin: Client) -> None:
    caplog.set_level(logging.DEBUG)
    admin.create_user("bob", "Bob")
    issued = admin.issue_token("bob")
    assert issued.token.startswith("argus_u_")
    bearer = "admin-token-of-the-tests"
    shown: list[Any] = [admin, vars(admin), issued, vars(admin._transport), admin._transport._http.headers]
    for secret in (issued.token, bearer):
        assert secret not in "".join(map(repr, [each for each in shown if each is not vars(issued)]))
        assert secret not in caplog.text


def test_a_proxy_of_the_environment_is_not_asked_for_what_is_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, admin: Client, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with Client(admin.url, "admin-token-of-the-tests", retry_s=0) as client:
        assert client.me().is_admin
