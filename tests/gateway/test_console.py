"""The files of the console, of a build made here: what a browser is told about them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from argus_ray.gateway.console import built, routes
from tests.gateway.test_prefix import GIVEN, client
from tests.support.gateway import Api

PAGE = '<html data-prefix="{{prefix}}"><script src="{{prefix}}/console/console-AB12.js"></script></html>'
SCRIPT = b"export const prefix = '{{prefix}}';\n" * 9


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    for name in ("index.html", "docs.html"):
        (folder / name).write_text(PAGE)
    for name, content in {"console-AB12.js": SCRIPT, "console-CD34.css": b"a{}", "licences.txt": b"MIT"}.items():
        (folder / "assets" / name).write_bytes(content)
        (folder / "assets" / f"{name}.gz").write_bytes(gzip.compress(content))
    build = built.build
    monkeypatch.setattr(built, "build", lambda: build(folder))
    return folder


@pytest.mark.usefixtures("dist")
def test_the_page_takes_nothing_from_elsewhere_and_is_kept_by_nobody(api: Api) -> None:
    answer = api.client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"} < set(policy)
    assert {"require-trusted-types-for 'script'", "trusted-types 'none'", "frame-ancestors 'none'"} < set(policy)
    assert not any("unsafe" in each or "http" in each or "*" in each for each in policy)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.usefixtures("dist")
def test_the_page_knows_the_prefix_of_a_proxy_and_its_files_do_not_need_it(api: Api) -> None:
    http = client(api)
    assert 'data-prefix="/argus"' in http.get("/", headers=GIVEN).text
    assert 'src="/argus/console/console-AB12.js"' in http.get("/docs", headers=GIVEN).text
    assert 'data-prefix=""' in http.get("/").text
    assert http.get("/console/console-AB12.js", headers=GIVEN).content == SCRIPT


@pytest.mark.usefixtures("dist")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("gzip, deflate, br", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0", None),
        ("br", None),
        ("", None),
    ],
)
def test_a_file_goes_as_the_browser_takes_it(api: Api, given: str, expected: str | None) -> None:
    answer = api.client.get("/console/console-AB12.js", headers={"Accept-Encoding": given})
    assert answer.headers.get("content-encoding") == expected
    assert answer.content == SCRIPT
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.usefixtures("dist")
def test_what_has_no_hash_in_its_name_is_asked_for_anew(api: Api) -> None:
    assert api.client.get("/console/licences.txt").headers["cache-control"] == "no-cache"


@pytest.mark.usefixtures("dist")
@pytest.mark.parametrize("name", ["console-OLD1.js", "console-AB12.js.gz", "..%2findex.html", "index.html", "%00", "é"])
def test_a_file_that_the_build_has_not_made_is_not_there(api: Api, name: str) -> None:
    answer = api.client.get(f"/console/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_without_a_build_the_page_says_so_and_the_api_works(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    build = built.build
    monkeypatch.setattr(built, "build", lambda: build(tmp_path / "none"))
    answer = client(api).get(path, headers=GIVEN)
    assert "scripts/make-console" in answer.text
    assert 'href="/argus/openapi.json"' in answer.text
    assert api.client.get("/console/console-AB12.js").status_code == 404
    assert api.client.get("/healthz").status_code == 200


def test_the_policy_of_each_page_is_its_own(api: Api) -> None:
    assert api.client.get("/").headers["content-security-policy"] == routes.CSP
    assert api.client.get("/docs").headers["content-security-policy"] == routes.DOCS_CSP
    assert api.client.get("/healthz").headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
