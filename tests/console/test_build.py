"""What the build takes, and what it leaves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from argus_ray.gateway.console import built

ROOT = Path(__file__).parents[2]
CONSOLE = ROOT / "argus_ray" / "console"


def test_the_types_are_those_of_the_api_of_today() -> None:
    """If not: .venv/bin/python scripts/make_console_types.py."""
    if not (CONSOLE / "node_modules").exists():
        pytest.skip("openapi-typescript is not there (scripts/make-console fetches it)")
    command = [sys.executable, str(ROOT / "scripts" / "make_console_types.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_of_it_names_another_address() -> None:
    """Of our own files: those of packages name their home pages in texts that nobody loads."""
    files = [path for path in (CONSOLE / "src").rglob("*") if path.suffix in (".ts", ".tsx", ".css")]
    assert len(files) > 20
    for path in [*files, CONSOLE / "index.html", CONSOLE / "docs.html"]:
        if path.name != "openapi.d.ts":
            assert not re.search(r"https?://|@import|url\(", path.read_text()), path


def test_every_package_inside_has_its_licence() -> None:
    licences = built.build().assets["licences.txt"].plain.content.decode()
    for name in ("preact", "uplot", "yaml", "anser", "@tanstack/query-core", "swagger-ui-dist", "eventsource-parser"):
        assert re.search(rf"^{re.escape(name)} \d+\.", licences, re.M), name
    assert "(the package has no licence file" not in licences


def test_the_page_and_its_files_are_small() -> None:
    """What a first visit loads: a number that grows only on purpose."""
    made = built.build()
    names = re.findall(r"/console/([\w.-]+)", made.pages["index.html"])
    assert len(names) == 3
    assert sum(len(made.assets[name].gzipped.content) for name in names) < 200 * 1024
