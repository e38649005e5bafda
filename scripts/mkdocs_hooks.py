"""What lies outside of docs/ becomes a part of the pages: README and CHANGELOG as pages, the examples as files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: Any) -> Files:
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for example in sorted((ROOT / "examples").iterdir()):
        files.append(File.generated(config, f"examples/{example.name}", abs_src_path=str(example)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are right in the checkout become those of the pages."""
    if page.file.src_uri in PAGES:
        markdown = markdown.replace("](docs/", "](").replace("](CHANGELOG.md", "](changelog.md")
        return re.sub(r"\]\(examples/\)", "](examples/sft.yaml)", markdown)
    return markdown.replace("](../examples/", "](examples/").replace("](../README.md", "](index.md")
