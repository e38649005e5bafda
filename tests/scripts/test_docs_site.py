"""The documentation as pages: every link leads somewhere, and nothing is loaded from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: What a browser fetches by itself.
LOADED = re.compile(r'<(?:script|img|iframe)[^>]*\ssrc="(https?:)?//|<link[^>]*rel="stylesheet"[^>]*href="https?:')


def build(root: Path, to: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("mkdocs")), "build", "--strict", "-d", str(to)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("docs", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "scripts").mkdir()
    for name in ("mkdocs.yml", "README.md", "CHANGELOG.md", "scripts/mkdocs_hooks.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_all_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    assert [str(page) for page in pages if LOADED.search(page.read_text())] == []
    assert (tmp_path / "examples" / "sft.yaml").is_file() and (tmp_path / "nginx.conf").is_file()


@pytest.mark.parametrize("link", ["[a](nowhere.md)", "[a](api.md#nowhere)", "[a](../nowhere.md)"])
def test_a_link_that_leads_nowhere_is_found(copy: Path, link: str) -> None:
    with (copy / "docs" / "limits.md").open("a") as page:
        page.write(f"\n{link}\n")
    assert build(copy, copy / "site").returncode != 0
