"""Behind a proxy that strips a prefix: what we say of our own paths has it again. Believed of trusted proxies only."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

import pytest
from uvicorn.middleware import proxy_headers

from argus_ray.gateway.http.prefix import TrustedProxies
from tests.gateway.test_stream_server import served
from tests.support.gateway import ADMIN, YAML, Api, Headers, TestClient

GIVEN = {"X-Forwarded-Prefix": "/argus"}


def client(api: Api, *, peer: tuple[str, int] = ("127.0.0.1", 5000), **options: Any) -> TestClient:
    return TestClient(api.app, client=peer, **options)


def location(http: TestClient, api: Api, who: Headers, headers: Any) -> str:
    sent = [*(who | YAML).items(), *(headers.items() if isinstance(headers, dict) else headers)]
    answer = http.post("/api/v2/tasks", content=api.world.spec(), headers=sent)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"]).replace(answer.json()["task_id"], "ID")


def openapi_url(page: str) -> str:
    """Of the page /docs, whether the console was built here or not."""
    found = re.search(r'data-prefix="(?P<prefix>[^"]*)"|href="(?P<url>[^"]*/openapi.json)"', page)
    assert found, page
    return found["url"] or f"{found['prefix']}/openapi.json"


def test_location_and_docs_have_the_prefix(api: Api, alice: Headers) -> None:
    http = client(api)
    assert location(http, api, alice, {}) == "/api/v2/tasks/ID"
    assert location(http, api, alice, GIVEN) == "/argus/api/v2/tasks/ID"
    assert location(http, api, alice, {"X-Forwarded-Prefix": "/team-a/argus/"}) == "/team-a/argus/api/v2/tasks/ID"
    task_id = api.submit(alice)
    http.post(f"/api/v2/tasks/{task_id}:cancel", headers=alice)
    answer = http.post(f"/api/v2/tasks/{task_id}:resubmit", headers=alice | GIVEN)
    assert answer.headers["location"] == f"/argus/api/v2/tasks/{answer.json()['task_id']}"
    assert openapi_url(http.get("/docs", headers=GIVEN).text) == "/argus/openapi.json"
    assert openapi_url(http.get("/docs").text) == "/openapi.json"
    assert http.get("/openapi.json", headers=GIVEN).json()["servers"] == [{"url": "/argus"}]
    assert "servers" not in http.get("/openapi.json").json(), "the prefix of one caller is nobody else's"


@pytest.mark.parametrize("prefix", ["/api", "/docs", "/api/v2", "/openapi.json"])
def test_a_prefix_like_a_path_of_ours(api: Api, alice: Headers, prefix: str) -> None:
    given = {"X-Forwarded-Prefix": prefix}
    assert location(client(api), api, alice, given) == f"{prefix}/api/v2/tasks/ID"
    assert openapi_url(client(api).get("/docs", headers=given).text) == f"{prefix}/openapi.json"
    assert client(api).get("/api/v2/tasks", headers=alice | given).status_code == 200


@pytest.mark.parametrize(
    "prefix",
    [
        "//evil.example",
        "/a//evil.example",
        "https://evil.example",
        "evil",
        "/\\evil.example",
        "/..",
        "/a/../b",
        "/.",
        "/a\r\nSet-Cookie: x=y",
        "/a\nb",
        "/a\x00",
        "/a%0d%0ab",
        "/a b",
        "/'-alert(1)-'",
        "/a;b",
        "/a?b",
        "/a#b",
        "/é",
        "/a, /b",
        "/" + "x" * 300,
        "",
        "/",
        "//",
    ],
)
def test_what_is_no_prefix_is_passed_over(api: Api, alice: Headers, prefix: str) -> None:
    headers = [(b"x-forwarded-prefix", prefix.encode("utf-8"))]
    given = [(name.encode(), value.encode()) for name, value in (alice | YAML).items()]
    answer = client(api).post("/api/v2/tasks", content=api.world.spec(), headers=[*given, *headers])
    assert answer.headers["location"] == f"/api/v2/tasks/{answer.json()['task_id']}"
    page = client(api).get("/docs", headers=headers)
    assert openapi_url(page.text) == "/openapi.json"


def test_two_prefixes_are_none(api: Api, alice: Headers) -> None:
    pair = [("X-Forwarded-Prefix", "/a"), ("X-Forwarded-Prefix", "/b")]
    assert location(client(api), api, alice, pair) == "/api/v2/tasks/ID"


def test_a_stranger_is_not_believed(api: Api, alice: Headers) -> None:
    stranger = client(api, peer=("10.0.0.66", 5000))
    assert location(stranger, api, alice, GIVEN) == "/api/v2/tasks/ID"
    assert openapi_url(stranger.get("/docs", headers=GIVEN).text) == "/openapi.json"
    # The server has put a client's address in the place of that of a proxy, which it does of trusted ones alone.
    assert location(client(api, peer=("10.0.0.66", 0)), api, alice, GIVEN) == "/argus/api/v2/tasks/ID"
    trusting = TestClient(api.make_app(trusted=TrustedProxies("10.0.0.0/24")), client=("10.0.0.66", 5000))
    assert location(trusting, api, alice, GIVEN) == "/argus/api/v2/tasks/ID"


def test_whom_the_server_trusts() -> None:
    """As uvicorn does, by the same variable."""
    for text in ("127.0.0.1,::1", "10.0.0.0/8, fd00::/8", "*", "", "10.1.2.3", "nonsense,10.1.2.3"):
        theirs = proxy_headers._TrustedHosts(text)
        for host in ("127.0.0.1", "::1", "10.1.2.3", "11.1.2.3", "fd00::1", "", "testclient"):
            assert (host in TrustedProxies(text)) == (host in theirs), (text, host)


def test_through_a_real_server(api: Api, alice: Headers) -> None:
    """uvicorn, with the address that a proxy forwards, and with a root path of its own."""
    task_id = api.submit(alice)
    for root, headers, expected in (
        ("", {}, ""),
        ("", GIVEN, "/argus"),
        ("", GIVEN | {"X-Forwarded-For": "203.0.113.9"}, "/argus"),
        ("/argus", {}, "/argus"),
        ("/argus", GIVEN, "/argus"),
        ("/inner", GIVEN, "/argus/inner"),
    ):
        with served(api.app, root_path=root) as port:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

            def ask(method: str, path: str, body: Any = None, headers: Any = headers, c: Any = connection) -> Any:
                c.request(method, path, body, alice | YAML | headers)
                answer = c.getresponse()
                return answer.status, answer.headers, answer.read().decode()

            status, answered, text = ask("POST", "/api/v2/tasks", api.world.spec())
            assert status == 201, text
            assert answered["location"] == f"{expected}/api/v2/tasks/{json.loads(text)['task_id']}"
            assert openapi_url(ask("GET", "/docs")[2]) == f"{expected}/openapi.json"
            assert ask("GET", f"/api/v2/tasks/{task_id}")[0] == 200
            status, answered, _ = ask("DELETE", f"/api/v2/tasks/{task_id}")
            assert (status, answered["allow"]) == (405, "GET, HEAD, OPTIONS")
            assert ask("OPTIONS", "/api/v2/me")[0] == 204
            connection.close()


def test_the_docs_page_takes_nothing_from_a_path(api: Api) -> None:
    assert client(api).get("/docs", headers=ADMIN | GIVEN).headers["content-security-policy"].startswith("default-src")
