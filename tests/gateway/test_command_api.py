"""GET /argus.pyz."""

from __future__ import annotations

from pathlib import Path

import pytest

from argus_ray.gateway.command import routes
from tests.support.gateway import Api

CONTENT = b"#!/usr/bin/env python3\nPK"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "made.pyz"
    made.write_bytes(CONTENT)
    monkeypatch.setattr(routes, "FILE", made)
    return made


def test_everybody_gets_the_command(api: Api, file: Path) -> None:
    answer = api.client.get("/argus.pyz")
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-disposition"] == 'attachment; filename="argus.pyz"'
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/zip", "no-cache")
    assert answer.headers["content-length"] == str(len(CONTENT))
    head = api.client.head("/argus.pyz")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", answer.headers["etag"])


@pytest.mark.parametrize("given", ["{}", "W/{}", '"other", {}', "*"])
def test_who_has_it_already_gets_nothing(api: Api, file: Path, given: str) -> None:
    tag = api.client.get("/argus.pyz").headers["etag"]
    answer = api.client.get("/argus.pyz", headers={"If-None-Match": given.format(tag)})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert api.client.get("/argus.pyz", headers={"If-None-Match": '"other"'}).status_code == 200


def test_one_build_may_be_kept_for_ever(api: Api, file: Path) -> None:
    build = api.client.get("/argus.pyz").headers["etag"].strip('"')
    answer = api.client.get("/argus.pyz", params={"build": build})
    assert "immutable" in answer.headers["cache-control"] and answer.content == CONTENT
    other = api.client.get("/argus.pyz", params={"build": "another"})
    assert (other.status_code, other.json()["code"], other.headers["cache-control"]) == (404, "not_found", "no-store")
    assert api.client.get("/argus.pyz", params={"typo": "x"}).status_code == 400


def test_one_that_was_not_made_is_told(api: Api, file: Path) -> None:
    file.unlink()
    answer = api.client.get("/argus.pyz")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "scripts/make-pyz" in answer.json()["detail"]
