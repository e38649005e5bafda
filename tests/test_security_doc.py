"""docs/security.md names tests as proof: each must be there, and each attack of the hostile suite must be told."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def names_in(file: Path) -> set[str]:
    """The names of the test functions of a module, those in classes too."""
    tree = ast.parse(file.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_")}


def test_each_test_that_is_named_exists() -> None:
    named = _NAMED.findall(DOCUMENT)
    assert len(named) > 30
    for file, name in named:
        assert (ROOT / file).is_file(), file
        assert not name or name in names_in(ROOT / file), f"{file}::{name}"


def test_each_attack_of_the_hostile_suite_is_told() -> None:
    told = {name for _, name in _NAMED.findall(DOCUMENT)}
    attacks = {name for file in (ROOT / "tests" / "hostile").glob("test_*.py") for name in names_in(file)}
    assert attacks and not attacks - told


def test_each_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)?(#[\w-]+)?\)", DOCUMENT):
        file, anchor = target
        path = ROOT / "docs" / (file or "security.md")
        assert path.is_file(), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        anchors = {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, target
