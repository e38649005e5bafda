"""docs/api.md names every route, every error code with its status, and every token variable."""

from __future__ import annotations

import re
from pathlib import Path

from argus_ray.config import TokenVariables
from argus_ray.gateway.http.problems import PROBLEMS
from tests.support.gateway import Api

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_every_route_is_documented(api: Api) -> None:
    for path, operations in api.app.fastapi.openapi()["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path}`" in PAGE, (method, path)


def test_no_route_is_documented_that_does_not_exist(api: Api) -> None:
    paths = api.app.fastapi.openapi()["paths"]
    rows = re.findall(r"^\| `((?:GET|POST|PUT|DELETE) [^`]+)`", PAGE, re.M)
    assert len(rows) >= 28
    for row in rows:
        method, path = row.split(" ")
        assert method.lower() in paths[path], row


def test_every_error_code_is_documented_with_its_status() -> None:
    for code, (status, _) in PROBLEMS.items():
        assert f"| `{code}` | {status} |" in PAGE
    documented = re.findall(r"^\| `(\w+)` \| \d{3} \|", PAGE, re.M)
    assert sorted(documented) == sorted(PROBLEMS)


def test_the_token_variables_are_documented() -> None:
    names = TokenVariables()
    for name in (*names.admin, names.internal, names.metrics):
        assert f"`{name}`" in PAGE
